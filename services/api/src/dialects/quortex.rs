//! The webhooks of Quortex I/O, as its API manages them.
//!
//! From the platform's API reference. Ours, where that is silent: errors are `{"detail":"…"}`, and a body that is
//! malformed is 404 at a change as it is at creation; an unset filter is absent, and null or empty text unsets one; a
//! `category` or an `operation` of words that no event can have is refused with 404; `category` may be an array,
//! which is shown as it was given, and an empty one takes nothing; of a parameter that is repeated the last counts; a
//! body of which no type is said is JSON (415 is for a type that is wrong, and a missing one is none); a webhook of a
//! chat format is one of the platform's type of that name, wherever it was made, and goes with the others when all
//! are deleted; a page that does not exist is 404, and a `page_size` that is no number of entries is as good as none;
//! another `url` enables a webhook again that was disabled because its receiver was gone, since the platform knows no
//! disabled webhooks.

mod category;
mod log;
mod pages;
mod token;
mod webhook;

use axum::Json as Answer;
use axum::extract::{FromRequest, OriginalUri, Request, State};
use axum::http::{HeaderMap, StatusCode};
use cuewire::db::api_keys::KeyHolder;
use cuewire::ids::WebhookId;
use cuewire::webhook::Webhook;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::pages::{Address, Filling, Page, read_size};
use self::webhook::{FORMATS, Fields, View};
use super::Dialect;
use super::failure::{Failure, Failures, in_words_of};
use super::keys::Shown;
use super::selection::Selection;
use crate::Api;
use crate::auth::{Editor, Viewer};
use crate::error::Problem;
use crate::extract::{Json, LooseQuery, Path};

pub(super) const DIALECT: Dialect = Dialect {
    name: "quortex",
    routes: || {
        OpenApiRouter::new()
            .routes(routes!(token::issue))
            .routes(routes!(list, create, delete_all))
            .routes(routes!(read, replace, change, delete))
            .routes(routes!(log::list))
    },
    keys: &[&[Shown::Bearer("An access token, which `POST /1.0/token/` answers for a key")]],
    credentials: token::credentials,
    failures: Failures::of::<Failed>(),
};

const PATH: &str = "/platforms/quortex/1.0/organization/webhooks/";

/// The platform's names for the native fields that have others.
const NAMES: [(&str, &str); 3] = [("format", "type"), ("event_types", "category"), ("filter", "category")];

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// From 1.
    #[param(value_type = Option<u32>)]
    page: Option<String>,
    /// 1 to 1,000; without it all webhooks are answered, as an array.
    #[param(value_type = Option<u32>)]
    page_size: Option<String>,
}

/// All webhooks, or a page of them where a size was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = QuortexWebhooks)]
enum Listed {
    Whole(Vec<View>),
    Page(Page<View>),
}

/// List the webhooks
#[utoipa::path(get, path = "/1.0/organization/webhooks", tag = "Platform: Quortex", operation_id = "quortex_list",
    params(ListQuery), responses((status = 200, body = Listed)))]
async fn list(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    LooseQuery(query): LooseQuery<ListQuery>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Answer<Listed>, Problem> {
    let webhooks = api.database.webhooks_in(caller.organization, &FORMATS).await?;
    let Some(size) = read_size(query.page_size.as_deref()) else {
        return Ok(Answer(Listed::Whole(webhooks.iter().map(View::of).collect())));
    };
    let mut filling = Filling::new(query.page.as_deref(), size)?;
    for webhook in &webhooks {
        filling.push(|| View::of(webhook));
    }
    let address = Address::new(PATH, &uri, &headers).with("page_size", Some(size));
    Ok(Answer(Listed::Page(filling.finish(&address)?)))
}

/// Make a webhook
#[utoipa::path(post, path = "/1.0/organization/webhooks", tag = "Platform: Quortex",
    operation_id = "quortex_create", request_body = Fields,
    responses((status = 201, body = View), (status = 404, description = "The body is malformed")))]
async fn create(
    Editor(caller): Editor,
    State(api): State<Api>,
    Body(new): Body<Fields>,
) -> Result<(StatusCode, Answer<View>), Problem> {
    let fields = new.whole().over(webhook::unfiltered())?;
    let (webhook, _) = api.make_webhook(&caller, fields).await?;
    Ok((StatusCode::CREATED, Answer(View::of(&webhook))))
}

/// Delete all webhooks
#[utoipa::path(delete, path = "/1.0/organization/webhooks", tag = "Platform: Quortex",
    operation_id = "quortex_delete_all", responses((status = 204, description = "They are gone")))]
async fn delete_all(Editor(caller): Editor, State(api): State<Api>) -> Result<StatusCode, Problem> {
    api.delete_webhooks(&caller, &FORMATS).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Read a webhook
#[utoipa::path(get, path = "/1.0/organization/webhooks/{uuid}", tag = "Platform: Quortex",
    operation_id = "quortex_read", params(("uuid" = Uuid, Path)), responses((status = 200, body = View)))]
async fn read(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
) -> Result<Answer<View>, Problem> {
    Ok(Answer(View::of(&api.webhook_in(&caller, id, &FORMATS).await?)))
}

/// Change a webhook as a whole
///
/// A filter that is left out is unset.
#[utoipa::path(put, path = "/1.0/organization/webhooks/{uuid}", tag = "Platform: Quortex",
    operation_id = "quortex_replace", params(("uuid" = Uuid, Path)), request_body = Fields,
    responses((status = 200, body = View)))]
async fn replace(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
    Body(changed): Body<Fields>,
) -> Result<Answer<View>, Problem> {
    edit(&api, &caller, id, changed.whole()).await
}

/// Change parts of a webhook
#[utoipa::path(patch, path = "/1.0/organization/webhooks/{uuid}", tag = "Platform: Quortex",
    operation_id = "quortex_change", params(("uuid" = Uuid, Path)), request_body = Fields,
    responses((status = 200, body = View)))]
async fn change(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
    Body(changed): Body<Fields>,
) -> Result<Answer<View>, Problem> {
    edit(&api, &caller, id, changed).await
}

/// Delete a webhook
#[utoipa::path(delete, path = "/1.0/organization/webhooks/{uuid}", tag = "Platform: Quortex",
    operation_id = "quortex_delete", params(("uuid" = Uuid, Path)),
    responses((status = 204, description = "It is gone")))]
async fn delete(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
) -> Result<StatusCode, Problem> {
    api.webhook_in(&caller, id, &FORMATS).await?;
    api.delete_webhook(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn edit(api: &Api, caller: &KeyHolder, id: WebhookId, fields: Fields) -> Result<Answer<View>, Problem> {
    api.webhook_in(caller, id, &FORMATS).await?;
    let edit = |webhook: &Webhook| {
        let mut changed = fields.unlike(&View::of(webhook)).over(Selection::of(webhook))?;
        // One whose receiver was gone has no other way back.
        if webhook.disabled_reason.is_some() && changed.url.is_some() {
            changed.enabled = Some(Some(true));
        }
        Ok(changed)
    };
    let webhook = api.change_webhook(caller, id, edit).await?;
    Ok(Answer(View::of(&webhook)))
}

/// A JSON body, which is not found where it is malformed: so the platform says it.
struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Json::from_request(request, state).await;
        body.map(|Json(body)| Self(body)).map_err(|problem| match problem.status {
            StatusCode::BAD_REQUEST => Problem::new(StatusCode::NOT_FOUND, problem.detail),
            _ => problem,
        })
    }
}

/// The platform's errors.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuortexDetail)]
struct Failed {
    detail: String,
}

impl Failure for Failed {
    fn of(problem: &Problem) -> (StatusCode, Self) {
        let problem = in_words_of(&NAMES, problem);
        let (status, detail) = match problem.status {
            StatusCode::UNAUTHORIZED => (
                StatusCode::UNAUTHORIZED,
                "send an access token, which POST /1.0/token/ answers for a key, as `Authorization: Bearer \
                 <token>`; it is good for an hour, and as long as its key"
                    .to_owned(),
            ),
            StatusCode::UNPROCESSABLE_ENTITY => (StatusCode::NOT_FOUND, problem.detail),
            status => (status, problem.detail),
        };
        (status, Self { detail })
    }
}
