//! A delivery on its way to a sender, from the router, a delayed queue or the API.
//!
//! It carries all that an attempt needs but the webhook's configuration; the body is the event in structured
//! JSON. How far the retry schedule has gone travels here, not in the database.

use bytes::Bytes;
use lapin::types::ShortString;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::{CLOUDEVENTS_JSON, HeadersIn, HeadersOut, first_word};
use crate::amqp::publisher::ReplyTo;
use crate::amqp::topology::{DELIVERIES, Lane, SHARDS, delivery_key, retry_exchange};
use crate::amqp::{Publication, Received};
use crate::db::attempts::AttemptKey;
use crate::ids::{DeliveryId, OrganizationId, Round, WebhookId};
use crate::retry::{DEADLINE, Tier};

const ORGANIZATION: &str = "cuewire-organization";
pub(super) const WEBHOOK: &str = "cuewire-webhook";
const ROUND: &str = "cuewire-round";
const NUMBER: &str = "cuewire-attempt";
const DUE: &str = "cuewire-due";
const DEADLINE_AT: &str = "cuewire-deadline";
const NOT_BEFORE: &str = "cuewire-not-before";
const PLACE_BY: &str = "cuewire-place-by";
const BEHIND_BREAKER_OF: &str = "cuewire-behind-breaker-of";
const MAY_BE_ON_RECORD: &str = "cuewire-may-be-on-record";

/// A delivery to be attempted.
#[derive(Debug, Clone)]
pub struct DeliveryMessage {
    /// Its id.
    pub delivery: DeliveryId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Where it goes.
    pub webhook: WebhookId,
    /// Which run through the schedule.
    pub round: Round,
    /// The attempt to be made, from 1.
    pub number: u32,
    /// When this attempt was first due. Parking does not change it, so that every copy of the attempt has
    /// the same, and with it the same partition of the log.
    pub due: OffsetDateTime,
    /// When the delivery is given up.
    pub deadline: OffsetDateTime,
    /// Not to be sent before this time.
    pub not_before: Option<OffsetDateTime>,
    /// The rate limit of its webhook, so many a second, that has given it a place, or let it through, before.
    pub place_by: Option<u32>,
    /// When the webhook was changed last, behind whose open breaker it waits.
    pub behind_breaker_of: Option<OffsetDateTime>,
    /// Whether this attempt may be on record, made by somebody who takes no step after it: the broker has delivered it
    /// before, or a sender has left it when it stopped.
    pub may_be_on_record: bool,
    /// The event's category.
    pub category: String,
    /// The lane it came by.
    pub lane: Lane,
    /// Who waits for the attempt: a test call, which goes past the gate and is never retried.
    pub reply: Option<ReplyTo>,
    /// The event in structured JSON.
    pub event: Bytes,
}

/// What names the event of a delivery, and where it goes: with which a round begins.
#[derive(Debug, Clone)]
pub struct NewDelivery<'a> {
    /// Whose it is.
    pub organization: OrganizationId,
    /// Where it goes.
    pub webhook: WebhookId,
    /// The event's source.
    pub source: &'a str,
    /// The event's id.
    pub event_id: &'a str,
    /// The event's category.
    pub category: &'a str,
    /// The event in structured JSON.
    pub event: Bytes,
}

impl DeliveryMessage {
    /// The first attempt of a round, due now.
    #[must_use]
    pub fn first(new: NewDelivery<'_>, round: Round, lane: Lane, now: OffsetDateTime) -> Self {
        Self {
            delivery: DeliveryId::of(new.organization, new.source, new.event_id, new.webhook),
            organization: new.organization,
            webhook: new.webhook,
            round,
            number: 1,
            due: now,
            deadline: now + DEADLINE,
            not_before: None,
            place_by: None,
            behind_breaker_of: None,
            may_be_on_record: false,
            category: new.category.to_owned(),
            lane,
            reply: None,
            event: new.event,
        }
    }

    /// Whether no sender has had it before: nothing can be on record of it.
    #[must_use]
    pub fn comes_straight_from_the_router(&self) -> bool {
        self.round == Round::FIRST && self.number == 1 && self.not_before.is_none() && !self.may_be_on_record
    }

    /// The day whose partition has this attempt's record.
    #[must_use]
    pub fn day(&self) -> Date {
        self.due.to_offset(time::UtcOffset::UTC).date()
    }

    /// What names this attempt on record.
    #[must_use]
    pub fn key(&self) -> AttemptKey {
        AttemptKey { day: self.day(), delivery: self.delivery, round: self.round, number: self.number }
    }

    /// The next attempt, due at `at`.
    #[must_use]
    pub fn next(mut self, at: OffsetDateTime) -> Self {
        self.number += 1;
        self.due = at;
        self.may_be_on_record = false;
        self.parked(at)
    }

    /// The same attempt, not before `at`.
    #[must_use]
    pub fn parked(self, at: OffsetDateTime) -> Self {
        Self { not_before: Some(at), place_by: None, behind_breaker_of: None, lane: Lane::Due, ..self }
    }

    /// The message for its lane.
    #[must_use]
    pub fn publication(&self) -> Publication {
        self.publication_to(DELIVERIES.to_owned())
    }

    /// The message that comes back to its lane after a wait in this tier.
    #[must_use]
    pub fn publication_after(&self, tier: Tier) -> Publication {
        self.publication_to(retry_exchange(tier))
    }

    fn publication_to(&self, exchange: String) -> Publication {
        let mut headers = HeadersOut::default()
            .text(ORGANIZATION, self.organization)
            .text(WEBHOOK, self.webhook)
            .number(NUMBER, i64::from(self.number))
            .time(DUE, self.due)
            .time(DEADLINE_AT, self.deadline);
        if self.round != Round::FIRST {
            headers = headers.text(ROUND, self.round);
        }
        if let Some(at) = self.not_before {
            headers = headers.time(NOT_BEFORE, at);
        }
        headers = headers.optional(PLACE_BY, self.place_by);
        if let Some(changed) = self.behind_breaker_of {
            headers = headers.time(BEHIND_BREAKER_OF, changed);
        }
        if self.may_be_on_record {
            headers = headers.text(MAY_BE_ON_RECORD, "true");
        }
        Publication {
            exchange,
            routing_key: delivery_key(&self.category, self.lane, shard_of(self.webhook)),
            message_id: self.delivery.to_string(),
            content_type: CLOUDEVENTS_JSON.to_owned(),
            headers: headers.0,
            reply: self.reply.clone(),
            body: self.event.clone(),
        }
    }
}

impl DeliveryMessage {
    /// Reads the message of one delivery; the error is a sentence.
    pub(super) fn read(received: &Received) -> Result<Self, String> {
        let id = received.properties.message_id().as_ref().map(ShortString::as_str);
        let delivery = id.and_then(|id| id.parse().ok()).ok_or("the message id is no delivery's")?;
        Self::read_as(received, delivery, HeadersIn::of(received).parsed(WEBHOOK)?)
    }

    /// Reads a message as that of this delivery.
    pub(super) fn read_as(
        received: &Received,
        delivery: DeliveryId,
        webhook: WebhookId,
    ) -> Result<Self, String> {
        let headers = HeadersIn::of(received);
        let properties = &received.properties;
        let reply = match (properties.reply_to(), properties.correlation_id()) {
            (Some(queue), Some(correlation_id)) => {
                Some(ReplyTo { queue: queue.to_string(), correlation_id: correlation_id.to_string() })
            }
            _ => None,
        };
        let number = headers.number(NUMBER)?;
        Ok(Self {
            delivery,
            organization: headers.parsed(ORGANIZATION)?,
            webhook,
            round: headers.optional_parsed(ROUND)?.unwrap_or(Round::FIRST),
            number: u32::try_from(number)
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| format!("the header `{NUMBER}` is {number}, and attempts count from 1"))?,
            due: headers.time(DUE)?,
            deadline: headers.time(DEADLINE_AT)?,
            not_before: headers.optional_time(NOT_BEFORE)?,
            place_by: headers.optional_parsed(PLACE_BY)?,
            behind_breaker_of: headers.optional_time(BEHIND_BREAKER_OF)?,
            may_be_on_record: headers.optional_text(MAY_BE_ON_RECORD)? == Some("true"),
            category: first_word(&received.routing_key).to_owned(),
            lane: lane_of(&received.routing_key).ok_or("the routing key names no lane")?,
            reply,
            event: received.body.clone(),
        })
    }
}

fn lane_of(routing_key: &str) -> Option<Lane> {
    let word = routing_key.split('.').nth(1)?;
    Lane::ALL.into_iter().find(|lane| lane.as_str() == word)
}

/// The shard of a webhook: the first eight bytes of UUIDv5 over its id, which spread evenly whatever made
/// the id.
#[must_use]
pub fn shard_of(webhook: WebhookId) -> u32 {
    let hash = Uuid::new_v5(&Uuid::nil(), webhook.0.as_bytes());
    (hash.as_u64_pair().0 % u64::from(SHARDS)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_spread_over_the_shards() {
        let mut counts = [0; SHARDS as usize];
        for _ in 0..64_000 {
            counts[shard_of(WebhookId::new()) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
