//! The webhooks of iconik, as its API manages them.
//!
//! From the platform's API reference. Any text is taken for `event_type`, `operation`, `realm` and `object_id`; what
//! no event can be selects nothing. Ours, where the reference is silent: an `event_type` of `*` takes every type, and
//! one with commas takes each of those (so are webhooks of the native API shown); empty text, or spaces alone, is as
//! good as null but for `event_type` and `url`, so that an `operation`, a `realm` or an `object_id` of them is any; a
//! `PUT` leaves what it does not name, and null clears what may be null; only `ENABLED` and `DISABLED` can be set,
//! and `FAILING` in a change changes nothing, since only who has read it sends it; a deleted webhook is not found, so
//! that `deleted_at` is always null; `event_type`, `realm` and `object_id` are compared as they are written, as
//! events have them, and an operation in lower case; with `per_page` the list has pages, and numbers that are none
//! are as good as left out; of a list the first 64 webhooks that failed show `last_payload`; which operators and
//! names a query knows; `FAILING` is a webhook whose circuit breaker is open (five requests in a row without an
//! answer, or half of at least 20 in a minute that failed) or whose last delivery that ended is a dead letter; the
//! retry schedule is the native one; and `headers` that a delivery sets itself are refused.

mod webhook;

use std::collections::BTreeMap;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use cuewire::db::api_keys::KeyHolder;
use cuewire::formats::Format;
use cuewire::ids::WebhookId;
use cuewire::webhook::Webhook;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::webhook::{Fields, View};
use super::failure::{Failure, Failures, in_words_of, without_422};
use super::keys::{self, Shown};
use super::last_failures::last_failures;
use super::selection::Selection;
use super::{Dialect, count, only};
use crate::Api;
use crate::auth::{Credentials, Editor, Viewer};
use crate::error::{FieldError, Problem};
use crate::extract::{Json, LooseQuery, Path};

pub(super) const DIALECT: Dialect = Dialect {
    name: "iconik",
    routes: || OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(read, update, delete)),
    keys: &[&[Shown::Header(APP_ID, "A key's id"), Shown::Header(AUTH_TOKEN, "The key")]],
    credentials: |_, headers| credentials(headers),
    failures: Failures::of::<Failed>(),
};

const APP_ID: &str = "App-ID";
const AUTH_TOKEN: &str = "Auth-Token";

const FORMAT: Format = Format::Iconik;
/// The platform's names for the native fields that have others.
const NAMES: [(&str, &str); 3] = [("event_types", "event_type"), ("filter", "query"), ("enabled", "status")];

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IconikWebhooks)]
struct List {
    objects: Vec<View>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// From 1.
    #[param(value_type = Option<u32>)]
    page: Option<String>,
    /// Unless it is given, all webhooks are on the first page.
    #[param(value_type = Option<u32>)]
    per_page: Option<String>,
}

/// List the webhooks
#[utoipa::path(get, path = "/API/notifications/v1/webhooks", tag = "Platform: iconik", operation_id = "iconik_list",
    params(ListQuery), responses((status = 200, body = List)))]
async fn list(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    LooseQuery(query): LooseQuery<ListQuery>,
) -> Result<Answer<List>, Problem> {
    let page = count(query.page.as_deref()).unwrap_or(1);
    let per_page = count(query.per_page.as_deref()).unwrap_or(usize::MAX);
    let mut webhooks = api.database.webhooks_in(caller.organization, &[FORMAT]).await?;
    let before = per_page.saturating_mul(page - 1).min(webhooks.len());
    webhooks.drain(..before);
    webhooks.truncate(per_page);
    Ok(Answer(List { objects: views(&api, &caller, webhooks).await? }))
}

/// Make a webhook
#[utoipa::path(post, path = "/API/notifications/v1/webhooks", tag = "Platform: iconik",
    operation_id = "iconik_create", request_body = Fields, responses((status = 201, body = View)))]
async fn create(
    Editor(caller): Editor,
    State(api): State<Api>,
    Json(new): Json<Fields>,
) -> Result<(StatusCode, Answer<View>), Problem> {
    new.check_new()?;
    let mut fields = new.over(Selection::nothing())?;
    fields.enabled = Some(Some(new.enables_new()?));
    fields.format = Some(Some(FORMAT.as_str().to_owned()));
    let (webhook, _) = api.make_webhook(&caller, fields).await?;
    let headers = api.shown_headers(&webhook, &caller);
    Ok((StatusCode::CREATED, Answer(View::of(webhook, headers, None))))
}

/// Read a webhook
#[utoipa::path(get, path = "/API/notifications/v1/webhooks/{id}", tag = "Platform: iconik",
    operation_id = "iconik_read", params(("id" = Uuid, Path)), responses((status = 200, body = View)))]
async fn read(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
) -> Result<Answer<View>, Problem> {
    let webhook = api.webhook_in(&caller, id, &[FORMAT]).await?;
    Ok(Answer(only(views(&api, &caller, vec![webhook]).await?)?))
}

/// Change a webhook
///
/// What is left out stays; null clears `description`, `object_id`, `operation`, `realm`, `query` and `headers`.
/// A success or another `url` ends the status `FAILING` of an enabled webhook; no `status` does.
#[utoipa::path(put, path = "/API/notifications/v1/webhooks/{id}", tag = "Platform: iconik",
    operation_id = "iconik_update", params(("id" = Uuid, Path)), request_body = Fields,
    responses((status = 200, body = View)))]
async fn update(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
    Json(changed): Json<Fields>,
) -> Result<Answer<View>, Problem> {
    api.webhook_in(&caller, id, &[FORMAT]).await?;
    let edit = |webhook: &Webhook| {
        let mut fields = changed.over(Selection::of(webhook))?;
        fields.enabled = changed.enables(webhook)?.map(Some);
        Ok(fields)
    };
    let webhook = api.change_webhook(&caller, id, edit).await?;
    Ok(Answer(only(views(&api, &caller, vec![webhook]).await?)?))
}

/// Delete a webhook
#[utoipa::path(delete, path = "/API/notifications/v1/webhooks/{id}", tag = "Platform: iconik",
    operation_id = "iconik_delete", params(("id" = Uuid, Path)),
    responses((status = 204, description = "It is gone")))]
async fn delete(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
) -> Result<StatusCode, Problem> {
    api.webhook_in(&caller, id, &[FORMAT]).await?;
    api.delete_webhook(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn views(api: &Api, caller: &KeyHolder, webhooks: Vec<Webhook>) -> Result<Vec<View>, Problem> {
    let mut failures = last_failures(api, caller, &webhooks).await?;
    let view = |webhook: Webhook| {
        let failure = failures.remove(&webhook.id);
        let headers = api.shown_headers(&webhook, caller);
        View::of(webhook, headers, failure)
    };
    Ok(webhooks.into_iter().map(view).collect())
}

fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    keys::pair(headers, APP_ID, AUTH_TOKEN)?
}

/// The platform's errors: a sentence, or one for each field.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IconikErrors)]
struct Failed {
    #[schema(inline)]
    errors: Errors,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Errors {
    Sentences(Vec<String>),
    ByField(BTreeMap<String, String>),
}

impl Failure for Failed {
    fn of(problem: &Problem) -> (StatusCode, Self) {
        let problem = in_words_of(&NAMES, problem);
        let errors = match problem.status {
            StatusCode::UNAUTHORIZED => Errors::Sentences(vec![
                "send the id of a key as `App-ID` and the key itself as `Auth-Token`; these are no such pair"
                    .to_owned(),
            ]),
            _ if problem.errors.is_empty() => Errors::Sentences(vec![problem.detail.clone()]),
            _ => Errors::by_field(&problem.errors),
        };
        (without_422(&problem), Self { errors })
    }
}

impl Errors {
    fn by_field(errors: &[FieldError]) -> Self {
        let mut by_field: BTreeMap<String, String> = BTreeMap::new();
        for error in errors {
            let sentence = by_field.entry(error.field.clone()).or_default();
            if !sentence.is_empty() {
                sentence.push_str("; ");
            }
            sentence.push_str(&error.detail);
        }
        Self::ByField(by_field)
    }
}
