//! One webhook's line: its slots, and what is known of its speed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cuewire::amqp::topology::Lane;
use rand::RngExt;
use tokio::sync::Notify;

use super::room::Places;

/// A delayed queue's shortest delay.
pub(super) const NEAREST_PLACE: Duration = Duration::from_secs(1);
/// What a webhook's rate will be later than this, nobody knows.
const FURTHEST_PLACE: Duration = Duration::from_secs(2 * 60);
/// A webhook whose requests take so long keeps places from others for longer than these would wait.
const SLOW_S: f64 = 1.0;
/// Of a webhook that has never answered, so many requests are in flight, until one has ended.
const FIRST_SLOTS: usize = 4;
/// The weight of the latest request in a webhook's recent duration.
const LATEST: f64 = 0.2;

/// One webhook's line.
#[derive(Debug)]
pub(super) struct Line {
    /// Requests that may be in flight, as configured.
    pub(super) slots: usize,
    /// What it takes up in its queue of each lane.
    places: [Places; 3],
    /// Tells one of those that wait that it may look again.
    pub(super) freed: Arc<Notify>,
    /// The sum of the starts of those in flight, in seconds since the epoch: their mean age without a list.
    started_s: f64,
    /// A moving mean of requests' durations, in seconds.
    pub(super) recent_s: Option<f64>,
    next_place: Instant,
    pub(super) used: Instant,
}

impl Line {
    pub(super) fn new(slots: usize, now: Instant) -> Self {
        Self {
            slots,
            places: [Places::default(); 3],
            freed: Arc::default(),
            started_s: 0.0,
            recent_s: None,
            next_place: now,
            used: now,
        }
    }

    pub(super) fn of(&self, lane: Lane) -> Places {
        self.places[lane as usize]
    }

    pub(super) fn of_mut(&mut self, lane: Lane) -> &mut Places {
        &mut self.places[lane as usize]
    }

    pub(super) fn waiting(&self) -> usize {
        self.places.iter().map(|places| places.waiting).sum()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.places.iter().map(|places| places.in_flight).sum()
    }

    /// Whether there is a slot for one request more. A webhook that nobody knows yet begins with few.
    pub(super) fn has_slot(&self) -> bool {
        let slots = if self.recent_s.is_some() { self.slots } else { self.slots.min(FIRST_SLOTS) };
        self.in_flight() < slots
    }

    /// Whether its requests are known to take long.
    pub(super) fn is_slow(&self, now_s: f64) -> bool {
        self.duration_s(now_s) >= SLOW_S
    }

    /// A request has begun, and is counted as in flight.
    pub(super) fn has_begun(&mut self, started_s: f64) {
        self.started_s += started_s;
    }

    /// A request has ended, and is counted no more.
    pub(super) fn has_ended(&mut self, started_s: f64, duration_s: f64) {
        self.started_s -= started_s;
        let recent_s = self.recent_s.map_or(duration_s, |recent| recent + LATEST * (duration_s - recent));
        self.recent_s = Some(recent_s);
    }

    /// How long a request takes: as of late, or as those in flight do already.
    fn duration_s(&self, now_s: f64) -> f64 {
        let in_flight = self.in_flight();
        let age_s = if in_flight == 0 { 0.0 } else { now_s - self.started_s / in_flight as f64 };
        self.recent_s.unwrap_or_default().max(age_s)
    }

    /// The mean time between two requests that end, when all slots are taken.
    fn spacing(&self, now_s: f64) -> Duration {
        Duration::from_secs_f64(self.duration_s(now_s) / self.slots.max(1) as f64)
    }

    /// How long until one that has to wait would have its turn.
    pub(super) fn expected_wait(&self, now_s: f64) -> Duration {
        self.spacing(now_s).saturating_mul(u32::try_from(self.waiting() + 1).unwrap_or(u32::MAX))
    }

    /// The next free place, from now.
    pub(super) fn take_place(&mut self, now: Instant, now_s: f64) -> Duration {
        let place = self.next_place.max(now + NEAREST_PLACE);
        let wait = place - now;
        if wait > FURTHEST_PLACE {
            // Too far to be in order: anywhere in the last half, so that they do not come as a wave.
            return FURTHEST_PLACE.mul_f64(rand::rng().random_range(0.5..1.0));
        }
        self.next_place = place + self.spacing(now_s);
        wait
    }
}
