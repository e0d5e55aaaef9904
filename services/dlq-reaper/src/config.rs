//! What the reaper reads from the environment besides what all services do.

use std::time::Duration;

use cuewire::config::{ConfigError, Environment};
use cuewire::retry::parse_duration;

/// Below the lifetime of a delivery (72 h) its first attempts would be dropped before its last is made, and
/// the router looks for repeats in yesterday's events.
const MIN_RETENTION_DAYS: u16 = 4;
const MAX_RETENTION_DAYS: u16 = 3_650;
const DEFAULT_RETENTION_DAYS: u16 = 30;
const DEFAULT_DEAD_LETTER_RETENTION_DAYS: u16 = 90;
/// Longer than a rollout, whose crashes may have used up the broker's limit of deliveries.
const DEFAULT_REDRIVE_AFTER: Duration = Duration::from_secs(10 * 60);

/// A weekend with a holiday, after which somebody has looked.
const DEFAULT_DISABLE_AFTER: Duration = Duration::from_secs(5 * 24 * 60 * 60);

/// The reaper's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `CUEWIRE_RETENTION_DAYS`: for how many days events, attempts and statistics are kept.
    pub retention_days: u16,
    /// `CUEWIRE_DEAD_LETTER_RETENTION_DAYS`: for how many days dead letters are kept.
    pub dead_letter_retention_days: u16,
    /// `CUEWIRE_REDRIVE_AFTER`: after which time a message is sent again that the broker gave up for having
    /// been delivered too often.
    pub redrive_after: Duration,
    /// `CUEWIRE_DISABLE_FAILING_AFTER`: for how long a webhook must have failed without a success to be disabled.
    pub disable_after: Duration,
}

/// An hour in which everything failed may be a rollout.
const MIN_DISABLE_AFTER: Duration = Duration::from_secs(60 * 60);

impl Config {
    /// Reads and checks it.
    pub fn read(environment: &Environment) -> Result<Self, ConfigError> {
        let retention_days = environment.number(
            "CUEWIRE_RETENTION_DAYS",
            DEFAULT_RETENTION_DAYS,
            MIN_RETENTION_DAYS..=MAX_RETENTION_DAYS,
        )?;
        // The statistics by which it is decided are kept as long.
        let longest = Duration::from_secs(u64::from(retention_days) * 24 * 60 * 60);
        let read_disable_after = |text: &str| match parse_duration(text)? {
            after if (MIN_DISABLE_AFTER..=longest).contains(&after) => Ok(after),
            _ => Err(format!("is {text}, and must be 1h to CUEWIRE_RETENTION_DAYS, {retention_days}d")),
        };
        Ok(Self {
            retention_days,
            dead_letter_retention_days: environment.number(
                "CUEWIRE_DEAD_LETTER_RETENTION_DAYS",
                DEFAULT_DEAD_LETTER_RETENTION_DAYS,
                1..=MAX_RETENTION_DAYS,
            )?,
            redrive_after: environment.duration("CUEWIRE_REDRIVE_AFTER", DEFAULT_REDRIVE_AFTER)?,
            disable_after: environment
                .optional("CUEWIRE_DISABLE_FAILING_AFTER", read_disable_after)?
                .unwrap_or(DEFAULT_DISABLE_AFTER.min(longest)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_log_shorter_than_a_deliverys_life_is_refused() {
        let days = |text: &str| Config::read(&Environment::of([("CUEWIRE_RETENTION_DAYS", text)]));
        assert_eq!(days("4").unwrap().retention_days, 4);
        for text in ["3", "-1", "30d", "99999"] {
            let error = days(text).unwrap_err().to_string();
            assert!(error.starts_with("CUEWIRE_RETENTION_DAYS is") && error.contains("from 4"), "{error}");
        }
        assert_eq!(days("").unwrap().retention_days, DEFAULT_RETENTION_DAYS);
    }

    #[test]
    fn a_webhook_is_not_disabled_by_statistics_that_are_not_kept() {
        let read = |after: &str| {
            Config::read(&Environment::of([
                ("CUEWIRE_RETENTION_DAYS", "4"),
                ("CUEWIRE_DISABLE_FAILING_AFTER", after),
            ]))
        };
        let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
        assert_eq!(read("4d").unwrap().disable_after, days(4));
        assert_eq!(read("").unwrap().disable_after, days(4), "the default is as long as they are kept");
        let by_default = Config::read(&Environment::of([("CUEWIRE_RETENTION_DAYS", "")]));
        assert_eq!(by_default.unwrap().disable_after, days(5));
        for text in ["5d", "59m", "0s", "soon"] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.starts_with("CUEWIRE_DISABLE_FAILING_AFTER"), "{error}");
        }
    }
}
