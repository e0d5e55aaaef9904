//! The identifiers: one type each, so that a webhook's id cannot stand where a delivery's belongs.
//!
//! All are UUIDs. Those of configuration are random or time-ordered; a delivery's is computed
//! ([`DeliveryId::of`]), so that work repeated after a fault arrives at the same id.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

/// Namespace of delivery ids (a random UUID, fixed for ever: changing it changes every `webhook-id`).
const DELIVERY_NAMESPACE: Uuid = Uuid::from_u128(0x5d3f_8a1e_9c47_4b62_8f0b_31d2_7ae6_c905);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, ordered by the time of its making (UUIDv7).
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }
    };
}

id! {
    /// An organization: the tenant that everything else belongs to.
    OrganizationId
}
id! {
    /// An API key, not the key itself.
    ApiKeyId
}
id! {
    /// A webhook: the subscription of one URL.
    WebhookId
}
id! {
    /// One event to one webhook; the `webhook-id` header of its requests, over all attempts and rounds.
    DeliveryId
}
id! {
    /// A delivery that failed for good, or a message that could not be understood.
    DeadLetterId
}
id! {
    /// One run through a delivery's retry schedule. Redrive, manual retry and replay start a new one.
    Round
}

impl DeliveryId {
    /// The id of the delivery of the event (`source`, `event_id`) of `organization` to `webhook`.
    ///
    /// UUIDv5 over the four parts, each text with its length before it, so that no two events share
    /// an id by where one part ends and the next begins.
    #[must_use]
    pub fn of(organization: OrganizationId, source: &str, event_id: &str, webhook: WebhookId) -> Self {
        let mut name = Vec::with_capacity(32 + 16 + source.len() + event_id.len());
        name.extend_from_slice(organization.0.as_bytes());
        for part in [source, event_id] {
            name.extend_from_slice(&(part.len() as u64).to_be_bytes());
            name.extend_from_slice(part.as_bytes());
        }
        name.extend_from_slice(webhook.0.as_bytes());
        Self(Uuid::new_v5(&DELIVERY_NAMESPACE, &name))
    }
}

impl Round {
    /// The round that the router starts when it fans an event out.
    pub const FIRST: Self = Self(Uuid::nil());

    /// The round that sends a dead letter again: computed, so that whoever does it a second time after a
    /// fault repeats the same work.
    #[must_use]
    pub fn of_redrive(letter: DeadLetterId) -> Self {
        Self(Uuid::new_v5(&letter.0, b"redrive"))
    }

    /// The round that follows this one when the delivery is sent again by hand: computed, as above. The day
    /// is that of this round's last attempt, since a delivery's id comes again with its event's.
    #[must_use]
    pub fn retry(self, delivery: DeliveryId, day: Date) -> Self {
        let name = [self.0.as_bytes().as_slice(), &day.to_julian_day().to_be_bytes()].concat();
        Self(Uuid::new_v5(&delivery.0, &name))
    }
}

impl DeadLetterId {
    /// The id of the dead letter of one run of a delivery: burying it twice makes one record. The run is
    /// told by its round and its deadline, since an event's id may come again after a day, as a new event.
    #[must_use]
    pub fn of(delivery: DeliveryId, round: Round, deadline: OffsetDateTime) -> Self {
        let name = [round.0.as_bytes().as_slice(), &deadline.unix_timestamp().to_be_bytes()].concat();
        Self(Uuid::new_v5(&delivery.0, &name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_id_depends_on_each_of_its_four_parts_and_on_nothing_else() {
        let (organization, webhook) = (OrganizationId::new(), WebhookId::new());
        let id = DeliveryId::of(organization, "a", "bc", webhook);
        assert_eq!(id, DeliveryId::of(organization, "a", "bc", webhook));
        assert_ne!(id, DeliveryId::of(organization, "ab", "c", webhook));
        assert_ne!(id, DeliveryId::of(OrganizationId::new(), "a", "bc", webhook));
        assert_ne!(id, DeliveryId::of(organization, "a", "bc", WebhookId::new()));
    }

    #[test]
    fn a_delivery_id_stays_the_same_over_releases() {
        let id = DeliveryId::of(OrganizationId(Uuid::nil()), "source", "id", WebhookId(Uuid::max()));
        assert_eq!(id.to_string(), "4a063bb3-75dc-5c7c-814c-564f25dcd0e0");
    }
}
