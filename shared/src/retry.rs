//! When to try again: retry schedules, and the delayed queues' tiers that serve any delay.
//!
//! Pure decisions. A message that must not be sent before a moment carries it (`not-before`) and waits in
//! the tiers; [`wait`] says in which one next, or that the sender holds it for the rest. A moment that is not meant to
//! the second is chosen so that these are few: [`in_few_steps`].

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The delays of the retry queues, shortest first: any schedule is served by waiting in several.
pub const TIERS: [Tier; 7] = [
    Tier { name: "1s", delay: Duration::from_secs(1) },
    Tier { name: "5s", delay: Duration::from_secs(5) },
    Tier { name: "30s", delay: Duration::from_secs(30) },
    Tier { name: "2m", delay: Duration::from_secs(2 * 60) },
    Tier { name: "10m", delay: Duration::from_secs(10 * 60) },
    Tier { name: "1h", delay: Duration::from_secs(60 * 60) },
    Tier { name: "6h", delay: Duration::from_secs(6 * 60 * 60) },
];

/// With less than this left a sender holds the message itself, to the millisecond. Three quarters of the
/// shortest tier: with more left, that tier is at most a quarter of a second late.
const HOLD_BELOW: Duration = Duration::from_millis(750);

/// How much longer than the time left a tier may be, at least. Without it each hop's few milliseconds would start a
/// cascade of small tiers: 128 hops for the default schedule instead of 25. Of the 1% that a long wait may be late,
/// as much is left for the hop itself.
const SLACK: Duration = Duration::from_millis(250);

/// A wait that need not be to the second is longer by at most this.
const MOST_LONGER: Duration = Duration::from_secs(60);
/// What is shorter stays as it is: the right to send a probe lasts 20 s, of which mostly nobody needs all.
const SHORT: Duration = Duration::from_secs(25);

/// A delivery is given up this long after its round began, whatever its schedule says.
pub const DEADLINE: Duration = Duration::from_secs(72 * 60 * 60);

/// A schedule may hold this many retries; more than a day's worth at five minutes would be 288.
const MAX_RETRIES: usize = 100;

/// A delayed queue: what is published to `retry.<name>` comes back after `delay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// The tier's name in its exchange and queue.
    pub name: &'static str,
    /// The queue's message time-to-live.
    pub delay: Duration,
}

/// How a message waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It is due.
    Over,
    /// So little is left that the sender holds it, unacknowledged.
    Hold(Duration),
    /// In a delayed queue, after which the question is asked again.
    In(Tier),
}

/// How a message waits that must not be sent for another `left`.
#[must_use]
pub fn wait(left: Duration) -> Wait {
    if left.is_zero() {
        return Wait::Over;
    }
    if left < HOLD_BELOW {
        return Wait::Hold(left);
    }
    let longest = left + SLACK.max((left / 100).saturating_sub(SLACK));
    let tier = TIERS.iter().rev().find(|tier| tier.delay <= longest);
    Wait::In(*tier.unwrap_or(&TIERS[0]))
}

/// A wait of about `left` that takes few tiers: from 25 s on longer by up to as much again, and by a minute at most.
#[must_use]
pub fn in_few_steps(left: Duration) -> Duration {
    let mut whole = Duration::ZERO;
    while let Wait::In(tier) = wait(left.saturating_sub(whole)) {
        let rest = left - whole;
        let longer = TIERS.iter().find(|tier| rest >= SHORT && tier.delay >= rest);
        let longer = longer.filter(|tier| tier.delay - rest <= rest.min(MOST_LONGER));
        whole += longer.unwrap_or(&tier).delay;
    }
    whole.max(left)
}

/// The tier to try when `tier` is full: the next longer one.
#[must_use]
pub fn next_longer(tier: Tier) -> Tier {
    *TIERS.iter().find(|other| other.delay > tier.delay).unwrap_or(&TIERS[TIERS.len() - 1])
}

/// The delays between the attempts of a delivery, e.g. `["5s","5m","2h"]`; empty: never retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Vec<Duration>);

impl Schedule {
    /// A schedule of these delays; the error is a sentence to be read after the field's name.
    pub fn new(delays: Vec<Duration>) -> Result<Self, String> {
        if delays.len() > MAX_RETRIES {
            return Err(format!("has {} retries, and at most {MAX_RETRIES} are accepted", delays.len()));
        }
        match delays.iter().find(|delay| **delay < Duration::from_secs(1) || **delay > DEADLINE) {
            Some(delay) => {
                Err(format!("has a delay of {}, and each must be 1s to 72h", format_duration(*delay)))
            }
            None => Ok(Self(delays)),
        }
    }

    /// A platform's own schedule, as its format has it.
    #[must_use]
    pub(crate) fn fixed(delays: &[Duration]) -> Self {
        Self(delays.to_vec())
    }

    /// The delay after the failed attempt `number` (from 1), or none when the schedule is used up.
    #[must_use]
    pub fn delay_after(&self, number: u32) -> Option<Duration> {
        self.0.get(number as usize - 1).copied()
    }

    /// The delays in milliseconds, as they are stored.
    #[must_use]
    pub fn to_millis(&self) -> Vec<i64> {
        self.0.iter().map(|delay| i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)).collect()
    }

    /// A schedule that was stored.
    #[must_use]
    pub fn from_millis(millis: &[i64]) -> Self {
        Self(millis.iter().map(|millis| Duration::from_millis(millis.unsigned_abs())).collect())
    }
}

impl Default for Schedule {
    /// 5s 5m 30m 2h 5h 10h 10h: Standard Webhooks' example, about 28 hours in all.
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let seconds = [5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR];
        Self(seconds.into_iter().map(Duration::from_secs).collect())
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|delay| format_duration(*delay)))
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let delays = texts.iter().map(|text| parse_duration(text)).collect::<Result<_, _>>();
        delays.and_then(Self::new).map_err(serde::de::Error::custom)
    }
}

/// Reads a duration: a whole number and one of `ms s m h d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let error =
        || format!("has {text:?}, and a duration is a whole number with ms, s, m, h or d, such as \"5m\"");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(error()),
    };
    let number: u64 = number.parse().map_err(|_| error())?;
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(error)
}

/// Writes a duration in the largest unit that leaves a whole number.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Follows a message through the tiers, each hop `overhead` late; answers how late it is in the end
    /// and how many queues it went through.
    fn follow(delay: Duration, overhead: Duration) -> (Duration, usize) {
        let (mut elapsed, mut hops) = (Duration::ZERO, 0);
        loop {
            match wait(delay.saturating_sub(elapsed)) {
                Wait::Over => return (elapsed - delay, hops),
                Wait::Hold(left) => elapsed += left,
                Wait::In(tier) => {
                    elapsed += tier.delay + overhead;
                    hops += 1;
                }
            }
        }
    }

    #[test]
    fn a_tier_that_is_longer_by_all_of_one_percent_leaves_no_time_for_its_hop() {
        let delay = Duration::from_millis(594_060);
        let (late, _) = follow(delay, Duration::from_millis(1));
        assert!(late <= delay / 100, "{late:?}");
    }

    #[test]
    fn a_wait_of_about_a_tier_is_one_of_it_and_what_is_short_stays_as_it_is() {
        for [seconds, few] in
            [[0.5, 0.5], [20.0, 20.0], [29.9, 30.0], [59.0, 60.0], [100.0, 120.0], [545.0, 600.0]]
        {
            assert_eq!(in_few_steps(Duration::from_secs_f64(seconds)).as_secs_f64(), few);
        }
    }

    #[test]
    fn the_default_schedule_takes_25_hops() {
        let hops: usize =
            Schedule::default().0.iter().map(|delay| follow(*delay, Duration::from_millis(3)).1).sum();
        assert_eq!(hops, 25);
    }

    proptest! {
        #[test]
        fn any_delay_is_met_within_half_a_second_or_one_percent(
            delay_ms in 0_u64..260_000_000, overhead_ms in 0_u64..30,
        ) {
            let delay = Duration::from_millis(delay_ms);
            let (late, hops) = follow(delay, Duration::from_millis(overhead_ms));
            prop_assert!(late <= Duration::from_millis(500).max(delay / 100), "{late:?}");
            prop_assert!(hops <= 40, "{hops} hops");
        }

        #[test]
        fn a_wait_in_few_steps_is_longer_by_as_much_or_a_minute_at_most(
            delay_ms in 0_u64..7_200_000, overhead_ms in 0_u64..5,
        ) {
            let delay = Duration::from_millis(delay_ms);
            let about = in_few_steps(delay);
            prop_assert!(delay <= about && about - delay <= delay.min(MOST_LONGER), "{about:?}");
            let (_, hops) = follow(about, Duration::from_millis(overhead_ms));
            let most = if delay <= TIERS[3].delay { 9 } else { 19 };
            prop_assert!(hops <= most, "{hops} hops");
        }

        #[test]
        fn a_duration_reads_back_as_it_was_written(ms in 0_u64..1_000_000_000) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)).unwrap(), duration);
        }
    }

    #[test]
    fn a_full_tier_is_followed_by_the_next_longer_and_the_longest_by_itself() {
        assert_eq!(next_longer(TIERS[0]).name, "5s");
        assert_eq!(next_longer(TIERS[6]).name, "6h");
    }

    #[test]
    fn a_schedule_is_read_from_durations_and_refused_with_a_sentence() {
        let schedule: Schedule = serde_json::from_str(r#"["5s","5m","2h"]"#).unwrap();
        assert_eq!(schedule.delay_after(2), Some(Duration::from_secs(300)));
        assert_eq!(schedule.delay_after(4), None);
        assert_eq!(serde_json::to_string(&schedule).unwrap(), r#"["5s","5m","2h"]"#);
        for (text, sentence) in [
            (r#"["5"]"#, "a duration is a whole number with ms, s, m, h or d"),
            (r#"["0s"]"#, "each must be 1s to 72h"),
            (r#"["73h"]"#, "each must be 1s to 72h"),
            (r#"["99999999999999999999s"]"#, "a duration is a whole number"),
        ] {
            let error = serde_json::from_str::<Schedule>(text).unwrap_err().to_string();
            assert!(error.contains(sentence), "{text}: {error}");
        }
    }
}
