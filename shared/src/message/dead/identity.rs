//! The id of a dead letter that is no delivery's: computed of the message, so that a message that is given up twice
//! (its batch was delivered again after a crash) is one letter.
//!
//! The broker gives a message no name of its own, so what tells two messages apart is all that their publisher said:
//! where to, the message's id and timestamp, its headers and its body. Two that agree in all of that are one letter if
//! they die on the same day: a repeat says nothing new, and one that comes again another day is kept again. What is
//! sent again has a message id computed of the letter that it comes from, and dies as a letter of its own.

use lapin::types::FieldTable;
use time::OffsetDateTime;
use uuid::Uuid;

use super::value_json;
use crate::amqp::Received;
use crate::delivery::Reason;
use crate::ids::DeadLetterId;
use crate::message::EventMessage;

/// Namespace of these ids (a random UUID, fixed for ever).
const NAMESPACE: Uuid = Uuid::from_u128(0x0c9e_52d7_41fa_4f0b_a6b3_7d18_e92c_5af4);

/// When a message died, as far as that tells it from others.
#[derive(Debug, Clone, Copy)]
pub(super) enum Died {
    /// By the broker's hand, which wrote it down.
    At(OffsetDateTime),
    /// By ours, which may do it again after a crash, and then a moment later.
    Now(OffsetDateTime),
}

impl Died {
    fn bytes(self) -> [u8; 8] {
        match self {
            Self::At(at) => at.unix_timestamp(),
            Self::Now(now) => i64::from(now.date().to_julian_day()),
        }
        .to_be_bytes()
    }
}

/// The id of the letter of a message as it was received.
pub(super) fn of_message(received: &Received, reason: Reason, died: Died) -> DeadLetterId {
    let Received { exchange, routing_key, properties, body, .. } = received;
    let message_id = properties.message_id().as_ref().map_or("", |id| id.as_str());
    let timestamp = properties.timestamp().unwrap_or_default().to_be_bytes();
    let content_type = properties.content_type().as_ref().map_or("", |text| text.as_str());
    let headers = properties.headers().as_ref().map(own_headers).unwrap_or_default();
    of_parts(&[
        reason.as_str().as_bytes(),
        &died.bytes(),
        exchange.as_bytes(),
        routing_key.as_bytes(),
        message_id.as_bytes(),
        &timestamp,
        content_type.as_bytes(),
        headers.as_bytes(),
        body,
    ])
}

/// The id of the letter of an event. It is told from others by all that it says: a correction under the same id
/// that is no better is a letter of its own.
pub(super) fn of_event(message: &EventMessage, reason: Reason, died: Died) -> DeadLetterId {
    let EventMessage { exchange, message_id, as_published, .. } = message;
    of_parts(&[
        reason.as_str().as_bytes(),
        &died.bytes(),
        exchange.as_bytes(),
        message_id.as_deref().unwrap_or_default().as_bytes(),
        as_published,
    ])
}

/// Headers without those that the broker writes, which count how often it has delivered the message.
fn own_headers(table: &FieldTable) -> String {
    let own = table.inner().iter().filter(|(name, _)| !name.as_str().starts_with("x-"));
    let members = own.map(|(name, value)| (name.to_string(), value_json(value)));
    serde_json::Value::Object(members.collect()).to_string()
}

/// Each part with its length before it, so that it does not matter where one ends and the next begins.
fn of_parts(parts: &[&[u8]]) -> DeadLetterId {
    let mut name = Vec::with_capacity(parts.iter().map(|part| 8 + part.len()).sum());
    for part in parts {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part);
    }
    DeadLetterId(Uuid::new_v5(&NAMESPACE, &name))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bytes::Bytes;
    use lapin::BasicProperties;
    use lapin::types::AMQPValue;
    use time::macros::datetime;

    use super::*;
    use crate::amqp::Publication;
    use crate::amqp::consumer::Content;
    use crate::amqp::topology::EVENTS;
    use crate::message::Redrive;

    const NOON: OffsetDateTime = datetime!(2026-01-31 12:00:00 UTC);

    fn received(body: &'static str, properties: BasicProperties) -> Received {
        Received {
            queue: "router.events.v1".into(),
            exchange: EVENTS.to_owned(),
            routing_key: "a.b".to_owned(),
            redelivered: false,
            properties,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    fn with_headers(headers: &[(&str, &str)]) -> BasicProperties {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), AMQPValue::LongString((*value).into()));
        }
        BasicProperties::default().with_headers(table)
    }

    #[test]
    fn a_message_that_is_delivered_again_is_the_same_letter() {
        let first = received("x", with_headers(&[("ce-id", "1")]));
        let id = of_message(&first, Reason::Poison, Died::Now(NOON));
        let headers = with_headers(&[("ce-id", "1"), ("x-delivery-count", "1")]);
        let again = Received { redelivered: true, ..received("x", headers) };
        let later = NOON + time::Duration::hours(1);
        assert_eq!(of_message(&again, Reason::Poison, Died::Now(later)), id);
    }

    #[test]
    fn messages_that_differ_in_anything_their_publisher_said_are_letters_of_their_own() {
        let properties = || with_headers(&[("ce-id", "1")]);
        let first = received("x", properties());
        let mut ids: Vec<DeadLetterId> = [
            received("x", properties()),
            received("y", properties()),
            received("x", BasicProperties::default()),
            received("x", with_headers(&[("ce-id", "2")])),
            received("x", properties().with_message_id("1".into())),
            received("x", properties().with_message_id("2".into())),
            received("x", properties().with_timestamp(1)),
            received("x", properties().with_content_type("1".into())),
            Received { routing_key: "a.c".to_owned(), ..received("x", properties()) },
            Received { exchange: "events.in.a".to_owned(), ..received("x", properties()) },
        ]
        .iter()
        .map(|received| of_message(received, Reason::Poison, Died::Now(NOON)))
        .collect();
        ids.push(of_message(&first, Reason::Unrouted, Died::Now(NOON)));
        ids.push(of_message(&first, Reason::Poison, Died::Now(NOON + time::Duration::DAY)));
        for second in 0..2 {
            ids.push(of_message(&first, Reason::Poison, Died::At(NOON + time::Duration::seconds(second))));
        }
        let distinct: HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    /// An event as the router reads it.
    fn event(message_id: Option<&str>, json: &'static str) -> EventMessage {
        let mut properties = BasicProperties::default();
        if let Some(id) = message_id {
            properties = properties.with_message_id(id.into());
        }
        EventMessage::decode(&received(json, properties)).unwrap()
    }

    #[test]
    fn an_event_that_is_routed_twice_is_one_letter_though_it_is_dated_anew_each_time() {
        let event = event(None, r#"{"id":"1","source":"s","type":"a.b"}"#);
        let id = |at| of_event(&event.dated(at), Reason::Rejected, Died::Now(at));
        assert_ne!(event.dated(NOON).json, event.dated(NOON + time::Duration::SECOND).json);
        assert_eq!(id(NOON), id(NOON + time::Duration::SECOND));
        assert_ne!(id(NOON), id(NOON + time::Duration::DAY));
    }

    #[test]
    fn a_correction_is_a_letter_of_its_own_and_so_is_another_message_with_an_id() {
        let right = r#"{"id":"1","source":"s","type":"a.b","data":1}"#;
        let wrong = r#"{"id":"1","source":"s","type":"a.b","data":2}"#;
        let ids = [event(None, right), event(None, wrong), event(Some("1"), right), event(Some("2"), right)]
            .map(|event| of_event(&event, Reason::Rejected, Died::Now(NOON)));
        let distinct: HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn an_event_that_is_redriven_and_rejected_again_is_a_letter_of_its_own_however_often_it_is_sent() {
        let letter = |event: &EventMessage| of_event(event, Reason::Rejected, Died::Now(NOON));
        let redriven = |id| {
            let redrive = Redrive {
                id,
                delivery: None,
                exchange: EVENTS.to_owned(),
                source: "s".to_owned(),
                event_id: "1".to_owned(),
                event_type: "a.b".to_owned(),
                category: "a".to_owned(),
                event: Bytes::from_static(br#"{"id":"1","source":"s","type":"a.b"}"#),
            };
            let Publication { message_id, headers, body, .. } = redrive.publication(NOON);
            let properties = BasicProperties::default().with_headers(headers);
            let received = Received { body, ..received("", properties.with_message_id(message_id.into())) };
            EventMessage::decode(&received).unwrap()
        };
        let first = letter(&event(None, r#"{"id":"1","source":"s","type":"a.b"}"#));
        let second = letter(&redriven(first));
        assert_ne!(second, first);
        assert_eq!(letter(&redriven(first)), second, "a redrive that is repeated after a crash");
        assert_ne!(letter(&redriven(second)), second);
    }
}
