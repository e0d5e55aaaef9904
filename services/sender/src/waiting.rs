//! Waiting: a delivery that must not be sent yet is put into the delayed queues, and held here for the last of
//! the time, to the millisecond.

use std::time::Duration;

use cuewire::amqp::PublishError;
use cuewire::amqp::connection::Backoff;
use cuewire::message::DeliveryMessage;
use cuewire::retry::{self, TIERS, Tier, Wait};
use time::OffsetDateTime;

use crate::deliver::{Abandoned, Origin, Sender};
use crate::gate::Kept;

/// With at least this left, the shortest delayed queue is at most half a second late.
const PARK_FROM: Duration = Duration::from_millis(500);

/// Whether a delivery that is not to be sent before some time is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Early {
    /// It is.
    Due,
    /// It has to wait in the delayed queues until this time.
    Until(OffsetDateTime),
}

impl Sender {
    /// Waits until the delivery is due, where little is left and its queue has room for that.
    pub(crate) async fn hold(&self, at: OffsetDateTime, origin: &Origin) -> Result<Early, Abandoned> {
        let left = match retry::wait(left_until(at)) {
            Wait::Over => return Ok(Early::Due),
            Wait::In(_) => return Ok(Early::Until(at)),
            Wait::Hold(left) => left,
        };
        let kept = if left >= PARK_FROM { Kept::LongEnoughToPark } else { Kept::Briefly };
        let Some(_held) = self.gate.hold(origin.source, kept) else {
            // Straight back to its lane it would come at once, again and again: rather late by a second
            // than a queue full of deliveries that are not due, before those that are.
            return Ok(Early::Until(at.max(OffsetDateTime::now_utc() + TIERS[0].delay)));
        };
        // Rounded up to the timer's millisecond: never early.
        self.until_told(origin, tokio::time::sleep(left)).await?;
        Ok(Early::Due)
    }

    /// Puts the delivery into the tier that fits; when that is full, into the next longer one.
    pub(crate) async fn park(&self, delivery: &DeliveryMessage, at: OffsetDateTime) {
        let mut backoff = Backoff::new();
        let mut full: Option<Tier> = None;
        loop {
            let publication = match (full, retry::wait(left_until(at))) {
                (Some(tier), _) => delivery.publication_after(retry::next_longer(tier)),
                (None, Wait::In(tier)) => delivery.publication_after(tier),
                (None, Wait::Hold(left)) if left >= PARK_FROM => delivery.publication_after(TIERS[0]),
                // The sender that takes it next holds it for the rest.
                (None, Wait::Hold(_) | Wait::Over) => delivery.publication(),
            };
            match self.publisher.publish(publication).await {
                Ok(()) => return,
                Err(PublishError::Refused) if let Wait::In(tier) = retry::wait(left_until(at)) => {
                    full = Some(full.map_or(tier, retry::next_longer));
                }
                Err(error) => tracing::debug!(%error, "parking again"),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

fn left_until(at: OffsetDateTime) -> Duration {
    Duration::try_from(at - OffsetDateTime::now_utc()).unwrap_or_default()
}
