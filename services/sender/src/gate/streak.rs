//! A webhook's streak of failures: when its circuit breaker is to open.

use std::time::{Duration, Instant};

/// So many requests in a row without an answer open the breaker.
const UNANSWERED: u32 = 5;
/// Half of so many requests, at least, within a minute do so too.
const REQUESTS: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// How a request ended, as far as it tells of its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The receiver took it.
    Taken,
    /// It answered, and did not take it.
    Refused,
    /// There was no answer in time, or no connection.
    Unanswered,
    /// It was not sent.
    Untold,
}

/// What has failed of late.
#[derive(Debug)]
pub(super) struct Streak {
    /// In a row.
    unanswered: u32,
    /// Of the window that began then.
    since: Instant,
    requests: u32,
    failed: u32,
}

impl Streak {
    pub(super) fn new(now: Instant) -> Self {
        Self { unanswered: 0, since: now, requests: 0, failed: 0 }
    }

    /// Notes a request. Answers how many failed of late, if it is the one that opens the breaker; then it begins
    /// anew.
    pub(super) fn note(&mut self, ending: Ending, now: Instant) -> Option<u32> {
        if ending == Ending::Untold {
            return None;
        }
        if now.duration_since(self.since) >= WINDOW {
            (self.since, self.requests, self.failed) = (now, 0, 0);
        }
        self.requests += 1;
        self.failed += u32::from(ending != Ending::Taken);
        self.unanswered = if ending == Ending::Unanswered { self.unanswered + 1 } else { 0 };
        if ending == Ending::Taken {
            return None;
        }
        let half_failed = self.requests >= REQUESTS && self.failed * 2 >= self.requests;
        if self.unanswered < UNANSWERED && !half_failed {
            return None;
        }
        let failures = if half_failed { self.failed } else { self.unanswered };
        *self = Self::new(now);
        Some(failures)
    }
}

#[cfg(test)]
mod tests {
    use super::Ending::{Refused, Taken, Unanswered, Untold};
    use super::*;

    /// After how many requests of this pattern, one every `seconds`, the breaker opens.
    fn opens_after(pattern: &[Ending], seconds: u64) -> Option<usize> {
        let start = Instant::now();
        let mut streak = Streak::new(start);
        let mut endings = pattern.iter().cycle().take(200).enumerate();
        endings.find_map(|(at, ending)| {
            streak.note(*ending, start + Duration::from_secs(seconds) * at as u32).map(|_| at + 1)
        })
    }

    #[test]
    fn a_breaker_opens_when_nobody_answers_or_half_of_a_minutes_requests_fail() {
        for (pattern, seconds, expected) in [
            (&[Unanswered][..], 15, Some(5)),
            (&[Unanswered, Untold], 1, Some(9)),
            (&[Unanswered, Unanswered, Unanswered, Unanswered, Refused], 15, None),
            (&[Refused], 1, Some(20)),
            (&[Refused], 4, None),
            (&[Taken, Refused], 1, Some(20)),
            (&[Refused, Taken], 1, Some(21)),
            (&[Taken, Taken, Refused], 1, None),
            (&[Taken], 0, None),
            (&[Untold], 0, None),
        ] {
            assert_eq!(opens_after(pattern, seconds), expected, "{pattern:?} every {seconds} s");
        }
    }
}
