//! Access tokens: what a client of Quortex I/O gets for a key, and shows for an hour.
//!
//! A token is the key's SHA-256 and the time of its end, sealed with the operator's key: every replica can open
//! it and nobody else can make one. It is good as long as the key is: a key that is deleted ends its tokens.

use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use cuewire::delivery::rfc3339;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::Api;
use crate::auth::{Caller, Credentials, bearer};
use crate::error::Problem;
use crate::extract::Json;

/// As the platform's tokens live.
const LIFE: Duration = Duration::from_secs(3_600);

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = QuortexApiKey)]
pub(super) struct ApiKey {
    /// An organization's key.
    api_key_secret: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuortexToken)]
pub(super) struct Token {
    access_token: String,
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Get an access token for a key
#[utoipa::path(post, path = "/1.0/token", tag = "Platform: Quortex", operation_id = "quortex_token",
    request_body = ApiKey, security(()),
    responses((status = 201, body = Token), (status = 400, description = "There is no such key"),
        (status = 403, description = "The key is not an organization's")))]
pub(super) async fn issue(
    State(api): State<Api>,
    key: Result<Json<ApiKey>, Problem>,
) -> Result<(StatusCode, Answer<Token>), Problem> {
    let Json(key) = key.map_err(as_400)?;
    let credentials = Credentials::of_key(key.api_key_secret.as_bytes());
    match credentials.caller(&api).await? {
        Some(Caller::Member(holder)) => tracing::info!(by = %holder.key, "an access token was made"),
        Some(Caller::Operator) => {
            return Err(Problem::forbidden("this is the operator's key; use one of an organization"));
        }
        None => return Err(Problem::unreadable("`api_key_secret` is no key, or it was deleted")),
    }
    let end = OffsetDateTime::now_utc() + LIFE;
    let content = [&credentials.key_sha256()[..], &end.unix_timestamp().to_be_bytes()].concat();
    let access_token = BASE64.encode(api.vault.seal_token(&content));
    Ok((StatusCode::CREATED, Answer(Token { access_token, expires_at: rfc3339(end) })))
}

/// The key for which the request's token was made, as long as that is good.
pub(super) fn credentials(api: &Api, headers: &HeaderMap) -> Option<Credentials> {
    let sealed = BASE64.decode(bearer(headers)?).ok()?;
    let content = api.vault.open_token(&sealed).ok()?;
    let (key_sha256, end) = content.split_first_chunk::<32>()?;
    let end = i64::from_be_bytes(end.try_into().ok()?);
    (OffsetDateTime::now_utc().unix_timestamp() < end).then(|| Credentials::of_hash(*key_sha256))
}

/// A key that cannot be read is an invalid one.
fn as_400(problem: Problem) -> Problem {
    match problem.status {
        StatusCode::UNPROCESSABLE_ENTITY => Problem::unreadable(problem.detail),
        _ => problem,
    }
}
