//! How many events an organization may publish over HTTP: a bucket of tokens each, a token an event.
//!
//! Behind the api all organizations share one queue, so a flood must be met here.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cuewire::event::MAX_BATCH_EVENTS;

/// At a few hundred bytes each, a few MB. More organizations than these do not publish within a second or two.
const MAX_BUCKETS: usize = 10_000;

/// The buckets of this process.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Events a second; 0: no limit.
    rate: f64,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

/// How many events of which organizations a request holds, by the names that it gives them.
#[derive(Debug, Default)]
pub(super) struct Tally(HashMap<String, f64>);

impl Tally {
    /// Counts so many events more.
    pub(super) fn add(&mut self, organization: &str, events: usize) {
        match self.0.get_mut(organization) {
            Some(counted) => *counted += events as f64,
            None => drop(self.0.insert(organization.to_owned(), events as f64)),
        }
    }
}

/// An organization has published all that it may for now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exceeded {
    /// As the events name it.
    pub(super) organization: String,
    /// When there will be room for as many.
    pub(super) wait: Duration,
}

impl Limits {
    /// So many events a second for each organization, or as many as it likes where it is 0.
    pub(crate) fn new(events_per_second: u32) -> Self {
        Self { rate: f64::from(events_per_second), buckets: Mutex::default() }
    }

    /// How many events an organization may publish a minute by this process; none: as many as it likes.
    pub(super) fn events_a_minute(&self) -> Option<u64> {
        (self.rate > 0.0).then_some((self.rate * 60.0) as u64)
    }

    /// Takes a token an event: for all organizations that the events name, or for none.
    pub(super) fn take(&self, events: &Tally, now: Instant) -> Result<(), Exceeded> {
        if self.rate == 0.0 {
            return Ok(());
        }
        let mut buckets = self.buckets();
        for (organization, wanted) in &events.0 {
            let missing = wanted - self.tokens(&buckets, organization, now);
            if missing > 0.0 {
                let wait = Duration::from_secs_f64(missing / self.rate);
                return Err(Exceeded { organization: organization.clone(), wait });
            }
        }
        for (organization, wanted) in &events.0 {
            let left = self.tokens(&buckets, organization, now) - wanted;
            self.make_room(&mut buckets, now);
            buckets.insert(organization.clone(), Bucket { tokens: left, filled_at: now });
        }
        Ok(())
    }

    /// Gives back the tokens of events that were not accepted after all. A bucket that was forgotten is full.
    pub(super) fn give_back(&self, events: &Tally, now: Instant) {
        let mut buckets = self.buckets();
        for (organization, given_back) in &events.0 {
            if let Some(bucket) = buckets.get_mut(organization) {
                let tokens = (self.left(*bucket, now) + given_back).min(self.burst());
                *bucket = Bucket { tokens, filled_at: now };
            }
        }
    }

    fn buckets(&self) -> MutexGuard<'_, HashMap<String, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A second's worth, and in any case the largest batch.
    fn burst(&self) -> f64 {
        self.rate.max(MAX_BATCH_EVENTS as f64)
    }

    fn tokens(&self, buckets: &HashMap<String, Bucket>, organization: &str, now: Instant) -> f64 {
        buckets.get(organization).map_or(self.burst(), |bucket| self.left(*bucket, now))
    }

    fn left(&self, bucket: Bucket, now: Instant) -> f64 {
        let since = now.saturating_duration_since(bucket.filled_at).as_secs_f64();
        (bucket.tokens + since * self.rate).min(self.burst())
    }

    /// Forgets the full buckets when there are too many, and all of them if none is full.
    fn make_room(&self, buckets: &mut HashMap<String, Bucket>, now: Instant) {
        if buckets.len() < MAX_BUCKETS {
            return;
        }
        buckets.retain(|_, bucket| self.left(*bucket, now) < self.burst());
        if buckets.len() >= MAX_BUCKETS {
            buckets.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(organization: &str, count: usize) -> Tally {
        let mut tally = Tally::default();
        tally.add(organization, count);
        tally
    }

    #[test]
    fn a_full_bucket_takes_the_largest_batch_and_fills_again_at_its_rate() {
        let (limits, now) = (Limits::new(10), Instant::now());
        assert_eq!(limits.take(&events("a", MAX_BATCH_EVENTS), now), Ok(()));
        let exceeded = limits.take(&events("a", 5), now).unwrap_err();
        assert_eq!((exceeded.organization.as_str(), exceeded.wait), ("a", Duration::from_millis(500)));
        assert_eq!(limits.take(&events("b", 1), now), Ok(()), "another's bucket is its own");
        assert!(limits.take(&events("a", 5), now + Duration::from_millis(499)).is_err());
        assert_eq!(limits.take(&events("a", 5), now + Duration::from_millis(500)), Ok(()));
    }

    #[test]
    fn a_request_for_several_organizations_takes_of_all_or_of_none() {
        let (limits, now) = (Limits::new(10), Instant::now());
        assert_eq!(limits.take(&events("a", MAX_BATCH_EVENTS), now), Ok(()));
        let mut of_both = events("b", 999);
        of_both.add("a", 1);
        assert!(limits.take(&of_both, now).is_err());
        assert_eq!(limits.take(&events("b", MAX_BATCH_EVENTS), now), Ok(()));
    }

    #[test]
    fn what_was_not_accepted_is_given_back_and_no_more() {
        let (limits, now) = (Limits::new(10), Instant::now());
        let all = events("a", MAX_BATCH_EVENTS);
        for _ in 0..3 {
            assert_eq!(limits.take(&all, now), Ok(()));
            limits.give_back(&all, now);
        }
        // The bucket was full already.
        let later = now + Duration::from_secs(1);
        limits.give_back(&all, later);
        assert_eq!(limits.take(&all, later), Ok(()));
        assert!(limits.take(&events("a", 1), later).is_err());
    }

    #[test]
    fn nought_is_no_limit() {
        let (limits, now) = (Limits::new(0), Instant::now());
        assert_eq!(limits.take(&events("a", 1_000_000), now), Ok(()));
        assert!(limits.buckets.lock().unwrap().is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_full_buckets_are_forgotten_first() {
        let (limits, now) = (Limits::new(1_000), Instant::now());
        let names: Vec<String> = (0..MAX_BUCKETS).map(|number| number.to_string()).collect();
        for name in &names[1..] {
            assert_eq!(limits.take(&events(name, 1), now), Ok(()));
        }
        let later = now + Duration::from_secs(1);
        assert_eq!(limits.take(&events("empty", 1_000), later), Ok(()));
        assert_eq!(limits.take(&events("more", 1), later), Ok(()));
        assert_eq!(limits.buckets.lock().unwrap().len(), 2);
        assert!(limits.take(&events("empty", 1), later).is_err());
    }
}
