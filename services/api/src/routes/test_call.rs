//! Test calls: a sample sent to a webhook now, and the attempt as the answer.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use cuewire::event::EventType;
use cuewire::ids::WebhookId;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::attempts::AttemptView;
use crate::Api;
use crate::auth::Editor;
use crate::checks::Checks;
use crate::error::Problem;
use crate::extract::{OptionalJson, Path};
use crate::samples::sample;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(test))
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"type": "recordings.completed"}))]
struct TestCall {
    /// The type of the sample; unless given, the first of the catalogue that the webhook takes and its format
    /// can carry, those of the format's platform before others.
    #[serde(rename = "type")]
    event_type: Option<String>,
}

/// Send a sample to a webhook now
///
/// The answer is the attempt, whatever the receiver said; it is not retried. A disabled webhook can be tested
/// too. The sample is not in the event log. The body may be left out.
#[utoipa::path(post, path = "/v1/webhooks/{id}/test", tag = "Webhooks", params(("id" = Uuid, Path)),
    request_body(content = TestCall, description = "May be left out"),
    responses((status = 200, body = AttemptView), (status = 404, description = "There is no such webhook"),
        (status = 429, description = "Too many test calls of the organization are under way"),
        (status = 504, description = "No sender answered in time")))]
async fn test(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
    OptionalJson(call): OptionalJson<TestCall>,
) -> Result<impl IntoResponse, Problem> {
    let mut checks = Checks::default();
    let event_type = call.event_type.and_then(|text| checks.take("type", EventType::parse(&text)));
    checks.finish()?;
    let webhook = api.webhook(&caller, id).await?;
    let attempt = api.send_sample(&webhook, sample(&webhook, event_type)).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], attempt))
}
