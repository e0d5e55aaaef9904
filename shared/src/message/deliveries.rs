//! What one message of `deliveries` holds: a delivery, or the first ones of an event to several webhooks.
//!
//! The webhooks that want an event, whose deliveries go by the same queue, get them by one message, so that a fan-out to
//! ten costs the broker little more than a single delivery. Whatever follows for one of them (a retry, a wait) travels
//! alone. The message is that of the first delivery; a header names the others, which differ in nothing but their ids.

use lapin::types::AMQPValue;

use super::delivery::shard_of;
use super::{DeadMessage, DeliveryMessage, HeadersIn};
use crate::amqp::consumer::Content;
use crate::amqp::{Publication, Received};
use crate::ids::{DeliveryId, WebhookId};

/// The others: `<webhook>/<delivery>`, with spaces between.
const ALSO: &str = "cuewire-also";

/// The deliveries of a message: at least one.
#[derive(Debug, Clone)]
pub struct Deliveries(Vec<DeliveryMessage>);

impl Deliveries {
    /// The most in one message. They share the place that the message takes up in its queue's prefetch, and all of them are
    /// looked up when the broker delivers it again; beyond this the broker's work for each is small already.
    pub const MOST: usize = 16;

    /// The webhooks whose deliveries may go together: by the queues that they go by, and no more than fit into a message.
    #[must_use]
    pub fn together(webhooks: &[WebhookId], sender_queues: u32) -> Vec<Vec<WebhookId>> {
        let mut by_queue = vec![Vec::new(); sender_queues.max(1) as usize];
        for webhook in webhooks {
            by_queue[(shard_of(*webhook) % sender_queues.max(1)) as usize].push(*webhook);
        }
        by_queue.iter().flat_map(|webhooks| webhooks.chunks(Self::MOST).map(<[_]>::to_vec)).collect()
    }

    /// The message that holds all of these. None when there is none.
    ///
    /// They are first deliveries of one event: only the first one's event, times and lane travel.
    #[must_use]
    pub fn publication(deliveries: &[DeliveryMessage]) -> Option<Publication> {
        let (first, others) = deliveries.split_first()?;
        let mut publication = first.publication();
        if !others.is_empty() {
            let name = |other: &DeliveryMessage| format!("{}/{}", other.webhook, other.delivery);
            let names: Vec<String> = others.iter().map(name).collect();
            publication.headers.insert(ALSO.into(), AMQPValue::LongString(names.join(" ").into()));
        }
        Some(publication)
    }

    /// The deliveries, in the order of their message.
    #[must_use]
    pub fn into_vec(self) -> Vec<DeliveryMessage> {
        self.0
    }

    /// Whether a message holds several.
    pub(super) fn are_several(received: &Received) -> bool {
        received.properties.headers().as_ref().is_some_and(|headers| headers.inner().contains_key(ALSO))
    }

    /// Reads a message of `deliveries`; the error is a sentence.
    fn read(received: &Received) -> Result<Self, String> {
        let first = DeliveryMessage::read(received)?;
        let mut deliveries = vec![first];
        if let Some(names) = HeadersIn::of(received).optional_text(ALSO)? {
            for name in names.split(' ') {
                let (webhook, delivery) =
                    parse(name).ok_or_else(|| format!("the header `{ALSO}` cannot be read: {name:?}"))?;
                deliveries.push(DeliveryMessage { webhook, delivery, ..deliveries[0].clone() });
            }
        }
        Ok(Self(deliveries))
    }
}

fn parse(name: &str) -> Option<(WebhookId, DeliveryId)> {
    let (webhook, delivery) = name.split_once('/')?;
    Some((webhook.parse().ok()?, delivery.parse().ok()?))
}

impl Content for Deliveries {
    fn decode(received: &Received) -> Result<Self, Box<Publication>> {
        Self::read(received).map_err(|detail| Box::new(DeadMessage::poison(received, detail).publication()))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lapin::BasicProperties;
    use time::macros::datetime;

    use super::*;
    use crate::amqp::topology::Lane;
    use crate::ids::{OrganizationId, Round};
    use crate::message::delivery::NewDelivery;

    fn deliveries(count: usize) -> Vec<DeliveryMessage> {
        let organization = OrganizationId::new();
        let delivery = |_| {
            let new = NewDelivery {
                organization,
                webhook: WebhookId::new(),
                source: "s",
                event_id: "1",
                category: "feeds",
                event: Bytes::from_static(b"{}"),
            };
            DeliveryMessage::first(new, Round::FIRST, Lane::Bulk, datetime!(2026-01-31 09:30:00.123 UTC))
        };
        (0..count).map(delivery).collect()
    }

    fn received(publication: Publication) -> Received {
        Received {
            queue: "q".into(),
            exchange: publication.exchange,
            routing_key: publication.routing_key,
            redelivered: false,
            properties: BasicProperties::default()
                .with_message_id(publication.message_id.into())
                .with_headers(publication.headers),
            body: publication.body,
        }
    }

    #[test]
    fn deliveries_are_read_from_their_message_as_they_were() {
        for count in [1, 2, Deliveries::MOST] {
            let sent = deliveries(count);
            let message = received(Deliveries::publication(&sent).unwrap());
            assert_eq!(Deliveries::are_several(&message), count > 1);
            let read = Deliveries::decode(&message).unwrap().into_vec();
            assert_eq!(format!("{read:?}"), format!("{sent:?}"));
        }
        assert!(Deliveries::publication(&[]).is_none());
    }

    #[test]
    fn a_message_whose_other_deliveries_cannot_be_read_is_poison_whole() {
        for names in ["", "a/b", &format!("{}", WebhookId::new())] {
            let mut publication = deliveries(1)[0].publication();
            publication.headers.insert(ALSO.into(), AMQPValue::LongString(names.into()));
            let dead = Deliveries::decode(&received(publication)).unwrap_err();
            assert_eq!(dead.routing_key, "unknown.poison", "{names:?}");
        }
    }

    #[test]
    fn webhooks_go_together_by_their_queue_and_in_messages_of_bounded_size() {
        let webhooks: Vec<WebhookId> = (0..100).map(|_| WebhookId::new()).collect();
        let together = Deliveries::together(&webhooks, 2);
        let queue = |webhook: &WebhookId| shard_of(*webhook) % 2;
        for group in &together {
            assert!((1..=Deliveries::MOST).contains(&group.len()));
            assert!(group.iter().all(|webhook| queue(webhook) == queue(&group[0])));
        }
        let mut all: Vec<WebhookId> = together.into_iter().flatten().collect();
        all.sort();
        let mut expected = webhooks;
        expected.sort();
        assert_eq!(all, expected);
    }
}
