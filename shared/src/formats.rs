//! How deliveries look on the wire: one file a format, each with the same anatomy.
//!
//! A format makes a request of an event ([`Format::prepare`]) and a verdict of an outcome
//! ([`Format::judge`]), and has its rules for retries and signatures. It does not send, and knows nothing of
//! queues or the database. The formats of platforms send the fields that the platform documents and no
//! others; where an event lacks one of them, it cannot be sent ([`Unsendable`]). The three chat formats say
//! the same (`notice`) in three services' ways.

mod aioz;
mod cloudevents;
#[cfg(test)]
mod conformance;
mod fit;
#[cfg(test)]
mod golden;
mod google_chat;
mod iconik;
mod millicast;
mod notice;
pub mod omegastream;
mod parts;
mod quortex;
mod slack;
mod standard;
mod teams;

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::delivery::{Outcome, Verdict};
use crate::event::Event;
use crate::ids::{DeliveryId, OrganizationId, WebhookId};
use crate::retry::Schedule;
use crate::signature::Secret;

/// How a webhook's deliveries look: envelope, headers, signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Cuewire's own envelope with Standard Webhooks headers.
    #[default]
    Standard,
    /// A CloudEvent in structured JSON, or in binary mode where its data is binary.
    Cloudevents,
    /// A message for a channel of Slack.
    Slack,
    /// A message for a space of Google Chat.
    GoogleChat,
    /// A message for a channel of Microsoft Teams.
    Teams,
    /// As Dolby.io Streaming (Millicast) sends it.
    Millicast,
    /// As AIOZ Stream sends it.
    Aioz,
    /// As iconik sends it.
    Iconik,
    /// As Quortex I/O sends it, in its type `raw`.
    Quortex,
    /// As Omegastream sends it.
    Omegastream,
}

/// What a format makes a request of.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The event.
    pub event: &'a Event,
    /// Whose webhook it is.
    pub owner: &'a Owner,
    /// The webhook.
    pub webhook: WebhookId,
    /// The delivery.
    pub delivery: DeliveryId,
    /// The webhook's valid secrets, the newest first.
    pub secrets: &'a [Secret],
    /// When the request is sent.
    pub now: OffsetDateTime,
}

/// The organization whose webhook it is, as deliveries name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its id.
    pub id: OrganizationId,
    /// Its name.
    pub name: String,
    /// Its name in the upstream platform.
    pub external_id: Option<String>,
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

/// Why there is nothing to send, in a sentence that names what is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// The event has no such attribute, or it is empty.
    #[error("the event has no `{0}`, which the webhook's format needs")]
    Lacks(&'static str),
    /// It has it, in another form than the format can carry.
    #[error("the event's `{attribute}` is not {needed}, which the webhook's format needs")]
    IsNot {
        /// The attribute's name.
        attribute: &'static str,
        /// What it has to be.
        needed: &'static str,
    },
    /// None of the webhook's secrets is of the kind that the format signs with.
    #[error("the webhook has no secret that its format can sign with")]
    NoSecret,
}

/// What tells one format from another; each file of this folder has one.
struct Rules {
    /// As it is stored and shown.
    name: &'static str,
    retries: Retries,
    signing: Signing,
    /// Attempts a second that the service takes, unless the webhook says otherwise.
    rate_limit: Option<u32>,
    prepare: fn(&Outgoing<'_>) -> Result<Request, Unsendable>,
    judge: fn(&Outcome, OffsetDateTime) -> Verdict,
}

/// Who says when a delivery is tried again.
enum Retries {
    /// The webhook; unless it does, Cuewire's default schedule holds.
    AsTheWebhookSays,
    /// The platform: neither the webhook nor a receiver's `Retry-After` changes it.
    Fixed(&'static [Duration]),
}

/// How a format's deliveries are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signing {
    /// By Standard Webhooks: a signature of every valid secret, by either scheme.
    StandardWebhooks,
    /// One signature alone, by HMAC, so that an earlier secret cannot sign beside its successor.
    SingleHmac,
    /// Not at all: the webhook's URL is the secret, and the service verifies nothing.
    None,
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

    fn rules(self) -> &'static Rules {
        match self {
            Self::Standard => &standard::RULES,
            Self::Cloudevents => &cloudevents::RULES,
            Self::Slack => &slack::RULES,
            Self::GoogleChat => &google_chat::RULES,
            Self::Teams => &teams::RULES,
            Self::Millicast => &millicast::RULES,
            Self::Aioz => &aioz::RULES,
            Self::Iconik => &iconik::RULES,
            Self::Quortex => &quortex::RULES,
            Self::Omegastream => &omegastream::RULES,
        }
    }

    /// As it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.rules().name
    }

    /// The format of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }

    /// The platform's retry schedule, which a webhook cannot change, where it has one.
    #[must_use]
    pub fn fixed_schedule(self) -> Option<Schedule> {
        match self.rules().retries {
            Retries::AsTheWebhookSays => None,
            Retries::Fixed(delays) => Some(Schedule::fixed(delays)),
        }
    }

    /// The attempts a second that its service takes, where that is known.
    #[must_use]
    pub fn rate_limit(self) -> Option<u32> {
        self.rules().rate_limit
    }

    /// How its deliveries are signed.
    #[must_use]
    pub fn signing(self) -> Signing {
        self.rules().signing
    }

    /// Makes the request.
    pub fn prepare(self, outgoing: &Outgoing<'_>) -> Result<Request, Unsendable> {
        (self.rules().prepare)(outgoing)
    }

    /// Whether it can carry the event: prepares it once, for nobody.
    pub fn can_carry(self, event: &Event) -> Result<(), Unsendable> {
        let owner = Owner { id: OrganizationId(Uuid::nil()), name: String::new(), external_id: None };
        let outgoing = Outgoing {
            event,
            owner: &owner,
            webhook: WebhookId(Uuid::nil()),
            delivery: DeliveryId(Uuid::nil()),
            secrets: &[Secret::generate(crate::signature::Scheme::V1)],
            now: OffsetDateTime::UNIX_EPOCH,
        };
        self.prepare(&outgoing).map(drop)
    }

    /// Judges what became of it.
    #[must_use]
    pub fn judge(self, outcome: &Outcome, now: OffsetDateTime) -> Verdict {
        (self.rules().judge)(outcome, now)
    }
}

impl Owner {
    /// What platforms call it: its name in the upstream platform where it has one, else its id.
    #[must_use]
    pub fn upstream_id(&self) -> String {
        self.external_id.clone().unwrap_or_else(|| self.id.to_string())
    }
}
