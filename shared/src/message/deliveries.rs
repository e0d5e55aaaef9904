//! What one message of `deliveries` holds: a delivery, or the first ones of an event to several webhooks.
//!
//! The webhooks that want an event, whose deliveries go by the same queue, get them by one message, so that a fan-out
//! to ten costs the broker little more than a single delivery. Whatever follows for one of them (a retry, a wait)
//! travels alone. A header names the webhooks and deliveries, which have all else in common; it stands in the place
//! of that which names the one webhook, so that nobody who knows nothing of several takes the message for the first
//! one's.

use std::collections::BTreeMap;

use lapin::types::{AMQPValue, FieldTable};

use super::delivery::{WEBHOOK, shard_of};
use super::{DeadMessage, DeliveryMessage, HeadersIn};
use crate::amqp::consumer::Content;
use crate::amqp::{Publication, Received};
use crate::ids::{DeliveryId, WebhookId};

/// `<webhook>/<delivery>` of each, with spaces between.
const SEVERAL: &str = "cuewire-deliveries";

/// The deliveries of a message: at least one.
#[derive(Debug, Clone)]
pub struct Deliveries(Vec<DeliveryMessage>);

impl Deliveries {
    /// The most in one message. They share the place that the message takes up in its queue's prefetch, and all of
    /// them are looked up when the broker delivers it again; beyond this the broker's work for each is small already.
    pub const MOST: usize = 16;

    /// The webhooks whose deliveries may go together: by the queues that they go by, and no more than fit into a
    /// message.
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
        let first = deliveries.first()?;
        let mut publication = first.publication();
        if deliveries.len() > 1 {
            let name = |delivery: &DeliveryMessage| format!("{}/{}", delivery.webhook, delivery.delivery);
            let names: Vec<String> = deliveries.iter().map(name).collect();
            let others = publication.headers.inner().iter().filter(|(name, _)| name.as_str() != WEBHOOK);
            let mut headers: FieldTable =
                others.map(|(name, value)| (name.clone(), value.clone())).collect::<BTreeMap<_, _>>().into();
            headers.insert(SEVERAL.into(), AMQPValue::LongString(names.join(" ").into()));
            publication.headers = headers;
        }
        Some(publication)
    }

    /// The deliveries, in the order of their message.
    #[must_use]
    pub fn into_vec(self) -> Vec<DeliveryMessage> {
        self.0
    }

    /// Reads a message of `deliveries`; the error is a sentence.
    pub(super) fn read(received: &Received) -> Result<Self, String> {
        let Some(names) = HeadersIn::of(received).optional_text(SEVERAL)? else {
            return Ok(Self(vec![DeliveryMessage::read(received)?]));
        };
        let read = |name: &str| {
            let (webhook, delivery) =
                parse(name).ok_or_else(|| format!("the header `{SEVERAL}` cannot be read: {name:?}"))?;
            DeliveryMessage::read_as(received, delivery, webhook)
        };
        let deliveries = names.split(' ').take(Self::MOST + 1).map(read).collect::<Result<Vec<_>, _>>()?;
        if deliveries.len() > Self::MOST {
            return Err(format!("it holds more than {} deliveries", Self::MOST));
        }
        Ok(Self(deliveries))
    }
}

fn parse(name: &str) -> Option<(WebhookId, DeliveryId)> {
    let (webhook, delivery) = name.split_once('/')?;
    Some((webhook.parse().ok()?, delivery.parse().ok()?))
}

impl Content for Deliveries {
    fn decode(received: &Received) -> Result<Self, Vec<Publication>> {
        Self::read(received).map_err(|detail| vec![DeadMessage::poison(received, detail).publication()])
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
            let alone = DeliveryMessage::read(&message);
            assert_eq!(alone.is_ok(), count == 1, "several are not read as one: {alone:?}");
            let read = Deliveries::decode(&message).unwrap().into_vec();
            assert_eq!(format!("{read:?}"), format!("{sent:?}"));
        }
        assert!(Deliveries::publication(&[]).is_none());
    }

    #[test]
    fn a_message_whose_deliveries_cannot_be_read_is_poison_whole() {
        let one = format!("{}/{}", WebhookId::new(), DeliveryId::new());
        for names in ["", "a/b", &one[..36], &[one.as_str(); Deliveries::MOST + 1].join(" ")] {
            let mut publication = deliveries(1)[0].publication();
            publication.headers.insert(SEVERAL.into(), AMQPValue::LongString(names.into()));
            let dead = Deliveries::decode(&received(publication)).unwrap_err();
            assert_eq!(dead.len(), 1);
            assert_eq!(dead[0].routing_key, "unknown.poison", "{names:?}");
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
