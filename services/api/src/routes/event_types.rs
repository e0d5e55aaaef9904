//! Event types: the catalogue's, and those of an organization's own; and which of their schemas are in force.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::StatusCode;
use cuewire::catalogue::{self, EventType};
use cuewire::db::event_types::OwnEventType;
use cuewire::delivery::rfc3339;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Api;
use crate::auth::{Caller, Editor};
use crate::error::Problem;
use crate::event_types::EventTypeFields;
use crate::extract::{Json, Path};

/// The platform of a type that an organization has registered itself.
const OWN: &str = "own";

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(save, delete))
}

#[derive(Debug, Serialize, ToSchema)]
struct EventTypes {
    /// Every type, platform by platform, and then the organization's own.
    #[schema(value_type = Vec<Object>)]
    data: Vec<EventTypeView>,
    /// Always null: the list is one page.
    #[schema(example = json!(null))]
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum EventTypeView {
    Listed {
        #[serde(flatten)]
        entry: &'static EventType,
        enforced: bool,
    },
    Own(OwnView),
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventType, example = json!({
    "type": "slate.shown", "platform": "own", "description": "A slate was shown.",
    "schema": {"required": ["data"], "properties": {"data": {"required": ["slateId"]}}},
    "sample": {"id": "sample", "source": "/slates", "type": "slate.shown", "data": {"slateId": "s1"}},
    "enforced": true, "created_at": "2026-01-31T09:30:00.000Z", "updated_at": "2026-01-31T09:30:00.000Z"
}))]
struct OwnView {
    r#type: String,
    /// Always `own`.
    platform: &'static str,
    description: Option<String>,
    #[schema(value_type = Option<Object>)]
    schema: Option<Box<RawValue>>,
    #[schema(value_type = Option<Object>)]
    sample: Option<Box<RawValue>>,
    /// Whether events that do not fit the schema are refused.
    enforced: bool,
    created_at: String,
    updated_at: String,
}

/// List the event types: of all platforms, and of the organization's own
///
/// Each has a description, a JSON Schema and a sample; those of platforms have a state too. `enforced` says
/// whether events that do not fit the schema are refused. An event of any other type is delivered like these.
/// Any key may read this.
#[utoipa::path(get, path = "/v1/event-types", tag = "Events", responses((status = 200, body = EventTypes)))]
async fn list(caller: Caller, State(api): State<Api>) -> Result<axum::Json<EventTypes>, Problem> {
    let own = match caller {
        Caller::Operator => Vec::new(),
        Caller::Member(holder) => api.database.event_types(holder.organization).await?,
    };
    let enforced: HashMap<&str, bool> = own.iter().map(|it| (it.name.as_str(), it.enforced)).collect();
    let listed = catalogue::all().iter().map(|entry| {
        let enforced = enforced.get(entry.name.as_str()).copied().unwrap_or_default();
        EventTypeView::Listed { entry, enforced }
    });
    let mut data: Vec<EventTypeView> = listed.collect();
    let own = own.into_iter().filter(|it| catalogue::find(&it.name).is_none());
    data.extend(own.map(|it| EventTypeView::Own(OwnView::of(it))));
    Ok(axum::Json(EventTypes { data, next_cursor: None }))
}

/// Register an event type, or put the schema of one in force
///
/// Makes or replaces the organization's entry. With `enforced`, events of this type that do not fit the schema
/// are refused: with 422 over HTTP, as a dead letter with the reason `rejected` over AMQP. It takes effect within
/// a second. For a type of a platform only `enforced` may be given, and the schema is the catalogue's.
#[utoipa::path(put, path = "/v1/event-types/{type}", tag = "Events",
    params(("type" = String, Path, example = "slate.shown")), request_body = EventTypeFields,
    responses((status = 200, body = OwnView),
        (status = 409, description = "The organization has as many types of its own as it may"),
        (status = 422, description = "The schema is none, or the sample does not fit it: `errors` names the path")))]
async fn save(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(fields): Json<EventTypeFields>,
) -> Result<axum::Json<EventTypeView>, Problem> {
    let saved = api.save_event_type(&caller, &name, fields).await?;
    Ok(axum::Json(match catalogue::find(&name) {
        Some(entry) => EventTypeView::Listed { entry, enforced: saved.enforced },
        None => EventTypeView::Own(OwnView::of(saved)),
    }))
}

/// Delete an event type of the organization's own
///
/// A type of a platform is again as the catalogue has it, its schema not in force.
#[utoipa::path(delete, path = "/v1/event-types/{type}", tag = "Events", params(("type" = String, Path)),
    responses((status = 204, description = "It is gone"), (status = 404, description = "There is none")))]
async fn delete(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    api.delete_event_type(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl OwnView {
    fn of(own: OwnEventType) -> Self {
        // As it was read when it came.
        let json = |text: Option<String>| text.and_then(|text| RawValue::from_string(text).ok());
        Self {
            r#type: own.name,
            platform: OWN,
            description: own.description,
            schema: json(own.schema),
            sample: json(own.sample),
            enforced: own.enforced,
            created_at: rfc3339(own.created_at),
            updated_at: rfc3339(own.updated_at),
        }
    }
}
