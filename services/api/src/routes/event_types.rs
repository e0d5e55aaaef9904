//! The catalogue of event types.

use axum::Json;
use cuewire::catalogue::{self, EventType};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Api;
use crate::auth::Caller;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug, Serialize, ToSchema)]
struct EventTypes {
    /// Every type, platform by platform.
    #[schema(value_type = Vec<Object>, example = json!([{
        "type": "feeds.ended", "platform": "millicast", "state": "live",
        "description": "A feed stopped being published to a stream.",
        "schema": {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
            "required": ["data"]},
        "sample": {"specversion": "1.0", "id": "sample-feeds.ended", "source": "/samples/millicast",
            "type": "feeds.ended", "data": {"name": "sample_stream"}}
    }]))]
    data: &'static [EventType],
    /// Always null: the catalogue is one page.
    next_cursor: Option<String>,
}

/// List the event types of all platforms, each with a description, its state, a JSON Schema and a sample
///
/// An event of any other type is delivered like these. Any key may read this.
#[utoipa::path(get, path = "/v1/event-types", tag = "Events", responses((status = 200, body = EventTypes)))]
async fn list(_: Caller) -> Json<EventTypes> {
    Json(EventTypes { data: catalogue::all(), next_cursor: None })
}
