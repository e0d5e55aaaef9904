//! A delivery's course: what one request came to, and what follows from it.
//!
//! Pure decisions over nouns that the sender makes, the log keeps and the API shows. A failed attempt is
//! data here, never an `Err`.

use std::time::Duration;

use bytes::Bytes;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};
use time::format_description::well_known::Rfc2822;
use time::{Date, OffsetDateTime};

use crate::ids::{DeliveryId, OrganizationId, Round, WebhookId};
use crate::retry::Schedule;

/// `Retry-After` is honoured up to this: the longest delayed queue.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(6 * 60 * 60);

/// What became of one HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver answered, whatever it said.
    Answered(Answer),
    /// It did not, or there was nothing to send; the sentence says why.
    Failed {
        /// The kind of failure, for counting.
        kind: Failure,
        /// What happened.
        error: String,
    },
}

/// A receiver's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers, in the order they came.
    pub headers: Vec<(String, Bytes)>,
    /// At most 16 KiB of the body, decompressed.
    pub body: Bytes,
}

/// How a request failed without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The webhook's timeout passed.
    Timeout,
    /// No connection: the name did not resolve, nobody listened, TLS failed, or it broke off.
    Connection,
    /// The URL leads where deliveries may not go.
    Blocked,
    /// The event lacks what the webhook's format needs.
    Unsendable,
}

impl Failure {
    /// As a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Blocked => "blocked",
            Self::Unsendable => "unsendable",
        }
    }
}

impl Answer {
    /// The first header of that name, where it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// How long the receiver asks to be left alone: seconds, or a date; never over six hours.
    #[must_use]
    pub fn retry_after(&self, now: OffsetDateTime) -> Option<Duration> {
        if !matches!(self.status, 429 | 502 | 503 | 504) {
            return None;
        }
        let text = self.header("retry-after")?.trim();
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let wait = match text.parse() {
            Ok(seconds) => Duration::from_secs(seconds),
            // Too many digits for a number of ours.
            Err(_) if is_number => Duration::MAX,
            // An HTTP date is RFC 2822's with the zone's old name.
            Err(_) => {
                let date = OffsetDateTime::parse(&text.replace("GMT", "+0000"), &Rfc2822).ok()?;
                Duration::try_from(date - now).unwrap_or_default()
            }
        };
        Some(wait.min(MAX_RETRY_AFTER))
    }
}

/// What a format makes of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken.
    Success,
    /// It may be taken later; not before this long, if the receiver said so.
    Retry(Option<Duration>),
    /// It will never be taken.
    Permanent(Reason),
}

impl Verdict {
    /// The verdict of formats without rules of their own: 2xx is success, 410 is final, and `Retry-After`
    /// is honoured.
    #[must_use]
    pub fn by_status(outcome: &Outcome, now: OffsetDateTime) -> Self {
        match outcome {
            Outcome::Answered(answer) => match answer.status {
                200..=299 => Self::Success,
                410 => Self::Permanent(Reason::Gone),
                _ => Self::Retry(answer.retry_after(now)),
            },
            Outcome::Failed { kind, .. } => Self::unanswered(*kind),
        }
    }

    /// The same, but for `Retry-After`: the verdict of formats whose schedule is fixed.
    #[must_use]
    pub fn by_status_alone(outcome: &Outcome, now: OffsetDateTime) -> Self {
        match Self::by_status(outcome, now) {
            Self::Retry(_) => Self::Retry(None),
            verdict => verdict,
        }
    }

    /// The verdict on a request that got no answer, whatever the format.
    #[must_use]
    pub fn unanswered(failure: Failure) -> Self {
        match failure {
            Failure::Unsendable => Self::Permanent(Reason::Rejected),
            Failure::Timeout | Failure::Connection | Failure::Blocked => Self::Retry(None),
        }
    }
}

/// Why a delivery, an event or a message is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// The retry schedule is used up.
    Exhausted,
    /// An answer that the format calls permanent.
    Refused,
    /// 410: the webhook is disabled.
    Gone,
    /// The webhook was deleted.
    Deleted,
    /// The webhook was disabled.
    Disabled,
    /// The deadline passed.
    Expired,
    /// Unknown organization, or not the publisher's to send; or the event lacks what the format needs.
    Rejected,
    /// Not understood, or delivered too often by the broker.
    Poison,
    /// No binding took it: a bug alarm.
    Unrouted,
    /// A test call, which is made once and is no dead letter.
    Test,
}

impl Reason {
    /// As it stands in routing keys, records and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::Deleted => "deleted",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Poison => "poison",
            Self::Unrouted => "unrouted",
            Self::Test => "test",
        }
    }

    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Exhausted,
        Self::Refused,
        Self::Gone,
        Self::Deleted,
        Self::Disabled,
        Self::Expired,
        Self::Rejected,
        Self::Poison,
        Self::Unrouted,
        Self::Test,
    ];

    /// The reason of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// What a delivery is after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The receiver took it.
    Delivered,
    /// It is tried again at this time.
    Retrying(OffsetDateTime),
    /// It has failed for good.
    Dead(Reason),
}

impl State {
    /// As it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retrying(_) => "retrying",
            Self::Dead(_) => "dead",
        }
    }

    /// What follows from the verdict on attempt `number` (from 1), which ended at `finished_at`.
    #[must_use]
    pub fn after(
        verdict: Verdict,
        number: u32,
        finished_at: OffsetDateTime,
        schedule: &Schedule,
        deadline: OffsetDateTime,
    ) -> Self {
        let retry_after = match verdict {
            Verdict::Success => return Self::Delivered,
            Verdict::Permanent(reason) => return Self::Dead(reason),
            Verdict::Retry(retry_after) => retry_after.unwrap_or_default(),
        };
        let Some(delay) = schedule.delay_after(number) else { return Self::Dead(Reason::Exhausted) };
        let next = finished_at + delay.max(retry_after);
        if next > deadline { Self::Dead(Reason::Expired) } else { Self::Retrying(next) }
    }

    /// What follows from the verdict on a test call: whatever the receiver said, it is not tried again.
    #[must_use]
    pub fn after_test(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Success => Self::Delivered,
            Verdict::Permanent(reason) => Self::Dead(reason),
            Verdict::Retry(_) => Self::Dead(Reason::Test),
        }
    }
}

/// One request of a delivery, as it is put on record and shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The day whose partition has it: that on which this attempt was first due (UTC).
    pub day: Date,
    /// The delivery; the `webhook-id` that was sent.
    pub delivery: DeliveryId,
    /// Which run through the schedule.
    pub round: Round,
    /// From 1 within the round.
    pub number: u32,
    /// Whose webhook it is.
    pub organization: OrganizationId,
    /// Where it went.
    pub webhook: WebhookId,
    /// The event's source.
    pub event_source: String,
    /// The event's id.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// When the request began.
    pub started_at: OffsetDateTime,
    /// Until the answer was read, or the failure.
    pub duration: Duration,
    /// What became of the request.
    pub outcome: Outcome,
    /// What the delivery is after it.
    pub state: State,
}

impl Attempt {
    /// What went wrong, in a sentence.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        match (&self.outcome, self.state) {
            (_, State::Delivered) => None,
            (Outcome::Failed { error, .. }, _) => Some(error.clone()),
            (Outcome::Answered(answer), _) => Some(match answer.status {
                // By the rules of a chat service.
                200..=299 => format!("the receiver answered {}, but not as one that took it", answer.status),
                status => format!("the receiver answered {status}"),
            }),
        }
    }

    /// The attempt without the answer's headers and body, as it goes with a dead letter.
    #[must_use]
    pub fn summary(&self) -> String {
        summary(self.number, self.started_at, self.duration, self.status(), self.error().as_deref())
    }

    /// The answer's HTTP status, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match &self.outcome {
            Outcome::Answered(answer) => Some(answer.status),
            Outcome::Failed { .. } => None,
        }
    }
}

/// An attempt in short, as JSON: what a dead letter shows of the last one.
#[must_use]
pub fn summary(
    number: u32,
    started_at: OffsetDateTime,
    duration: Duration,
    status: Option<u16>,
    error: Option<&str>,
) -> String {
    serde_json::json!({
        "number": number,
        "started_at": rfc3339(started_at),
        "duration_ms": duration_ms(duration),
        "status": status,
        "error": error,
    })
    .to_string()
}

/// Milliseconds with fractions, as the API shows durations.
#[must_use]
pub fn duration_ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

/// A time as the API shows it: RFC 3339 in UTC, with milliseconds.
#[must_use]
pub fn rfc3339(at: OffsetDateTime) -> String {
    const FORMAT: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    );
    at.to_offset(time::UtcOffset::UTC).format(FORMAT).unwrap_or_default()
}

impl Serialize for Attempt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let (next, reason) = match self.state {
            State::Delivered => (None, None),
            State::Retrying(at) => (Some(rfc3339(at)), None),
            State::Dead(reason) => (None, Some(reason)),
        };
        let answer = match &self.outcome {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Failed { .. } => None,
        };
        let mut out = serializer.serialize_struct("Attempt", 16)?;
        out.serialize_field("delivery_id", &self.delivery)?;
        out.serialize_field("round", &self.round)?;
        out.serialize_field("number", &self.number)?;
        out.serialize_field("webhook_id", &self.webhook)?;
        out.serialize_field("event_source", &self.event_source)?;
        out.serialize_field("event_id", &self.event_id)?;
        out.serialize_field("event_type", &self.event_type)?;
        out.serialize_field("started_at", &rfc3339(self.started_at))?;
        out.serialize_field("duration_ms", &duration_ms(self.duration))?;
        out.serialize_field("state", self.state.as_str())?;
        out.serialize_field("next_attempt_at", &next)?;
        out.serialize_field("reason", &reason)?;
        out.serialize_field("status", &self.status())?;
        out.serialize_field("error", &self.error())?;
        out.serialize_field("response_headers", &answer.map(Headers))?;
        out.serialize_field("response_body", &answer.map(|answer| String::from_utf8_lossy(&answer.body)))?;
        out.end()
    }
}

/// An answer's headers as pairs, in their order, a name as often as it came.
struct Headers<'a>(&'a Answer);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut pairs = serializer.serialize_seq(Some(self.0.headers.len()))?;
        for (name, value) in &self.0.headers {
            pairs.serialize_element(&(name, String::from_utf8_lossy(value)))?;
        }
        pairs.end()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-01-31 09:30:00 UTC);

    fn answer(status: u16, retry_after: Option<&str>) -> Answer {
        let headers = retry_after
            .map(|value| ("Retry-After".to_owned(), Bytes::copy_from_slice(value.as_bytes())))
            .into_iter()
            .collect();
        Answer { status, headers, body: Bytes::new() }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_at_most_six_hours() {
        let seconds = |status, text| answer(status, Some(text)).retry_after(NOW).map(|d| d.as_secs());
        assert_eq!(seconds(503, "120"), Some(120));
        assert_eq!(seconds(429, "Sat, 31 Jan 2026 09:31:30 GMT"), Some(90));
        assert_eq!(seconds(429, "Sat, 31 Jan 2026 09:00:00 GMT"), Some(0));
        assert_eq!(seconds(504, "999999999"), Some(6 * 3_600));
        assert_eq!(seconds(504, "99999999999999999999"), Some(6 * 3_600));
        assert_eq!(seconds(504, ""), None);
        assert_eq!(seconds(502, "soon"), None);
        assert_eq!(seconds(500, "120"), None);
        assert_eq!(answer(503, None).retry_after(NOW), None);
    }

    #[test]
    fn a_delivery_follows_its_schedule_and_then_is_dead() {
        let schedule = Schedule::new(vec![Duration::from_secs(5), Duration::from_secs(60)]).unwrap();
        let deadline = NOW + Duration::from_secs(100);
        let after = |verdict, number| State::after(verdict, number, NOW, &schedule, deadline);
        let in_seconds = |seconds| State::Retrying(NOW + Duration::from_secs(seconds));
        assert_eq!(after(Verdict::Success, 1), State::Delivered);
        assert_eq!(after(Verdict::Retry(None), 1), in_seconds(5));
        assert_eq!(after(Verdict::Retry(None), 2), in_seconds(60));
        assert_eq!(after(Verdict::Retry(None), 3), State::Dead(Reason::Exhausted));
        assert_eq!(after(Verdict::Retry(Some(Duration::from_secs(30))), 1), in_seconds(30));
        assert_eq!(after(Verdict::Retry(Some(Duration::from_secs(30))), 2), in_seconds(60));
        assert_eq!(after(Verdict::Retry(Some(Duration::from_secs(101))), 1), State::Dead(Reason::Expired));
        assert_eq!(after(Verdict::Permanent(Reason::Gone), 1), State::Dead(Reason::Gone));
    }

    #[test]
    fn statuses_are_judged_as_standard_webhooks_says() {
        let verdict = |status| Verdict::by_status(&Outcome::Answered(answer(status, None)), NOW);
        assert_eq!(verdict(200), Verdict::Success);
        assert_eq!(verdict(299), Verdict::Success);
        assert_eq!(verdict(301), Verdict::Retry(None));
        assert_eq!(verdict(400), Verdict::Retry(None));
        assert_eq!(verdict(410), Verdict::Permanent(Reason::Gone));
        assert_eq!(verdict(500), Verdict::Retry(None));
    }
}
