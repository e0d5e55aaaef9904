//! The gate: may a delivery be sent now, must it wait its turn here, or come back later?
//!
//! Each webhook has a number of slots for requests in flight. A delivery that finds them taken waits here as
//! long as its turn is near; else it is parked with a place: the moment at which, at the webhook's recent
//! rate, a slot should be free. So a burst comes back spread out, and a receiver that hangs keeps its
//! deliveries in the delayed queues and not in a sender.
//!
//! Places for what is to come: a circuit breaker and a rate limit per webhook decide in [`Gate::admit`]
//! before the slots do, shares of organizations by the lane that a delivery comes by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cuewire::amqp::topology::Lane;
use cuewire::ids::WebhookId;
use rand::RngExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Prefetch;
use crate::metrics::Metrics;

/// A turn that is further away than this is not waited for here.
const NEAR: Duration = Duration::from_millis(250);
/// A delayed queue's shortest delay.
const NEAREST_PLACE: Duration = Duration::from_secs(1);
/// What a webhook's rate will be later than this, nobody knows.
const FURTHEST_PLACE: Duration = Duration::from_secs(2 * 60);
/// The weight of the latest request in a webhook's recent duration.
const LATEST: f64 = 0.2;
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
    prefetch: Prefetch,
    metrics: Metrics,
    /// The moment that the sums of starts count from.
    epoch: Instant,
}

#[derive(Debug, Default)]
struct Lines {
    by_webhook: HashMap<WebhookId, Line>,
    /// Deliveries in the gate by lane: in flight or waiting.
    fresh: usize,
    due: usize,
    bulk: usize,
    opened: usize,
}

/// One webhook's slots, and what is known of its speed.
#[derive(Debug)]
struct Line {
    slots: Arc<Semaphore>,
    size: u32,
    waiting: usize,
    in_flight: usize,
    /// The sum of the starts of those in flight, in seconds since the epoch: their mean age without a list.
    started_s: f64,
    /// A moving mean of requests' durations, in seconds.
    recent_s: Option<f64>,
    next_place: Instant,
    used: Instant,
}

impl Line {
    fn new(size: u32, now: Instant) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(size as usize)),
            size,
            waiting: 0,
            in_flight: 0,
            started_s: 0.0,
            recent_s: None,
            next_place: now,
            used: now,
        }
    }

    /// How long a request takes: as of late, or as those in flight do already.
    fn duration_s(&self, now_s: f64) -> f64 {
        let age_s = if self.in_flight == 0 { 0.0 } else { now_s - self.started_s / self.in_flight as f64 };
        self.recent_s.unwrap_or_default().max(age_s)
    }

    /// How long until one more would have its turn.
    fn expected_wait(&self, now_s: f64) -> Duration {
        let ahead = if self.slots.available_permits() > 0 { 0 } else { self.waiting + 1 };
        Duration::from_secs_f64(ahead as f64 * self.duration_s(now_s) / f64::from(self.size))
    }

    /// The next free place, from now.
    fn take_place(&mut self, now: Instant, now_s: f64) -> Duration {
        let place = self.next_place.max(now + NEAREST_PLACE);
        let spacing = Duration::from_secs_f64(self.duration_s(now_s) / f64::from(self.size));
        let wait = place - now;
        if wait > FURTHEST_PLACE {
            // Too far to be in order: anywhere in the last half, so that they do not come as a wave.
            return FURTHEST_PLACE.mul_f64(rand::rng().random_range(0.5..1.0));
        }
        self.next_place = place + spacing;
        wait
    }
}

impl Lines {
    fn lane(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Fresh => &mut self.fresh,
            Lane::Due => &mut self.due,
            Lane::Bulk => &mut self.bulk,
        }
    }

    fn line(&mut self, webhook: WebhookId, size: u32, now: Instant) -> &mut Line {
        self.opened += 1;
        if self.opened.is_multiple_of(SWEEP_EVERY) {
            self.by_webhook.retain(|_, line| {
                line.in_flight + line.waiting > 0 || now.duration_since(line.used) < FORGET_AFTER
            });
        }
        let line = self.by_webhook.entry(webhook).or_insert_with(|| Line::new(size, now));
        line.used = now;
        if line.size != size {
            // Requests in flight end in the old slots.
            line.slots = Arc::new(Semaphore::new(size as usize));
            line.size = size;
        }
        line
    }
}

impl Gate {
    /// A gate that knows no webhook yet.
    #[must_use]
    pub fn new(prefetch: Prefetch, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { lines: Mutex::default(), prefetch, metrics, epoch: Instant::now() })
    }

    /// Asks for a slot of the webhook, which has `size` of them. Waits while the turn is near.
    pub async fn admit(self: &Arc<Self>, webhook: WebhookId, size: u32, lane: Lane) -> Admission {
        let queued = match self.queue(webhook, size, lane) {
            Ok(queued) => queued,
            Err(place) => return Admission::Park(place),
        };
        let turn = Arc::clone(&queued.slots).acquire_owned();
        let Ok(Ok(slot)) = tokio::time::timeout(NEAR, turn).await else {
            // The turn was not as near as it seemed.
            return Admission::Park(queued.take_place());
        };
        Admission::Go(queued.start(slot))
    }

    fn queue(self: &Arc<Self>, webhook: WebhookId, size: u32, lane: Lane) -> Result<Queued, Duration> {
        let now = Instant::now();
        let mut lines = self.lines();
        let others = *lines.lane(lane);
        let most = usize::from(self.prefetch.of(lane)) / 2;
        let line = lines.line(webhook, size, now);
        let alone = others <= line.in_flight + line.waiting;
        let near = line.expected_wait(self.seconds(now)) < NEAR;
        if !near || (!alone && line.waiting >= most) {
            return Err(line.take_place(now, self.seconds(now)));
        }
        line.waiting += 1;
        let slots = Arc::clone(&line.slots);
        *lines.lane(lane) += 1;
        self.metrics.waiting.inc();
        Ok(Queued { gate: Arc::clone(self), webhook, lane, slots, counted: true })
    }

    fn seconds(&self, at: Instant) -> f64 {
        at.duration_since(self.epoch).as_secs_f64()
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A delivery that waits for its turn. Dropped, it leaves the line.
struct Queued {
    gate: Arc<Gate>,
    webhook: WebhookId,
    lane: Lane,
    slots: Arc<Semaphore>,
    counted: bool,
}

impl Queued {
    fn start(mut self, slot: OwnedSemaphorePermit) -> Permit {
        self.counted = false;
        let started = Instant::now();
        let mut lines = self.gate.lines();
        if let Some(line) = lines.by_webhook.get_mut(&self.webhook) {
            line.waiting -= 1;
            line.in_flight += 1;
            line.started_s += self.gate.seconds(started);
        }
        drop(lines);
        self.gate.metrics.waiting.dec();
        self.gate.metrics.in_flight.inc();
        Permit { gate: Arc::clone(&self.gate), webhook: self.webhook, lane: self.lane, started, _slot: slot }
    }

    fn take_place(self) -> Duration {
        let now = Instant::now();
        let mut lines = self.gate.lines();
        let now_s = self.gate.seconds(now);
        lines.by_webhook.get_mut(&self.webhook).map_or(NEAREST_PLACE, |line| line.take_place(now, now_s))
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        let mut lines = self.gate.lines();
        *lines.lane(self.lane) -= 1;
        if let Some(line) = lines.by_webhook.get_mut(&self.webhook) {
            line.waiting -= 1;
        }
        self.gate.metrics.waiting.dec();
    }
}

/// A slot of a webhook. Dropping it ends the request's time.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    webhook: WebhookId,
    lane: Lane,
    started: Instant,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut lines = self.gate.lines();
        *lines.lane(self.lane) -= 1;
        if let Some(line) = lines.by_webhook.get_mut(&self.webhook) {
            line.in_flight -= 1;
            line.started_s -= self.gate.seconds(self.started);
            let latest_s = self.started.elapsed().as_secs_f64();
            let recent_s = line.recent_s.map_or(latest_s, |recent| recent + LATEST * (latest_s - recent));
            line.recent_s = Some(recent_s);
        }
        self.gate.metrics.in_flight.dec();
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    fn gate() -> Arc<Gate> {
        let prefetch = Prefetch::for_tests(512, 128, 256);
        Gate::new(prefetch, Metrics::new(&Registry::new()))
    }

    async fn go(gate: &Arc<Gate>, webhook: WebhookId) -> Permit {
        match gate.admit(webhook, 2, Lane::Fresh).await {
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
        {
            let mut lines = gate.lines();
            lines.line(webhook, 2, Instant::now()).recent_s = Some(1.0);
        }
        let _busy = [go(&gate, webhook).await, go(&gate, webhook).await];
        let mut places = Vec::new();
        for _ in 0..4 {
            match gate.admit(webhook, 2, Lane::Fresh).await {
                Admission::Park(place) => places.push(place.as_secs_f64()),
                Admission::Go(_) => panic!("there is no slot"),
            }
        }
        for (at, place) in places.iter().enumerate() {
            let expected = 1.0 + at as f64 * 0.5;
            assert!((place - expected).abs() < 0.1, "{places:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_webhook_that_hangs_holds_no_delivery_for_longer_than_a_turn_that_is_near() {
        let (gate, webhook) = (gate(), WebhookId::new());
        let _busy = [go(&gate, webhook).await, go(&gate, webhook).await];
        assert!(matches!(gate.admit(webhook, 2, Lane::Fresh).await, Admission::Park(_)));
    }

    #[tokio::test]
    async fn nothing_stays_counted_when_all_have_left() {
        let (gate, webhook) = (gate(), WebhookId::new());
        for _ in 0..3 {
            drop(go(&gate, webhook).await);
        }
        let lines = gate.lines();
        let line = &lines.by_webhook[&webhook];
        assert_eq!((lines.fresh, line.in_flight, line.waiting), (0, 0, 0));
        assert!(line.started_s.abs() < 1e-6);
    }
}
