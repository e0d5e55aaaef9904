//! The event log: listed, and one event with its deliveries.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use cuewire::db::attempts::Course;
use cuewire::db::events::{EventFilter, EventPlace, EventSummary, StoredEvent};
use cuewire::delivery::{Reason, State as DeliveryState, rfc3339};
use cuewire::event::Event;
use cuewire::ids::{DeliveryId, WebhookId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::times;
use crate::Api;
use crate::auth::Viewer;
use crate::checks::{Checks, compared};
use crate::error::Problem;
use crate::extract::{Path, Query};
use crate::page::{self, Day, Micros, Page};

/// Longer ones are in no event.
const MAX_FILTER_BYTES: usize = 2_048;
/// In the path, where the event's id is in the query.
const ID_IN_QUERY: &str = "_";
/// Deliveries shown with their event; each costs a look at the account of attempts.
const MAX_DELIVERIES_SHOWN: usize = 1_000;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// The whole type.
    #[serde(rename = "type")]
    event_type: Option<String>,
    /// The type's first word.
    category: Option<String>,
    /// The subject.
    subject: Option<String>,
    /// Received at this time or later (RFC 3339).
    #[param(example = "2026-01-31T09:30:00Z")]
    from: Option<String>,
    /// Received before this time (RFC 3339).
    to: Option<String>,
    /// Entries on the page: 1 to 1,000, 50 unless given.
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ReadQuery {
    /// The event's source, where several have the same id; without it the newest is answered.
    source: Option<String>,
    /// The event's id, with `_` in the path: for one that a path cannot carry (`.`, `..`, `stream`).
    id: Option<String>,
}

/// An event in a list, without its data.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "7c1f8f0e", "source": "/encoder/3", "type": "recordings.completed", "category": "recordings",
    "subject": "stream-1", "received_at": "2026-01-31T09:30:00.000Z", "deliveries": 2
}))]
#[schema(as = EventSummary)]
struct SummaryView {
    id: String,
    source: String,
    #[serde(rename = "type")]
    event_type: String,
    category: String,
    subject: Option<String>,
    /// When it was taken from the broker and fanned out.
    received_at: String,
    /// To how many webhooks.
    deliveries: usize,
}

/// An event with all its attributes and its data, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "specversion": "1.0", "id": "7c1f8f0e", "source": "/encoder/3", "type": "recordings.completed",
    "subject": "stream-1", "organization": "acme", "data": {"size": 1048576},
    "received_at": "2026-01-31T09:30:00.000Z", "deliveries_total": 1, "deliveries": [{
        "id": "4a063bb3-75dc-5c7c-814c-564f25dcd0e0", "webhook_id": "0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a12",
        "state": "delivered", "reason": null, "attempts": 1, "next_attempt_at": null, "status": 200
    }]
}))]
struct EventWithDeliveries {
    #[serde(flatten)]
    #[schema(value_type = Object)]
    event: Event,
    received_at: String,
    /// To how many webhooks it was fanned out.
    deliveries_total: usize,
    /// What became of it at each, of the first 1,000.
    deliveries: Vec<DeliveryView>,
}

/// How far a delivery has come.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(super) struct DeliveryView {
    pub(super) id: Uuid,
    pub(super) webhook_id: Uuid,
    /// `pending` (not attempted yet), `retrying`, `delivered` or `dead`.
    pub(super) state: &'static str,
    /// Why it is dead.
    #[schema(value_type = Option<String>)]
    pub(super) reason: Option<Reason>,
    /// How many attempts are on record.
    pub(super) attempts: u32,
    pub(super) next_attempt_at: Option<String>,
    /// The HTTP status of the last answer.
    pub(super) status: Option<u16>,
}

/// List the events, the newest first
///
/// A page reads at most 10,000 events of the log, so with filters it may be short and still have a next.
#[utoipa::path(get, path = "/v1/events", tag = "Events", params(ListQuery),
    responses((status = 200, body = Page<SummaryView>)))]
async fn list(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<SummaryView>>, Problem> {
    let mut checks = Checks::default();
    let mut text = |field, text: Option<String>| checks.compared(field, text?, MAX_FILTER_BYTES);
    let event_type = text("type", query.event_type);
    let category = text("category", query.category);
    let subject = text("subject", query.subject);
    let from = times::read(&mut checks, "from", query.from);
    let to = times::read(&mut checks, "to", query.to);
    let (limit, after) = page::read::<Place>(&mut checks, query.limit, query.cursor);
    checks.finish()?;
    let filter = EventFilter { event_type, category, subject, from, to };
    let after = after.map(EventPlace::from);
    let page = api.database.events(caller.organization, &filter, after, limit).await?;
    Ok(Json(Page {
        data: page.events.into_iter().map(SummaryView::of).collect(),
        next_cursor: page.next.map(|place| page::encode(&Place::of(&place))),
    }))
}

/// Read an event with its deliveries
///
/// The id is the publisher's, percent-encoded. Any id may be given as `/v1/events/_?id=…` too, where it cannot
/// be taken for a part of the path.
#[utoipa::path(get, path = "/v1/events/{id}", tag = "Events", params(("id" = String, Path), ReadQuery),
    responses((status = 200, body = EventWithDeliveries), (status = 404, description = "There is none")))]
async fn read(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<ReadQuery>,
) -> Result<Json<EventWithDeliveries>, Problem> {
    let mut checks = Checks::default();
    let source = query.source.and_then(|text| checks.compared("source", text, MAX_FILTER_BYTES));
    if query.id.is_some() && id != ID_IN_QUERY {
        checks.refuse("id", format!("is in the path too, where it must be {ID_IN_QUERY:?} then"));
    }
    checks.finish()?;
    let none = || Problem::no_such("event");
    // An id that no event can have would not be understood by the database either.
    let id = compared(query.id.unwrap_or(id), MAX_FILTER_BYTES).map_err(|_| none())?;
    let stored = api.database.event(caller.organization, &id, source.as_deref()).await?.ok_or_else(none)?;
    let event = read_stored(&stored)?;
    let shown = &stored.webhooks[..stored.webhooks.len().min(MAX_DELIVERIES_SHOWN)];
    let EventPlace { day, received_at, source, id } = &stored.place;
    let deliveries: Vec<_> =
        shown.iter().map(|webhook| DeliveryId::of(caller.organization, source, id, *webhook)).collect();
    let courses = api.database.courses(&deliveries, *day).await?;
    Ok(Json(EventWithDeliveries {
        event,
        received_at: rfc3339(*received_at),
        deliveries_total: stored.webhooks.len(),
        deliveries: courses.iter().zip(shown).map(|(course, id)| DeliveryView::of(course, *id)).collect(),
    }))
}

/// The event as the log has it.
pub(super) fn read_stored(stored: &StoredEvent) -> Result<Event, Problem> {
    Event::from_json(&Bytes::copy_from_slice(&stored.payload)).map_err(|error| {
        tracing::error!(%error, id = stored.place.id, "the log holds an event that cannot be read");
        Problem::internal()
    })
}

/// A place in the log, as a cursor holds it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Place(Day, Micros, String, String);

impl Place {
    pub(super) fn of(place: &EventPlace) -> Self {
        Self(Day(place.day), Micros(place.received_at), place.source.clone(), place.id.clone())
    }
}

impl From<Place> for EventPlace {
    fn from(Place(day, received_at, source, id): Place) -> Self {
        Self { day: day.0, received_at: received_at.0, source, id }
    }
}

impl SummaryView {
    fn of(summary: EventSummary) -> Self {
        let category = summary.event_type.split('.').next().unwrap_or_default().to_owned();
        Self {
            id: summary.place.id,
            source: summary.place.source,
            event_type: summary.event_type,
            category,
            subject: summary.subject,
            received_at: rfc3339(summary.place.received_at),
            deliveries: summary.webhooks,
        }
    }
}

impl DeliveryView {
    pub(super) fn of(course: &Course, webhook: WebhookId) -> Self {
        let (next_attempt_at, reason) = match course.state {
            Some(DeliveryState::Retrying(at)) => (Some(rfc3339(at)), None),
            Some(DeliveryState::Dead(reason)) => (None, Some(reason)),
            Some(DeliveryState::Delivered) | None => (None, None),
        };
        Self {
            id: course.delivery.0,
            webhook_id: webhook.0,
            state: course.state.map_or("pending", DeliveryState::as_str),
            reason,
            attempts: course.attempts,
            next_attempt_at,
            status: course.status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_shown_with_its_own_bytes_and_its_deliveries() {
        let json =
            r#"{"specversion":"1.0","id":"1","source":"s","type":"a.b","zeta":7,"data":{"b":1.50,"a":2}}"#;
        let view = EventWithDeliveries {
            event: Event::from_json(&Bytes::from_static(json.as_bytes())).unwrap(),
            received_at: "now".to_owned(),
            deliveries_total: 0,
            deliveries: Vec::new(),
        };
        let shown = serde_json::to_string(&view).unwrap();
        let head = json.trim_end_matches('}');
        assert_eq!(shown, format!(r#"{head}}},"received_at":"now","deliveries_total":0,"deliveries":[]}}"#));
    }
}
