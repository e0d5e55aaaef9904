//! A webhook's rate limit: a schedule of places, one every so often, of which no request stands before its own.
//!
//! A delivery that comes too early for the limit gets the next free place and is parked for it. The delayed
//! queues bring it back about then, often several at once, so those that return are let through one by one; should more
//! return than the limit lets through in a moment, or than there is room for, each is told when to return again. Newer
//! ones get places behind all of these; but a turn that nobody is here to use, they use.

use std::time::{Duration, Instant};

/// A place that is nearer is waited for here, by those that have none yet.
const NEAR: Duration = Duration::from_millis(250);
/// As long as one that returned is held: somewhat more than the delayed queues are late.
const HELD: Duration = Duration::from_millis(700);
/// The shortest delayed queue.
const NEAREST_RETURN: Duration = Duration::from_secs(1);

/// When a delivery may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// At once.
    Now,
    /// After this long, and it is waited for here.
    Near(Duration),
    /// It is to come back after this long.
    Far(Duration),
}

/// The schedule of one webhook in one sender.
#[derive(Debug)]
pub(super) struct Limit {
    /// Nothing is sent before.
    next_turn: Instant,
    /// The first place that nobody has.
    next_place: Instant,
    /// When one may come back whose place has passed.
    next_return: Instant,
    /// The time between two places, when the last was given.
    every: Duration,
}

impl Limit {
    pub(super) fn new(now: Instant) -> Self {
        Self { next_turn: now, next_place: now, next_return: now, every: Duration::ZERO }
    }

    /// The turn of a delivery that was given no place yet. Without room nothing is waited for here.
    pub(super) fn first_turn(&mut self, every: Duration, now: Instant, has_room: bool) -> Turn {
        if every < self.every {
            // The limit was raised, or there are fewer senders: newer ones need not wait for the old schedule's end.
            (self.next_place, self.next_return) = (now, now);
        }
        self.every = every;
        if self.next_turn <= now {
            self.next_turn = now + every;
            self.next_place = self.next_place.max(self.next_turn);
            return Turn::Now;
        }
        let place = self.next_place.max(self.next_turn).max(self.next_return);
        if place - now <= NEAR && has_room {
            self.next_place = place + every;
            self.next_turn = place + every;
            return Turn::Near(place - now);
        }
        let place = place.max(now + NEAREST_RETURN);
        self.next_place = place + every;
        Turn::Far(place - now)
    }

    /// The turn of one that returns at its place. Without room it is not waited for here, and nobody else's is lost.
    pub(super) fn later_turn(&mut self, every: Duration, now: Instant, has_room: bool) -> Turn {
        if self.next_turn <= now {
            self.next_turn = now + every;
            return Turn::Now;
        }
        let turn = self.next_turn;
        if turn - now <= HELD && has_room {
            self.next_turn = turn + every;
            return Turn::Near(turn - now);
        }
        let at = self.next_return.max(turn).max(now + NEAREST_RETURN);
        self.next_return = at + every;
        Turn::Far(at - now)
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::{BinaryHeap, VecDeque};

    use super::*;

    /// Deliveries that come at these times to a webhook with this limit, parked in queues that are late by up to
    /// half a second, where so many have room to wait; answers when each was sent, in order, and how often any was
    /// parked.
    fn send_with_room(
        room: usize,
        arrivals: &[u64],
        every_ms: u64,
        mut lateness_ms: impl FnMut(u64) -> u64,
    ) -> (Vec<u64>, usize) {
        let epoch = Instant::now();
        let at = |ms: u64| epoch + Duration::from_millis(ms);
        let every = Duration::from_millis(every_ms);
        let mut limit = Limit::new(epoch);
        let mut coming: BinaryHeap<Reverse<(u64, bool)>> =
            arrivals.iter().map(|ms| Reverse((*ms, false))).collect();
        let (mut sent, mut parked, mut held) = (Vec::new(), 0, VecDeque::new());
        while let Some(Reverse((now, has_place))) = coming.pop() {
            while held.pop_front_if(|until| *until <= now).is_some() {}
            let has_room = held.len() < room;
            let turn = match has_place {
                true => limit.later_turn(every, at(now), has_room),
                false => limit.first_turn(every, at(now), has_room),
            };
            match turn {
                Turn::Now => sent.push(now),
                Turn::Near(wait) => {
                    held.push_back(now + wait.as_millis() as u64);
                    sent.push(now + wait.as_millis() as u64);
                }
                Turn::Far(wait) => {
                    parked += 1;
                    let wait = wait.as_millis() as u64;
                    coming.push(Reverse((now + wait + lateness_ms(wait), true)));
                }
            }
        }
        sent.sort_unstable();
        (sent, parked)
    }

    fn send(arrivals: &[u64], every_ms: u64, lateness_ms: impl FnMut(u64) -> u64) -> (Vec<u64>, usize) {
        send_with_room(usize::MAX, arrivals, every_ms, lateness_ms)
    }

    fn assert_within(sent: &[u64], every_ms: u64) {
        for pair in sent.windows(2) {
            assert!(pair[1] - pair[0] >= every_ms, "{} and {} ms", pair[0], pair[1]);
        }
    }

    #[test]
    fn a_burst_is_spread_out_at_the_limit_whatever_the_queues_lateness_is() {
        let (sent, parked) = send(&[0; 600], 100, |wait| wait * 7_919 % 500);
        assert_eq!(sent.len(), 600);
        assert_within(&sent, 100);
        assert!(sent[599] < 62_000, "the limit is used: {} ms", sent[599]);
        assert!(parked < 2 * 600, "{parked} times parked");
    }

    #[test]
    fn what_comes_at_twice_the_limit_goes_out_at_the_limit() {
        let arrivals: Vec<u64> = (0..1_200).map(|n| n * 50).collect();
        let (sent, _) = send(&arrivals, 100, |wait| wait * 31 % 300);
        assert_within(&sent, 100);
        let in_a_minute = sent.iter().filter(|at| **at < 60_000).count();
        assert!((580..=601).contains(&in_a_minute), "{in_a_minute}");
    }

    #[test]
    fn a_high_limit_is_used_though_few_have_room_to_wait() {
        for room in [4, 32] {
            let arrivals: Vec<u64> = (0..20_000).map(|n| n * 10 / 3).collect();
            let (sent, _) = send_with_room(room, &arrivals, 5, |wait| wait * 7_919 % 500);
            assert_within(&sent, 5);
            let in_a_minute = sent.iter().filter(|at| **at < 60_000).count();
            assert!(in_a_minute > 11_400, "{in_a_minute} with room for {room}");
        }
    }

    #[test]
    fn a_limit_that_is_raised_is_used_at_once() {
        let (now, slow, quick) = (Instant::now(), Duration::from_secs(1), Duration::from_millis(10));
        let mut limit = Limit::new(now);
        for _ in 0..3_600 {
            limit.first_turn(slow, now, true);
        }
        let turn = limit.first_turn(quick, now, true);
        assert!(matches!(turn, Turn::Far(wait) if wait <= Duration::from_secs(1)), "{turn:?}");
    }

    #[test]
    fn what_comes_within_the_limit_waits_for_nothing() {
        let arrivals: Vec<u64> = (0..100).map(|n| n * 100).collect();
        let (sent, parked) = send(&arrivals, 100, |_| 0);
        assert_eq!((sent, parked), (arrivals, 0));
    }

    #[test]
    fn places_an_hour_away_that_all_come_late_at_once_are_still_sent_at_the_limit() {
        // 1% of an hour: a whole half minute's places come back together.
        let (sent, parked) = send(&[0; 2_000], 1_000, |wait| wait / 100);
        assert_within(&sent, 1_000);
        assert_eq!(sent.len(), 2_000);
        assert!(sent[1_999] < 2_080_000, "{} ms", sent[1_999]);
        assert!(parked < 12_000, "{parked} times parked");
    }
}
