//! The events that were sent to an endpoint of Omegastream: the webhook's deliveries, with what was answered.

use std::collections::HashSet;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use cuewire::db::api_keys::KeyHolder;
use cuewire::db::attempts::AttemptPlace;
use cuewire::delivery::{Attempt, Outcome, State as DeliveryState};
use cuewire::event::{Data, Event, raw_json};
use cuewire::formats::omegastream::{API_VERSION, ids_of, short_id};
use cuewire::webhook::Webhook;
use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::super::tenant;
use super::find;
use crate::Api;
use crate::auth::Viewer;
use crate::error::Problem;
use crate::extract::Path;
use crate::samples::sent_sample;

const MAX_EVENTS_LISTED: usize = 100;
/// An event that was tried often is listed once: so many attempts are read for a list.
const MAX_ATTEMPTS_READ: usize = 1_000;
const ATTEMPTS_AT_A_TIME: usize = 200;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OmegastreamEvent)]
pub(super) struct EventView {
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

/// List an endpoint's events, the last that were sent first
///
/// Without their data and responses.
#[utoipa::path(get, path = "/{id}", tag = "Platform: Omegastream", operation_id = "omegastream_events",
    params(("id" = String, Path)), responses((status = 200, body = Vec<EventView>)))]
pub(super) async fn events(
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
pub(super) async fn event(
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

impl EventView {
    /// An event that happened at `time`; where it does not say so, it is that of the sending, as it was sent.
    fn of(attempt: &Attempt, time: Option<OffsetDateTime>, caller: &KeyHolder) -> Self {
        Self {
            id: short_id(attempt.delivery.0),
            coid: tenant(caller),
            api_version: API_VERSION,
            created: time.unwrap_or(attempt.started_at).unix_timestamp(),
            r#type: attempt.event_type.clone(),
            data: None,
            endpoint_id: short_id(attempt.webhook.0),
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
