//! An event on its way to the router, as upstreams and the API publish it to `events`.
//!
//! CloudEvents over AMQP 0-9-1, for which there is no official binding: structured JSON
//! (`application/cloudevents+json`, `application/json`, or no content type), or binary mode with attributes
//! in headers named `ce-…`, `cloudEvents:…` or `cloudEvents_…`. As in the official bindings, a content type of
//! CloudEvents' own wins over such headers.

use std::borrow::Cow;

use bytes::Bytes;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use time::OffsetDateTime;
use uuid::Uuid;

use super::dead::FIRST_EXCHANGE;
use super::{CLOUDEVENTS_JSON, DeadMessage, HeadersIn, HeadersOut};
use crate::amqp::consumer::Content;
use crate::amqp::topology::EVENTS;
use crate::amqp::{Publication, Received};
use crate::delivery::{Reason, rfc3339};
use crate::event::{AttributeValue, Event, is_json, is_structured};

/// Set on events that are sent again on purpose, which are then not dropped as repeats.
const AGAIN: &str = "cuewire-again";
const PREFIXES: [&str; 3] = ["ce-", "cloudEvents:", "cloudEvents_"];

/// An event that was published.
#[derive(Debug, Clone)]
pub struct EventMessage {
    /// The event.
    pub event: Event,
    /// The event in structured JSON: the body as it came, or made of binary mode.
    pub json: Bytes,
    /// The exchange it was first published to, which tells the publisher and cannot be forged.
    pub exchange: String,
    /// Whether it was sent again on purpose.
    pub again: bool,
    /// The message's id, where its publisher gave it one.
    pub message_id: Option<String>,
    /// The event in structured JSON before it was [dated](Self::dated).
    pub as_published: Bytes,
}

impl EventMessage {
    /// The message that publishes an event to the router.
    #[must_use]
    pub fn publication(event: &Event, again: bool) -> Publication {
        let mut headers = HeadersOut::default();
        if again {
            headers = headers.text(AGAIN, "true");
        }
        Publication {
            exchange: EVENTS.to_owned(),
            routing_key: event.event_type.to_string(),
            message_id: Uuid::now_v7().to_string(),
            content_type: CLOUDEVENTS_JSON.to_owned(),
            headers: headers.0,
            reply: None,
            body: event.to_json(),
        }
    }

    /// The message that sends an event again on purpose: not dropped as a repeat, and judged by the rights
    /// of the publisher to whose exchange it was first published. Sent a second time after a fault it has the same
    /// `message_id`, by which it is told from the event as it was sent before.
    pub(super) fn again(
        first_exchange: &str,
        event_type: &str,
        message_id: Uuid,
        json: Bytes,
    ) -> Publication {
        let headers = HeadersOut::default().text(AGAIN, "true").text(FIRST_EXCHANGE, first_exchange);
        Publication {
            exchange: EVENTS.to_owned(),
            routing_key: event_type.to_owned(),
            message_id: message_id.to_string(),
            content_type: CLOUDEVENTS_JSON.to_owned(),
            headers: headers.0,
            reply: None,
            body: json,
        }
    }

    /// The event with a time: where its publisher gave none, the time at which it is routed, so that every
    /// delivery and every attempt says the same. Its data keeps its bytes.
    #[must_use]
    pub fn dated(&self, routed_at: OffsetDateTime) -> Cow<'_, Self> {
        if self.event.time.is_some() {
            return Cow::Borrowed(self);
        }
        let event = Event { time: Some(rfc3339(routed_at)), ..self.event.clone() };
        Cow::Owned(Self { json: event.to_json(), event, ..self.clone() })
    }

    /// The dead letter of an event that cannot be routed, or that cannot be logged.
    #[must_use]
    pub fn buried(&self, reason: Reason, detail: String) -> Publication {
        DeadMessage::of_event(self, reason, detail).publication()
    }
}

impl Content for EventMessage {
    fn decode(received: &Received) -> Result<Self, Vec<Publication>> {
        read(received).map_err(|detail| vec![DeadMessage::poison(received, detail).publication()])
    }
}

/// Reads a message of `events`, or of a publisher's exchange; the error is a sentence.
pub(super) fn read(received: &Received) -> Result<EventMessage, String> {
    let headers = HeadersIn::of(received);
    let content_type = received.properties.content_type().as_ref().map(ShortString::as_str);
    let is_structured = content_type.is_some_and(is_structured);
    let attributes = if is_structured { Vec::new() } else { binary_attributes(headers)? };
    let (event, json) = if !attributes.is_empty() {
        let event = Event::from_attributes(attributes, content_type, received.body.clone());
        let event = event.map_err(|error| error.to_string())?;
        let json = event.to_json();
        (event, json)
    } else if content_type.is_none_or(is_json) {
        let event = Event::from_json(&received.body).map_err(|error| error.to_string())?;
        (event, received.body.clone())
    } else {
        return Err(format!(
            "its content type is {:?} and it has no headers such as ce-id: send an event as {CLOUDEVENTS_JSON}, \
             or its attributes as ce- headers",
            content_type.unwrap_or_default()
        ));
    };
    // These headers are ours alone: a publisher's own exchange cannot set them.
    let ours = |header: &str| match received.exchange.as_str() {
        EVENTS => headers.optional_text(header),
        _ => Ok(None),
    };
    let again = ours(AGAIN)? == Some("true");
    let exchange = ours(FIRST_EXCHANGE)?.unwrap_or(&received.exchange).to_owned();
    let message_id = received.properties.message_id().as_ref().map(ToString::to_string);
    Ok(EventMessage { event, as_published: json.clone(), json, exchange, again, message_id })
}

/// Reads an event of a message that is on record, whose headers are told as JSON; the error is a sentence.
pub fn read_recorded(
    headers: &serde_json::Value,
    content_type: Option<&str>,
    body: Bytes,
) -> Result<Event, String> {
    let is_structured = content_type.is_some_and(is_structured);
    let headers = headers.as_object().into_iter().flatten().filter(|_| !is_structured);
    let mut attributes = Vec::new();
    for (header, value) in headers {
        let Some(name) = PREFIXES.iter().find_map(|prefix| header.strip_prefix(prefix)) else { continue };
        let number = || value.as_i64().and_then(|number| i32::try_from(number).ok());
        let value = match value {
            serde_json::Value::String(text) => AttributeValue::Text(text.clone()),
            serde_json::Value::Bool(truth) => AttributeValue::Boolean(*truth),
            _ => {
                AttributeValue::Integer(number().ok_or_else(|| format!("the header `{header}` is {value}"))?)
            }
        };
        attributes.push((name.to_owned(), value));
    }
    if attributes.is_empty() {
        Event::from_json(&body).map_err(|error| error.to_string())
    } else {
        Event::from_attributes(attributes, content_type, body).map_err(|error| error.to_string())
    }
}

/// An attribute's text among headers that are told as JSON.
pub(super) fn recorded_attribute<'a>(headers: &'a serde_json::Value, name: &str) -> Option<&'a str> {
    PREFIXES.iter().find_map(|prefix| headers.get(format!("{prefix}{name}"))?.as_str())
}

fn binary_attributes(headers: HeadersIn<'_>) -> Result<Vec<(String, AttributeValue)>, String> {
    let mut attributes = Vec::new();
    for (header, value) in headers.0.map(FieldTable::inner).into_iter().flatten() {
        let header = header.as_str();
        let Some(name) = PREFIXES.iter().find_map(|prefix| header.strip_prefix(prefix)) else { continue };
        attributes.push((name.to_owned(), attribute_value(header, value)?));
    }
    Ok(attributes)
}

fn attribute_value(header: &str, value: &AMQPValue) -> Result<AttributeValue, String> {
    let integer = match value {
        AMQPValue::LongString(text) => {
            let text = std::str::from_utf8(text.as_bytes());
            return text
                .map(|text| AttributeValue::Text(text.to_owned()))
                .map_err(|_| format!("the header `{header}` is not UTF-8"));
        }
        AMQPValue::ShortString(text) => return Ok(AttributeValue::Text(text.to_string())),
        AMQPValue::Boolean(truth) => return Ok(AttributeValue::Boolean(*truth)),
        AMQPValue::ShortShortInt(number) => i64::from(*number),
        AMQPValue::ShortShortUInt(number) => i64::from(*number),
        AMQPValue::ShortInt(number) => i64::from(*number),
        AMQPValue::ShortUInt(number) => i64::from(*number),
        AMQPValue::LongInt(number) => i64::from(*number),
        AMQPValue::LongUInt(number) => i64::from(*number),
        AMQPValue::LongLongInt(number) => *number,
        other => {
            return Err(format!(
                "the header `{header}` is of AMQP type {:?}, and an attribute is text, a whole number or a boolean",
                other.get_type()
            ));
        }
    };
    i32::try_from(integer)
        .map(AttributeValue::Integer)
        .map_err(|_| format!("the header `{header}` is {integer}, and a number has 32 bits"))
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;
    use serde_json::json;

    use super::*;

    const STRUCTURED: &[u8] = br#"{"id":"body","source":"s","type":"a.b","data":1}"#;

    fn received(content_type: &str) -> Received {
        let mut headers = FieldTable::default();
        for (name, value) in [("ce-id", "header"), ("ce-source", "s"), ("ce-type", "a.b")] {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        Received {
            queue: "router.events.v1".into(),
            exchange: EVENTS.to_owned(),
            routing_key: "a.b".to_owned(),
            redelivered: false,
            properties: BasicProperties::default()
                .with_content_type(content_type.into())
                .with_headers(headers),
            body: Bytes::from_static(STRUCTURED),
        }
    }

    #[test]
    fn the_content_type_of_a_structured_event_wins_over_attributes_in_headers() {
        for (content_type, id) in [
            ("application/cloudevents+json", "body"),
            ("Application/CloudEvents+JSON; charset=utf-8", "body"),
            ("application/json", "header"),
        ] {
            let message = read(&received(content_type)).unwrap();
            assert_eq!(message.event.id, id, "{content_type}");
            let headers = json!({"ce-id": "header", "ce-source": "s", "ce-type": "a.b"});
            let event = read_recorded(&headers, Some(content_type), Bytes::from_static(STRUCTURED)).unwrap();
            assert_eq!(event.id, id, "{content_type}");
        }
        let batch =
            Received { body: Bytes::from_static(b"[]"), ..received("application/cloudevents-batch+json") };
        assert!(read(&batch).is_err(), "a batch is no event, whatever its headers say");
    }
}
