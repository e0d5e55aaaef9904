//! The webhooks of Dolby.io Streaming (Millicast), as its API and its SDKs manage them.
//!
//! From the platform's API reference. Ours, where that is silent: an unknown id is 404 and an unknown key 401,
//! `itemCount` is at most 1,000, `startingId` is the first webhook of the list, `isClipHooks` stands for `clip.*`, a
//! webhook that is temporarily disabled is one whose circuit breaker is open (five requests in a row without an
//! answer, or half of at least 20 in a minute that failed), and is `disabled` `until` the next probe (null where it
//! is disabled for good), an empty filter is none, and a test call goes to whoever takes the type, by either word for
//! recordings: the filter is asked where the call names a stream or a transcoder, since the name that a sample has
//! otherwise is nobody's. Whatever a flag that is switched off leaves of a native webhook's patterns takes nothing
//! that the webhook did not take before.
//!
//! Reads and lists show a secret to admins alone, as the native API does: every webhook can be given this format.
//! To others it is empty, but in the answer to the call that made it, a new webhook's or `refreshSecret`.

mod name_filter;
mod test_call;
mod webhook;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use cuewire::db::api_keys::{KeyHolder, Role};
use cuewire::formats::Format;
use cuewire::signature::{Scheme, Secret};
use cuewire::webhook::Webhook;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::webhook::{Fields, View};
use super::failure::{Failure, Failures, without_422};
use super::keys::Shown;
use super::selection::Selection;
use super::{Dialect, flag, only, whole};
use crate::Api;
use crate::auth::{Credentials, Editor, Viewer};
use crate::error::Problem;
use crate::extract::{Json, LooseQuery, Path};
use crate::webhooks;

pub(super) const DIALECT: Dialect = Dialect {
    name: "millicast",
    routes: || {
        OpenApiRouter::new()
            .routes(routes!(add))
            .routes(routes!(list))
            .routes(routes!(read, update, delete))
            .routes(routes!(test_call::test))
    },
    keys: &[&[Shown::Bearer("A key, as the platform's API secret")]],
    credentials: |_, headers| Credentials::bearer(headers),
    failures: Failures::of::<Failed>(),
};

/// The platform's.
const DEFAULT_ITEMS: i64 = 10;
/// The platform names no limit; an answer must end, and this many are some 500 KiB.
const MAX_ITEMS: i64 = 1_000;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MillicastSuccess)]
struct Success<T> {
    status: &'static str,
    data: T,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// The webhook that the list begins with; 0: the first.
    #[serde(default, deserialize_with = "whole")]
    starting_id: Option<i64>,
    /// How many there may be: 1 to 1,000, 10 unless given.
    #[serde(default, deserialize_with = "whole")]
    item_count: Option<i64>,
    /// The same as some clients spell it. An alias would be refused beside the other.
    #[serde(default, rename = "item_count", deserialize_with = "whole")]
    #[param(ignore)]
    item_count_in_snake_case: Option<i64>,
    /// The newest first.
    #[serde(default, deserialize_with = "flag")]
    is_descending: Option<bool>,
}

/// Add a webhook
#[utoipa::path(post, path = "/api/webhooks", tag = "Platform: Millicast", operation_id = "millicast_add",
    request_body = Fields, responses((status = 200, body = Success<View>)))]
async fn add(
    Editor(caller): Editor,
    State(api): State<Api>,
    Json(new): Json<Fields>,
) -> Result<Answer<Success<View>>, Problem> {
    new.check_new()?;
    let mut fields = new.over(Selection::nothing())?;
    fields.format = Some(Some(Format::Millicast.as_str().to_owned()));
    let (webhook, secret) = api.make_webhook(&caller, fields).await?;
    Ok(success(View::of(&webhook, base64(&secret))))
}

/// Read a webhook
#[utoipa::path(get, path = "/api/webhooks/{id}", tag = "Platform: Millicast", operation_id = "millicast_read",
    params(("id" = i64, Path)), responses((status = 200, body = Success<View>)))]
async fn read(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Path(number): Path<i64>,
) -> Result<Answer<Success<View>>, Problem> {
    let webhook = find(&api, &caller, number).await?;
    Ok(success(only(views(&api, &caller, &[webhook]).await?)?))
}

/// List the webhooks
#[utoipa::path(get, path = "/api/webhooks/list", tag = "Platform: Millicast", operation_id = "millicast_list",
    params(ListQuery), responses((status = 200, body = Success<Vec<View>>)))]
async fn list(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    LooseQuery(query): LooseQuery<ListQuery>,
) -> Result<Answer<Success<Vec<View>>>, Problem> {
    let count = query.item_count.or(query.item_count_in_snake_case).unwrap_or(DEFAULT_ITEMS);
    if !(1..=MAX_ITEMS).contains(&count) {
        return Err(Problem::invalid_field("itemCount", format!("must be 1 to {MAX_ITEMS}")));
    }
    let descending = query.is_descending.unwrap_or_default();
    let mut webhooks = api.database.webhooks_in(caller.organization, &[Format::Millicast]).await?;
    if descending {
        webhooks.reverse();
    }
    if let Some(start) = query.starting_id.filter(|start| *start != 0) {
        webhooks.retain(|webhook| if descending { webhook.number <= start } else { webhook.number >= start });
    }
    webhooks.truncate(count as usize);
    Ok(success(views(&api, &caller, &webhooks).await?))
}

/// Change a webhook
///
/// `refreshSecret` makes a new secret; `reEnable` or another `url` lets a disabled webhook take events again.
#[utoipa::path(put, path = "/api/webhooks/{id}", tag = "Platform: Millicast", operation_id = "millicast_update",
    params(("id" = i64, Path)), request_body = Fields, responses((status = 200, body = Success<View>)))]
async fn update(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(number): Path<i64>,
    Json(changed): Json<Fields>,
) -> Result<Answer<Success<View>>, Problem> {
    let id = find(&api, &caller, number).await?.id;
    let edit = |webhook: &Webhook| {
        let mut fields = changed.over(Selection::of(webhook))?;
        if changed.enables(webhook) {
            fields.enabled = Some(Some(true));
        }
        Ok(fields)
    };
    let webhook = api.change_webhook(&caller, id, edit).await?;
    if changed.renews_secret() {
        let secret = Secret::generate(Scheme::V1);
        api.rotate_secret(&caller, id, &secret, Duration::ZERO).await?;
        return Ok(success(View::of(&webhook, base64(&secret))));
    }
    Ok(success(only(views(&api, &caller, &[webhook]).await?)?))
}

/// Delete a webhook
#[utoipa::path(delete, path = "/api/webhooks/{id}", tag = "Platform: Millicast", operation_id = "millicast_delete",
    params(("id" = i64, Path)), responses((status = 200, body = Success<bool>)))]
async fn delete(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(number): Path<i64>,
) -> Result<Answer<Success<bool>>, Problem> {
    let webhook = find(&api, &caller, number).await?;
    api.delete_webhook(&caller, webhook.id).await?;
    Ok(success(true))
}

/// The caller's webhook of this number and the platform's format.
async fn find(api: &Api, caller: &KeyHolder, number: i64) -> Result<Webhook, Problem> {
    let webhook = api.database.webhook_numbered(caller.organization, number).await?;
    webhook.filter(|webhook| webhook.format == Format::Millicast).ok_or_else(webhooks::none)
}

/// The webhooks as this caller may see them: with their secrets if it is an admin, as natively.
async fn views(api: &Api, caller: &KeyHolder, webhooks: &[Webhook]) -> Result<Vec<View>, Problem> {
    if caller.role < Role::Admin {
        return Ok(webhooks.iter().map(|webhook| View::of(webhook, String::new())).collect());
    }
    let secrets = api.newest_secrets(webhooks).await?;
    let secret = |webhook: &Webhook| secrets.get(&webhook.id).map(base64).unwrap_or_default();
    Ok(webhooks.iter().map(|webhook| View::of(webhook, secret(webhook))).collect())
}

fn success<T>(data: T) -> Answer<Success<T>> {
    Answer(Success { status: "success", data })
}

/// The platform's form of a secret: base64 without a prefix.
fn base64(secret: &Secret) -> String {
    secret.to_string().strip_prefix("whsec_").unwrap_or_default().to_owned()
}

/// The platform's errors: the client's, or its own.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = MillicastFailure)]
enum Failed {
    Fail {
        /// `fail`
        status: &'static str,
        #[schema(inline)]
        data: Reason,
    },
    Error {
        /// `error`
        status: &'static str,
        message: String,
        /// The status once more.
        code: u16,
        #[schema(inline)]
        data: Nothing,
    },
}

/// Why a request failed.
#[derive(Debug, Serialize, ToSchema)]
struct Reason {
    message: String,
    /// What is wrong with each field, where that is the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Nothing {}

impl Failure for Failed {
    fn of(problem: &Problem) -> (StatusCode, Self) {
        let (status, message) = (without_422(problem), problem.detail.clone());
        if status.is_server_error() {
            return (
                status,
                Self::Error { status: "error", message, code: status.as_u16(), data: Nothing {} },
            );
        }
        let mut errors: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for error in &problem.errors {
            errors.entry(error.field.clone()).or_default().push(error.detail.clone());
        }
        let data = Reason { message, errors: Some(errors).filter(|errors| !errors.is_empty()) };
        (status, Self::Fail { status: "fail", data })
    }
}
