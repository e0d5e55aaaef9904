//! Deliveries that wait in a delayed queue, for longer than the benchmark lasts: as after so many failed attempts.

use cuewire::ids::{OrganizationId, Round, WebhookId};
use cuewire::message::DeliveryMessage;
use cuewire::message::delivery::NewDelivery;
use cuewire::retry::TIERS;
use futures_util::stream::{self, StreamExt};
use time::OffsetDateTime;

use crate::load::{Upstream, event};
use crate::receiver::Run;
use crate::stack::Stack;

/// The longest tier.
const FOR: time::Duration = time::Duration::hours(6);
const UNCONFIRMED: usize = 500;

/// So many deliveries wait, until this is ended.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    pub(crate) deliveries: usize,
    stack: &'a Stack,
}

impl<'a> Waiting<'a> {
    pub(crate) async fn of(stack: &'a Stack, upstream: &Upstream, deliveries: usize) -> anyhow::Result<Self> {
        stack.clear_delayed_queues().await?;
        let waiting = Self { deliveries: 0, stack };
        waiting.and(upstream, deliveries).await
    }

    /// So many more.
    pub(crate) async fn and(self, upstream: &Upstream, more: usize) -> anyhow::Result<Self> {
        let organization = OrganizationId::new();
        let webhook = WebhookId::new();
        let run = Run::new();
        let all = self.deliveries + more;
        stream::iter(self.deliveries..all)
            .for_each_concurrent(UNCONFIRMED, |number| async move {
                let (event_id, now) = (number.to_string(), OffsetDateTime::now_utc());
                let new = NewDelivery {
                    organization,
                    webhook,
                    source: "/bench",
                    event_id: &event_id,
                    category: "feeds",
                    event: event(run, "none", number).into(),
                };
                let delivery =
                    DeliveryMessage::first(new, Round::FIRST, cuewire::amqp::topology::Lane::Due, now);
                let message = delivery.next(now + FOR).publication_after(TIERS[TIERS.len() - 1]);
                upstream.publisher.publish_until_confirmed(&message).await;
            })
            .await;
        Ok(Self { deliveries: all, ..self })
    }

    /// Takes them away; an error unless all of them have waited until now.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        let waited = self.stack.clear_delayed_queues().await?;
        let all = self.deliveries;
        anyhow::ensure!(waited >= all, "of {all} deliveries {waited} have waited");
        Ok(())
    }
}
