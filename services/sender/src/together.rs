//! The deliveries that came by one message: each goes its own way, and the message is acknowledged when all have
//! arrived.
//!
//! What has come to an end must not come again with what has not: a retry that is with the broker would be there
//! twice. So a message of several is returned only while none of them has. Otherwise what is left of it when the
//! sender stops is published one by one, and so are all of a message that the broker delivers again, each of which is
//! then looked up on record.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use cuewire::amqp::Message;
use cuewire::message::{Deliveries, DeliveryMessage};
use futures_util::FutureExt;
use futures_util::future::join_all;

use crate::deliver::{Abandoned, Origin, Sender, unless_lost};
use crate::gate::Seat;

impl Sender {
    /// Delivers what a message holds, and acknowledges it when whatever follows is with the broker.
    pub async fn deliver_all(self: Arc<Self>, message: Message<Deliveries>) {
        let (redelivered, source) = (message.redelivered, message.source);
        let (deliveries, settlement) = message.into_parts();
        let origin = Origin { redelivered, source, seat: Seat::default(), settlement };
        if self.end_all(deliveries.into_vec(), &origin).await.is_ok() {
            origin.settlement.ack();
        }
    }

    async fn end_all(&self, mut deliveries: Vec<DeliveryMessage>, origin: &Origin) -> Result<(), Abandoned> {
        if deliveries.len() == 1
            && let Some(delivery) = deliveries.pop()
        {
            return self.deliver(delivery, origin).await;
        }
        if origin.redelivered {
            return self.leave(deliveries, origin).await;
        }
        let deliver = |delivery: &DeliveryMessage| {
            // A panic, as over an event that nobody thought of, must not break off the others' requests.
            AssertUnwindSafe(self.deliver(delivery.clone(), origin)).catch_unwind()
        };
        let ended = join_all(deliveries.iter().map(deliver)).await;
        let all = deliveries.len();
        let left = deliveries.into_iter().zip(ended).filter(|(_, ended)| !matches!(ended, Ok(Ok(()))));
        let left: Vec<DeliveryMessage> = left.map(|(delivery, _)| delivery).collect();
        if left.len() == all {
            return Err(Abandoned);
        }
        self.leave(left, origin).await
    }

    /// Leaves deliveries to whoever takes them next, each by a message of its own.
    async fn leave(&self, deliveries: Vec<DeliveryMessage>, origin: &Origin) -> Result<(), Abandoned> {
        let left = |delivery| DeliveryMessage { may_be_on_record: true, ..delivery }.publication();
        let messages: Vec<_> = deliveries.into_iter().map(left).collect();
        let publish =
            join_all(messages.iter().map(|message| self.publisher.publish_until_confirmed(message)));
        unless_lost(&origin.settlement, async {
            publish.await;
        })
        .await
    }
}
