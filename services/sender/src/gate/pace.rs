//! A pace: how long requests take, and the places in time that follow from it for those that have to wait.

use std::time::{Duration, Instant};

/// A delayed queue's shortest delay.
pub(super) const NEAREST_PLACE: Duration = Duration::from_secs(1);
/// What the pace will be later than this, nobody knows.
const FURTHEST_PLACE: Duration = Duration::from_secs(2 * 60);
/// What has no place before that asks again so long after the nearest: when the two-minute queue lets the first of them go.
const ASK_AFTER: Duration = FURTHEST_PLACE.saturating_sub(NEAREST_PLACE);
/// So far apart they ask: whatever waits, it takes no more of the broker.
const ASKING_AGAIN: Duration = Duration::from_millis(2);
/// The weight of the latest request in the recent duration.
const LATEST: f64 = 0.2;

/// The pace of a webhook's requests, or of an organization's.
#[derive(Debug)]
pub(super) struct Pace {
    in_flight: usize,
    /// The sum of the starts of those in flight, in seconds since the epoch: their mean age without a list.
    started_s: f64,
    /// A moving mean of requests' durations, in seconds; 0: none has ended yet.
    recent_s: f64,
    places: Places,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { in_flight: 0, started_s: 0.0, recent_s: 0.0, places: Places::new(now) }
    }

    /// How many are in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// A request has begun.
    pub(super) fn has_begun(&mut self, started_s: f64) {
        self.in_flight += 1;
        self.started_s += started_s;
    }

    /// A request has ended, or was not made.
    pub(super) fn has_ended(&mut self, started_s: f64) {
        self.in_flight -= 1;
        self.started_s -= started_s;
    }

    /// How long a request took that tells of its receiver.
    pub(super) fn learn(&mut self, duration_s: f64) {
        let is_first = self.recent_s == 0.0;
        self.recent_s =
            if is_first { duration_s } else { self.recent_s + LATEST * (duration_s - self.recent_s) };
    }

    /// How long a request takes: as of late, or as those in flight do already.
    pub(super) fn duration_s(&self, now_s: f64) -> f64 {
        let age_s = if self.in_flight == 0 { 0.0 } else { now_s - self.started_s / self.in_flight as f64 };
        self.recent_s.max(age_s)
    }

    /// Whether a request has ended that told of its receiver.
    pub(super) fn is_known(&self) -> bool {
        self.recent_s > 0.0
    }

    /// The mean time between two requests that end, when `side_by_side` are in flight.
    pub(super) fn spacing(&self, side_by_side: usize, now_s: f64) -> Duration {
        Duration::from_secs_f64(self.duration_s(now_s) / side_by_side.max(1) as f64)
    }

    /// The next free place, as a wait from now, where one comes `spacing` after another.
    pub(super) fn take_place(&mut self, spacing: Duration, now: Instant) -> Duration {
        self.places.take(spacing, now + NEAREST_PLACE) - now
    }
}

/// Places in time, one after another.
#[derive(Debug)]
pub(super) struct Places {
    next: Instant,
    /// When one may ask again for which they would be too far.
    next_asking: Instant,
}

impl Places {
    /// From now on.
    pub(super) fn new(now: Instant) -> Self {
        Self { next: now, next_asking: now }
    }

    /// The next free one from `first` on, or when to ask again. The one after it comes `spacing` later.
    pub(super) fn take(&mut self, spacing: Duration, first: Instant) -> Instant {
        let place = self.next.max(first);
        if place - first <= FURTHEST_PLACE {
            self.next = place + spacing;
            return place;
        }
        let asking = self.next_asking.max(first + ASK_AFTER);
        self.next_asking = asking + ASKING_AGAIN;
        asking
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use cuewire::retry::{Wait, wait};

    use super::*;

    #[test]
    fn places_stand_in_a_row_as_far_as_the_pace_can_be_known() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let spacing = Duration::from_millis(100);
        let places: Vec<Duration> = (0..3_000).map(|_| pace.take_place(spacing, now)).collect();
        for (at, place) in places.iter().take(1_200).enumerate() {
            assert_eq!(*place, NEAREST_PLACE + spacing * at as u32);
        }
        for (at, place) in places.iter().skip(1_201).enumerate() {
            assert_eq!(*place, Duration::from_secs(120) + ASKING_AGAIN * at as u32);
        }
        let one_step = wait(places[1_201]);
        assert!(matches!(one_step, Wait::In(tier) if tier.delay == places[1_201]), "{one_step:?}");
    }

    /// A receiver that takes one every 5 ms, and half a million that wait for it: how many come back, and how many of
    /// them are sent, in each minute.
    #[test]
    fn however_many_wait_they_come_back_as_often_as_the_broker_can_bear() {
        let (start, spacing) = (Instant::now(), Duration::from_millis(5));
        let mut places = Places::new(start);
        let mut coming: BinaryHeap<Reverse<Instant>> =
            (0..500_000).map(|_| Reverse(places.take(spacing, start + NEAREST_PLACE))).collect();
        let mut free = start;
        let mut minutes = vec![(0, 0); 90];
        while let Some(Reverse(now)) = coming.pop() {
            let minute = ((now - start).as_secs() / 60) as usize;
            let Some((came, sent)) = minutes.get_mut(minute) else { break };
            *came += 1;
            if free <= now + Duration::from_millis(250) {
                free = free.max(now) + spacing;
                *sent += 1;
            } else {
                coming.push(Reverse(places.take(spacing, now + NEAREST_PLACE)));
            }
        }
        let most = minutes.iter().map(|(came, _)| came / 60).max().unwrap();
        assert!(most <= 750, "{most} a second: {minutes:?}");
        let whole = 500_000 / (200 * 60);
        assert!(minutes[1..whole].iter().all(|(_, sent)| *sent > 190 * 60), "{minutes:?}");
    }

    #[test]
    fn places_from_some_time_on_begin_then_and_come_spread_out() {
        let now = Instant::now();
        let (mut places, probe) = (Places::new(now), now + Duration::from_secs(30));
        let waits = [(); 3].map(|()| (places.take(Duration::from_secs(1), probe) - now).as_secs());
        assert_eq!(waits, [30, 31, 32]);
    }

    #[test]
    fn a_request_takes_as_long_as_of_late_or_as_those_in_flight_do_already() {
        let mut pace = Pace::new(Instant::now());
        pace.learn(0.1);
        pace.has_begun(10.0);
        assert_eq!(pace.duration_s(10.05), 0.1);
        assert_eq!(pace.duration_s(12.0), 2.0);
        pace.has_ended(10.0);
        pace.learn(2.0);
        assert!((pace.duration_s(12.0) - 0.48).abs() < 1e-9);
    }
}
