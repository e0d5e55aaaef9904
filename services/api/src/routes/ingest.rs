//! Ingest: events over HTTP, validated and handed to the broker. No database on this path.

mod faults;
mod fit;
mod handshake;
mod limit;
mod read;
mod room;

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use cuewire::db::api_keys::Role;
use cuewire::event::{AttributeValue, Event, EventError, OWN_SOURCE};
use cuewire::message::EventMessage;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use self::faults::Refusal;
pub(crate) use self::fit::LongWork;
use self::fit::fit;
pub(crate) use self::limit::Limits;
use self::limit::{Exceeded, Tally};
use self::read::{Events, Mode};
pub(crate) use self::room::Room;
use crate::Api;
use crate::auth::Caller;
use crate::error::Problem;

/// A client that sends more slowly holds up to 8 MiB of memory for nothing.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
const ORGANIZATION: &str = "organization";

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(publish, handshake::ask))
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
            (Object = "application/cloudevents+json"),
            (Vec<Object> = "application/cloudevents-batch+json"),
            (Object = "application/json"),
            (Vec<u8> = "*/*"),
        )
    ),
    responses(
        (status = 202, body = Accepted),
        (status = 403, description = "An event names another organization"),
        (status = 413, description = "An event is over 256 KiB, or a batch over 1,000 events, 8 MiB, or what can be \
            checked with schemas at once"),
        (status = 415, description = "The content type is none of an event's, or the body is encoded"),
        (status = 422, description = "An event is not valid, or does not fit the schema of its type that is in force; \
            `errors` names the place, and in a batch the index of each that is not"),
        (status = 429, description = "The organization publishes more than it may: repeat it after `Retry-After`"),
    ))]
async fn publish(
    caller: Caller,
    State(api): State<Api>,
    request: Request,
) -> Result<(StatusCode, Json<Accepted>), Problem> {
    let holder = match &caller {
        Caller::Operator => None,
        Caller::Member(_) => Some(caller.clone().member(Role::Editor)?.organization),
    };
    let (head, body) = request.into_parts();
    let mode = Mode::of(&head.headers)?;
    let body = tokio::time::timeout(BODY_TIMEOUT, api.ingest_room.read(holder, &head.headers, body)).await;
    let (body, _share) = body.map_err(|_| {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took longer than 30 s; send it in smaller parts")
    })??;
    let events = assign_all(mode.read(&head.headers, &body)?, &caller)?;
    // First of all what bounds the rest: a check may be dear.
    let tally = limit(&api, &caller, &events.items)?;
    let events = fit(&api, events).await?.items;
    let publications = events.iter().map(|event| EventMessage::publication(event, false));
    if let Err(problem) = api.publish_all(publications).await {
        // Whoever repeats them, as they are told to, has not published more than they may.
        api.ingest_limits.give_back(&tally, Instant::now());
        return Err(problem);
    }
    api.metrics.events_accepted.inc_by(events.len() as u64);
    let ids: Vec<String> = events.into_iter().map(|event| event.id).collect();
    Ok((StatusCode::ACCEPTED, Json(Accepted { accepted: ids.len(), ids })))
}

/// Counts the events against what their organizations may publish.
fn limit(api: &Api, caller: &Caller, events: &[Event]) -> Result<Tally, Problem> {
    let mut tally = Tally::default();
    match caller {
        Caller::Operator => {
            for event in events {
                tally.add(event.extension(ORGANIZATION).unwrap_or_default(), 1);
            }
        }
        // By whichever of its names.
        Caller::Member(holder) => tally.add(&holder.organization.to_string(), events.len()),
    }
    let taken = api.ingest_limits.take(&tally, Instant::now());
    taken.map(|()| tally).map_err(|Exceeded { organization, wait }| {
        api.metrics.events_refused.inc_by(events.len() as u64);
        Problem::too_many(
            format!("the organization {organization:?} publishes more than it may; repeat this later"),
            Some(wait),
        )
    })
}

/// Says of all events whose they are.
fn assign_all(mut events: Events, caller: &Caller) -> Result<Events, Problem> {
    let mut faults = events.faults();
    for (index, event) in events.items.iter_mut().enumerate() {
        faults.note(index, assign(event, caller));
    }
    faults.finish()?;
    Ok(events)
}

/// Says whose the event is; naming another organization than the caller's is refused, and Cuewire as the source.
fn assign(event: &mut Event, caller: &Caller) -> Result<(), Refusal> {
    if event.source == OWN_SOURCE && matches!(caller, Caller::Member(_)) {
        let reason = "names Cuewire itself, whose events receivers must be able to rely on; name your own";
        return Err(Refusal::NotAnEvent(EventError::invalid("source", reason)));
    }
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
            Err(Refusal::NotYours(format!("is {name:?}, and your key belongs to another one; leave it out")))
        }
        (Caller::Member(holder), None) => {
            event.set_extension(ORGANIZATION, AttributeValue::Text(holder.organization.to_string()));
            Ok(())
        }
    }
}
