//! The places behind a probe: what waits while a breaker is open comes back after its next probe about in the order in which
//! it came, and spread out as it came. All of it close together would be a wave, before everybody else's deliveries, and
//! for nothing where the probe fails.

use std::time::{Duration, Instant};

use super::pace::Places;

/// No closer do they come than this, however many they are.
const APART: Duration = Duration::from_millis(2);
/// They take as long to come back as they waited for the probe, and no longer than this where there is room.
const LONGEST: Duration = Duration::from_secs(60);
/// A probe is another one if it is due so much earlier or later.
const ANOTHER: Duration = Duration::from_secs(1);

/// Those of one webhook, in one sender.
#[derive(Debug)]
pub(super) struct BehindProbe {
    probe: Instant,
    /// When the first of them came.
    since: Instant,
    places: Places,
}

impl BehindProbe {
    /// Behind none yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { probe: now, since: now, places: Places::new(now) }
    }

    /// The next place behind a probe, after one that is `spacing` earlier.
    pub(super) fn take(&mut self, probe: Instant, spacing: Duration, now: Instant) -> Instant {
        if self.probe.max(probe) - self.probe.min(probe) > ANOTHER {
            *self = Self { probe, since: now, places: Places::new(now) };
        }
        let (waited, whole) = (now - self.since, self.probe - self.since);
        let first =
            self.probe + whole.min(LONGEST).mul_f64((waited.as_secs_f64() / whole.as_secs_f64()).min(1.0));
        self.places.take(spacing.max(APART), first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The waits behind a probe in `seconds`, from the probe on, of deliveries that come this often until then.
    fn waits(seconds: u64, every: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let probe = start + Duration::from_secs(seconds);
        let mut behind = BehindProbe::new(start);
        let mut at = start;
        let mut waits = Vec::new();
        while at < probe {
            waits.push(behind.take(probe, Duration::from_micros(10), at) - probe);
            at += every;
        }
        waits
    }

    #[test]
    fn they_come_back_as_they_came_within_a_minute_and_no_closer_than_two_milliseconds() {
        for (seconds, every_ms, expected_ms) in [(30, 50, 50), (120, 50, 25), (600, 50, 5), (30, 2, 2)] {
            let waits = waits(seconds, Duration::from_millis(every_ms));
            for pair in waits.windows(2) {
                let apart = (pair[1] - pair[0]).as_secs_f64() * 1_000.0;
                assert!((apart - f64::from(expected_ms)).abs() < 0.01, "{apart} ms behind {seconds} s");
            }
        }
    }

    #[test]
    fn behind_an_earlier_probe_the_places_begin_with_that() {
        let now = Instant::now();
        let mut behind = BehindProbe::new(now);
        for seconds in [3_600, 30, 120] {
            let probe = now + Duration::from_secs(seconds);
            let places: Vec<Instant> = (0..1_000).map(|_| behind.take(probe, APART, now)).collect();
            assert_eq!((places[0], places[999]), (probe, probe + APART * 999));
        }
    }
}
