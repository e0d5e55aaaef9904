//! A dead letter on its way to the reaper: the event or message, the reason, and a sentence.

mod as_published;
mod identity;
mod whose;

use bytes::Bytes;
use lapin::types::{AMQPValue, FieldTable};
use time::OffsetDateTime;

use super::{CLOUDEVENTS_JSON, DeliveryMessage, EventMessage, HeadersIn, HeadersOut, dead_key, first_word};
use crate::amqp::consumer::Content;
use crate::amqp::topology::{DEAD, PARKING, REAPER_UNROUTED};
use crate::amqp::{Publication, Received};
use crate::delivery::Reason;
use crate::ids::{DeadLetterId, DeliveryId, OrganizationId, Round, WebhookId};
use as_published::Death;
use identity::Died;
pub use whose::Claim;

const REASON: &str = "cuewire-reason";
const DETAIL: &str = "cuewire-detail";
const ORGANIZATION: &str = "cuewire-organization";
const WEBHOOK: &str = "cuewire-webhook";
const DELIVERY: &str = "cuewire-delivery";
const ROUND: &str = "cuewire-round";
const LAST_ATTEMPT: &str = "cuewire-last-attempt";
const DIED_AT: &str = "cuewire-died-at";
const REDRIVE_UNASKED: &str = "cuewire-redrive-unasked";
pub(super) const FIRST_EXCHANGE: &str = "cuewire-first-exchange";
const FIRST_ROUTING_KEY: &str = "cuewire-first-routing-key";
const FIRST_HEADERS: &str = "cuewire-first-headers";

/// The frame that carries a message's headers is bounded, and so is what we add to it.
const MAX_DETAIL_BYTES: usize = 2_048;
const MAX_FIRST_HEADERS_BYTES: usize = 16 * 1024;

/// What failed for good, or was not understood.
#[derive(Debug, Clone)]
pub struct DeadMessage {
    /// The id of its record: burying it twice makes one.
    pub id: DeadLetterId,
    /// Why.
    pub reason: Reason,
    /// What was wrong, in a sentence.
    pub detail: String,
    /// The event's category, `unknown` where it could not be told.
    pub category: String,
    /// The delivery that failed, if it was one.
    pub delivery: Option<DeadDelivery>,
    /// The body, whole.
    pub body: Bytes,
    /// The body's media type.
    pub content_type: Option<String>,
    /// Where it was first published to: exchange and routing key.
    pub first: (String, String),
    /// The headers of a message that was not understood, as a JSON object.
    pub first_headers: Option<String>,
    /// When it was given up, where that is known.
    pub died_at: Option<OffsetDateTime>,
    /// Whether it is to be sent again without being asked for: the broker gave it up for having been
    /// delivered too often, which is no proof against it, and that has not happened to it before.
    pub redrive_unasked: bool,
}

/// Which delivery failed.
#[derive(Debug, Clone)]
pub struct DeadDelivery {
    /// Its id.
    pub delivery: DeliveryId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Where it went.
    pub webhook: WebhookId,
    /// Which run through the schedule.
    pub round: Round,
    /// The last attempt, as JSON.
    pub last_attempt: Option<String>,
}

impl DeadMessage {
    /// A delivery that has failed for good.
    #[must_use]
    pub fn of_delivery(
        message: &DeliveryMessage,
        reason: Reason,
        detail: String,
        last_attempt: Option<String>,
    ) -> Self {
        let DeliveryMessage { delivery, organization, webhook, round, .. } = *message;
        let first = message.publication();
        Self {
            id: DeadLetterId::of(delivery, round, message.deadline),
            reason,
            detail,
            category: message.category.clone(),
            delivery: Some(DeadDelivery { delivery, organization, webhook, round, last_attempt }),
            body: message.event.clone(),
            content_type: Some(CLOUDEVENTS_JSON.to_owned()),
            first: (first.exchange, first.routing_key),
            first_headers: None,
            died_at: None,
            redrive_unasked: false,
        }
    }

    /// An event that nobody may have.
    #[must_use]
    pub fn of_event(message: &EventMessage, reason: Reason, detail: String) -> Self {
        let event_type = &message.event.event_type;
        Self {
            id: identity::of_event(message, reason, Died::Now(OffsetDateTime::now_utc())),
            reason,
            detail,
            category: event_type.category().to_owned(),
            delivery: None,
            body: message.json.clone(),
            content_type: Some(CLOUDEVENTS_JSON.to_owned()),
            // The exchange tells the publisher, by which the event is judged again when it is redriven.
            first: (message.exchange.clone(), event_type.to_string()),
            first_headers: None,
            died_at: None,
            redrive_unasked: false,
        }
    }

    /// A message that was not understood, whole.
    #[must_use]
    pub fn poison(received: &Received, detail: String) -> Self {
        let died = Died::Now(OffsetDateTime::now_utc());
        Self { detail, category: "unknown".to_owned(), ..Self::as_received(received, Reason::Poison, died) }
    }

    /// A message as it was received, whatever it is.
    fn as_received(received: &Received, reason: Reason, died: Died) -> Self {
        let headers = HeadersIn::of(received);
        Self {
            id: identity::of_message(received, reason, died),
            reason,
            detail: String::new(),
            category: first_word(&received.routing_key).to_owned(),
            delivery: None,
            body: received.body.clone(),
            content_type: received.properties.content_type().as_ref().map(ToString::to_string),
            first: (received.exchange.clone(), received.routing_key.clone()),
            first_headers: headers.0.map(|table| headers_json(table, MAX_FIRST_HEADERS_BYTES)),
            died_at: None,
            redrive_unasked: false,
        }
    }

    /// The message that takes it to the reaper.
    #[must_use]
    pub fn publication(self) -> Publication {
        let delivery = self.delivery.as_ref();
        let (exchange, routing_key) = &self.first;
        let headers = HeadersOut::default()
            .text(REASON, self.reason.as_str())
            .text(DETAIL, cut(self.detail, MAX_DETAIL_BYTES))
            .text(FIRST_EXCHANGE, exchange)
            .text(FIRST_ROUTING_KEY, routing_key)
            .time(DIED_AT, self.died_at.unwrap_or_else(OffsetDateTime::now_utc))
            .optional(REDRIVE_UNASKED, self.redrive_unasked.then_some(true))
            .optional(FIRST_HEADERS, self.first_headers)
            .optional(ORGANIZATION, delivery.map(|delivery| delivery.organization))
            .optional(WEBHOOK, delivery.map(|delivery| delivery.webhook))
            .optional(DELIVERY, delivery.map(|delivery| delivery.delivery))
            .optional(ROUND, delivery.map(|delivery| delivery.round))
            .optional(LAST_ATTEMPT, delivery.and_then(|delivery| delivery.last_attempt.as_ref()));
        Publication {
            exchange: DEAD.to_owned(),
            routing_key: dead_key(&self.category, self.reason),
            message_id: self.id.to_string(),
            content_type: self.content_type.unwrap_or_default(),
            headers: headers.0,
            reply: None,
            body: self.body,
        }
    }

    /// The message that leaves it to an operator, as one that can be moved back to `dead`.
    #[must_use]
    pub fn parked(self) -> Publication {
        Publication { exchange: PARKING.to_owned(), ..self.publication() }
    }

    /// Reads a message of ours from `dead`; the error is a sentence.
    fn read(received: &Received, reason: &str) -> Result<Self, String> {
        let headers = HeadersIn::of(received);
        let text = |name: &str| headers.optional_text(name).map(|text| text.map(str::to_owned));
        let delivery = match headers.optional_parsed(DELIVERY)? {
            None => None,
            Some(delivery) => Some(DeadDelivery {
                delivery,
                organization: headers.parsed(ORGANIZATION)?,
                webhook: headers.parsed(WEBHOOK)?,
                round: headers.parsed(ROUND)?,
                last_attempt: text(LAST_ATTEMPT)?,
            }),
        };
        let reason = Reason::parse(reason).ok_or_else(|| format!("the header `{REASON}` is {reason:?}"))?;
        let id = received.properties.message_id().as_ref().and_then(|id| id.as_str().parse().ok());
        let of_message = || identity::of_message(received, reason, Died::Now(OffsetDateTime::now_utc()));
        Ok(Self {
            // An operator who moves a message may lose its id.
            id: id.unwrap_or_else(of_message),
            reason,
            detail: text(DETAIL)?.unwrap_or_default(),
            category: first_word(&received.routing_key).to_owned(),
            delivery,
            body: received.body.clone(),
            content_type: received.properties.content_type().as_ref().map(ToString::to_string),
            first: (text(FIRST_EXCHANGE)?.unwrap_or_default(), text(FIRST_ROUTING_KEY)?.unwrap_or_default()),
            first_headers: text(FIRST_HEADERS)?,
            died_at: headers.optional_time(DIED_AT)?,
            redrive_unasked: headers.optional_text(REDRIVE_UNASKED)? == Some("true"),
        })
    }
}

impl Content for DeadMessage {
    /// Takes everything: what even the reaper cannot read is poison, recorded whole. A message of several deliveries
    /// becomes a message for each.
    fn decode(received: &Received) -> Result<Self, Vec<Publication>> {
        let headers = HeadersIn::of(received);
        // Where anybody's message may arrive, its headers prove nothing.
        if &*received.queue == REAPER_UNROUTED && received.exchange != DEAD {
            return Self::unrouted(received);
        }
        if let Some(death) = Death::by_a_queue(headers) {
            return Self::given_up(received, death);
        }
        let dead = match headers.optional_text(REASON) {
            Ok(Some(reason)) => Self::read(received, reason),
            Ok(None) => Err("a message without a reason".to_owned()),
            Err(error) => Err(error),
        };
        Ok(dead.unwrap_or_else(|detail| Self::poison(received, detail)))
    }
}

/// Headers as a JSON object, as far as they can be told as such: those that fit into `max_bytes`.
fn headers_json(table: &FieldTable, max_bytes: usize) -> String {
    let mut members = serde_json::Map::new();
    let mut left = max_bytes;
    for (name, value) in table.inner() {
        let value = value_json(value);
        // The quotes and the colon and comma between.
        let bytes = name.as_str().len() + value.to_string().len() + 6;
        if bytes <= left {
            left -= bytes;
            members.insert(name.to_string(), value);
        }
    }
    serde_json::Value::Object(members).to_string()
}

fn value_json(value: &AMQPValue) -> serde_json::Value {
    match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into(),
        AMQPValue::ShortString(text) => text.to_string().into(),
        AMQPValue::Boolean(truth) => (*truth).into(),
        AMQPValue::ShortShortInt(number) => (*number).into(),
        AMQPValue::ShortShortUInt(number) => (*number).into(),
        AMQPValue::ShortInt(number) => (*number).into(),
        AMQPValue::ShortUInt(number) => (*number).into(),
        AMQPValue::LongInt(number) => (*number).into(),
        AMQPValue::LongUInt(number) => (*number).into(),
        AMQPValue::LongLongInt(number) => (*number).into(),
        AMQPValue::Timestamp(number) => (*number).into(),
        AMQPValue::Float(number) => (*number).into(),
        AMQPValue::Double(number) => (*number).into(),
        AMQPValue::Void => serde_json::Value::Null,
        AMQPValue::FieldTable(table) => {
            let members = table.inner().iter().map(|(name, value)| (name.to_string(), value_json(value)));
            serde_json::Value::Object(members.collect())
        }
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(value_json).collect(),
        other => format!("{other:?}").into(),
    }
}

/// Cuts text to at most `max_bytes`, at a character's end.
fn cut(mut text: String, max_bytes: usize) -> String {
    if text.len() > max_bytes {
        text.truncate(text.floor_char_boundary(max_bytes));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_json_whatever_is_left_out() {
        let mut table = FieldTable::default();
        table.insert("large".into(), AMQPValue::LongString("x".repeat(100).into()));
        table.insert("none".into(), AMQPValue::Void);
        table.insert("number".into(), AMQPValue::Double(1.5));
        assert_eq!(headers_json(&table, 100), r#"{"none":null,"number":1.5}"#);
        let all: serde_json::Value = serde_json::from_str(&headers_json(&table, 1_000)).unwrap();
        assert_eq!(all["large"].as_str().map(str::len), Some(100));
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("aé".to_owned(), 2), "a…");
        assert_eq!(cut("aé".to_owned(), 3), "aé");
    }
}
