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
use cuewire::vault::Vault;
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
    let access_token = seal(&api.vault, credentials.key_sha256(), end);
    Ok((StatusCode::CREATED, Answer(Token { access_token, expires_at: rfc3339(end) })))
}

/// The key for which the request's token was made, as long as that is good.
pub(super) fn credentials(api: &Api, headers: &HeaderMap) -> Option<Credentials> {
    key_sha256(&api.vault, bearer(headers)?, OffsetDateTime::now_utc()).map(Credentials::of_hash)
}

/// A token for a key, good until `end`.
fn seal(vault: &Vault, key_sha256: &[u8; 32], end: OffsetDateTime) -> String {
    let content = [&key_sha256[..], &end.unix_timestamp().to_be_bytes()].concat();
    BASE64.encode(vault.seal_token(&content))
}

/// The key that a token is for, as long as that is good.
fn key_sha256(vault: &Vault, token: &[u8], now: OffsetDateTime) -> Option<[u8; 32]> {
    let content = vault.open_token(&BASE64.decode(token).ok()?).ok()?;
    let (key_sha256, end) = content.split_first_chunk::<32>()?;
    let end = i64::from_be_bytes(end.try_into().ok()?);
    (now.unix_timestamp() < end).then_some(*key_sha256)
}

/// A key that cannot be read is an invalid one.
fn as_400(problem: Problem) -> Problem {
    match problem.status {
        StatusCode::UNPROCESSABLE_ENTITY => Problem::unreadable(problem.detail),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_token_is_good_until_its_end_and_for_no_other_key() {
        let vault = Vault::from_base64("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
        let end = datetime!(2026-01-31 09:30:00 UTC);
        let token = seal(&vault, &[7; 32], end);
        let key = |token: &str, now| key_sha256(&vault, token.as_bytes(), now);
        assert_eq!(key(&token, end - Duration::from_secs(1)), Some([7; 32]));
        assert_eq!(key(&token, end), None);
        assert_eq!(key(&token, end + LIFE), None);
        let other = BASE64.encode(vault.seal_token(&[7; 32]));
        assert_eq!(key(&other, end - LIFE), None, "it has no end");
        assert_eq!(key(&token[1..], end - LIFE), None);
    }
}
