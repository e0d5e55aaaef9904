//! The webhooks of Omegastream, which calls them endpoints, and the events that were sent to them.
//!
//! From the platform's pages, which have the same resources under three paths: all are served alike, and the
//! first is in the document. A webhook is made by POST or, as the pages have it, by GET with a body.
//!
//! Ours, where the pages are silent: errors are `{"message":…}`, validation's are 400; a body of which no type is
//! said is JSON; in a change what is left out stays, and both it and `status` answer the endpoint as it is then; the
//! message of an attempt that failed ends in `failed`, and one without an answer has the `status_code` 0, and
//! `status` and `body` are empty; `coid` is the organization's name upstream, else its id; an empty `description` is
//! none; `events` takes exact types of any name, and shows native patterns as the platform's types; ids are the first
//! 24 digits of Cuewire's own; an event is listed from its first attempt on, the last 100 that were sent, the newest
//! attempt first, and is shown with its data for as long as the log has it.

mod endpoint;
mod events;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Json as Answer, Router};
use cuewire::db::api_keys::KeyHolder;
use cuewire::formats::Format;
use cuewire::formats::omegastream::ids_of;
use cuewire::webhook::Webhook;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::endpoint::{Endpoint, Fields};
use super::Dialect;
use super::failure::{Failure, Failures, without_422};
use super::keys::Shown;
use super::selection::Selection;
use crate::Api;
use crate::auth::{Credentials, Editor, Viewer};
use crate::error::Problem;
use crate::extract::{OptionalJson, Path};
use crate::webhooks::{self, WebhookFields};

pub(super) const DIALECT: Dialect = Dialect {
    name: "omegastream",
    routes: everywhere,
    keys: &[&[Shown::Bearer("A key")]],
    credentials: |_, headers| Credentials::bearer(headers),
    failures: Failures::of::<Message>(),
};

/// The path in the document.
const DESCRIBED: &str = "/company/client/webhooks";
const OTHERS: [&str; 2] = ["/company/company/webhooks", "/company/webhooks"];

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = OmegastreamStatus, example = json!({"active": true}))]
struct Status {
    active: Option<bool>,
}

/// What is said where there is nothing to show, and where a request failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OmegastreamMessage)]
struct Message {
    message: String,
}

fn everywhere() -> OpenApiRouter<Api> {
    let routes = OpenApiRouter::new()
        .routes(routes!(create, create_by_get))
        .routes(routes!(list))
        .routes(routes!(events::events, update, delete))
        .routes(routes!(set_status))
        .routes(routes!(events::event));
    let (alike, _) = routes.clone().split_for_parts();
    let others = OTHERS.into_iter().fold(Router::new(), |all, path| all.nest(path, alike.clone()));
    OpenApiRouter::new().nest(DESCRIBED, routes).merge(others.into())
}

/// Create an endpoint
#[utoipa::path(post, path = "/", tag = "Platform: Omegastream", operation_id = "omegastream_create",
    request_body = Fields, responses((status = 200, body = Endpoint)))]
async fn create(
    Editor(caller): Editor,
    State(api): State<Api>,
    OptionalJson(new): OptionalJson<Fields>,
) -> Result<Answer<Endpoint>, Problem> {
    new.check_new()?;
    let mut fields = new.over(Selection::nothing())?;
    fields.format = Some(Some(Format::Omegastream.as_str().to_owned()));
    let (webhook, _) = api.make_webhook(&caller, fields).await?;
    Ok(Answer(Endpoint::of(&webhook, &caller)))
}

/// Create an endpoint
///
/// The same as POST: a GET that carries the body.
#[utoipa::path(get, path = "/", tag = "Platform: Omegastream", operation_id = "omegastream_create_by_get",
    request_body = Fields, responses((status = 200, body = Endpoint)))]
async fn create_by_get(
    editor: Editor,
    api: State<Api>,
    new: OptionalJson<Fields>,
) -> Result<Answer<Endpoint>, Problem> {
    create(editor, api, new).await
}

/// List the endpoints
#[utoipa::path(get, path = "/all", tag = "Platform: Omegastream", operation_id = "omegastream_list",
    responses((status = 200, body = Vec<Endpoint>)))]
async fn list(Viewer(caller): Viewer, State(api): State<Api>) -> Result<Answer<Vec<Endpoint>>, Problem> {
    let webhooks = api.database.webhooks_in(caller.organization, &[Format::Omegastream]).await?;
    Ok(Answer(webhooks.iter().map(|webhook| Endpoint::of(webhook, &caller)).collect()))
}

/// Change an endpoint
///
/// What is left out stays.
#[utoipa::path(put, path = "/{id}", tag = "Platform: Omegastream", operation_id = "omegastream_update",
    params(("id" = String, Path)), request_body = Fields, responses((status = 200, body = Endpoint)))]
async fn update(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(id): Path<String>,
    OptionalJson(changed): OptionalJson<Fields>,
) -> Result<Answer<Endpoint>, Problem> {
    let id = find(&api, &caller, &id).await?.id;
    let webhook = api.change_webhook(&caller, id, |webhook| changed.over(Selection::of(webhook))).await?;
    Ok(Answer(Endpoint::of(&webhook, &caller)))
}

/// Let an endpoint take events, or not
#[utoipa::path(post, path = "/{id}/status", tag = "Platform: Omegastream",
    operation_id = "omegastream_set_status", params(("id" = String, Path)), request_body = Status,
    responses((status = 200, body = Endpoint)))]
async fn set_status(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(id): Path<String>,
    OptionalJson(status): OptionalJson<Status>,
) -> Result<Answer<Endpoint>, Problem> {
    let id = find(&api, &caller, &id).await?.id;
    let active = status.active.ok_or_else(|| Problem::invalid_field("active", "is missing"))?;
    let edit = |_: &Webhook| Ok(WebhookFields { enabled: Some(Some(active)), ..WebhookFields::default() });
    let webhook = api.change_webhook(&caller, id, edit).await?;
    Ok(Answer(Endpoint::of(&webhook, &caller)))
}

/// Delete an endpoint
#[utoipa::path(delete, path = "/{id}", tag = "Platform: Omegastream", operation_id = "omegastream_delete",
    params(("id" = String, Path)), responses((status = 200, body = Message)))]
async fn delete(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Answer<Message>, Problem> {
    let webhook = find(&api, &caller, &id).await?;
    api.delete_webhook(&caller, webhook.id).await?;
    Ok(Answer(Message { message: "webhook endpoint deleted".to_owned() }))
}

/// The caller's webhook of this short id and the platform's format.
async fn find(api: &Api, caller: &KeyHolder, id: &str) -> Result<Webhook, Problem> {
    let ids = ids_of(id).ok_or_else(webhooks::none)?;
    let webhook = api.database.webhook_among(caller.organization, &ids).await?;
    webhook.filter(|webhook| webhook.format == Format::Omegastream).ok_or_else(webhooks::none)
}

impl Failure for Message {
    fn of(problem: &Problem) -> (StatusCode, Self) {
        (without_422(problem), Self { message: problem.detail.clone() })
    }
}
