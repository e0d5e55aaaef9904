//! How deliveries look on the wire: one file a format, each with the same anatomy.
//!
//! A format makes a request of an event ([`Format::prepare`]) and a verdict of an outcome
//! ([`Format::judge`]). It does not send, and knows nothing of queues or the database.

mod cloudevents;
mod standard;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::delivery::{Outcome, Verdict};
use crate::event::Event;
use crate::ids::{DeliveryId, OrganizationId};
use crate::retry::Schedule;
use crate::signature::{self, Secret};

/// How a webhook's deliveries look: envelope, headers, signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Cuewire's own envelope with Standard Webhooks headers.
    #[default]
    Standard,
    /// A CloudEvent in structured JSON, or in binary mode where its data is binary.
    Cloudevents,
    Slack,
    GoogleChat,
    Teams,
    Millicast,
    Aioz,
    Iconik,
    Quortex,
    Omegastream,
}

/// What a format makes a request of.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The event.
    pub event: &'a Event,
    /// Whose webhook it is.
    pub organization: OrganizationId,
    /// The delivery.
    pub delivery: DeliveryId,
    /// The webhook's valid secrets, the newest first.
    pub secrets: &'a [Secret],
    /// When the request is sent.
    pub now: OffsetDateTime,
}

/// A POST, but for the webhook's URL and its own headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Header names, in lower case, and values.
    pub headers: Vec<(&'static str, String)>,
    /// Headers whose names come from the event, in lower case.
    pub event_headers: Vec<(String, String)>,
    /// The body, of known length.
    pub body: Bytes,
}

/// The event lacks what the format needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event has no `{attribute}`, which the webhook's format needs")]
pub struct Lacks {
    /// The attribute's name.
    pub attribute: String,
}

impl Format {
    /// All formats, in the order in which they are shown.
    pub const ALL: [Self; 10] = [
        Self::Standard,
        Self::Cloudevents,
        Self::Slack,
        Self::GoogleChat,
        Self::Teams,
        Self::Millicast,
        Self::Aioz,
        Self::Iconik,
        Self::Quortex,
        Self::Omegastream,
    ];

    /// As it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Cloudevents => "cloudevents",
            Self::Slack => "slack",
            Self::GoogleChat => "google_chat",
            Self::Teams => "teams",
            Self::Millicast => "millicast",
            Self::Aioz => "aioz",
            Self::Iconik => "iconik",
            Self::Quortex => "quortex",
            Self::Omegastream => "omegastream",
        }
    }

    /// The format of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }

    /// The retry schedule of webhooks that set none.
    #[must_use]
    pub fn default_schedule(self) -> Schedule {
        match self {
            _ => Schedule::default(),
        }
    }

    /// Makes the request.
    pub fn prepare(self, outgoing: &Outgoing<'_>) -> Result<Request, Lacks> {
        match self {
            Self::Standard => standard::prepare(outgoing),
            _ => standard::prepare(outgoing),
            Self::Cloudevents => cloudevents::prepare(outgoing),
        }
    }

    /// Judges what became of it.
    #[must_use]
    pub fn judge(self, outcome: &Outcome, now: OffsetDateTime) -> Verdict {
        match self {
            _ => Verdict::by_status(outcome, now),
        }
    }
}

/// The three headers of Standard Webhooks over this body.
fn standard_webhooks_headers(outgoing: &Outgoing<'_>, body: &[u8]) -> [(&'static str, String); 3] {
    let id = outgoing.delivery.to_string();
    let timestamp = outgoing.now.unix_timestamp();
    let signature = signature::sign(outgoing.secrets, &id, timestamp, body);
    [("webhook-id", id), ("webhook-timestamp", timestamp.to_string()), ("webhook-signature", signature)]
}
