//! Dead letters: listed, read, deleted, and sent again one by one.
//!
//! An organization has its own; the operator has those that belong to nobody: it could not be told whose they are,
//! or their organization was deleted.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cuewire::amqp::grants::PUBLISHER_PREFIX;
use cuewire::amqp::topology::EVENTS;
use cuewire::db::api_keys::Role;
use cuewire::db::dead_letters::{DeadLetter, DeadLetterFilter, DeadLetterPlace, StoredDeadLetter};
use cuewire::delivery::{Reason, rfc3339};
use cuewire::event::Event;
use cuewire::ids::{DeadLetterId, WebhookId};
use cuewire::message::Redrive;
use cuewire::message::event::read_recorded;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::deliveries::{LEASE, SentAgain, check_webhook};
use crate::Api;
use crate::auth::Caller;
use crate::checks::Checks;
use crate::error::Problem;
use crate::extract::{OptionalJson, Path, Query};
use crate::page::{self, Micros, Page};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read, delete)).routes(routes!(redrive))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only those of this webhook.
    #[param(value_type = Option<Uuid>)]
    webhook_id: Option<String>,
    /// Only those for this reason: `exhausted`, `refused`, `gone`, `deleted`, `disabled`, `expired`, `rejected`,
    /// `poison` or `unrouted`.
    reason: Option<String>,
    /// Entries on the page: 1 to 1,000, 50 unless given.
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// There is nothing to say yet; an empty object is accepted.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Redrive)]
struct RedriveBody {}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter, example = json!({
    "id": "7a9c64d5-4df6-5d8b-8a56-3f4a37a5a1b0", "reason": "exhausted",
    "detail": "the receiver answered 500 to the last of 8 attempts",
    "organization": "0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a10", "category": "recordings",
    "event_source": "/encoder/3", "event_id": "7c1f8f0e", "event_type": "recordings.completed",
    "webhook_id": "0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a12", "delivery_id": "4a063bb3-75dc-5c7c-814c-564f25dcd0e0",
    "last_attempt": {"number": 8, "started_at": "2026-02-01T13:35:35.000Z", "duration_ms": 12.3, "status": 500,
        "error": "the receiver answered 500"},
    "created_at": "2026-02-01T13:35:35.100Z", "redriven_at": null
}))]
struct DeadLetterView {
    id: Uuid,
    #[schema(value_type = String)]
    reason: Reason,
    /// What was wrong, in a sentence.
    detail: String,
    /// Whose it is; null: it could not be told, and the operator has it, as those of a deleted organization.
    organization: Option<Uuid>,
    /// The event's category, `unknown` where it could not be told.
    category: String,
    event_source: Option<String>,
    event_id: Option<String>,
    event_type: Option<String>,
    webhook_id: Option<Uuid>,
    delivery_id: Option<Uuid>,
    #[schema(value_type = Option<Object>)]
    last_attempt: Option<Box<RawValue>>,
    created_at: String,
    /// When it was sent again.
    redriven_at: Option<String>,
}

/// A dead letter with the message itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "7a9c64d5-4df6-5d8b-8a56-3f4a37a5a1b0", "reason": "exhausted",
    "detail": "the receiver answered 500 to the last of 8 attempts",
    "organization": "0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a10", "category": "recordings",
    "event_source": "/encoder/3", "event_id": "7c1f8f0e", "event_type": "recordings.completed",
    "webhook_id": "0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a12", "delivery_id": "4a063bb3-75dc-5c7c-814c-564f25dcd0e0",
    "last_attempt": {"number": 8, "started_at": "2026-02-01T13:35:35.000Z", "duration_ms": 12.3, "status": 500,
        "error": "the receiver answered 500"},
    "created_at": "2026-02-01T13:35:35.100Z", "redriven_at": null,
    "event": {"specversion": "1.0", "id": "7c1f8f0e", "source": "/encoder/3", "type": "recordings.completed",
        "organization": "acme", "data": {"size": 1048576}},
    "payload_base64": null, "content_type": "application/cloudevents+json", "headers": {},
    "exchange": "deliveries", "routing_key": "recordings.due.07"
}))]
struct DeadLetterWithMessage {
    #[serde(flatten)]
    letter: DeadLetterView,
    /// The event, where the message is one.
    #[schema(value_type = Option<Object>)]
    event: Option<Event>,
    /// The message's body in base64, where it is no event.
    payload_base64: Option<String>,
    content_type: Option<String>,
    /// The message's own headers, where it was not understood.
    #[schema(value_type = Object)]
    headers: serde_json::Value,
    /// Where it was first published to.
    exchange: String,
    routing_key: String,
}

/// List the dead letters, the newest first
///
/// A page reads at most 10,000 rows, so with filters it may be short and still have a next. With the operator's
/// key these are the dead letters that belong to no organization, or to one that was deleted.
#[utoipa::path(get, path = "/v1/dead-letters", tag = "Dead letters", params(ListQuery),
    responses((status = 200, body = Page<DeadLetterView>)))]
async fn list(
    caller: Caller,
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<DeadLetterView>>, Problem> {
    let organization = caller.scope(Role::Viewer)?;
    let mut checks = Checks::default();
    let webhook = query.webhook_id.and_then(|text| checks.take("webhook_id", read_id(&text)));
    let reason = query.reason.and_then(|text| checks.take("reason", read_reason(&text)));
    let (limit, after) = page::read::<(Micros, DeadLetterId)>(&mut checks, query.limit, query.cursor);
    checks.finish()?;
    let filter = DeadLetterFilter { webhook, reason };
    let after = after.map(|(at, id)| DeadLetterPlace { created_at: at.0, id });
    let page = api.database.dead_letters(organization, filter, after, limit).await?;
    Ok(Json(Page {
        data: page.letters.into_iter().map(DeadLetterView::of).collect(),
        next_cursor: page.next.map(|place| page::encode(&(Micros(place.created_at), place.id))),
    }))
}

/// Read a dead letter with its event
#[utoipa::path(get, path = "/v1/dead-letters/{id}", tag = "Dead letters", params(("id" = Uuid, Path)),
    responses((status = 200, body = DeadLetterWithMessage), (status = 404, description = "There is none")))]
async fn read(
    caller: Caller,
    State(api): State<Api>,
    Path(id): Path<DeadLetterId>,
) -> Result<Json<DeadLetterWithMessage>, Problem> {
    let organization = caller.scope(Role::Viewer)?;
    let stored = api.database.dead_letter(organization, id).await?.ok_or_else(none)?;
    let event = read_event(&stored).ok();
    let payload_base64 = event.is_none().then(|| BASE64.encode(&stored.payload));
    Ok(Json(DeadLetterWithMessage {
        letter: DeadLetterView::of(stored.letter),
        event,
        payload_base64,
        content_type: stored.content_type,
        headers: stored.message_headers,
        exchange: stored.exchange,
        routing_key: stored.routing_key,
    }))
}

/// Delete a dead letter
#[utoipa::path(delete, path = "/v1/dead-letters/{id}", tag = "Dead letters", params(("id" = Uuid, Path)),
    responses((status = 204, description = "It is gone"), (status = 404, description = "There is none")))]
async fn delete(
    caller: Caller,
    State(api): State<Api>,
    Path(id): Path<DeadLetterId>,
) -> Result<StatusCode, Problem> {
    let organization = caller.scope(Role::Editor)?;
    let deleted = api.database.delete_dead_letter(organization, id).await?;
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(none()) }
}

/// Send a dead letter again
///
/// A delivery runs through its webhook's retry schedule anew, with the same `webhook-id`; an event is routed
/// anew. What fails again is another dead letter. The body may be left out.
#[utoipa::path(post, path = "/v1/dead-letters/{id}/redrive", tag = "Dead letters", params(("id" = Uuid, Path)),
    request_body(content = RedriveBody, description = "May be left out"),
    responses((status = 202, body = SentAgain), (status = 404, description = "There is none"),
        (status = 409, description = "It was sent again already, or its webhook is disabled or gone"),
        (status = 422, description = "It cannot be read, and would be a dead letter again")))]
async fn redrive(
    caller: Caller,
    State(api): State<Api>,
    Path(id): Path<DeadLetterId>,
    OptionalJson(RedriveBody {}): OptionalJson<RedriveBody>,
) -> Result<(StatusCode, Json<SentAgain>), Problem> {
    let organization = caller.clone().scope(Role::Editor)?;
    let stored = api.database.dead_letter(organization, id).await?.ok_or_else(none)?;
    if let Some(at) = stored.letter.redriven_at {
        return Err(Problem::conflict(format!(
            "it was sent again at {}; if it failed again, that is another dead letter",
            rfc3339(at)
        )));
    }
    match (&caller, stored.letter.webhook) {
        (Caller::Member(holder), Some(webhook)) => check_webhook(&api, holder, webhook).await?,
        (Caller::Operator, Some(_)) => {
            return Err(Problem::conflict("its webhook was deleted, together with its organization"));
        }
        (_, None) => {}
    }
    let redrive = match api.database.redrive(id).await? {
        Some(redrive) => redrive,
        None => understand(&stored).map_err(|sentence| {
            Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("it cannot be read, and would be a dead letter again: {sentence}"),
            )
        })?,
    };
    Ok((StatusCode::ACCEPTED, Json(send_again(&api, &redrive).await?)))
}

/// Sends a dead letter again, unless somebody has done so or is about to.
pub(super) async fn send_again(api: &Api, redrive: &Redrive) -> Result<SentAgain, Problem> {
    if !api.database.claim_redrive(redrive.id, LEASE).await? {
        return Err(Problem::conflict("it was sent again already, or is being sent again just now"));
    }
    if let Err(problem) = api.publish_all([redrive.publication(OffsetDateTime::now_utc())]).await {
        // Where this fails too, the lease ends by itself.
        let _ = api.database.release_redrive(redrive.id).await;
        return Err(problem);
    }
    api.database.mark_redriven(&[redrive.id]).await?;
    let delivery = redrive.delivery.as_ref().map(|dead| SentAgain::delivery(dead.delivery, redrive.round()));
    Ok(delivery.unwrap_or(SentAgain::EVENT))
}

/// A message that was not understood when it came, and may be now that Cuewire understands more; the error is
/// a sentence.
fn understand(stored: &StoredDeadLetter) -> Result<Redrive, String> {
    let StoredDeadLetter { letter, exchange, .. } = stored;
    if exchange != EVENTS && !exchange.starts_with(PUBLISHER_PREFIX) {
        return Err(format!(
            "it was published to {exchange:?}, and its headers do not tell which delivery it is"
        ));
    }
    let event = read_event(stored)?;
    Ok(Redrive {
        id: letter.id,
        delivery: None,
        exchange: exchange.clone(),
        category: event.event_type.category().to_owned(),
        event_type: event.event_type.to_string(),
        event: event.to_json(),
        source: event.source,
        event_id: event.id,
    })
}

/// The event of a dead letter; the error is a sentence.
fn read_event(stored: &StoredDeadLetter) -> Result<Event, String> {
    let body = Bytes::copy_from_slice(&stored.payload);
    read_recorded(&stored.message_headers, stored.content_type.as_deref(), body)
}

fn none() -> Problem {
    Problem::no_such("dead letter")
}

fn read_id(text: &str) -> Result<WebhookId, String> {
    text.parse().map_err(|_| format!("is {text:?}, and must be a webhook's id"))
}

fn read_reason(text: &str) -> Result<Reason, String> {
    Reason::parse(text).ok_or_else(|| {
        let all: Vec<_> = Reason::ALL.into_iter().map(Reason::as_str).collect();
        format!("is {text:?}, and must be one of {}", all.join(", "))
    })
}

impl DeadLetterView {
    fn of(letter: DeadLetter) -> Self {
        Self {
            id: letter.id.0,
            reason: letter.reason,
            detail: letter.detail,
            organization: letter.organization.map(|organization| organization.0),
            category: letter.category,
            event_source: letter.event_source,
            event_id: letter.event_id,
            event_type: letter.event_type,
            webhook_id: letter.webhook.map(|webhook| webhook.0),
            delivery_id: letter.delivery.map(|delivery| delivery.0),
            last_attempt: letter.last_attempt.and_then(|json| RawValue::from_string(json).ok()),
            created_at: rfc3339(letter.created_at),
            redriven_at: letter.redriven_at.map(rfc3339),
        }
    }
}
