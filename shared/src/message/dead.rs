//! A dead letter on its way to the reaper: the event or message, the reason, and a sentence. And the way
//! back: [`Redrive`], what a dead letter on record is sent again with.

use bytes::Bytes;
use lapin::types::{AMQPValue, FieldTable};
use time::OffsetDateTime;
use uuid::Uuid;

use super::delivery::NewDelivery;
use super::{
    CLOUDEVENTS_JSON, DeliveryMessage, EventMessage, HeadersIn, HeadersOut, dead_key, event, first_word,
};
use crate::amqp::consumer::Content;
use crate::amqp::topology::{DEAD, DELIVERIES, Lane, PARKING, REAPER_UNROUTED};
use crate::amqp::{Publication, Received};
use crate::delivery::Reason;
use crate::ids::{DeadLetterId, DeliveryId, OrganizationId, Round, WebhookId};

const REASON: &str = "cuewire-reason";
const DETAIL: &str = "cuewire-detail";
const ORGANIZATION: &str = "cuewire-organization";
const WEBHOOK: &str = "cuewire-webhook";
const DELIVERY: &str = "cuewire-delivery";
const ROUND: &str = "cuewire-round";
const LAST_ATTEMPT: &str = "cuewire-last-attempt";
const DIED_AT: &str = "cuewire-died-at";
pub(super) const FIRST_EXCHANGE: &str = "cuewire-first-exchange";
const FIRST_ROUTING_KEY: &str = "cuewire-first-routing-key";
const FIRST_HEADERS: &str = "cuewire-first-headers";
/// On what the reaper has sent again by itself: it does so once.
const REDRIVEN: &str = "cuewire-redriven";

/// The frame that carries a message's headers is bounded, and so is what we add to it.
const MAX_DETAIL_BYTES: usize = 2_048;
const MAX_FIRST_HEADERS_BYTES: usize = 16 * 1024;

/// Namespace of the ids that are computed from a message (a random UUID, fixed for ever).
const MESSAGE_NAMESPACE: Uuid = Uuid::from_u128(0x0c9e_52d7_41fa_4f0b_a6b3_7d18_e92c_5af4);

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
    pub redrive: bool,
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
            died_at: None,
            redrive: false,
        }
    }

    /// An event that nobody may have.
    #[must_use]
    pub fn of_event(message: &EventMessage, reason: Reason, detail: String) -> Self {
        let event_type = &message.event.event_type;
        Self {
            id: DeadLetterId::new(),
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
            redrive: false,
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
        Self {
            id: DeadLetterId::new(),
            reason,
            detail: String::new(),
            category: first_word(&received.routing_key).to_owned(),
            delivery: None,
            body: received.body.clone(),
            content_type: received.properties.content_type().as_ref().map(ToString::to_string),
            first: (received.exchange.clone(), received.routing_key.clone()),
            first_headers: headers.0.map(|table| headers_json(table, MAX_FIRST_HEADERS_BYTES)),
            died_at: None,
            redrive: false,
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
            died_at: headers.optional_time(DIED_AT)?,
            redrive: false,
        })
    }

    /// A message that a queue gave up for having been delivered too often: it is still as it was published.
    fn over_delivery_limit(received: &Received, death: Death) -> Self {
        let as_published = Received {
            queue: received.queue.clone(),
            exchange: death.exchange,
            routing_key: death.routing_key,
            redelivered: received.redelivered,
            properties: received.properties.clone(),
            body: received.body.clone(),
        };
        let mut dead = Self::as_received(&as_published, Reason::Poison);
        dead.detail = format!("the queue {:?} gave it up for having been delivered too often", death.queue);
        dead.died_at = death.at;
        let is_sendable = dead.understand(&as_published);
        let is_back = HeadersIn::of(received).get(REDRIVEN).is_some();
        if is_back {
            dead.detail += ", as when it was first sent";
        }
        dead.redrive = is_sendable && !is_back;
        dead
    }

    /// A message that matched no binding.
    fn unrouted(received: &Received) -> Self {
        let (exchange, key) = (&received.exchange, &received.routing_key);
        let mut dead = Self::as_received(received, Reason::Unrouted);
        dead.detail = format!("no queue takes the key {key:?} of the exchange {exchange:?}");
        dead.understand(received);
        dead
    }

    /// Finds out what a message is that is still as it was published: a delivery or an event. Whether it is
    /// one that can be sent again.
    fn understand(&mut self, as_published: &Received) -> bool {
        let is_sendable = if as_published.exchange == DELIVERIES {
            self.understand_delivery(as_published)
        } else {
            self.understand_event(as_published)
        };
        if self.delivery.is_none() {
            self.id = id_of_message(as_published, self.died_at).unwrap_or(self.id);
        }
        is_sendable
    }

    fn understand_delivery(&mut self, as_published: &Received) -> bool {
        let Ok(message) = DeliveryMessage::read(as_published) else { return false };
        let DeliveryMessage { delivery, organization, webhook, round, reply, .. } = message;
        self.id = DeadLetterId::of(delivery, round);
        self.delivery = Some(DeadDelivery { delivery, organization, webhook, round, last_attempt: None });
        // Nobody waits for a test call any more.
        reply.is_none()
    }

    fn understand_event(&mut self, as_published: &Received) -> bool {
        let Ok(message) = event::read(as_published) else { return false };
        self.category = message.event.event_type.category().to_owned();
        self.body = message.json;
        self.content_type = Some(CLOUDEVENTS_JSON.to_owned());
        self.first.0 = message.exchange;
        true
    }
}

impl Content for DeadMessage {
    /// Takes everything: what even the reaper cannot read is poison, recorded whole.
    fn decode(received: &Received) -> Result<Self, Box<Publication>> {
        let headers = HeadersIn::of(received);
        // Where anybody's message may arrive, its headers prove nothing.
        if &*received.queue == REAPER_UNROUTED && received.exchange != DEAD {
            return Ok(Self::unrouted(received));
        }
        if let Some(death) = Death::by_delivery_limit(headers) {
            return Ok(Self::over_delivery_limit(received, death));
        }
        let dead = match headers.optional_text(REASON) {
            Ok(Some(reason)) => Self::read(received, reason),
            Ok(None) => Err("a message without a reason".to_owned()),
            Err(error) => Err(error),
        };
        Ok(dead.unwrap_or_else(|detail| Self::poison(received, detail)))
    }
}

/// The id of the record of a message that has no id of ours, so that burying it twice makes one. None where
/// two messages could not be told apart.
fn id_of_message(as_published: &Received, died_at: Option<OffsetDateTime>) -> Option<DeadLetterId> {
    let Received { exchange, routing_key, properties, body, .. } = as_published;
    let message_id = properties.message_id().as_ref()?.as_str();
    let died_at = died_at.map_or(0, OffsetDateTime::unix_timestamp).to_be_bytes();
    let mut name =
        Vec::with_capacity(64 + exchange.len() + routing_key.len() + message_id.len() + body.len());
    for part in [&died_at, exchange.as_bytes(), routing_key.as_bytes(), message_id.as_bytes(), body] {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part);
    }
    Some(DeadLetterId(Uuid::new_v5(&MESSAGE_NAMESPACE, &name)))
}

/// How the broker says that a queue gave a message up: one table of the header `x-death`.
#[derive(Debug, PartialEq, Eq)]
struct Death {
    queue: String,
    /// Where it had been published to.
    exchange: String,
    routing_key: String,
    at: Option<OffsetDateTime>,
}

impl Death {
    /// The latest death, if it was by the delivery limit. Earlier ones, of delayed queues, follow it; deaths
    /// in our own queue come before it when an operator has moved a message back from `parking`.
    fn by_delivery_limit(headers: HeadersIn<'_>) -> Option<Self> {
        let Some(AMQPValue::FieldArray(deaths)) = headers.get("x-death") else { return None };
        let of_others = |death: &&FieldTable| text_in(death, "exchange").is_none_or(|name| name != DEAD);
        let latest = deaths.as_slice().iter().filter_map(AMQPValue::as_field_table).find(of_others)?;
        if text_in(latest, "reason")? != "delivery_limit" {
            return None;
        }
        let routing_keys = latest.inner().get("routing-keys")?.as_array()?;
        let at = latest.inner().get("time").and_then(AMQPValue::as_timestamp);
        Some(Self {
            queue: text_in(latest, "queue")?,
            exchange: text_in(latest, "exchange")?,
            routing_key: routing_keys.as_slice().first()?.as_long_string()?.to_string(),
            at: at.and_then(|at| OffsetDateTime::from_unix_timestamp(i64::try_from(at).ok()?).ok()),
        })
    }
}

fn text_in(table: &FieldTable, name: &str) -> Option<String> {
    table.inner().get(name)?.as_long_string().map(ToString::to_string)
}

/// A dead letter on record, as far as sending it again needs it.
#[derive(Debug, Clone)]
pub struct Redrive {
    /// Its id.
    pub id: DeadLetterId,
    /// The delivery; none: an event, which goes to the router.
    pub delivery: Option<DeadDelivery>,
    /// The exchange that it was first published to.
    pub exchange: String,
    /// The event's source.
    pub source: String,
    /// The event's id.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// The event's category.
    pub category: String,
    /// The event in structured JSON.
    pub event: Bytes,
}

impl Redrive {
    /// The message that sends it again because somebody asked for it: a delivery in this round.
    #[must_use]
    pub fn publication(&self, round: Round, now: OffsetDateTime) -> Publication {
        let Some(DeadDelivery { delivery, organization, webhook, .. }) = &self.delivery else {
            return EventMessage::again(&self.exchange, &self.event_type, self.event.clone());
        };
        let new = NewDelivery {
            organization: *organization,
            webhook: *webhook,
            source: &self.source,
            event_id: &self.event_id,
            category: &self.category,
            event: self.event.clone(),
        };
        let first = DeliveryMessage::first(new, round, Lane::Due, now);
        DeliveryMessage { delivery: *delivery, ..first }.publication()
    }

    /// The message that sends it again without being asked for. It bears a mark, by which it stays dead if
    /// the same message dies by the delivery limit again; and its round is computed, so that a repeat after
    /// a fault is the same work.
    #[must_use]
    pub fn unasked(&self, now: OffsetDateTime) -> Publication {
        let round = Round(Uuid::new_v5(&self.id.0, REDRIVEN.as_bytes()));
        let mut publication = self.publication(round, now);
        publication.headers = HeadersOut(publication.headers).text(REDRIVEN, self.id).0;
        publication
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
