//! A webhook's signing secrets: read, and replaced with an overlap in which both sign.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use cuewire::delivery::rfc3339;
use cuewire::formats::{Format, Signing};
use cuewire::ids::WebhookId;
use cuewire::retry::parse_duration;
use cuewire::signature::Secret;
use cuewire::webhook::Webhook;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::webhooks::public_key;
use crate::Api;
use crate::auth::Admin;
use crate::checks::Checks;
use crate::error::Problem;
use crate::extract::{OptionalJson, Path};
use crate::webhooks::{ValidSecret, read_secret};

const DEFAULT_OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);
/// A receiver that has not changed over after a week will not.
const MAX_OVERLAP: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(read)).routes(routes!(rotate))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "public_key": null,
    "secrets": [{"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "public_key": null,
        "created_at": "2026-01-31T09:30:00.000Z", "expires_at": null}]
}))]
struct Secrets {
    /// The newest.
    secret: String,
    /// What the receiver verifies with, where the signature is `v1a`.
    public_key: Option<String>,
    /// All that sign, the newest first.
    secrets: Vec<SecretView>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Secret)]
struct SecretView {
    secret: String,
    /// What the receiver verifies with, where the signature is `v1a`.
    public_key: Option<String>,
    created_at: String,
    /// When it signs no more, if it was replaced.
    expires_at: Option<String>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"overlap": "24h"}))]
struct Rotation {
    /// How long the earlier secrets go on signing beside the new one: `0s` to `7d`, `24h` unless given. In a
    /// format whose deliveries carry a single signature, `0s` alone.
    overlap: Option<String>,
    /// A secret of one's own; made unless given.
    secret: Option<String>,
}

/// Read a webhook's secrets
#[utoipa::path(get, path = "/v1/webhooks/{id}/secret", tag = "Webhooks", params(("id" = Uuid, Path)),
    responses((status = 200, body = Secrets), (status = 404, description = "There is no such webhook")))]
async fn read(
    Admin(caller): Admin,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
) -> Result<Json<Secrets>, Problem> {
    let webhook = api.webhook(&caller, id).await?;
    show(&api, &webhook).await
}

/// Replace a webhook's secret
///
/// During the overlap every delivery carries a signature by each secret. The body may be left out.
#[utoipa::path(post, path = "/v1/webhooks/{id}/secret/rotate", tag = "Webhooks", params(("id" = Uuid, Path)),
    request_body(content = Rotation, description = "May be left out"),
    responses((status = 200, body = Secrets), (status = 404, description = "There is no such webhook"),
        (status = 409, description = "So many secrets are valid that no other is accepted")))]
async fn rotate(
    Admin(caller): Admin,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
    OptionalJson(rotation): OptionalJson<Rotation>,
) -> Result<Json<Secrets>, Problem> {
    let webhook = api.webhook(&caller, id).await?;
    let mut checks = Checks::default();
    let max_overlap = max_overlap(webhook.format);
    let overlap = rotation.overlap.and_then(|text| checks.take("overlap", read_overlap(&text, max_overlap)));
    let own = rotation.secret.and_then(|text| checks.take("secret", read_secret(&text, webhook.signature)));
    checks.finish()?;
    let secret = own.unwrap_or_else(|| Secret::generate(webhook.signature));
    let overlap = overlap.unwrap_or(DEFAULT_OVERLAP.min(max_overlap));
    api.rotate_secret(&caller, id, &secret, overlap).await?;
    show(&api, &webhook).await
}

async fn show(api: &Api, webhook: &Webhook) -> Result<Json<Secrets>, Problem> {
    let view = |valid: &ValidSecret| SecretView {
        public_key: public_key(&valid.secret),
        secret: valid.secret.to_string(),
        created_at: rfc3339(valid.created_at),
        expires_at: valid.expires_at.map(rfc3339),
    };
    let secrets: Vec<_> = api.valid_secrets(webhook.id).await?.iter().map(view).collect();
    let newest = secrets.first().cloned().ok_or_else(|| Problem::no_such("secret"))?;
    Ok(Json(Secrets { secret: newest.secret, public_key: newest.public_key, secrets }))
}

/// How long two secrets may sign side by side.
fn max_overlap(format: Format) -> Duration {
    match format.signing() {
        Signing::SingleHmac => Duration::ZERO,
        Signing::StandardWebhooks | Signing::None => MAX_OVERLAP,
    }
}

fn read_overlap(text: &str, max: Duration) -> Result<Duration, String> {
    let overlap = parse_duration(text)?;
    if overlap <= max {
        return Ok(overlap);
    }
    Err(if max.is_zero() {
        format!("is {text}, and must be 0s: deliveries of this format carry a single signature")
    } else {
        format!("is {text}, and at most 7d are accepted")
    })
}
