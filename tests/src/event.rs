//! Events for tests: whole CloudEvents, with what the test does not care about filled in.

use cuewire::amqp::topology::Lane;
use cuewire::ids::{OrganizationId, Round, WebhookId};
use cuewire::message::DeliveryMessage;
use cuewire::message::delivery::NewDelivery;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::organization::Webhook;

/// An event of this type that belongs to an organization (by id or external id), with an id of its own.
#[must_use]
pub fn event(event_type: &str, organization: &str) -> Value {
    json!({
        "specversion": "1.0",
        "id": Uuid::new_v4().to_string(),
        "source": "/tests",
        "type": event_type,
        "time": "2026-01-31T09:30:00Z",
        "organization": organization,
        "data": {"size": 1},
    })
}

/// As many events of one type, for load.
#[must_use]
pub fn events(count: usize, event_type: &str, organization: &str) -> Vec<Value> {
    std::iter::repeat_with(|| event(event_type, organization)).take(count).collect()
}

/// An event's id.
#[must_use]
pub fn id(event: &Value) -> &str {
    event["id"].as_str().expect("an event of the harness has an id")
}

/// The delivery of an event to a webhook as it comes from nobody's hand: its first attempt, in the `due` lane.
#[must_use]
pub fn first_delivery(event: &Value, webhook: &Webhook) -> DeliveryMessage {
    let text = |member: &str| event[member].as_str().expect("an event of the harness has all attributes");
    let new = NewDelivery {
        organization: OrganizationId(text("organization").parse::<Uuid>().expect("it is by its id")),
        webhook: WebhookId(webhook.id.parse().expect("a webhook's id is a UUID")),
        source: text("source"),
        event_id: text("id"),
        category: text("type").split('.').next().expect("a type has a category"),
        event: event.to_string().into(),
    };
    DeliveryMessage::first(new, Round::FIRST, Lane::Due, OffsetDateTime::now_utc())
}
