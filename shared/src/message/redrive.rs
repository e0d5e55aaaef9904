//! The way back of a dead letter: what one on record is sent again with, whoever asks for it.

use bytes::Bytes;
use time::OffsetDateTime;

use super::dead::DeadDelivery;
use super::delivery::NewDelivery;
use super::{DeliveryMessage, EventMessage, HeadersOut};
use crate::amqp::Publication;
use crate::amqp::topology::Lane;
use crate::ids::{DeadLetterId, Round};

/// On what the reaper has sent again by itself: it does so once.
pub(super) const REDRIVEN: &str = "cuewire-redriven";

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
    /// The round in which it is sent again, whoever does it.
    #[must_use]
    pub fn round(&self) -> Round {
        Round::of_redrive(self.id)
    }

    /// The message that sends it again because somebody asked for it. Made a second time after a fault it is
    /// the same work.
    #[must_use]
    pub fn publication(&self, now: OffsetDateTime) -> Publication {
        let Some(DeadDelivery { delivery, organization, webhook, .. }) = &self.delivery else {
            let event = self.event.clone();
            return EventMessage::again(&self.exchange, &self.event_type, self.round().0, event);
        };
        let new = NewDelivery {
            organization: *organization,
            webhook: *webhook,
            source: &self.source,
            event_id: &self.event_id,
            category: &self.category,
            event: self.event.clone(),
        };
        let first = DeliveryMessage::first(new, self.round(), Lane::Due, now);
        DeliveryMessage { delivery: *delivery, ..first }.publication()
    }

    /// The message that sends it again without being asked for. It bears a mark, by which it stays dead if
    /// the same message dies by the delivery limit again.
    #[must_use]
    pub fn unasked(&self, now: OffsetDateTime) -> Publication {
        let mut publication = self.publication(now);
        publication.headers = HeadersOut(publication.headers).text(REDRIVEN, self.id).0;
        publication
    }
}
