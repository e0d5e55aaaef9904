//! The gate: may a delivery be sent now, must it wait its turn here, or come back later?
//!
//! Each webhook has a number of slots for requests in flight. A delivery that finds them taken waits here as
//! long as its turn is near; else it is parked with a place: the moment at which, at the webhook's recent
//! rate, a slot should be free. So a burst comes back spread out, and a receiver that hangs keeps its
//! deliveries in the delayed queues and not in a sender.
//!
//! A webhook's deliveries all come by one queue of each lane, so what it can take from others is that queue's
//! room: neither what waits or is in flight for one webhook, nor what is held until it is due, takes all.
//!
//! Places for what is to come: a circuit breaker and a rate limit per webhook decide in [`Gate::admit`]
//! before the slots do, shares of organizations by the lane that a delivery comes by.

mod line;
mod room;
mod taken;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cuewire::amqp::topology::Lane;
use cuewire::ids::WebhookId;

use self::line::{Line, NEAREST_PLACE};
use self::room::Room;
pub use self::taken::{Held, Permit};
use self::taken::{Place, Queued};
use crate::metrics::Metrics;

/// A turn that is further away than this is not waited for here.
const NEAR: Duration = Duration::from_millis(250);
/// A webhook without deliveries for so long is forgotten, its recent duration with it.
const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);
/// Webhooks between two looks for those to forget.
const SWEEP_EVERY: usize = 1_024;

/// What the gate says.
#[derive(Debug)]
pub enum Admission {
    /// Send, and drop the permit afterwards.
    Go(Permit),
    /// Come back after this long.
    Park(Duration),
}

/// The gate of one sender.
#[derive(Debug)]
pub struct Gate {
    lines: Mutex<Lines>,
    metrics: Metrics,
    /// The moment that the sums of starts count from.
    epoch: Instant,
}

#[derive(Debug)]
struct Lines {
    by_webhook: HashMap<WebhookId, Line>,
    /// By the numbers of the sources.
    rooms: Vec<Room>,
    opened: usize,
}

impl Lines {
    /// The line of a webhook with `slots`, made where there is none.
    fn open(&mut self, webhook: WebhookId, slots: usize, now: Instant) {
        self.opened += 1;
        if self.opened.is_multiple_of(SWEEP_EVERY) {
            self.by_webhook.retain(|_, line| {
                line.in_flight() + line.waiting() > 0 || now.duration_since(line.used) < FORGET_AFTER
            });
        }
        let line = self.by_webhook.entry(webhook).or_insert_with(|| Line::new(slots, now));
        line.used = now;
        line.slots = slots;
    }

    /// The webhook's line and its queue's room, while something of it is counted there.
    fn at(&mut self, place: Place) -> Option<(&mut Line, &mut Room)> {
        Some((self.by_webhook.get_mut(&place.webhook)?, self.rooms.get_mut(place.source)?))
    }

    /// Whether the webhook may have one more request in flight.
    fn may_start(&mut self, place: Place, now_s: f64) -> bool {
        self.at(place).is_some_and(|(line, room)| {
            line.has_slot() && room.may_start(line.of(place.lane), line.is_slow(now_s))
        })
    }
}

impl Gate {
    /// A gate that knows no webhook and no queue yet.
    #[must_use]
    pub fn new(metrics: Metrics) -> Arc<Self> {
        let lines = Lines { by_webhook: HashMap::new(), rooms: Vec::new(), opened: 0 };
        Arc::new(Self { lines: Mutex::new(lines), metrics, epoch: Instant::now() })
    }

    /// The number of the room for a lane's queue `m`, which has this prefetch from now on.
    pub fn room(&self, lane: Lane, m: u32, prefetch: u16) -> usize {
        let number = m as usize * Lane::ALL.len() + lane as usize;
        let mut lines = self.lines();
        while lines.rooms.len() <= number {
            let lane = Lane::ALL[lines.rooms.len() % Lane::ALL.len()];
            lines.rooms.push(Room::new(lane));
        }
        lines.rooms[number].resize(prefetch);
        number
    }

    /// Asks for one of the webhook's `slots`, for a delivery that came from this source. Waits while the turn
    /// is near.
    pub async fn admit(self: &Arc<Self>, webhook: WebhookId, slots: u32, source: usize) -> Admission {
        let mut queued = match self.queue(webhook, slots as usize, source) {
            Ok(queued) => queued,
            Err(place) => return Admission::Park(place),
        };
        let turn = async {
            let freed = Arc::clone(&queued.freed);
            if queued.is_behind_others {
                freed.notified().await;
            }
            loop {
                if let Some(permit) = queued.start() {
                    return permit;
                }
                freed.notified().await;
            }
        };
        match tokio::time::timeout(NEAR, turn).await {
            Ok(permit) => Admission::Go(permit),
            // The turn was not as near as it seemed.
            Err(_) => Admission::Park(queued.take_place()),
        }
    }

    fn queue(self: &Arc<Self>, webhook: WebhookId, slots: usize, source: usize) -> Result<Queued, Duration> {
        let now = Instant::now();
        let now_s = self.seconds(now);
        let mut lines = self.lines();
        lines.open(webhook, slots, now);
        let Some(lane) = lines.rooms.get(source).map(Room::lane) else { return Err(NEAREST_PLACE) };
        let place = Place { webhook, source, lane };
        let may_start = lines.may_start(place, now_s);
        let Some((line, room)) = lines.at(place) else { return Err(NEAREST_PLACE) };
        let is_behind_others = line.waiting() > 0;
        let is_near = (may_start && !is_behind_others) || line.expected_wait(now_s) < NEAR;
        if !is_near || !room.has_place_for(line.of(lane)) {
            return Err(line.take_place(now, now_s));
        }
        line.of_mut(lane).waiting += 1;
        room.places.waiting += 1;
        self.metrics.waiting.inc();
        let freed = Arc::clone(&line.freed);
        Ok(Queued { gate: Arc::clone(self), place, freed, is_behind_others, is_waiting: true })
    }

    /// Room for a delivery that is held until it is due, while there is some. One that `could_wait` in the
    /// shortest delayed queue instead gets less of it.
    pub fn hold(self: &Arc<Self>, source: usize, could_wait: bool) -> Option<Held> {
        let mut lines = self.lines();
        let room = lines.rooms.get_mut(source).filter(|room| room.may_hold(could_wait))?;
        room.held += 1;
        self.metrics.held.inc();
        Some(Held { gate: Arc::clone(self), source })
    }

    fn seconds(&self, at: Instant) -> f64 {
        at.duration_since(self.epoch).as_secs_f64()
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    /// The queues of [`gate`], as sources.
    const FRESH: usize = 0;
    const DUE: usize = 1;

    /// Before a queue of the fresh and one of the due lane.
    fn gate() -> Arc<Gate> {
        let gate = Gate::new(Metrics::new(&Registry::new()));
        assert_eq!((gate.room(Lane::Fresh, 0, 256), gate.room(Lane::Due, 0, 64)), (FRESH, DUE));
        gate
    }

    async fn go(gate: &Arc<Gate>, webhook: WebhookId) -> Permit {
        match gate.admit(webhook, 2, FRESH).await {
            Admission::Go(permit) => permit,
            Admission::Park(wait) => panic!("parked for {wait:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_third_request_to_a_webhook_with_two_slots_waits_for_one_of_them() {
        let (gate, webhook) = (gate(), WebhookId::new());
        let (first, _second) = (go(&gate, webhook).await, go(&gate, webhook).await);
        let third = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { go(&gate, webhook).await }
        });
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        drop(first);
        third.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_would_wait_long_is_parked_with_places_in_a_row() {
        let (gate, webhook) = (gate(), WebhookId::new());
        teach(&gate, webhook, 0.9);
        let _busy = [go(&gate, webhook).await, go(&gate, webhook).await];
        let mut places = Vec::new();
        for _ in 0..4 {
            match gate.admit(webhook, 2, FRESH).await {
                Admission::Park(place) => places.push(place.as_secs_f64()),
                Admission::Go(_) => panic!("there is no slot"),
            }
        }
        for (at, place) in places.iter().enumerate() {
            let expected = 1.0 + at as f64 * 0.45;
            assert!((place - expected).abs() < 0.1, "{places:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_webhook_that_hangs_holds_no_delivery_for_longer_than_a_turn_that_is_near() {
        let (gate, webhook) = (gate(), WebhookId::new());
        let _busy = [go(&gate, webhook).await, go(&gate, webhook).await];
        assert!(matches!(gate.admit(webhook, 2, FRESH).await, Admission::Park(_)));
    }

    /// As many requests of the webhook as may be in flight at once.
    async fn fill(gate: &Arc<Gate>, webhook: WebhookId, slots: u32, source: usize) -> Vec<Permit> {
        let mut permits = Vec::new();
        while let Admission::Go(permit) = gate.admit(webhook, slots, source).await {
            permits.push(permit);
        }
        permits
    }

    /// Makes the gate know how long the webhook takes to answer.
    fn teach(gate: &Gate, webhook: WebhookId, takes_s: f64) {
        let mut lines = gate.lines();
        lines.open(webhook, 1, Instant::now());
        lines.by_webhook.get_mut(&webhook).unwrap().recent_s = Some(takes_s);
    }

    #[tokio::test(start_paused = true)]
    async fn eight_webhooks_that_hang_leave_room_for_a_ninth_in_a_due_queue() {
        for takes_s in [None, Some(15.0)] {
            let gate = gate();
            let mut hanging = Vec::new();
            for webhook in (0..8).map(|_| WebhookId::new()) {
                takes_s.inspect(|takes_s| teach(&gate, webhook, *takes_s));
                hanging.extend(fill(&gate, webhook, 16, DUE).await);
            }
            assert!((8..=32).contains(&hanging.len()), "{} in flight, {takes_s:?}", hanging.len());
            let ninth = WebhookId::new();
            teach(&gate, ninth, 0.1);
            assert_eq!(fill(&gate, ninth, 16, DUE).await.len(), 16);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_webhook_that_has_never_answered_four_requests_are_in_flight() {
        let (gate, webhook) = (gate(), WebhookId::new());
        let mut first = fill(&gate, webhook, 16, FRESH).await;
        assert_eq!(first.len(), 4);
        drop(first.pop());
        assert_eq!(fill(&gate, webhook, 16, FRESH).await.len(), 16 - 3);
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_wait_get_their_turn_when_slots_come_free_together() {
        let (gate, webhook) = (gate(), WebhookId::new());
        let busy = [go(&gate, webhook).await, go(&gate, webhook).await];
        let waiting: Vec<_> = (0..40)
            .map(|_| {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move { drop(go(&gate, webhook).await) })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(gate.lines().by_webhook[&webhook].waiting(), 40);
        drop(busy);
        for turn in waiting {
            turn.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_counts_is_the_webhooks_own_queue() {
        let (gate, webhook) = (gate(), WebhookId::new());
        teach(&gate, webhook, 0.1);
        let _others = fill(&gate, WebhookId::new(), 4, FRESH).await;
        // It leaves as much free as it has in a queue of 64, whatever other queues there are.
        assert_eq!(fill(&gate, webhook, 256, DUE).await.len(), 32);
    }

    #[tokio::test]
    async fn what_is_held_is_counted_until_it_is_dropped() {
        let gate = gate();
        let held: Vec<_> = std::iter::from_fn(|| gate.hold(DUE, true)).collect();
        assert_eq!(held.len(), 32);
        let late: Vec<_> = std::iter::from_fn(|| gate.hold(DUE, false)).collect();
        assert_eq!(late.len(), 24);
        drop((held, late));
        assert_eq!(gate.lines().rooms[DUE].held, 0);
    }

    #[tokio::test]
    async fn nothing_stays_counted_when_all_have_left() {
        let (gate, webhook) = (gate(), WebhookId::new());
        for _ in 0..3 {
            drop(go(&gate, webhook).await);
        }
        let lines = gate.lines();
        let line = &lines.by_webhook[&webhook];
        assert_eq!((lines.rooms[FRESH].places.taken(), line.in_flight(), line.waiting()), (0, 0, 0));
    }
}
