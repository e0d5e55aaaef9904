//! The webhooks of Omegastream, which calls them endpoints, and the events that were sent to them.
//!
//! From the platform's pages, which have the same resources under three paths: all are served alike, and the
//! first is in the document. A webhook is made by POST or, as the pages have it, by GET with a body.
//!
//! Ours, where the pages are silent: errors are `{"message":…}`, validation's are 400; in a change what is left
//! out stays, and an empty `description` is none; `events` takes exact types of any name, and shows native
//! patterns as the platform's types; ids are the first 24 digits of Cuewire's own; an event is listed from its
//! first attempt on, the last 100 that were sent, the newest attempt first, and is shown with its data for as
//! long as the log has it.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Json as Answer, Router};
use cuewire::catalogue;
use cuewire::db::api_keys::KeyHolder;
use cuewire::db::attempts::AttemptPlace;
use cuewire::delivery::{Attempt, Outcome, State as DeliveryState};
use cuewire::event::{Data, Event, EventType, raw_json};
use cuewire::formats::Format;
use cuewire::webhook::{MAX_EVENT_TYPES, Webhook};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::selection::Selection;
use super::{Dialect, exact_types, micros, tenant};
use crate::Api;
use crate::auth::{Credentials, Editor, Viewer};
use crate::error::Problem;
use crate::extract::{OptionalJson, Path};
use crate::samples::sent_sample;
use crate::webhooks::{self, WebhookFields};

pub(super) const DIALECT: Dialect = Dialect {
    name: "omegastream",
    routes: everywhere,
    credentials: |_, headers| Credentials::bearer(headers),
    envelope,
};

/// The path in the document.
const DESCRIBED: &str = "/company/client/webhooks";
const OTHERS: [&str; 2] = ["/company/company/webhooks", "/company/webhooks"];

const API_VERSION: &str = "v1";
const ID_DIGITS: usize = 24;
/// What is left of an id behind them, in bits.
const CUT_BITS: u32 = 32;

const MAX_EVENTS_LISTED: usize = 100;
/// An event that was tried often is listed once: so many attempts are read for a list.
const MAX_ATTEMPTS_READ: usize = 1_000;
const ATTEMPTS_AT_A_TIME: usize = 200;

/// What a client writes of an endpoint; null is as good as nothing.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = OmegastreamEndpointFields,
    example = json!({"url": "https://example.com/hooks", "events": ["video.process_succeeded"]}))]
struct Fields {
    /// Required in a new endpoint.
    url: Option<String>,
    description: Option<String>,
    /// The types it takes, at most 200; required in a new endpoint. None: it takes nothing.
    events: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = OmegastreamStatus, example = json!({"active": true}))]
struct Status {
    active: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OmegastreamEndpoint)]
struct Endpoint {
    #[schema(example = "6323940afc8e1c02d9f3b155")]
    id: String,
    #[schema(example = "2022-09-15T21:07:22.823797Z")]
    created_at: String,
    updated_at: String,
    coid: String,
    url: String,
    description: Option<String>,
    events: Vec<String>,
    active: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OmegastreamEvent)]
struct EventView {
    id: String,
    coid: String,
    api_version: &'static str,
    /// When it happened, in unix seconds.
    created: i64,
    r#type: String,
    #[schema(value_type = Option<Object>)]
    data: Option<Box<RawValue>>,
    endpoint_id: String,
    response: Option<Response>,
}

/// What the endpoint answered to the last attempt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OmegastreamResponse)]
struct Response {
    /// 0: there was no answer.
    status_code: u16,
    #[schema(example = "200 OK")]
    status: String,
    body: String,
    message: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OmegastreamMessage)]
struct Message {
    message: &'static str,
}

fn everywhere() -> OpenApiRouter<Api> {
    let routes = OpenApiRouter::new()
        .routes(routes!(create, create_by_get))
        .routes(routes!(list))
        .routes(routes!(events, update, delete))
        .routes(routes!(set_status))
        .routes(routes!(event));
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
    if new.events.is_none() {
        return Err(Problem::invalid_field("events", "is missing"));
    }
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
    Ok(Answer(Message { message: "webhook endpoint deleted" }))
}

/// List an endpoint's events, the last that were sent first
///
/// Without their data and responses.
#[utoipa::path(get, path = "/{id}", tag = "Platform: Omegastream", operation_id = "omegastream_events",
    params(("id" = String, Path)), responses((status = 200, body = Vec<EventView>)))]
async fn events(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Answer<Vec<EventView>>, Problem> {
    let webhook = find(&api, &caller, &id).await?;
    let attempts = last_attempts(&api, &webhook).await?;
    let keys: Vec<_> = attempts.iter().map(|it| (it.event_source.as_str(), it.event_id.as_str())).collect();
    let times = api.database.event_times(caller.organization, &keys).await?;
    let views = attempts.iter().zip(times).map(|(attempt, time)| EventView::of(attempt, time, &caller));
    Ok(Answer(views.collect()))
}

/// Read an event, with what the endpoint answered
#[utoipa::path(get, path = "/{id}/events/{event_id}", tag = "Platform: Omegastream",
    operation_id = "omegastream_event", params(("id" = String, Path), ("event_id" = String, Path)),
    responses((status = 200, body = EventView)))]
async fn event(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Path((id, event_id)): Path<(String, String)>,
) -> Result<Answer<EventView>, Problem> {
    let webhook = find(&api, &caller, &id).await?;
    let no_event = || Problem::no_such("event");
    let deliveries = ids_of(&event_id).ok_or_else(no_event)?;
    let attempt = api.database.last_attempt(webhook.id, &deliveries).await?.ok_or_else(no_event)?;
    let (source, id) = (&attempt.event_source, &attempt.event_id);
    let logged = api.database.event(caller.organization, id, Some(source)).await?;
    let event = match logged {
        Some(logged) => Event::from_json(&logged.payload.into()).ok(),
        None => sent_sample(&webhook, source, id, &attempt.event_type),
    };
    let time = event.as_ref().and_then(Event::timestamp);
    let data = event.as_ref().and_then(data_of);
    let response = Some(Response::of(&attempt));
    Ok(Answer(EventView { data, response, ..EventView::of(&attempt, time, &caller) }))
}

/// The caller's webhook of this short id and the platform's format.
async fn find(api: &Api, caller: &KeyHolder, id: &str) -> Result<Webhook, Problem> {
    let ids = ids_of(id).ok_or_else(webhooks::none)?;
    let webhook = api.database.webhook_among(caller.organization, &ids).await?;
    webhook.filter(|webhook| webhook.format == Format::Omegastream).ok_or_else(webhooks::none)
}

/// The newest attempt of each of the deliveries that were last sent.
async fn last_attempts(api: &Api, webhook: &Webhook) -> Result<Vec<Attempt>, Problem> {
    let (mut seen, mut last) = (HashSet::new(), Vec::new());
    let mut after = None;
    for _ in 0..MAX_ATTEMPTS_READ / ATTEMPTS_AT_A_TIME {
        let attempts = api.database.webhook_attempts(webhook.id, after, ATTEMPTS_AT_A_TIME).await?;
        after = attempts.last().map(AttemptPlace::of);
        let is_last = attempts.len() < ATTEMPTS_AT_A_TIME;
        last.extend(attempts.into_iter().filter(|attempt| seen.insert(attempt.delivery)));
        if is_last || last.len() >= MAX_EVENTS_LISTED {
            break;
        }
    }
    last.truncate(MAX_EVENTS_LISTED);
    Ok(last)
}

impl Fields {
    /// As changes of a webhook that selects these events so far.
    fn over(&self, mut selection: Selection) -> Result<WebhookFields, Problem> {
        if let Some(events) = &self.events {
            let known = known();
            check(events, &exact_types::shown(&selection, &known))?;
            exact_types::choose(&mut selection, &known, events);
        }
        let description = self.description.clone().map(|text| Some(text).filter(|text| !text.is_empty()));
        let mut fields =
            WebhookFields { url: self.url.clone().map(Some), description, ..WebhookFields::default() };
        selection.write_to(&mut fields);
        Ok(fields)
    }
}

/// Whether they are types, or what was shown to the client as one.
fn check(events: &[String], shown: &[String]) -> Result<(), Problem> {
    if events.len() > MAX_EVENT_TYPES {
        let detail = format!("has {} entries, and at most {MAX_EVENT_TYPES} are accepted", events.len());
        return Err(Problem::invalid_field("events", detail));
    }
    for (index, event_type) in events.iter().enumerate().filter(|(_, it)| !shown.contains(it)) {
        EventType::parse(event_type)
            .map_err(|detail| Problem::invalid_field(format!("events[{index}]"), detail))?;
    }
    Ok(())
}

/// The platform's types.
fn known() -> Vec<&'static str> {
    let own = catalogue::all().iter().filter(|entry| entry.platform == Format::Omegastream.as_str());
    own.map(|entry| entry.name.as_str()).collect()
}

impl Endpoint {
    fn of(webhook: &Webhook, caller: &KeyHolder) -> Self {
        Self {
            id: short(webhook.id.0),
            created_at: micros(webhook.created_at),
            updated_at: micros(webhook.updated_at),
            coid: tenant(caller),
            url: webhook.url.clone(),
            description: webhook.description.clone(),
            events: exact_types::shown(&Selection::of(webhook), &known()),
            active: webhook.enabled,
        }
    }
}

impl EventView {
    /// An event that happened at `time`; where it does not say so, it is that of the sending, as it was sent.
    fn of(attempt: &Attempt, time: Option<OffsetDateTime>, caller: &KeyHolder) -> Self {
        Self {
            id: short(attempt.delivery.0),
            coid: tenant(caller),
            api_version: API_VERSION,
            created: time.unwrap_or(attempt.started_at).unix_timestamp(),
            r#type: attempt.event_type.clone(),
            data: None,
            endpoint_id: short(attempt.webhook.0),
            response: None,
        }
    }
}

impl Response {
    fn of(attempt: &Attempt) -> Self {
        let outcome = if attempt.state == DeliveryState::Delivered { "succeeded" } else { "failed" };
        let message = format!("webhook event with type {} {outcome}", attempt.event_type);
        match &attempt.outcome {
            Outcome::Answered(answer) => Self {
                status_code: answer.status,
                status: status_line(answer.status),
                body: String::from_utf8_lossy(&answer.body).into_owned(),
                message,
            },
            Outcome::Failed { .. } => {
                Self { status_code: 0, status: String::new(), body: String::new(), message }
            }
        }
    }
}

/// `200 OK`; a status without a name is its number alone.
fn status_line(status: u16) -> String {
    match StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()) {
        Some(reason) => format!("{status} {reason}"),
        None => status.to_string(),
    }
}

fn data_of(event: &Event) -> Option<Box<RawValue>> {
    let Data::Json(bytes) = &event.data else { return None };
    raw_json(bytes).ok().map(ToOwned::to_owned)
}

/// The platform's form of an id.
fn short(id: Uuid) -> String {
    let mut digits = id.simple().to_string();
    digits.truncate(ID_DIGITS);
    digits
}

/// The ids that have this short form.
fn ids_of(digits: &str) -> Option<RangeInclusive<Uuid>> {
    if digits.len() != ID_DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let first = u128::from_str_radix(digits, 16).ok()? << CUT_BITS;
    let last = first | u128::from(u32::MAX);
    Some(Uuid::from_u128(first)..=Uuid::from_u128(last))
}

fn envelope(problem: &Problem) -> (StatusCode, Value) {
    let status = match problem.status {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        other => other,
    };
    (status, json!({"message": problem.detail}))
}
