//! Webhooks: made, listed, read, changed, deleted.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use cuewire::db::api_keys::KeyHolder;
use cuewire::delivery::rfc3339;
use cuewire::ids::WebhookId;
use cuewire::signature::{Scheme, Secret};
use cuewire::webhook::{Breaker, Status, Webhook};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::Api;
use crate::auth::{Editor, Viewer};
use crate::error::Problem;
use crate::extract::{Json, Path, Query};
use crate::page::{Micros, Page, PageQuery};
use crate::webhooks::WebhookFields;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(read, change, delete))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhook, example = json!({
    "id": "0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a12", "number": 17, "name": "Archive", "description": null,
    "url": "https://example.com/hooks", "enabled": true, "status": "enabled", "breaker": null,
    "disabled_reason": null,
    "format": "standard", "event_types": ["recordings.*"], "filter": "data.size > 0", "headers": {},
    "signature": "v1", "rate_limit_per_second": null, "max_in_flight": 16, "timeout_ms": 15000,
    "retry_schedule": ["5s", "5m", "30m", "2h", "5h", "10h", "10h"],
    "created_at": "2026-01-31T09:30:00.000Z", "updated_at": "2026-01-31T09:30:00.000Z"
}))]
struct WebhookView {
    id: Uuid,
    /// A number, for platforms whose webhooks are numbered.
    number: i64,
    name: String,
    description: Option<String>,
    url: String,
    enabled: bool,
    /// `enabled`, `disabled`, or `failing`: enabled, but its last delivery that ended became a dead letter, or its
    /// circuit breaker is open.
    #[schema(value_type = String)]
    status: Status,
    /// Its circuit breaker, while that is open: deliveries wait for the next probe.
    breaker: Option<BreakerView>,
    /// Why it was disabled, where that was not by hand.
    disabled_reason: Option<String>,
    format: &'static str,
    event_types: Vec<String>,
    filter: Option<String>,
    /// Headers of its own. Tokens are among them, so a viewer sees `***` for each value.
    headers: BTreeMap<String, String>,
    /// `v1` or `v1a`.
    signature: &'static str,
    /// The rate limit in force: its own, or its format's; null: none.
    rate_limit_per_second: Option<u32>,
    max_in_flight: u32,
    timeout_ms: u64,
    /// The schedule in force: its own, or its format's.
    #[schema(value_type = Vec<String>)]
    retry_schedule: cuewire::retry::Schedule,
    created_at: String,
    updated_at: String,
}

/// An open circuit breaker.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Breaker)]
struct BreakerView {
    opened_at: String,
    /// Probes that have failed since.
    failed_probes: u32,
    next_probe_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct MadeWebhook {
    #[serde(flatten)]
    view: WebhookView,
    /// What its deliveries are signed with. An admin may read it again.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: String,
    /// What the receiver verifies signatures of the scheme `v1a` with.
    #[schema(example = "whpk_3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=")]
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
}

/// Make a webhook
#[utoipa::path(post, path = "/v1/webhooks", tag = "Webhooks", request_body = WebhookFields,
    responses((status = 201, body = MadeWebhook)))]
async fn create(
    Editor(caller): Editor,
    State(api): State<Api>,
    Json(new): Json<WebhookFields>,
) -> Result<impl IntoResponse, Problem> {
    let (webhook, secret) = api.make_webhook(&caller, new).await?;
    let location = format!("/v1/webhooks/{}", webhook.id);
    let made = MadeWebhook {
        view: WebhookView::of(webhook, &api, &caller),
        public_key: public_key(&secret),
        secret: secret.to_string(),
    };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], axum::Json(made)))
}

/// List the webhooks
#[utoipa::path(get, path = "/v1/webhooks", tag = "Webhooks", params(PageQuery),
    responses((status = 200, body = Page<WebhookView>)))]
async fn list(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<WebhookView>>, Problem> {
    let (limit, before) = query.read::<(Micros, WebhookId)>()?;
    let before = before.map(|(at, id)| (at.0, id));
    let webhooks = api.database.webhooks_of(caller.organization, before, limit).await?;
    let place = |webhook: &Webhook| (Micros(webhook.created_at), webhook.id);
    Ok(axum::Json(Page::of(webhooks, limit, place, |webhook| WebhookView::of(webhook, &api, &caller))))
}

/// Read a webhook
#[utoipa::path(get, path = "/v1/webhooks/{id}", tag = "Webhooks", params(("id" = Uuid, Path)),
    responses((status = 200, body = WebhookView), (status = 404, description = "There is none")))]
async fn read(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
) -> Result<axum::Json<WebhookView>, Problem> {
    Ok(axum::Json(WebhookView::of(api.webhook(&caller, id).await?, &api, &caller)))
}

/// Change a webhook
///
/// What is left out stays; null puts the default back. `"enabled":true` also clears `disabled_reason`; it and
/// another `url` end the status `failing`, and close the circuit breaker. The signature and the secret stay what
/// they are; `secret/rotate` replaces the secret.
#[utoipa::path(patch, path = "/v1/webhooks/{id}", tag = "Webhooks", params(("id" = Uuid, Path)),
    request_body = WebhookFields,
    responses((status = 200, body = WebhookView), (status = 404, description = "There is none"),
        (status = 409, description = "Others keep changing it")))]
async fn change(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
    Json(changed): Json<WebhookFields>,
) -> Result<axum::Json<WebhookView>, Problem> {
    let webhook = api.change_webhook(&caller, id, |_| Ok(changed.clone())).await?;
    Ok(axum::Json(WebhookView::of(webhook, &api, &caller)))
}

/// Delete a webhook
///
/// Deliveries under way become dead letters with the reason `deleted`.
#[utoipa::path(delete, path = "/v1/webhooks/{id}", tag = "Webhooks", params(("id" = Uuid, Path)),
    responses((status = 204, description = "It is gone"), (status = 404, description = "There is none")))]
async fn delete(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
) -> Result<StatusCode, Problem> {
    api.delete_webhook(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl BreakerView {
    fn of(breaker: &Breaker) -> Self {
        Self {
            opened_at: rfc3339(breaker.opened_at),
            failed_probes: breaker.probes,
            next_probe_at: rfc3339(breaker.next_probe_at),
        }
    }
}

/// The public half of a key pair.
pub(super) fn public_key(secret: &Secret) -> Option<String> {
    (secret.scheme() == Scheme::V1a).then(|| secret.verifier())
}

impl WebhookView {
    /// The webhook, as the caller may see it.
    fn of(webhook: Webhook, api: &Api, caller: &KeyHolder) -> Self {
        Self {
            headers: api.shown_headers(&webhook, caller),
            id: webhook.id.0,
            number: webhook.number,
            status: webhook.status(),
            breaker: webhook.breaker.as_ref().map(BreakerView::of),
            retry_schedule: webhook.schedule(),
            rate_limit_per_second: webhook.rate_limit(),
            name: webhook.name,
            description: webhook.description,
            url: webhook.url,
            enabled: webhook.enabled,
            disabled_reason: webhook.disabled_reason,
            format: webhook.format.as_str(),
            event_types: webhook.event_types.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            filter: webhook.filter,
            signature: webhook.signature.as_str(),
            max_in_flight: webhook.max_in_flight,
            timeout_ms: webhook.timeout.as_millis() as u64,
            created_at: rfc3339(webhook.created_at),
            updated_at: rfc3339(webhook.updated_at),
        }
    }
}
