//! The webhooks of Quortex I/O, as its API manages them.
//!
//! From the platform's API reference. Ours, where that is silent: errors are `{"detail":"…"}`, and a body that
//! is malformed is 404 at a change as it is at creation; an unset filter is absent, and null or empty text
//! unsets one; `category` may be an array, and an empty one takes nothing; a webhook of a chat format is one of
//! the platform's type of that name, wherever it was made, and goes with the others when all are deleted; a page
//! that does not exist is 404, and a `page_size` that is no number of entries is as good as none.

mod log;
mod pages;
mod token;

use axum::Json as Answer;
use axum::extract::{FromRequest, OriginalUri, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use cuewire::db::api_keys::KeyHolder;
use cuewire::filter::Term;
use cuewire::formats::Format;
use cuewire::ids::WebhookId;
use cuewire::webhook::Webhook;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use self::pages::{Address, Filling, Page, read_size};
use super::kinds::{Kinds, is_category, is_operation};
use super::selection::{Place, Selection};
use super::{Dialect, in_words_of};
use crate::Api;
use crate::auth::{Editor, Viewer};
use crate::checks::Checks;
use crate::error::Problem;
use crate::extract::{Json, Path, Query, given};
use crate::webhooks::WebhookFields;

pub(super) const DIALECT: Dialect = Dialect {
    name: "quortex",
    routes: || {
        OpenApiRouter::new()
            .routes(routes!(token::issue))
            .routes(routes!(list, create, delete_all))
            .routes(routes!(read, replace, change, delete))
            .routes(routes!(log::list))
    },
    credentials: token::credentials,
    envelope,
};

const PATH: &str = "/platforms/quortex/1.0/organization/webhooks/";

/// The platform's types of webhooks.
const TYPES: [(&str, Format); 4] = [
    ("raw", Format::Quortex),
    ("gchat", Format::GoogleChat),
    ("slack", Format::Slack),
    ("teams", Format::Teams),
];
const FORMATS: [Format; 4] = [TYPES[0].1, TYPES[1].1, TYPES[2].1, TYPES[3].1];

const APPLICATION: Place = &["application"];
const CATEGORY: &str = "category";
const POOL: Place = &["pooluuid"];
const RESOURCE: Place = &["subject", "object_id"];

const MAX_NAME_CHARS: usize = 100;
const MAX_URL_CHARS: usize = 1_024;
const MAX_FILTER_CHARS: usize = 128;
/// More than there are.
const MAX_CATEGORIES: usize = 100;

/// The platform's names for the native fields that have others.
const NAMES: [(&str, &str); 3] = [("format", "type"), ("event_types", "category"), ("filter", "category")];

/// What a client writes of a webhook.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = QuortexWebhookFields, example = json!({
    "name": "Alerts", "type": "raw", "url": "https://example.com/hooks", "application": "link",
    "category": "input", "operation": "status_change"
}))]
struct Fields {
    /// 1 to 100 characters.
    name: Option<String>,
    /// `raw`, `gchat`, `slack` or `teams`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// 1 to 1,024 characters.
    url: Option<String>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    application: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<Category>)]
    category: Option<Option<Category>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    operation: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pool_uuid: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    resource_uuid: Option<Option<String>>,
}

/// One category, or one of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "text or an array of texts is expected")]
#[schema(as = QuortexCategory)]
enum Category {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuortexWebhook)]
struct View {
    uuid: Uuid,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    application: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<Category>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_uuid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_uuid: Option<String>,
}

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

/// List the webhooks
#[utoipa::path(get, path = "/1.0/organization/webhooks", tag = "Platform: Quortex", operation_id = "quortex_list",
    params(ListQuery), responses((status = 200, body = Page<View>)))]
async fn list(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let webhooks = api.database.webhooks_in(caller.organization, &FORMATS).await?;
    let Some(size) = read_size(query.page_size.as_deref()) else {
        return Ok(Answer(webhooks.iter().map(View::of).collect::<Vec<_>>()).into_response());
    };
    let mut filling = Filling::new(query.page.as_deref(), size)?;
    for webhook in &webhooks {
        filling.push(|| View::of(webhook));
    }
    let address = Address::new(PATH, &uri, &headers).with("page_size", Some(size));
    Ok(Answer(filling.finish(&address)?).into_response())
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
    let mut selection = Selection::nothing();
    selection.set_types(None);
    selection.terms.push(any_application());
    let fields = new.whole().over(selection)?;
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
    Ok(Answer(View::of(&find(&api, &caller, id).await?)))
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
    find(&api, &caller, id).await?;
    api.delete_webhook(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The caller's webhook of this id and one of the platform's types.
async fn find(api: &Api, caller: &KeyHolder, id: WebhookId) -> Result<Webhook, Problem> {
    api.webhook_in(caller, id, &FORMATS).await
}

async fn edit(api: &Api, caller: &KeyHolder, id: WebhookId, fields: Fields) -> Result<Answer<View>, Problem> {
    find(api, caller, id).await?;
    let webhook = api.change_webhook(caller, id, |webhook| fields.over(Selection::of(webhook))).await?;
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

impl Fields {
    /// As a webhook that has these fields and no others: what is required must be there, and the rest is unset.
    fn whole(self) -> Self {
        Self {
            name: Some(self.name.unwrap_or_default()),
            kind: Some(self.kind.unwrap_or_default()),
            url: Some(self.url.unwrap_or_default()),
            application: Some(self.application.flatten()),
            category: Some(self.category.flatten()),
            operation: Some(self.operation.flatten()),
            pool_uuid: Some(self.pool_uuid.flatten()),
            resource_uuid: Some(self.resource_uuid.flatten()),
        }
    }

    /// As changes of a webhook that selects these events so far.
    fn over(&self, mut selection: Selection) -> Result<WebhookFields, Problem> {
        let mut checks = Checks::default();
        let mut required = |field, text: &Option<String>, max| {
            checks.take(field, bounded(text.as_deref()?, max)).map(|text| Some(text.to_owned()))
        };
        let mut fields = WebhookFields {
            name: required("name", &self.name, MAX_NAME_CHARS),
            url: required("url", &self.url, MAX_URL_CHARS),
            ..WebhookFields::default()
        };
        let format = self.kind.as_deref().and_then(|kind| checks.take("type", read_type(kind)));
        fields.format = format.map(|format| Some(format.as_str().to_owned()));
        self.select(&mut selection, &mut checks);
        checks.finish()?;
        selection.write_to(&mut fields);
        Ok(fields)
    }

    fn select(&self, selection: &mut Selection, checks: &mut Checks) {
        if let Some(application) = filter(checks, "application", &self.application) {
            set_application(selection, application);
        }
        for (field, text, place) in
            [("pool_uuid", &self.pool_uuid, POOL), ("resource_uuid", &self.resource_uuid, RESOURCE)]
        {
            if let Some(text) = filter(checks, field, text) {
                selection.set_value(place, text);
            }
        }
        let mut kinds = Kinds::of(selection);
        if let Some(operation) = filter(checks, "operation", &self.operation) {
            let known = operation.is_none_or(is_operation);
            let read = known.then_some(operation).ok_or_else(|| "is no operation of any event".to_owned());
            kinds.operation = checks.take("operation", read).flatten().map(str::to_owned);
        }
        if let Some(category) = &self.category {
            if let Some([one]) = kinds.categories.as_deref() {
                selection.terms.retain(|term| *term != mark(one));
            }
            let categories = category.as_ref().map_or(Ok(None), Category::read);
            kinds.categories = checks.take("category", categories).flatten();
            selection.terms.extend(category.as_ref().and_then(Category::mark));
        }
        kinds.write_to(selection);
    }
}

/// A filter that a client names; none in some: it is to be unset.
fn filter<'a>(checks: &mut Checks, field: &str, text: &'a Option<Option<String>>) -> Option<Option<&'a str>> {
    let text = text.as_ref()?.as_deref().filter(|text| !text.is_empty());
    text.map_or(Some(None), |text| checks.take(field, bounded(text, MAX_FILTER_CHARS)).map(Some))
}

/// Text of 1 to `max` characters.
fn bounded(text: &str, max: usize) -> Result<&str, String> {
    match text.chars().count() {
        0 => Err("is missing".to_owned()),
        chars if chars > max => Err(format!("has {chars} characters, and at most {max} are accepted")),
        _ => Ok(text),
    }
}

fn read_type(text: &str) -> Result<Format, String> {
    let format = TYPES.iter().find(|(name, _)| *name == text).map(|(_, format)| *format);
    format.ok_or_else(|| match text {
        "" => "is missing".to_owned(),
        _ => format!("is {text:?}, and must be raw, gchat, slack or teams"),
    })
}

/// Without a filter, what takes every event that is one of the platform's.
fn any_application() -> Term {
    Term::is_not_null(APPLICATION[0])
}

fn set_application(selection: &mut Selection, application: Option<&str>) {
    if selection.value(APPLICATION).as_deref() == application {
        return;
    }
    match application {
        Some(_) => selection.terms.retain(|term| *term != any_application()),
        None => selection.terms.push(any_application()),
    }
    selection.set_value(APPLICATION, application);
}

impl Category {
    /// The categories; none: any.
    fn read(&self) -> Result<Option<Vec<String>>, String> {
        let list = match self {
            Self::One(text) if text.is_empty() => return Ok(None),
            Self::One(text) => std::slice::from_ref(text),
            Self::Several(list) => list,
        };
        if list.len() > MAX_CATEGORIES {
            return Err(format!("has {} entries, and at most {MAX_CATEGORIES} are accepted", list.len()));
        }
        if let Some(other) = list.iter().find(|text| !is_category(text)) {
            return Err(format!("has {other:?}, which is no category of any event"));
        }
        Ok(Some(list.to_vec()))
    }

    /// What tells an array of one category from a single one: the same again, as a term in parentheses.
    fn mark(&self) -> Option<Term> {
        match self {
            Self::Several(list) if list.len() == 1 => Some(mark(&list[0])),
            _ => None,
        }
    }

    fn of(categories: Vec<String>, terms: &[Term]) -> Self {
        match <[String; 1]>::try_from(categories) {
            Ok([one]) if !terms.contains(&mark(&one)) => Self::One(one),
            Ok(one) => Self::Several(one.into()),
            Err(several) => Self::Several(several),
        }
    }
}

fn mark(category: &str) -> Term {
    Term::nested(Term::equals(CATEGORY, category).as_str())
}

impl View {
    fn of(webhook: &Webhook) -> Self {
        let selection = Selection::of(webhook);
        let Kinds { categories, operation } = Kinds::of(&selection);
        let kind = TYPES.iter().find(|(_, format)| *format == webhook.format);
        Self {
            uuid: webhook.id.0,
            name: webhook.name.clone(),
            kind: kind.map_or("raw", |(name, _)| name),
            url: webhook.url.clone(),
            application: selection.value(APPLICATION),
            category: categories.map(|categories| Category::of(categories, &selection.terms)),
            operation,
            pool_uuid: selection.value(POOL),
            resource_uuid: selection.value(RESOURCE),
        }
    }
}

fn envelope(problem: &Problem) -> (StatusCode, Value) {
    let problem = in_words_of(&NAMES, problem);
    let (status, detail) = match problem.status {
        StatusCode::UNAUTHORIZED => (
            StatusCode::UNAUTHORIZED,
            "send an access token, which POST /1.0/token/ answers for a key, as `Authorization: Bearer <token>`; \
             it is good for an hour, and as long as its key",
        ),
        StatusCode::UNPROCESSABLE_ENTITY => (StatusCode::NOT_FOUND, problem.detail.as_str()),
        status => (status, problem.detail.as_str()),
    };
    (status, json!({"detail": detail}))
}
