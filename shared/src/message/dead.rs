//! A dead letter on its way to the reaper: the event or message, the reason, and a sentence.

use bytes::Bytes;
use lapin::types::{AMQPValue, FieldTable};

use super::{CLOUDEVENTS_JSON, DeliveryMessage, HeadersIn, HeadersOut, dead_key, first_word};
use crate::amqp::consumer::Content;
use crate::amqp::topology::{DEAD, EVENTS, REAPER_UNROUTED};
use crate::amqp::{Publication, Received};
use crate::delivery::Reason;
use crate::event::Event;
use crate::ids::{DeadLetterId, DeliveryId, OrganizationId, Round, WebhookId};

const REASON: &str = "cuewire-reason";
const DETAIL: &str = "cuewire-detail";
const ORGANIZATION: &str = "cuewire-organization";
const WEBHOOK: &str = "cuewire-webhook";
const DELIVERY: &str = "cuewire-delivery";
const ROUND: &str = "cuewire-round";
const LAST_ATTEMPT: &str = "cuewire-last-attempt";
const FIRST_EXCHANGE: &str = "cuewire-first-exchange";
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
    /// Whether the broker gave it up for having been delivered too often, which is no proof against it.
    pub over_delivery_limit: bool,
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
            id: DeadLetterId::of(delivery, round),
            reason,
            detail,
            category: message.category.clone(),
            delivery: Some(DeadDelivery { delivery, organization, webhook, round, last_attempt }),
            body: message.event.clone(),
            content_type: Some(CLOUDEVENTS_JSON.to_owned()),
            first: (first.exchange, first.routing_key),
            first_headers: None,
            over_delivery_limit: false,
        }
    }

    /// An event that nobody may have.
    #[must_use]
    pub fn of_event(event: &Event, json: Bytes, reason: Reason, detail: String) -> Self {
        Self {
            id: DeadLetterId::new(),
            reason,
            detail,
            category: event.event_type.category().to_owned(),
            delivery: None,
            body: json,
            content_type: Some(CLOUDEVENTS_JSON.to_owned()),
            first: (EVENTS.to_owned(), event.event_type.to_string()),
            first_headers: None,
            over_delivery_limit: false,
        }
    }

    /// A message that was not understood, whole.
    #[must_use]
    pub fn poison(received: &Received, detail: String) -> Self {
        Self { detail, category: "unknown".to_owned(), ..Self::as_received(received, Reason::Poison) }
    }

    /// A message as it was received, whatever it is.
    fn as_received(received: &Received, reason: Reason) -> Self {
        let headers = HeadersIn::of(received);
        let id = received.properties.message_id().as_ref().map(|id| id.as_str());
        Self {
            // A message of ours keeps its id over redelivery; any other gets one here.
            id: id.and_then(|id| id.parse().ok()).filter(|_| reason == Reason::Unrouted).unwrap_or_default(),
            reason,
            detail: String::new(),
            category: first_word(&received.routing_key).to_owned(),
            delivery: None,
            body: received.body.clone(),
            content_type: received.properties.content_type().as_ref().map(ToString::to_string),
            first: (received.exchange.clone(), received.routing_key.clone()),
            first_headers: headers.0.map(|table| headers_json(table).to_string()),
            over_delivery_limit: false,
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
            .optional(FIRST_HEADERS, self.first_headers.map(|json| cut(json, MAX_FIRST_HEADERS_BYTES)))
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
        let id = received.properties.message_id().as_ref().map(|id| id.as_str());
        Ok(Self {
            id: id.and_then(|id| id.parse().ok()).unwrap_or_default(),
            reason: Reason::parse(reason).ok_or_else(|| format!("the header `{REASON}` is {reason:?}"))?,
            detail: text(DETAIL)?.unwrap_or_default(),
            category: first_word(&received.routing_key).to_owned(),
            delivery,
            body: received.body.clone(),
            content_type: received.properties.content_type().as_ref().map(ToString::to_string),
            first: (text(FIRST_EXCHANGE)?.unwrap_or_default(), text(FIRST_ROUTING_KEY)?.unwrap_or_default()),
            first_headers: text(FIRST_HEADERS)?,
            over_delivery_limit: false,
        })
    }

    /// A message that a queue gave up for having been delivered too often: it is still as it was published.
    fn over_delivery_limit(received: &Received, first: (String, String)) -> Self {
        let mut dead = Self::as_received(received, Reason::Poison);
        dead.category = first_word(&first.1).to_owned();
        dead.detail = format!("delivered too often by the broker from {:?}", first.0);
        dead.first = first;
        dead.over_delivery_limit = true;
        dead
    }

    /// A message that matched no binding.
    fn unrouted(received: &Received) -> Self {
        let (exchange, key) = (&received.exchange, &received.routing_key);
        let mut dead = Self::as_received(received, Reason::Unrouted);
        dead.detail = format!("no queue takes the key {key:?} of the exchange {exchange:?}");
        dead
    }
}

impl Content for DeadMessage {
    /// Takes everything: what even the reaper cannot read is poison, recorded whole.
    fn decode(received: &Received) -> Result<Self, Box<Publication>> {
        let headers = HeadersIn::of(received);
        let dead = if &*received.queue == REAPER_UNROUTED {
            Ok(Self::unrouted(received))
        } else if let Some(first) = first_death(headers) {
            Ok(Self::over_delivery_limit(received, first))
        } else {
            match headers.optional_text(REASON) {
                Ok(Some(reason)) => Self::read(received, reason),
                Ok(None) => Err("a message without a reason".to_owned()),
                Err(error) => Err(error),
            }
        };
        let mut dead = dead.unwrap_or_else(|detail| Self::poison(received, detail));
        dead.name_delivery(received);
        Ok(dead)
    }
}

impl DeadMessage {
    /// A message that came as it was published, by the delivery limit or unrouted, may be a delivery.
    fn name_delivery(&mut self, received: &Received) {
        if self.delivery.is_some() || self.first.0 == EVENTS {
            return;
        }
        let as_published = Received {
            queue: received.queue.clone(),
            exchange: self.first.0.clone(),
            routing_key: self.first.1.clone(),
            redelivered: received.redelivered,
            properties: received.properties.clone(),
            body: received.body.clone(),
        };
        if let Ok(message) = DeliveryMessage::read(&as_published) {
            let DeliveryMessage { delivery, organization, webhook, round, .. } = message;
            self.id = DeadLetterId::of(delivery, round);
            self.delivery = Some(DeadDelivery { delivery, organization, webhook, round, last_attempt: None });
        }
    }
}

/// Where a message was first published, if a queue of ours gave it up by the delivery limit: the broker
/// writes it into `x-death`, the latest death first.
fn first_death(headers: HeadersIn<'_>) -> Option<(String, String)> {
    let Some(AMQPValue::FieldArray(deaths)) = headers.get("x-death") else { return None };
    let field = |death: &FieldTable, name: &str| match death.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::FieldArray(texts) => match texts.as_slice().first()? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            _ => None,
        },
        _ => None,
    };
    deaths.as_slice().iter().find_map(|death| match death {
        AMQPValue::FieldTable(death) if field(death, "reason").as_deref() == Some("delivery_limit") => {
            Some((field(death, "exchange")?, field(death, "routing-keys")?))
        }
        _ => None,
    })
}

/// Headers as JSON, as far as they can be told as such.
fn headers_json(table: &FieldTable) -> serde_json::Value {
    let members = table.inner().iter().map(|(name, value)| (name.to_string(), value_json(value)));
    serde_json::Value::Object(members.collect())
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
        AMQPValue::FieldTable(table) => headers_json(table),
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
