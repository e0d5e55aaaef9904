//! Events for tests: whole CloudEvents, with what the test does not care about filled in.

use serde_json::{Value, json};
use uuid::Uuid;

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
