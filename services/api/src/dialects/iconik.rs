//! The webhooks of iconik, as its API manages them.
//!
//! From the platform's API reference. Ours, where that is silent: an `event_type` of `*` takes every type, and
//! one with commas takes each of those (so are webhooks of the native API shown); empty text is as good as null
//! but for `event_type` and `url`; a `PUT` leaves what it does not name, and null clears what may be null; only
//! `ENABLED` and `DISABLED` can be set; a deleted webhook is not found, so that `deleted_at` is always null;
//! with `per_page` the list has pages; of a list the first 64 webhooks that failed show `last_payload`; which
//! operators and names a query knows.

use std::collections::BTreeMap;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use cuewire::db::api_keys::KeyHolder;
use cuewire::filter::{Filter, Term};
use cuewire::formats::Format;
use cuewire::ids::WebhookId;
use cuewire::webhook::{Status, Webhook};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::failures::{Failure, last_failures};
use super::kinds::{self, Kinds};
use super::selection::{Place, Selection, value_in};
use super::{Dialect, in_words_of, whole};
use crate::Api;
use crate::auth::{Credentials, Editor, Viewer};
use crate::checks::Checks;
use crate::error::Problem;
use crate::extract::{Json, Path, Query, given};
use crate::webhooks::{self, WebhookFields};

pub(super) const DIALECT: Dialect = Dialect {
    name: "iconik",
    routes: || OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(read, update, delete)),
    credentials,
    envelope,
};

const FORMAT: Format = Format::Iconik;
const REALM: Place = &["realm"];
const OBJECT: Place = &["subject", "object_id"];
/// Stands for every type of event.
const ANY: &str = "*";
/// The platform's names for the native fields that have others.
const NAMES: [(&str, &str); 3] = [("event_types", "event_type"), ("filter", "query"), ("enabled", "status")];

/// What a client writes of a webhook.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = IconikWebhookFields, example = json!({
    "name": "Archive", "event_type": "assets", "operation": "update", "realm": "metadata",
    "url": "https://example.com/webhook_handler", "query": "data.is_archived=false AND data.size>0"
}))]
struct Fields {
    name: Option<String>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    description: Option<Option<String>>,
    /// Required in a new webhook: `assets`, `collections`, …
    event_type: Option<String>,
    /// Null: any object.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    object_id: Option<Option<String>>,
    /// In any case; null: any operation.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    operation: Option<Option<String>>,
    /// Null: any realm.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    realm: Option<Option<String>>,
    /// Required in a new webhook.
    url: Option<String>,
    /// `ENABLED` or `DISABLED`.
    status: Option<String>,
    /// An expression over the event.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    query: Option<Option<String>>,
    /// Sent with every call.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    headers: Option<Option<BTreeMap<String, String>>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IconikWebhook)]
struct View {
    id: Uuid,
    name: String,
    description: Option<String>,
    event_type: String,
    object_id: Option<String>,
    operation: Option<String>,
    realm: Option<String>,
    url: String,
    /// `ENABLED`, `DISABLED`, or `FAILING`: enabled, and its last delivery that ended failed for good.
    status: &'static str,
    query: Option<String>,
    headers: BTreeMap<String, String>,
    date_created: String,
    date_modified: String,
    /// Always null: a deleted webhook is not found.
    deleted_at: Option<String>,
    /// Since when it is failing.
    first_failed_at: Option<String>,
    /// Why the last call failed that did.
    last_error: Option<String>,
    /// What that call sent.
    last_payload: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IconikWebhooks)]
struct List {
    objects: Vec<View>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// From 1.
    #[serde(default, deserialize_with = "whole")]
    page: Option<i64>,
    /// Unless it is given, all webhooks are on the first page.
    #[serde(default, deserialize_with = "whole")]
    per_page: Option<i64>,
}

/// List the webhooks
#[utoipa::path(get, path = "/API/notifications/v1/webhooks", tag = "Platform: iconik", operation_id = "iconik_list",
    params(ListQuery), responses((status = 200, body = List)))]
async fn list(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Answer<List>, Problem> {
    let mut checks = Checks::default();
    let mut read = |field, number: Option<i64>| {
        let number = usize::try_from(number?).ok().filter(|number| *number > 0);
        checks.take(field, number.ok_or_else(|| "must be 1 or more".to_owned()))
    };
    let (page, per_page) = (read("page", query.page), read("per_page", query.per_page));
    checks.finish()?;
    let mut webhooks = api.database.webhooks_in(caller.organization, &[FORMAT]).await?;
    let per_page = per_page.unwrap_or(usize::MAX);
    let before = page.map_or(0, |page| per_page.saturating_mul(page - 1)).min(webhooks.len());
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
    let mut checks = Checks::default();
    for (field, value) in [("event_type", &new.event_type), ("url", &new.url)] {
        if value.is_none() {
            checks.refuse(field, "is missing");
        }
    }
    checks.finish()?;
    let mut fields = new.over(Selection::nothing())?;
    fields.enabled = Some(Some(match new.status.as_deref() {
        None | Some("ENABLED") => true,
        Some("DISABLED") => false,
        Some(other) => return Err(refused_status(other)),
    }));
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
    let webhook = find(&api, &caller, id).await?;
    Ok(Answer(view(&api, &caller, webhook).await?))
}

/// Change a webhook
///
/// What is left out stays; null clears `description`, `object_id`, `operation`, `realm`, `query` and `headers`.
/// `ENABLED` also ends the status `FAILING`.
#[utoipa::path(put, path = "/API/notifications/v1/webhooks/{id}", tag = "Platform: iconik",
    operation_id = "iconik_update", params(("id" = Uuid, Path)), request_body = Fields,
    responses((status = 200, body = View)))]
async fn update(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
    Json(changed): Json<Fields>,
) -> Result<Answer<View>, Problem> {
    find(&api, &caller, id).await?;
    let edit = |webhook: &Webhook| {
        let mut fields = changed.over(Selection::of(webhook))?;
        fields.enabled = match changed.status.as_deref() {
            None => None,
            Some(same) if same == shown_status(webhook.status()) => None,
            // What is enabled and fails goes on failing until it succeeds.
            Some("ENABLED") if webhook.enabled => None,
            Some("ENABLED") => Some(Some(true)),
            Some("DISABLED") => Some(Some(false)),
            // It was failing when it was read.
            Some("FAILING") if webhook.enabled => None,
            Some(other) => return Err(refused_status(other)),
        };
        Ok(fields)
    };
    let webhook = api.change_webhook(&caller, id, edit).await?;
    Ok(Answer(view(&api, &caller, webhook).await?))
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
    find(&api, &caller, id).await?;
    api.delete_webhook(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The caller's webhook of this id and the platform's format.
async fn find(api: &Api, caller: &KeyHolder, id: WebhookId) -> Result<Webhook, Problem> {
    api.webhook_in(caller, id, &[FORMAT]).await
}

impl Fields {
    /// As changes of a webhook that selects these events so far.
    fn over(&self, mut selection: Selection) -> Result<WebhookFields, Problem> {
        let mut kinds = Kinds::of(&selection);
        if self.event_type.as_deref().is_some_and(|text| text != shown_types(&kinds)) {
            kinds.categories = read_types(self.event_type.as_deref().unwrap_or_default())?;
        }
        if let Some(operation) = &self.operation {
            let operation = set(operation.as_deref()).map(str::to_lowercase);
            if operation != shown_operation(&kinds) {
                kinds.operation = operation;
            }
        }
        kinds.write_to(&mut selection);
        for (place, value) in [(REALM, &self.realm), (OBJECT, &self.object_id)] {
            if let Some(value) = value {
                selection.set_value(place, set(value.as_deref()));
            }
        }
        if let Some(query) = &self.query {
            set_query(&mut selection, set(query.as_deref()))?;
        }
        let text = |value: &Option<Option<String>>| Some(set(value.as_ref()?.as_deref()).map(str::to_owned));
        let mut fields = WebhookFields {
            name: self.name.as_ref().map(|name| set(Some(name)).map(str::to_owned)),
            description: text(&self.description),
            url: self.url.clone().map(Some),
            headers: self.headers.clone(),
            ..WebhookFields::default()
        };
        selection.write_to(&mut fields);
        Ok(fields)
    }
}

/// The text, unless it is empty.
fn set(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.trim().is_empty())
}

/// The types that a client names; none: any.
fn read_types(text: &str) -> Result<Option<Vec<String>>, Problem> {
    if text.trim().is_empty() {
        return Err(Problem::invalid_field("event_type", "is empty"));
    }
    let several: Vec<String> = text.split(',').map(str::to_owned).collect();
    let one = || vec![text.to_owned()];
    let types = if several.iter().all(|text| kinds::is_category(text)) { several } else { one() };
    Ok(Some(types).filter(|_| text != ANY))
}

fn shown_types(kinds: &Kinds) -> String {
    kinds.categories.as_ref().map_or_else(|| ANY.to_owned(), |categories| categories.join(","))
}

fn shown_operation(kinds: &Kinds) -> Option<String> {
    kinds.operation.as_ref().map(|operation| operation.to_lowercase())
}

/// The terms that the other fields are shown from, and those of which the query is made.
fn parted(selection: &Selection) -> (Vec<Term>, Vec<Term>) {
    let (mut others, mut of_query) = (Vec::new(), selection.terms.clone());
    for place in Kinds::PLACES.into_iter().chain([REALM, OBJECT]) {
        if let Some(at) = of_query.iter().position(|term| value_in(term, place).is_some()) {
            others.push(of_query.remove(at));
        }
    }
    (others, of_query)
}

fn query(selection: &Selection) -> Option<String> {
    match parted(selection).1.as_slice() {
        [one] if one.as_nested().is_some() => one.as_nested().map(str::to_owned),
        terms => Term::join(terms),
    }
}

/// Asks for a query from now on. It is read by itself first, so that an error's position is one in it.
fn set_query(selection: &mut Selection, text: Option<&str>) -> Result<(), Problem> {
    if query(selection).as_deref() == text {
        return Ok(());
    }
    selection.terms = parted(selection).0;
    if let Some(text) = text {
        Filter::parse(text)
            .map_err(|error| Problem::invalid_field("query", format!("cannot be read {error}")))?;
        selection.terms.push(Term::nested(text));
    }
    Ok(())
}

fn shown_status(status: Status) -> &'static str {
    match status {
        Status::Enabled => "ENABLED",
        Status::Disabled => "DISABLED",
        Status::Failing => "FAILING",
    }
}

fn refused_status(status: &str) -> Problem {
    let known = "can be set to ENABLED or DISABLED; how deliveries fare makes it FAILING, and DELETE deletes";
    Problem::invalid_field("status", format!("is {status:?}, and {known}"))
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

async fn view(api: &Api, caller: &KeyHolder, webhook: Webhook) -> Result<View, Problem> {
    let views = views(api, caller, vec![webhook]).await?;
    views.into_iter().next().ok_or_else(webhooks::none)
}

impl View {
    fn of(webhook: Webhook, headers: BTreeMap<String, String>, failure: Option<Failure>) -> Self {
        let selection = Selection::of(&webhook);
        let kinds = Kinds::of(&selection);
        let (last_error, last_payload) =
            failure.map_or((None, None), |failure| (Some(failure.error), failure.payload));
        Self {
            id: webhook.id.0,
            status: shown_status(webhook.status()),
            name: webhook.name,
            description: webhook.description,
            event_type: shown_types(&kinds),
            object_id: selection.value(OBJECT),
            operation: shown_operation(&kinds),
            realm: selection.value(REALM),
            url: webhook.url,
            query: query(&selection),
            headers,
            date_created: time_of(webhook.created_at),
            date_modified: time_of(webhook.updated_at),
            deleted_at: None,
            first_failed_at: webhook.first_failed_at.map(time_of),
            last_error,
            last_payload,
        }
    }
}

/// As the platform writes times in its events.
fn time_of(at: OffsetDateTime) -> String {
    const FORMAT: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]+00:00"
    );
    at.to_offset(time::UtcOffset::UTC).format(FORMAT).unwrap_or_default()
}

fn credentials(_: &Api, headers: &HeaderMap) -> Option<Credentials> {
    let id = headers.get("app-id")?.to_str().ok()?;
    Credentials::of_pair(id.trim(), headers.get("auth-token")?.as_bytes().trim_ascii())
}

fn envelope(problem: &Problem) -> (StatusCode, Value) {
    let problem = in_words_of(&NAMES, problem);
    match problem.status {
        StatusCode::UNAUTHORIZED => {
            let detail =
                "send the id of a key as `App-ID` and the key itself as `Auth-Token`; these are no such pair";
            (problem.status, json!({"errors": [detail]}))
        }
        StatusCode::UNPROCESSABLE_ENTITY if !problem.errors.is_empty() => {
            let mut errors: BTreeMap<&str, String> = BTreeMap::new();
            for error in &problem.errors {
                let sentence = errors.entry(&error.field).or_default();
                if !sentence.is_empty() {
                    sentence.push_str("; ");
                }
                sentence.push_str(&error.detail);
            }
            (StatusCode::BAD_REQUEST, json!({"errors": errors}))
        }
        StatusCode::UNPROCESSABLE_ENTITY => (StatusCode::BAD_REQUEST, json!({"errors": [problem.detail]})),
        status => (status, json!({"errors": [problem.detail]})),
    }
}
