//! The gate: may a delivery be sent now, must it wait its turn here, or come back later?
//!
//! A webhook with a rate limit has a schedule of places (`limit`), and every webhook has a number of slots for
//! requests in flight (`line`). A delivery that finds them taken waits here as long as its turn is near; else it
//! is parked with a place: the moment at which, at the recent `pace`, a slot should be free. So a burst comes back
//! spread out, and a receiver that hangs keeps its deliveries in the delayed queues and not in a sender.
//!
//! A webhook's deliveries all come by one queue of each lane, so what it can take from others is that queue's
//! `room`: neither one webhook, nor all of an organization, nor what is held until it is due, takes all.
//!
//! What failed of late is counted here too (`streak`), and says when a webhook's circuit breaker is to open. The
//! breaker itself is the database's, and the same for all senders: see `breaker`. What waits for its next `probe` comes
//! back behind that, spread out.

mod limit;
mod line;
mod pace;
mod probe;
mod room;
mod streak;
mod taken;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cuewire::amqp::topology::Lane;
use cuewire::ids::{OrganizationId, WebhookId};
use cuewire::retry;

use self::limit::Turn;
use self::line::Line;
use self::pace::NEAREST_PLACE;
pub use self::room::Kept;
use self::room::{Places, Room, Share, Speed};
pub use self::streak::Ending;
pub use self::taken::{Held, Permit, Seat};
use self::taken::{Place, Queued};
use crate::metrics::Metrics;

/// A turn that is further away than this is not waited for here.
const NEAR: Duration = Duration::from_millis(250);
/// A webhook without deliveries for so long may be forgotten, its pace with it.
const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);
/// So many lines and shares may be here before it is looked for those to forget.
const SWEEP_FROM: usize = 1_024;

/// A delivery at the gate.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// Where it goes.
    pub webhook: WebhookId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// The source it came from.
    pub source: usize,
    /// What it takes up with the others of its message.
    pub seat: &'a Seat,
    /// The webhook's slots for requests in flight.
    pub slots: u32,
    /// Attempts a second to the webhook, by all senders.
    pub rate_limit: Option<u32>,
    /// Whether the rate limit has given it a place, or let it through, before.
    pub has_place: bool,
}

/// What the gate says.
#[derive(Debug)]
pub enum Admission {
    /// Send, and drop the permit afterwards.
    Go(Permit),
    /// Come back after this long.
    Park(Duration, Cause),
}

/// Why a delivery is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Its webhook, or its organization, has as much in flight as it may have.
    Busy,
    /// Its webhook's rate limit is reached.
    Limited,
    /// Its webhook's circuit breaker is open.
    Open,
}

impl Cause {
    /// As a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Limited => "limited",
            Self::Open => "open",
        }
    }
}

/// Why a request cannot be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// For the webhook's own requests.
    Webhook,
    /// For those of its organization.
    Organization,
}

/// The gate of one sender.
#[derive(Debug)]
pub struct Gate {
    lines: Mutex<Lines>,
    /// Senders that share the rate limits, this one among them.
    senders: AtomicU32,
    metrics: Metrics,
    /// The moment that the sums of starts count from.
    epoch: Instant,
}

#[derive(Debug)]
struct Lines {
    by_webhook: HashMap<WebhookId, Line>,
    shares: HashMap<(OrganizationId, usize), Share>,
    /// By the numbers of the sources.
    rooms: Vec<Room>,
    /// How many lines and shares there are to be before it is looked for those to forget: twice those that were left
    /// the last time.
    sweep_at: usize,
}

/// What a delivery's admission depends on.
struct Parts<'a> {
    line: &'a mut Line,
    share: &'a mut Share,
    room: &'a mut Room,
}

impl Parts<'_> {
    /// All that count a delivery of this lane.
    fn places(&mut self, lane: Lane) -> [&mut Places; 3] {
        [self.line.of_mut(lane), &mut self.share.places, &mut self.room.places]
    }

    /// Why one more request cannot be started, if so.
    fn refusal(&self, lane: Lane, now: Instant, now_s: f64) -> Option<Refusal> {
        if !self.line.has_slot(now) || !self.room.may_start(self.line.of(lane), self.line.speed(now_s)) {
            Some(Refusal::Webhook)
        } else if !self.room.may_add(self.share.places, self.line.stay(lane, now_s)) {
            Some(Refusal::Organization)
        } else {
            None
        }
    }

    /// The mean time between two requests that end, of those that stand before it.
    fn spacing(&self, refusal: Refusal, now_s: f64) -> Duration {
        match refusal {
            Refusal::Webhook => self.line.spacing(self.room.most_of_one(self.line.speed(now_s)), now_s),
            Refusal::Organization => self.share.spacing(now_s),
        }
    }

    /// How many wait already for what it waits for.
    fn waiting(&self, refusal: Refusal) -> usize {
        match refusal {
            Refusal::Webhook => self.line.waiting(),
            Refusal::Organization => self.share.places.waiting,
        }
    }

    /// The next place in time, from now.
    fn take_place(&mut self, refusal: Refusal, now: Instant, now_s: f64) -> Duration {
        let spacing = self.spacing(refusal, now_s);
        let pace = match refusal {
            Refusal::Webhook => &mut self.line.pace,
            Refusal::Organization => &mut self.share.pace,
        };
        pace.take_place(spacing, now)
    }
}

impl Lines {
    /// The parts of a delivery's admission, made where they are not there.
    fn at(&mut self, place: Place) -> Parts<'_> {
        let now = Instant::now();
        Parts {
            line: self.by_webhook.entry(place.webhook).or_insert_with(|| Line::new(1, now)),
            share: self.shares.entry((place.organization, place.source)).or_insert_with(|| Share::new(now)),
            room: &mut self.rooms[place.source],
        }
    }

    /// Where a delivery stands, if its source is known; its parts are as they are configured.
    fn open(&mut self, asking: &Asking<'_>, now: Instant) -> Option<Place> {
        if self.by_webhook.len() + self.shares.len() >= self.sweep_at {
            self.sweep(now);
        }
        let lane = self.rooms.get(asking.source).map(Room::lane)?;
        let Asking { webhook, organization, source, .. } = *asking;
        let place = Place { webhook, organization, source, lane };
        let Parts { line, share, .. } = self.at(place);
        (line.used, share.used) = (now, now);
        line.slots = asking.slots as usize;
        Some(place)
    }

    fn sweep(&mut self, now: Instant) {
        let is_recent = |used: Instant| now.duration_since(used) < FORGET_AFTER;
        self.by_webhook.retain(|_, line| !line.is_idle() || is_recent(line.used));
        self.shares
            .retain(|_, share| share.messages > 0 || share.places.taken() > 0 || is_recent(share.used));
        self.sweep_at = SWEEP_FROM.max(2 * (self.by_webhook.len() + self.shares.len()));
    }
}

impl Gate {
    /// A gate that knows no webhook and no queue yet.
    #[must_use]
    pub fn new(metrics: Metrics) -> Arc<Self> {
        let lines = Lines {
            by_webhook: HashMap::new(),
            shares: HashMap::new(),
            rooms: Vec::new(),
            sweep_at: SWEEP_FROM,
        };
        Arc::new(Self {
            lines: Mutex::new(lines),
            senders: AtomicU32::new(1),
            metrics,
            epoch: Instant::now(),
        })
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

    /// So many senders take deliveries, this one among them: each keeps to its part of a rate limit.
    pub fn share_limits_among(&self, senders: u32) {
        self.senders.store(senders.max(1), Ordering::Relaxed);
    }

    /// Asks to send a delivery. Waits while its turn is near.
    pub async fn admit(self: &Arc<Self>, asking: Asking<'_>) -> Admission {
        if let Some(rate_limit) = asking.rate_limit
            && let Err(wait) = self.keep_to_limit(&asking, rate_limit).await
        {
            return Admission::Park(wait, Cause::Limited);
        }
        let mut queued = match self.queue(&asking) {
            Ok(queued) => queued,
            Err(wait) => return Admission::Park(wait, Cause::Busy),
        };
        match tokio::time::timeout(NEAR, queued.turn()).await {
            Ok(permit) => Admission::Go(permit),
            // The turn was not as near as it seemed.
            Err(_) => Admission::Park(self.take_place(queued.place), Cause::Busy),
        }
    }

    /// Waits for the turn that the rate limit gives, if that is near; else answers how long until it.
    async fn keep_to_limit(self: &Arc<Self>, asking: &Asking<'_>, rate_limit: u32) -> Result<(), Duration> {
        let (now, senders) = (Instant::now(), self.senders.load(Ordering::Relaxed));
        let every = Duration::from_secs(1) * senders / rate_limit.max(1);
        let (wait, _held) = {
            let mut lines = self.lines();
            let Some(place) = lines.open(asking, now) else { return Err(NEAREST_PLACE) };
            let Parts { line, room, .. } = lines.at(place);
            let has_room = room.may_hold(Kept::Briefly);
            let limit = &mut line.limit;
            let turn = match asking.has_place {
                true => limit.later_turn(every, now, has_room),
                false => limit.first_turn(every, now, has_room),
            };
            match turn {
                Turn::Now => return Ok(()),
                Turn::Near(wait) => (wait, self.held(room, asking.source)),
                Turn::Far(wait) => return Err(wait),
            }
        };
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn queue(self: &Arc<Self>, asking: &Asking<'_>) -> Result<Queued, Duration> {
        let now = Instant::now();
        let now_s = self.seconds(now);
        let mut lines = self.lines();
        let Some(place) = lines.open(asking, now) else { return Err(NEAREST_PLACE) };
        let mut parts = lines.at(place);
        let refusal = parts.refusal(place.lane, now, now_s);
        let others_wait = parts.line.of(place.lane).waiting > 0;
        let behind = others_wait.then(|| Arc::clone(parts.line.freed(place.lane)));
        if let Some(refusal) = refusal.or(behind.is_some().then_some(Refusal::Webhook)) {
            let before = u32::try_from(parts.waiting(refusal) + 1).unwrap_or(u32::MAX);
            if parts.spacing(refusal, now_s).saturating_mul(before) >= NEAR {
                return Err(parts.take_place(refusal, now, now_s));
            }
        }
        let stay = parts.line.stay(place.lane, now_s);
        let crowd = parts.room.crowded_by(parts.line.of(place.lane), parts.share.messages, stay);
        if let Some(crowd) = crowd {
            return Err(parts.take_place(refusal.unwrap_or(crowd), now, now_s));
        }
        parts.places(place.lane).into_iter().for_each(Places::come);
        self.metrics.waiting.inc();
        let seated = asking.seat.keep(self, place, &mut parts);
        Ok(Queued { gate: Arc::clone(self), place, behind, seated, is_waiting: true })
    }

    fn take_place(&self, place: Place) -> Duration {
        let now = Instant::now();
        let now_s = self.seconds(now);
        let mut lines = self.lines();
        let mut parts = lines.at(place);
        let refusal = parts.refusal(place.lane, now, now_s).unwrap_or(Refusal::Webhook);
        parts.take_place(refusal, now, now_s)
    }

    /// The next place of a webhook whose breaker is open until a probe is due: spread out by its pace, as far as a wait in
    /// few steps leaves that.
    pub fn take_place_behind_probe(&self, asking: &Asking<'_>, until: Duration) -> Duration {
        let now = Instant::now();
        let mut lines = self.lines();
        let Some(place) = lines.open(asking, now) else { return until };
        let Parts { line, room, .. } = lines.at(place);
        let spacing = line.spacing(room.most_of_one(Speed::Quick), self.seconds(now));
        retry::in_few_steps(line.place_behind(now + until, spacing, now) - now)
    }

    /// Room for a delivery that is held until it is due, while there is some.
    pub fn hold(self: &Arc<Self>, source: usize, kept: Kept) -> Option<Held> {
        let mut lines = self.lines();
        let room = lines.rooms.get_mut(source).filter(|room| room.may_hold(kept))?;
        Some(self.held(room, source))
    }

    fn held(self: &Arc<Self>, room: &mut Room, source: usize) -> Held {
        room.held += 1;
        self.metrics.held.inc();
        Held { gate: Arc::clone(self), source }
    }

    fn seconds(&self, at: Instant) -> f64 {
        at.duration_since(self.epoch).as_secs_f64()
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
