//! One webhook's line: its slots, its pace, its rate limit, and how it has fared of late.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cuewire::amqp::topology::Lane;
use tokio::sync::Notify;

use super::limit::Limit;
use super::pace::Pace;
use super::probe::BehindProbe;
use super::room::{Places, Speed, Stay};
use super::streak::{Ending, Streak};

/// A webhook whose requests take so long keeps places from others for longer than these would wait.
const SLOW_S: f64 = 1.0;
/// Between the failure that opens a breaker and the database's word that it is open nothing more is sent.
const UNTIL_HEARD: Duration = Duration::from_secs(1);
/// Of a webhook that has taken nothing yet, so many requests are in flight at a time; each that it takes allows one more.
const FIRST_SLOTS: usize = 4;

/// One webhook's line.
#[derive(Debug)]
pub(super) struct Line {
    /// Requests that may be in flight, as configured.
    pub(super) slots: usize,
    /// Requests that may be in flight as far as the receiver has proven itself.
    proven: usize,
    /// What it takes up in its queue of each lane.
    places: [Places; 3],
    /// By lanes: tells one of those that wait for a slot that it may look again.
    freed: [Arc<Notify>; 3],
    pub(super) pace: Pace,
    /// While its breaker is open.
    behind_probe: BehindProbe,
    pub(super) limit: Limit,
    streak: Streak,
    /// Its breaker is about to be opened.
    shut_until: Instant,
    pub(super) used: Instant,
}

impl Line {
    pub(super) fn new(slots: usize, now: Instant) -> Self {
        Self {
            slots,
            proven: FIRST_SLOTS,
            places: [Places::default(); 3],
            freed: Default::default(),
            pace: Pace::new(now),
            behind_probe: BehindProbe::new(now),
            limit: Limit::new(now),
            streak: Streak::new(now),
            shut_until: now,
            used: now,
        }
    }

    pub(super) fn of(&self, lane: Lane) -> Places {
        self.places[lane as usize]
    }

    pub(super) fn of_mut(&mut self, lane: Lane) -> &mut Places {
        &mut self.places[lane as usize]
    }

    /// What tells one that waits for a slot in this lane that it may look again.
    pub(super) fn freed(&self, lane: Lane) -> &Arc<Notify> {
        &self.freed[lane as usize]
    }

    /// Tells one of each lane, since one lane may have room where another has none.
    pub(super) fn tell_of_a_slot(&self) {
        for (places, freed) in self.places.iter().zip(&self.freed) {
            if places.waiting > 0 {
                freed.notify_one();
            }
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.places.iter().map(|places| places.waiting).sum()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.pace.in_flight() + self.waiting() == 0
    }

    /// Whether there is a slot for one request more.
    pub(super) fn has_slot(&self, now: Instant) -> bool {
        self.pace.in_flight() < self.slots.min(self.proven) && now >= self.shut_until
    }

    /// What is known of how long its requests take.
    pub(super) fn speed(&self, now_s: f64) -> Speed {
        if self.pace.duration_s(now_s) >= SLOW_S { Speed::Slow } else { Speed::Quick }
    }

    /// How long one more request of a lane is expected to take up its place.
    pub(super) fn stay(&self, lane: Lane, now_s: f64) -> Stay {
        let is_quick = self.pace.is_known() && self.speed(now_s) == Speed::Quick;
        if is_quick && self.of(lane).in_flight < FIRST_SLOTS { Stay::ForAMoment } else { Stay::Unknown }
    }

    /// The mean time between two requests that end, when as many are in flight as may be, of which a queue lets it
    /// have `granted`.
    pub(super) fn spacing(&self, granted: usize, now_s: f64) -> Duration {
        self.pace.spacing(self.slots.min(granted), now_s)
    }

    /// Notes how a request ended. Answers how many failed of late, when its breaker is to open.
    pub(super) fn note(&mut self, ending: Ending, now: Instant) -> Option<u32> {
        if ending == Ending::Taken {
            self.proven = self.slots.min(self.proven + 1);
        }
        let failures = self.streak.note(ending, now);
        if failures.is_some() {
            self.shut_until = now + UNTIL_HEARD;
        }
        failures
    }

    /// Its breaker is open until a probe. Answers the next place behind that: when the breaker closes, the webhook begins
    /// with one request, and each that it takes allows one more.
    pub(super) fn place_behind(&mut self, probe: Instant, spacing: Duration, now: Instant) -> Instant {
        self.proven = 1;
        self.behind_probe.take(probe, spacing, now)
    }
}
