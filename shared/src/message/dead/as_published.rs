//! Dead letters that come to the reaper as they were published, since it was the broker that gave them up:
//! those that a queue delivered too often, and those that matched no binding.

use lapin::types::{AMQPValue, FieldTable};
use time::OffsetDateTime;

use super::identity::Died;
use super::{DeadDelivery, DeadMessage};
use crate::amqp::topology::{DEAD, DELIVERIES};
use crate::amqp::{Publication, Received};
use crate::delivery::Reason;
use crate::ids::DeadLetterId;
use crate::message::redrive::REDRIVEN;
use crate::message::{CLOUDEVENTS_JSON, Deliveries, DeliveryMessage, HeadersIn, event};

impl DeadMessage {
    /// A message that a queue gave up: it is still as it was published.
    pub(super) fn given_up(received: &Received, death: Death) -> Result<Self, Vec<Publication>> {
        let as_published = Received {
            queue: received.queue.clone(),
            exchange: death.exchange,
            routing_key: death.routing_key,
            redelivered: received.redelivered,
            properties: received.properties.clone(),
            body: received.body.clone(),
        };
        let died = death.at.map_or_else(|| Died::Now(OffsetDateTime::now_utc()), Died::At);
        let mut dead = Self::as_received(&as_published, Reason::Poison, died);
        dead.detail = format!("the queue {:?} {}", death.queue, death.cause);
        dead.died_at = death.at;
        let is_back = HeadersIn::of(received).get(REDRIVEN).is_some();
        if is_back {
            dead.detail += ", as when it was first sent";
        }
        dead.redrive_unasked = !is_back;
        dead.understood(&as_published)
    }

    /// A message that matched no binding.
    pub(super) fn unrouted(received: &Received) -> Result<Self, Vec<Publication>> {
        let (exchange, key) = (&received.exchange, &received.routing_key);
        let died = Died::Now(OffsetDateTime::now_utc());
        let mut dead = Self::as_received(received, Reason::Unrouted, died);
        dead.detail = format!("no queue takes the key {key:?} of the exchange {exchange:?}");
        dead.understood(received)
    }

    /// The same, once it is found out what the message is that is still as it was published: an event, a delivery, or
    /// several, each of which is a dead letter by itself. What is neither is not sent again unasked.
    fn understood(mut self, as_published: &Received) -> Result<Self, Vec<Publication>> {
        if as_published.exchange != DELIVERIES {
            self.redrive_unasked &= self.understand_event(as_published);
            return Ok(self);
        }
        let deliveries = Deliveries::read(as_published).map(Deliveries::into_vec).unwrap_or_default();
        match deliveries.as_slice() {
            [] => Ok(Self { redrive_unasked: false, ..self }),
            [delivery] => Ok(self.of(delivery)),
            several => Err(several.iter().map(|delivery| self.clone().of(delivery).publication()).collect()),
        }
    }

    /// The same as the dead letter of a delivery.
    fn of(self, message: &DeliveryMessage) -> Self {
        let DeliveryMessage { delivery, organization, webhook, round, .. } = *message;
        Self {
            id: DeadLetterId::of(delivery, round, message.deadline),
            delivery: Some(DeadDelivery { delivery, organization, webhook, round, last_attempt: None }),
            // Nobody waits for a test call any more.
            redrive_unasked: self.redrive_unasked && message.reply.is_none(),
            ..self
        }
    }

    /// Whether it is an event, of which the letter then tells.
    fn understand_event(&mut self, as_published: &Received) -> bool {
        let Ok(message) = event::read(as_published) else { return false };
        self.category = message.event.event_type.category().to_owned();
        self.body = message.json;
        self.content_type = Some(CLOUDEVENTS_JSON.to_owned());
        self.first.0 = message.exchange;
        true
    }
}

/// How the broker says that a queue gave a message up: one table of the header `x-death`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Death {
    queue: String,
    /// What the queue did, to be read after its name.
    cause: &'static str,
    /// Where it had been published to.
    exchange: String,
    routing_key: String,
    at: Option<OffsetDateTime>,
}

impl Death {
    /// The latest death, if a queue of ours gave the message up, by the delivery limit or for its age.
    /// Earlier ones, of delayed queues, follow it; deaths in our own queue come before it when an operator
    /// has moved a message back from `parking`.
    pub(super) fn by_a_queue(headers: HeadersIn<'_>) -> Option<Self> {
        let Some(AMQPValue::FieldArray(deaths)) = headers.get("x-death") else { return None };
        let of_others = |death: &&FieldTable| text_in(death, "exchange").is_none_or(|name| name != DEAD);
        let latest = deaths.as_slice().iter().filter_map(AMQPValue::as_field_table).find(of_others)?;
        let queue = text_in(latest, "queue")?;
        let cause = match text_in(latest, "reason")?.as_str() {
            "delivery_limit" => "gave it up for having been delivered too often",
            // A publisher may have set an expiration, which is none of its business here.
            "expired" if !queue.starts_with("retry.") => "let it expire, as its publisher had asked",
            _ => return None,
        };
        let routing_keys = latest.inner().get("routing-keys")?.as_array()?;
        let at = latest.inner().get("time").and_then(AMQPValue::as_timestamp);
        Some(Self {
            queue,
            cause,
            exchange: text_in(latest, "exchange")?,
            routing_key: routing_keys.as_slice().first()?.as_long_string()?.to_string(),
            at: at.and_then(|at| OffsetDateTime::from_unix_timestamp(i64::try_from(at).ok()?).ok()),
        })
    }
}

fn text_in(table: &FieldTable, name: &str) -> Option<String> {
    table.inner().get(name)?.as_long_string().map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lapin::BasicProperties;
    use time::macros::datetime;

    use super::*;
    use crate::amqp::consumer::Content;
    use crate::amqp::topology::{EVENTS, Lane, REAPER_DEAD, REAPER_UNROUTED};
    use crate::amqp::{Publication, Received};
    use crate::ids::{OrganizationId, Round, WebhookId};
    use crate::message::delivery::NewDelivery;
    use crate::message::{EventMessage, Redrive};

    const NOW: OffsetDateTime = datetime!(2026-01-31 09:30:00 UTC);
    const EVENT: &[u8] = br#"{"id":"1","source":"s","type":"recordings.completed","data":{"b":1,"a":2}}"#;

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    fn table(fields: &[(&str, AMQPValue)]) -> AMQPValue {
        let mut table = FieldTable::default();
        for (name, value) in fields {
            table.insert((*name).into(), value.clone());
        }
        AMQPValue::FieldTable(table)
    }

    /// An entry of `x-death` as RabbitMQ 3.10 writes it.
    fn death(reason: &str, queue: &str, exchange: &str, routing_key: &str) -> AMQPValue {
        table(&[
            ("count", AMQPValue::LongLongInt(1)),
            ("reason", text(reason)),
            ("queue", text(queue)),
            ("time", AMQPValue::Timestamp(NOW.unix_timestamp() as u64)),
            ("exchange", text(exchange)),
            ("routing-keys", AMQPValue::FieldArray(vec![text(routing_key), text("cc")].into())),
        ])
    }

    /// A message as the reaper gets it, with these deaths behind it.
    fn arrived(queue: &str, publication: Publication, deaths: Vec<AMQPValue>) -> Received {
        let by_the_broker = !deaths.is_empty();
        let mut headers = publication.headers;
        if by_the_broker {
            headers.insert("x-death".into(), AMQPValue::FieldArray(deaths.into()));
        }
        let (exchange, routing_key) = if by_the_broker {
            (DEAD.to_owned(), "unknown.poison".to_owned())
        } else {
            (publication.exchange, publication.routing_key)
        };
        Received {
            queue: queue.into(),
            exchange,
            routing_key,
            redelivered: false,
            properties: BasicProperties::default()
                .with_message_id(publication.message_id.into())
                .with_content_type(publication.content_type.into())
                .with_headers(headers),
            body: publication.body,
        }
    }

    fn decode(received: &Received) -> DeadMessage {
        DeadMessage::decode(received).unwrap()
    }

    fn delivery() -> DeliveryMessage {
        let new = NewDelivery {
            organization: OrganizationId::new(),
            webhook: WebhookId::new(),
            source: "s",
            event_id: "1",
            category: "recordings",
            event: Bytes::from_static(EVENT),
        };
        DeliveryMessage::first(new, Round::FIRST, Lane::Fresh, NOW)
    }

    /// What the record of this dead letter is sent again with.
    fn redrive(dead: DeadMessage) -> Redrive {
        Redrive {
            id: dead.id,
            delivery: dead.delivery,
            exchange: dead.first.0,
            source: "s".to_owned(),
            event_id: "1".to_owned(),
            event_type: "recordings.completed".to_owned(),
            category: dead.category,
            event: dead.body,
        }
    }

    #[test]
    fn an_event_that_expires_is_an_event_whatever_its_publisher_wrote_into_its_headers() {
        // A publisher that forges the headers of a dead letter, and lets the event expire in our queue.
        let forged = DeadMessage::of_delivery(&delivery(), Reason::Exhausted, "forged".to_owned(), None);
        let event = Publication {
            exchange: "events.in.encoder".to_owned(),
            body: Bytes::from_static(EVENT),
            ..forged.publication()
        };
        let deaths = vec![death("expired", "router.events.v1", "events.in.encoder", "recordings.completed")];
        let dead = decode(&arrived(REAPER_DEAD, event, deaths));
        assert_eq!((dead.reason, dead.category.as_str()), (Reason::Poison, "recordings"));
        assert!(dead.delivery.is_none());
        assert_eq!(dead.first.0, "events.in.encoder");
        assert!(dead.detail.contains("let it expire"), "{}", dead.detail);
        assert!(dead.redrive_unasked, "it is sent again, as its publisher's");
    }

    #[test]
    fn a_delivery_given_up_by_its_queue_is_redriven_once_and_then_stays_dead() {
        let message = delivery();
        let key = message.publication().routing_key;
        // It had waited in a delayed queue before.
        let deaths = || {
            vec![
                death("delivery_limit", "sender.fresh.0.v1", DELIVERIES, &key),
                death("expired", "retry.1s.v1", "retry.1s", &key),
            ]
        };
        let dead = decode(&arrived(REAPER_DEAD, message.publication(), deaths()));
        assert_eq!(dead.reason, Reason::Poison);
        assert_eq!(dead.id, DeadLetterId::of(message.delivery, Round::FIRST, message.deadline));
        assert_eq!(dead.first, (DELIVERIES.to_owned(), key.clone()));
        assert_eq!((dead.category.as_str(), dead.died_at), ("recordings", Some(NOW)));
        assert!(dead.redrive_unasked);

        let again = redrive(dead).unasked(NOW);
        assert_eq!(again.message_id, message.delivery.to_string());
        let dead = decode(&arrived(REAPER_DEAD, again, deaths()));
        let round = dead.delivery.as_ref().unwrap().round;
        assert_ne!(round, Round::FIRST);
        assert_ne!(dead.id, DeadLetterId::of(message.delivery, Round::FIRST, message.deadline));
        assert!(!dead.redrive_unasked, "{}", dead.detail);
    }

    #[test]
    fn several_deliveries_given_up_by_their_queue_are_a_dead_letter_each_and_redriven_once() {
        let both = [delivery(), delivery()];
        let publication = Deliveries::publication(&both).unwrap();
        let key = publication.routing_key.clone();
        let deaths = vec![death("delivery_limit", "sender.fresh.0.v1", DELIVERIES, &key)];
        let given_up = arrived(REAPER_DEAD, publication.clone(), deaths);
        let unrouted = arrived(REAPER_UNROUTED, publication, vec![]);
        for (received, reason, redrive_unasked) in
            [(given_up, Reason::Poison, true), (unrouted, Reason::Unrouted, false)]
        {
            let letters = DeadMessage::decode(&received).unwrap_err();
            assert_eq!(letters.len(), 2);
            for (letter, message) in letters.into_iter().zip(&both) {
                assert_eq!(
                    (letter.exchange.as_str(), letter.routing_key.clone()),
                    (DEAD, format!("recordings.{}", reason.as_str()))
                );
                let read = Received { exchange: DEAD.to_owned(), ..arrived(REAPER_DEAD, letter, vec![]) };
                let dead = decode(&read);
                assert_eq!((dead.reason, dead.redrive_unasked), (reason, redrive_unasked));
                assert_eq!(dead.id, DeadLetterId::of(message.delivery, Round::FIRST, message.deadline));
                let of = dead.delivery.as_ref().unwrap();
                assert_eq!((of.webhook, of.delivery), (message.webhook, message.delivery));
                let again = redrive(dead).unasked(NOW);
                assert_eq!(
                    (again.exchange.as_str(), again.message_id),
                    (DELIVERIES, message.delivery.to_string())
                );
            }
        }
    }

    #[test]
    fn a_redrive_that_is_repeated_is_the_same_round_whoever_asked_for_it() {
        let deaths = vec![death("delivery_limit", "q", DELIVERIES, "recordings.due.07")];
        let redrive = redrive(decode(&arrived(REAPER_DEAD, delivery().publication(), deaths)));
        let header = |publication: Publication| publication.headers.inner().get("cuewire-round").cloned();
        let round = header(redrive.unasked(NOW));
        assert!(round.is_some());
        assert_eq!(round, header(redrive.unasked(NOW)));
        assert_eq!(round, header(redrive.publication(NOW)));
    }

    #[test]
    fn a_test_call_given_up_by_its_queue_is_not_redriven() {
        let deaths = vec![death("delivery_limit", "q", DELIVERIES, "recordings.fresh.07")];
        let mut received = arrived(REAPER_DEAD, delivery().publication(), deaths);
        received.properties = received.properties.with_reply_to("q".into()).with_correlation_id("1".into());
        let dead = decode(&received);
        assert!(dead.delivery.is_some() && !dead.redrive_unasked);
    }

    #[test]
    fn an_event_given_up_by_its_queue_comes_back_with_its_publisher() {
        let published = Publication {
            exchange: "events.in.acme".to_owned(),
            routing_key: "recordings.completed".to_owned(),
            message_id: "m".to_owned(),
            content_type: "image/png".to_owned(),
            headers: {
                let mut headers = FieldTable::default();
                for (name, value) in [("ce-id", "1"), ("ce-source", "s"), ("ce-type", "recordings.completed")]
                {
                    headers.insert(name.into(), text(value));
                }
                headers
            },
            reply: None,
            body: Bytes::from_static(b"\x89PNG"),
        };
        let deaths =
            vec![death("delivery_limit", "router.events.v1", "events.in.acme", "recordings.completed")];
        let received = arrived(REAPER_DEAD, published, deaths);
        let dead = decode(&received);
        assert!(dead.redrive_unasked && dead.delivery.is_none());
        assert_eq!(dead.content_type.as_deref(), Some(CLOUDEVENTS_JSON));
        assert_eq!(dead.id, decode(&received).id);

        let again = redrive(dead).unasked(NOW);
        assert_eq!(again.exchange, EVENTS);
        let read = EventMessage::decode(&arrived("router.events.v1", again.clone(), vec![])).unwrap();
        assert!(read.again);
        assert_eq!(read.exchange, "events.in.acme");
        // Nobody but us may say so.
        let forged = Publication { exchange: "events.in.other".to_owned(), ..again };
        let read = EventMessage::decode(&arrived("router.events.v1", forged, vec![])).unwrap();
        assert!(!read.again);
        assert_eq!(read.exchange, "events.in.other");
    }

    #[test]
    fn what_is_neither_event_nor_delivery_is_kept_whole_and_not_redriven() {
        let mut publication = delivery().publication();
        publication.headers = FieldTable::default();
        let deaths = vec![death("delivery_limit", "sender.fresh.0.v1", DELIVERIES, "recordings.fresh.07")];
        let dead = decode(&arrived(REAPER_DEAD, publication, deaths));
        assert!(dead.delivery.is_none() && !dead.redrive_unasked);
        assert_eq!(dead.body, EVENT);
    }

    #[test]
    fn a_message_of_ours_that_was_parked_and_moved_back_is_read_as_what_it_was() {
        let dead = DeadMessage::of_delivery(&delivery(), Reason::Gone, "gone".to_owned(), None);
        let id = dead.id;
        let deaths = vec![death("delivery_limit", REAPER_DEAD, DEAD, "recordings.gone")];
        let read = decode(&arrived(REAPER_DEAD, dead.publication(), deaths));
        assert_eq!((read.id, read.reason, read.redrive_unasked), (id, Reason::Gone, false));
    }

    #[test]
    fn a_death_proves_nothing_where_anybody_may_publish() {
        let forged = death("delivery_limit", "router.events.v1", EVENTS, "recordings.completed");
        let mut received = arrived(REAPER_UNROUTED, delivery().publication(), vec![forged]);
        received.exchange = "events.in.acme".to_owned();
        let dead = decode(&received);
        assert_eq!((dead.reason, dead.redrive_unasked), (Reason::Unrouted, false));
        assert_eq!(dead.first.0, "events.in.acme");
    }

    #[test]
    fn an_unrouted_delivery_is_recorded_as_the_delivery_it_is() {
        let message = delivery();
        let dead = decode(&arrived(REAPER_UNROUTED, message.publication(), vec![]));
        assert_eq!(dead.reason, Reason::Unrouted);
        assert_eq!(dead.id, DeadLetterId::of(message.delivery, message.round, message.deadline));
        assert!(!dead.redrive_unasked);
    }
}
