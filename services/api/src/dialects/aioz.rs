//! The webhooks of AIOZ Stream, as its API, its SDKs and its help page manage them.
//!
//! From the platform's documentation and SDKs. An update changes what it names, by PATCH and by PUT alike, but must
//! name the `url`: the platform refuses one without, so that every client that works there sends it, and those that
//! try whether it is refused (SDKs' own tests) see what they expect. An update may switch the last event off, which
//! the platform refuses at creation alone; the webhook receives nothing then. Ours, where they are silent: keys that
//! are shown in several forms at once must be one and the same; the secret that signs is read in the native API, and
//! a fixed token may be set there as a header of the webhook; a list is ordered by `created_at` unless it says
//! otherwise, `search` finds any part of a name and no matter the case, a filter that is false finds the webhooks
//! without that event, `user_id` is the organization, `last_triggered_at` is when the newest attempt on record began
//! and null before the first, another `url` enables a webhook again that was disabled because its receiver was gone,
//! and a check sends a sample of the first event that is enabled and answers with success whatever the receiver says,
//! which its message tells.

mod check;
mod webhook;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cuewire::db::api_keys::KeyHolder;
use cuewire::formats::Format;
use cuewire::ids::WebhookId;
use cuewire::webhook::Webhook;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::webhook::{ENCODING_FINISHED, ENCODING_STARTED, FILE_RECEIVED, Fields, View};
use super::failure::{Failure, Failures, without_422};
use super::keys::{self, Shown};
use super::selection::Selection;
use super::{Dialect, flag, only, whole};
use crate::Api;
use crate::auth::{self, Credentials, Editor, Viewer};
use crate::error::Problem;
use crate::extract::{JsonOrForm, LooseQuery, Path};

pub(super) const DIALECT: Dialect = Dialect {
    name: "aioz",
    routes: || {
        OpenApiRouter::new()
            .routes(routes!(create, list))
            .routes(routes!(get, update, update_by_put, delete))
            .routes(routes!(check::check))
    },
    keys: &[
        &[Shown::Bearer("A key, or its id and the key with a colon between them")],
        &[Shown::Basic("A key's id and the key")],
        &[Shown::Header(PUBLIC_KEY, "A key's id"), Shown::Header(SECRET_KEY, "The key")],
    ],
    credentials: |_, headers| credentials(headers),
    failures: Failures::of::<Done>(),
};

const PUBLIC_KEY: &str = "stream-public-key";
const SECRET_KEY: &str = "stream-secret-key";

const FORMAT: Format = Format::Aioz;
const DEFAULT_NAME: &str = "default_name_webhook";
/// Both are the platform's.
const DEFAULT_LIMIT: i64 = 25;
const MAX_LIMIT: i64 = 100;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AiozOne)]
struct One {
    webhook: View,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AiozList)]
struct List {
    /// How many there are on all pages.
    total: usize,
    webhooks: Vec<View>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AiozSuccess)]
struct Success<T> {
    data: T,
    status: &'static str,
}

/// What is said where there is nothing to show, and where a request failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AiozDone)]
struct Done {
    message: String,
    /// `success` or `fail`.
    status: &'static str,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Part of the name.
    search: Option<String>,
    #[serde(default)]
    #[param(inline)]
    sort_by: SortBy,
    #[serde(default)]
    #[param(inline)]
    order_by: OrderBy,
    /// How many to leave out, 0 unless given.
    #[serde(default, deserialize_with = "whole")]
    offset: Option<i64>,
    /// How many there may be: 1 to 100, 25 unless given.
    #[serde(default, deserialize_with = "whole")]
    limit: Option<i64>,
    /// Those with this event, or without it.
    #[serde(default, deserialize_with = "flag")]
    encoding_finished: Option<bool>,
    /// Those with this event, or without it.
    #[serde(default, deserialize_with = "flag")]
    encoding_started: Option<bool>,
    /// Those with this event, or without it.
    #[serde(default, deserialize_with = "flag")]
    file_received: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AiozSortBy)]
enum SortBy {
    #[default]
    #[serde(alias = "")]
    CreatedAt,
    Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AiozOrderBy)]
enum OrderBy {
    #[default]
    #[serde(alias = "")]
    Asc,
    Desc,
}

/// Create a webhook
#[utoipa::path(post, path = "/api/webhooks", tag = "Platform: AIOZ", operation_id = "aioz_create",
    request_body(content((Fields = "application/json"), (Fields = "application/x-www-form-urlencoded"))),
    responses((status = 201, body = Success<One>)))]
async fn create(
    Editor(caller): Editor,
    State(api): State<Api>,
    JsonOrForm(new): JsonOrForm<Fields>,
) -> Result<(StatusCode, Answer<Success<One>>), Problem> {
    let mut fields = new.over(Selection::nothing())?;
    if !new.enable_any() {
        return Err(Problem::unreadable(
            "no event is enabled; set file_received, encoding_started, partial_finished, encoding_finished or \
             encoding_failed",
        ));
    }
    fields.name.get_or_insert_with(|| Some(DEFAULT_NAME.to_owned()));
    fields.format = Some(Some(FORMAT.as_str().to_owned()));
    let (webhook, _) = api.make_webhook(&caller, fields).await?;
    let webhook = View::of(&webhook, &caller, None);
    Ok((StatusCode::CREATED, success(One { webhook })))
}

/// List the webhooks
#[utoipa::path(get, path = "/api/webhooks", tag = "Platform: AIOZ", operation_id = "aioz_list",
    params(ListQuery), responses((status = 200, body = Success<List>)))]
async fn list(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    LooseQuery(query): LooseQuery<ListQuery>,
) -> Result<Answer<Success<List>>, Problem> {
    let (offset, limit) = query.page()?;
    let mut webhooks = api.database.webhooks_in(caller.organization, &[FORMAT]).await?;
    webhooks.retain(|webhook| query.takes(webhook));
    if query.sort_by == SortBy::Name {
        webhooks.sort_by(|one, other| one.name.cmp(&other.name));
    }
    if query.order_by == OrderBy::Desc {
        webhooks.reverse();
    }
    let total = webhooks.len();
    let page: Vec<_> = webhooks.into_iter().skip(offset).take(limit).collect();
    Ok(success(List { total, webhooks: views(&api, &caller, &page).await? }))
}

/// Read a webhook
#[utoipa::path(get, path = "/api/webhooks/{id}", tag = "Platform: AIOZ", operation_id = "aioz_get",
    params(("id" = Uuid, Path)), responses((status = 200, body = Success<One>)))]
async fn get(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
) -> Result<Answer<Success<One>>, Problem> {
    let webhook = api.webhook_in(&caller, id, &[FORMAT]).await?;
    Ok(success(One { webhook: only(views(&api, &caller, &[webhook]).await?)? }))
}

/// Change a webhook
///
/// What is left out stays, but `url` must be given.
#[utoipa::path(patch, path = "/api/webhooks/{id}", tag = "Platform: AIOZ", operation_id = "aioz_update",
    params(("id" = Uuid, Path)),
    request_body(content((Fields = "application/json"), (Fields = "application/x-www-form-urlencoded"))),
    responses((status = 200, body = Done)))]
async fn update(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
    JsonOrForm(changed): JsonOrForm<Fields>,
) -> Result<Answer<Done>, Problem> {
    // First whether there is one: so the answer for another's webhook does not depend on the body.
    api.webhook_in(&caller, id, &[FORMAT]).await?;
    let edit = |webhook: &Webhook| {
        let mut fields = changed.over(Selection::of(webhook))?;
        // The platform knows no disabled webhooks: one whose receiver was gone has no other way back.
        if webhook.disabled_reason.is_some() && changed.url.as_ref() != Some(&webhook.url) {
            fields.enabled = Some(Some(true));
        }
        Ok(fields)
    };
    api.change_webhook(&caller, id, edit).await?;
    Ok(done("the webhook was updated"))
}

/// Change a webhook
///
/// The same as PATCH.
#[utoipa::path(put, path = "/api/webhooks/{id}", tag = "Platform: AIOZ", operation_id = "aioz_update_by_put",
    params(("id" = Uuid, Path)),
    request_body(content((Fields = "application/json"), (Fields = "application/x-www-form-urlencoded"))),
    responses((status = 200, body = Done)))]
async fn update_by_put(
    editor: Editor,
    api: State<Api>,
    id: Path<WebhookId>,
    changed: JsonOrForm<Fields>,
) -> Result<Answer<Done>, Problem> {
    update(editor, api, id, changed).await
}

/// Delete a webhook
#[utoipa::path(delete, path = "/api/webhooks/{id}", tag = "Platform: AIOZ", operation_id = "aioz_delete",
    params(("id" = Uuid, Path)), responses((status = 200, body = Done)))]
async fn delete(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
) -> Result<Answer<Done>, Problem> {
    api.webhook_in(&caller, id, &[FORMAT]).await?;
    api.delete_webhook(&caller, id).await?;
    Ok(done("the webhook was deleted"))
}

async fn views(api: &Api, caller: &KeyHolder, webhooks: &[Webhook]) -> Result<Vec<View>, Problem> {
    let ids: Vec<_> = webhooks.iter().map(|webhook| webhook.id).collect();
    let triggered = api.database.last_attempted(&ids).await?;
    Ok(webhooks.iter().map(|it| View::of(it, caller, triggered.get(&it.id).copied())).collect())
}

impl ListQuery {
    /// How many to leave out, and how many there may be.
    fn page(&self) -> Result<(usize, usize), Problem> {
        let (offset, limit) = (self.offset.unwrap_or_default(), self.limit.unwrap_or(DEFAULT_LIMIT));
        let Ok(offset) = usize::try_from(offset) else {
            return Err(Problem::invalid_field("offset", format!("is {offset}, and must not be negative")));
        };
        if !(1..=MAX_LIMIT).contains(&limit) {
            let detail = format!("is {limit}, and must be 1 to {MAX_LIMIT}");
            return Err(Problem::invalid_field("limit", detail));
        }
        Ok((offset, limit as usize))
    }

    fn takes(&self, webhook: &Webhook) -> bool {
        let part = self.search.as_deref().unwrap_or_default().to_lowercase();
        let selection = Selection::of(webhook);
        webhook.name.to_lowercase().contains(&part)
            && self.encoding_finished.is_none_or(|on| selection.has(ENCODING_FINISHED) == on)
            && self.encoding_started.is_none_or(|on| selection.has(ENCODING_STARTED) == on)
            && self.file_received.is_none_or(|on| selection.has(FILE_RECEIVED) == on)
    }
}

/// A key alone or with its id, in any of the platform's four forms. Clients may show it in several at once; what is
/// not of one and the same key is nobody's.
fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    match (keys::pair(headers, PUBLIC_KEY, SECRET_KEY), of_authorization(headers)) {
        (Some(pair), Some(other)) => pair?.and(other?),
        (Some(shown), None) | (None, Some(shown)) => shown,
        (None, None) => None,
    }
}

/// The key that `Authorization` shows; some, if it is there.
fn of_authorization(headers: &HeaderMap) -> Option<Option<Credentials>> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes().trim_ascii();
    let bearer = || {
        let key = auth::bearer(headers)?;
        split_pair(key).or_else(|| Some(Credentials::of_key(key)))
    };
    (!value.is_empty()).then(|| basic(value).or_else(bearer))
}

fn basic(value: &[u8]) -> Option<Credentials> {
    let (scheme, encoded) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    let pair = BASE64.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    split_pair(&pair)
}

/// `<id>:<key>`.
fn split_pair(pair: &[u8]) -> Option<Credentials> {
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Credentials::of_pair(&pair[..colon], &pair[colon + 1..])
}

fn success<T>(data: T) -> Answer<Success<T>> {
    Answer(Success { data, status: "success" })
}

fn done(message: impl Into<String>) -> Answer<Done> {
    Answer(Done { message: message.into(), status: "success" })
}

impl Failure for Done {
    fn of(problem: &Problem) -> (StatusCode, Self) {
        let message = match problem.status {
            StatusCode::UNAUTHORIZED => {
                "send a key as `Authorization: Bearer <key>`, or its id and the key by Basic or \
                 as `stream-public-key` and `stream-secret-key`; in several forms at once it must be the same"
                    .to_owned()
            }
            _ => problem.detail.clone(),
        };
        (without_422(problem), Self { message, status: "fail" })
    }
}
