//! A webhook: who wants which events, where they go, in which format, and how hard to try.
//!
//! The noun alone: reading and writing it is `db::webhooks`, which events it takes is [`Subscription::wants`],
//! how many of them the router finds at once is the router's index.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::{EventType, is_word_byte};
use crate::filter::{Filter, Subject};
use crate::formats::Format;
use crate::ids::{OrganizationId, WebhookId};
use crate::retry::Schedule;
use crate::signature::Scheme;

/// Requests in flight to one webhook from one sender, unless it says otherwise.
pub const DEFAULT_MAX_IN_FLIGHT: u32 = 16;
/// More would let one webhook take a lane's whole prefetch.
pub const MAX_MAX_IN_FLIGHT: u32 = 256;
/// Above this a limit is no limit: a sender carries less.
pub const MAX_RATE_LIMIT: u32 = 10_000;
/// The whole request with its answer, unless the webhook says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest request that fits the grace for stopping.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(30);
/// Keeps the index of one organization small: a platform's whole vocabulary is about 100 types.
pub const MAX_EVENT_TYPES: usize = 200;

/// The category of Cuewire's own events, which a webhook gets only when it names them.
pub const OWN_CATEGORY: &str = "webhook";

/// A webhook as it is configured.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// A number, for platforms whose webhooks are numbered.
    pub number: i64,
    /// Whose it is.
    pub organization: OrganizationId,
    /// A name; need not be unique.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Where deliveries go.
    pub url: String,
    /// Whether it takes events.
    pub enabled: bool,
    /// Why it was disabled, where it was not by hand.
    pub disabled_reason: Option<String>,
    /// Since when it keeps failing: from its first dead letter, or the opening of its breaker, until a success.
    pub first_failed_at: Option<OffsetDateTime>,
    /// Its circuit breaker, while that is open.
    pub breaker: Option<Breaker>,
    /// How its deliveries look.
    pub format: Format,
    /// Which types it takes; empty: all but Cuewire's own.
    pub event_types: Vec<Pattern>,
    /// Which events of those types it takes: an expression, parsed where events are matched
    /// ([`Subscription`]).
    pub filter: Option<String>,
    /// Headers of its own, sent with every request: sealed, to be opened with the vault.
    pub sealed_headers: Vec<u8>,
    /// How its deliveries are signed.
    pub signature: Scheme,
    /// Attempts a second, of all senders together, if that is its own.
    pub own_rate_limit: Option<u32>,
    /// Requests in flight at a time, from one sender.
    pub max_in_flight: u32,
    /// The whole request with its answer.
    pub timeout: Duration,
    /// Its own schedule, if it has one; a format whose schedule is fixed does not ask for it.
    pub retry_schedule: Option<Schedule>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
}

/// An open circuit breaker: nothing is sent but a probe now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// Since when.
    pub opened_at: OffsetDateTime,
    /// How many probes have failed since.
    pub probes: u32,
    /// When the next one may be sent, by whoever claims it first.
    pub next_probe_at: OffsetDateTime,
}

/// From the opening of a breaker, or from one probe to the next.
const PROBE_AFTER: [Duration; 4] = [
    Duration::from_secs(30),
    Duration::from_secs(2 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(60 * 60),
];

/// How long until the next probe when `probes` have failed.
#[must_use]
pub fn probe_after(probes: u32) -> Duration {
    PROBE_AFTER[PROBE_AFTER.len().min(probes as usize + 1) - 1]
}

/// Whether a webhook takes events, and how it fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It takes events.
    Enabled,
    /// It takes none.
    Disabled,
    /// It takes events, but the last delivery that ended became a dead letter, or its breaker is open.
    Failing,
}

impl Webhook {
    /// Whether it takes events, and how it fares.
    #[must_use]
    pub fn status(&self) -> Status {
        match (self.enabled, self.first_failed_at) {
            (false, _) => Status::Disabled,
            (true, Some(_)) => Status::Failing,
            (true, None) => Status::Enabled,
        }
    }

    /// The rate limit in force: its own, else the format's.
    #[must_use]
    pub fn rate_limit(&self) -> Option<u32> {
        self.own_rate_limit.or(self.format.rate_limit())
    }

    /// The schedule in force: the format's where that is fixed, else its own, else the default.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        let own = || self.retry_schedule.clone().unwrap_or_default();
        self.format.fixed_schedule().unwrap_or_else(own)
    }
}

/// The part of a webhook that decides which events it takes: what a router keeps of it.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The webhook.
    pub webhook: WebhookId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Which types it takes; empty: all but Cuewire's own.
    pub event_types: Vec<Pattern>,
    /// Which events of those types it takes.
    pub filter: Option<Filter>,
}

impl Subscription {
    /// Whether it takes an event of this type and content. The router's index answers the same for all
    /// webhooks of an organization at once.
    pub fn wants(&self, event_type: &EventType, event: &impl Subject) -> bool {
        let by_type = if self.event_types.is_empty() {
            event_type.category() != OWN_CATEGORY
        } else {
            self.event_types.iter().any(|pattern| pattern.matches(event_type.as_str()))
        };
        by_type && self.filter.as_ref().is_none_or(|filter| filter.matches(event))
    }
}

/// An exact event type, or words with `*` for any number of words: `recordings.*`, `*.completed`, `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Pattern(String);

impl Pattern {
    /// Reads a pattern; the error is a sentence to be read after the field's name.
    ///
    /// `*` alone takes every type but Cuewire's own, which must be named (`webhook.*`).
    pub fn parse(text: &str) -> Result<Self, String> {
        let word = |word: &str| word == "*" || (!word.is_empty() && word.bytes().all(is_word_byte));
        if text.len() > 128 || !text.split('.').all(word) {
            return Err(format!(
                "has {text:?}, and a type is words of A-Z, a-z, 0-9, _ and - joined by dots, where * stands for \
                 any number of words"
            ));
        }
        if text != "*" && !text.contains('.') {
            return Err(format!("has {text:?}, which no type can match; did you mean \"{text}.*\"?"));
        }
        Ok(Self(text.to_owned()))
    }

    /// Every type but Cuewire's own.
    #[must_use]
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has no `*`.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.0.split('.').any(|word| word == "*")
    }

    /// Whether it takes this type.
    #[must_use]
    pub fn matches(&self, event_type: &str) -> bool {
        let own = |text: &str| text.split('.').next() == Some(OWN_CATEGORY);
        if own(event_type) && !own(&self.0) {
            return false;
        }
        let words: Vec<_> = event_type.split('.').collect();
        let pattern: Vec<_> = self.0.split('.').collect();
        matches_words(&pattern, &words)
    }
}

/// Glob matching over words with one point to come back to: linear but for the last `*`.
fn matches_words(pattern: &[&str], words: &[&str]) -> bool {
    let (mut at, mut word) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while word < words.len() {
        if pattern.get(at) == Some(&"*") {
            star = Some((at, word));
            at += 1;
        } else if pattern.get(at) == Some(&words[word]) {
            at += 1;
            word += 1;
        } else if let Some((star_at, star_word)) = star {
            star = Some((star_at, star_word + 1));
            at = star_at + 1;
            word = star_word + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|rest| *rest == "*")
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_number_of_words() {
        for (pattern, event_type, expected) in [
            ("*", "recordings.completed", true),
            ("recordings.*", "recordings.completed", true),
            ("recordings.*", "recordings.completed.twice", true),
            ("recordings.*", "recording.completed", false),
            ("*.completed", "recordings.completed", true),
            ("*.completed", "recordings.completed.twice", false),
            ("a.*.d", "a.d", true),
            ("a.*.d", "a.b.c.d", true),
            ("a.*.d", "a.b.d.c", false),
            ("a.*.b.*.c", "a.x.b.b.y.c", true),
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("*", "webhook.disabled", false),
            ("*.disabled", "webhook.disabled", false),
            ("webhook.*", "webhook.disabled", true),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(event_type), expected, "{pattern} on {event_type}");
        }
    }

    #[test]
    fn a_pattern_that_can_match_nothing_is_refused() {
        assert_eq!(
            Pattern::parse("recordings").unwrap_err(),
            "has \"recordings\", which no type can match; did you mean \"recordings.*\"?"
        );
        for text in ["", ".", "a..b", "a.b*", "a b.c", "ä.b"] {
            assert!(Pattern::parse(text).unwrap_err().contains("joined by dots"), "{text}");
        }
    }
}
