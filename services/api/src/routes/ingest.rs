//! Ingest: events over HTTP, validated and handed to the broker. No database on this path.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use cuewire::db::api_keys::Role;
use cuewire::event::{AttributeValue, Draft, Event, EventError, MAX_BATCH_BYTES, MAX_BATCH_EVENTS};
use cuewire::message::EventMessage;
use percent_encoding::percent_decode;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::SemaphorePermit;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::Api;
use crate::auth::Caller;
use crate::error::{FieldError, Problem};
use crate::extract::{content_type, read_body};

/// A client that sends more slowly holds up to 8 MiB of memory for nothing.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bodies in memory at a time, in KiB: 256 MiB, whatever the number of clients.
pub(crate) const ROOM_KIB: usize = 256 * 1024;
/// How long a request waits for room among them.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);
const ORGANIZATION: &str = "organization";
const ATTRIBUTE_PREFIX: &str = "ce-";

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(publish)).layer(DefaultBodyLimit::max(MAX_BATCH_BYTES))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"accepted": 1, "ids": ["7c1f8f0e-5d6b-4c3a-9f2e-1b0a9d8c7e6f"]}))]
struct Accepted {
    /// How many events the broker has.
    accepted: usize,
    /// Their ids, in the order they were sent; those that were made here among them.
    ids: Vec<String>,
}

/// Publish events
///
/// One event as a JSON object, or as `ce-…` headers with the data as the body; many as a JSON array. An event
/// without an `id` gets one, and is then a new event whenever it is sent again. With an organization's key
/// the event's `organization` is implied; with the operator's key it must be named. Either all events of a
/// request are valid or none is accepted; after a 503 part of a batch may be accepted, so repeat it with the
/// same ids.
#[utoipa::path(post, path = "/v1/events", tag = "Events",
    params(
        ("ce-id" = Option<String>, Header, description = "With `ce-` headers the body is the event's data"),
        ("ce-source" = Option<String>, Header, description = "Percent-encoded, as all of them"),
        ("ce-type" = Option<String>, Header, description = "Every attribute is such a header"),
    ),
    request_body(
        content(
            (Object = "application/cloudevents+json", example = json!({
                "specversion": "1.0", "id": "7c1f8f0e-5d6b-4c3a-9f2e-1b0a9d8c7e6f", "source": "/encoder/3",
                "type": "recordings.completed", "subject": "stream-1", "time": "2026-01-31T09:30:00Z",
                "data": {"size": 1048576}
            })),
            (Vec<Object> = "application/cloudevents-batch+json", example = json!([{
                "specversion": "1.0", "id": "1", "source": "/encoder/3", "type": "feeds.started"
            }])),
            (Object = "application/json", example = json!({
                "source": "/encoder/3", "type": "recordings.completed", "data": {"size": 1048576}
            })),
            (Vec<u8> = "*/*"),
        )
    ),
    responses(
        (status = 202, body = Accepted),
        (status = 403, description = "An event names another organization"),
        (status = 413, description = "An event is over 256 KiB, or a batch over 1,000 events or 8 MiB"),
        (status = 415, description = "The content type is none of an event's"),
        (status = 422, description = "An event is not valid; in a batch `errors` names its index"),
    ))]
async fn publish(
    caller: Caller,
    State(api): State<Api>,
    request: Request,
) -> Result<(StatusCode, Json<Accepted>), Problem> {
    if let Caller::Member(_) = &caller {
        caller.clone().member(Role::Editor)?;
    }
    let headers = request.headers().clone();
    let mode = Mode::of(&headers)?;
    let _room = make_room(&api, &headers).await?;
    let body = tokio::time::timeout(BODY_TIMEOUT, read_body(request, &api)).await;
    let body = body.map_err(|_| {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took longer than 30 s; send it in smaller parts")
    })??;
    let mut events = read_events(mode, &headers, &body)?;
    for (index, event) in events.items.iter_mut().enumerate() {
        assign(event, &caller).map_err(|refusal| events.place.refuse(index, refusal))?;
    }
    api.publish_all(events.items.iter().map(|event| EventMessage::publication(event, false))).await?;
    api.metrics.events_accepted.inc_by(events.items.len() as u64);
    let ids: Vec<String> = events.items.into_iter().map(|event| event.id).collect();
    Ok((StatusCode::ACCEPTED, Json(Accepted { accepted: ids.len(), ids })))
}

/// Waits until the body may be taken into memory: as large as it says it is, or the largest there may be.
async fn make_room<'a>(api: &'a Api, headers: &HeaderMap) -> Result<SemaphorePermit<'a>, Problem> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let bytes: usize = length.unwrap_or(MAX_BATCH_BYTES).min(MAX_BATCH_BYTES);
    let room = api.ingest_room.acquire_many(bytes.div_ceil(1024) as u32);
    match tokio::time::timeout(ROOM_TIMEOUT, room).await {
        Ok(Ok(room)) => Ok(room),
        _ => Err(Problem::unavailable("too much is being published at once; try again")),
    }
}

/// How the events are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// One JSON object.
    Structured,
    /// A JSON array.
    Batch,
    /// One object or an array: the first byte tells.
    Json,
    /// Attributes in headers, the data as the body.
    Binary,
}

impl Mode {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let media_type = content_type(headers).unwrap_or_default();
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        // The order in which the HTTP binding of CloudEvents tells the modes apart.
        match essence.as_str() {
            "application/cloudevents+json" => Ok(Self::Structured),
            "application/cloudevents-batch+json" => Ok(Self::Batch),
            _ if headers.keys().any(is_attribute) => Ok(Self::Binary),
            "application/json" => Ok(Self::Json),
            _ => Err(Problem::unsupported(
                "send an event as application/cloudevents+json or application/json, many as \
                 application/cloudevents-batch+json, or one as ce- headers with its data as the body",
            )),
        }
    }
}

fn is_attribute(name: &HeaderName) -> bool {
    name.as_str().starts_with(ATTRIBUTE_PREFIX)
}

/// The events of a request.
struct Events {
    items: Vec<Event>,
    place: PlaceOf,
}

/// How an event of a request is told apart in an error.
#[derive(Debug, Clone, Copy)]
enum PlaceOf {
    /// There is only one.
    One,
    /// By its index.
    Many,
}

/// Why an event is not accepted.
enum Refusal {
    NotAnEvent(EventError),
    NotYours(String),
}

impl PlaceOf {
    fn refuse(self, index: usize, refusal: Refusal) -> Problem {
        let prefix = match self {
            Self::One => String::new(),
            Self::Many => format!("event {index}: "),
        };
        match refusal {
            Refusal::NotYours(detail) => Problem::forbidden(prefix + &detail),
            Refusal::NotAnEvent(error @ EventError::TooLarge { .. }) => {
                Problem::too_large(prefix + &error.to_string())
            }
            // The array around it was valid JSON, so the event is, but no object.
            Refusal::NotAnEvent(EventError::Syntax(reason)) => match self {
                Self::One => Problem::unreadable(format!("the event is not valid JSON: {reason}")),
                Self::Many => Problem::invalid(vec![FieldError {
                    index: Some(index),
                    field: "event".to_owned(),
                    detail: format!("must be an object: {reason}"),
                }]),
            },
            Refusal::NotAnEvent(EventError::Invalid { field, reason }) => {
                let index = matches!(self, Self::Many).then_some(index);
                Problem::invalid(vec![FieldError { index, field, detail: reason }])
            }
        }
    }
}

fn read_events(mode: Mode, headers: &HeaderMap, body: &Bytes) -> Result<Events, Problem> {
    let is_array = || body.trim_ascii_start().first() == Some(&b'[');
    match mode {
        Mode::Batch => read_batch(body),
        Mode::Json if is_array() => read_batch(body),
        Mode::Json | Mode::Structured => read_one(Draft::from_json(body)),
        Mode::Binary => read_one(read_binary(headers, body)),
    }
}

fn read_one(draft: Result<Draft, EventError>) -> Result<Events, Problem> {
    let place = PlaceOf::One;
    let event = draft.and_then(complete).map_err(|error| place.refuse(0, Refusal::NotAnEvent(error)))?;
    Ok(Events { items: vec![event], place })
}

fn read_batch(body: &Bytes) -> Result<Events, Problem> {
    let raw: Vec<&RawValue> = serde_json::from_slice(body)
        .map_err(|error| Problem::unreadable(format!("the batch is not a JSON array: {error}")))?;
    if raw.len() > MAX_BATCH_EVENTS {
        return Err(Problem::too_large(format!(
            "the batch has {} events, and at most {MAX_BATCH_EVENTS} are accepted",
            raw.len()
        )));
    }
    let place = PlaceOf::Many;
    let read = |(index, raw): (usize, &&RawValue)| {
        let draft = Draft::from_json(&body.slice_ref(raw.get().as_bytes()));
        draft.and_then(complete).map_err(|error| place.refuse(index, Refusal::NotAnEvent(error)))
    };
    let items = raw.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(Events { items, place })
}

fn complete(mut draft: Draft) -> Result<Event, EventError> {
    draft.set_default("id", || Uuid::now_v7().to_string());
    draft.into_event()
}

fn read_binary(headers: &HeaderMap, body: &Bytes) -> Result<Draft, EventError> {
    let mut attributes = Vec::new();
    for (header, value) in headers.iter().filter(|(header, _)| is_attribute(header)) {
        let name = header.as_str().trim_start_matches(ATTRIBUTE_PREFIX);
        attributes.push((name.to_owned(), AttributeValue::Text(attribute(name, value)?)));
    }
    Draft::from_attributes(attributes, content_type(headers), body.clone())
}

/// A header's value as CloudEvents' HTTP binding writes it: UTF-8, percent-encoded where it must be.
fn attribute(name: &str, value: &HeaderValue) -> Result<String, EventError> {
    let text = percent_decode(value.as_bytes()).decode_utf8();
    text.map(std::borrow::Cow::into_owned)
        .map_err(|_| EventError::invalid(name, "is not UTF-8 after its percent-encoding was taken off"))
}

/// Says whose the event is; naming another organization than the caller's is refused.
fn assign(event: &mut Event, caller: &Caller) -> Result<(), Refusal> {
    let named = event.extensions.iter().find(|(name, _)| name == ORGANIZATION).map(|(_, value)| value);
    let not_text = || EventError::invalid(ORGANIZATION, "must be text: an organization's id or external id");
    match (caller, named) {
        (_, Some(AttributeValue::Integer(_) | AttributeValue::Boolean(_))) => {
            Err(Refusal::NotAnEvent(not_text()))
        }
        (Caller::Operator, Some(_)) => Ok(()),
        (Caller::Operator, None) => Err(Refusal::NotAnEvent(EventError::invalid(
            ORGANIZATION,
            "is missing: with the operator's key it must name the organization, by its id or external id",
        ))),
        (Caller::Member(holder), Some(AttributeValue::Text(name))) => {
            let is_own = holder.external_id.as_deref() == Some(name)
                || name.parse().is_ok_and(|id: Uuid| id == holder.organization.0);
            if is_own {
                return Ok(());
            }
            Err(Refusal::NotYours(format!(
                "`{ORGANIZATION}` is {name:?}, and your key belongs to another one; leave it out"
            )))
        }
        (Caller::Member(holder), None) => {
            event.set_extension(ORGANIZATION, AttributeValue::Text(holder.organization.to_string()));
            Ok(())
        }
    }
}
