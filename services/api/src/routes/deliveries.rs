//! One delivery with its attempts, and sending it once more.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cuewire::amqp::topology::Lane;
use cuewire::db::api_keys::KeyHolder;
use cuewire::db::attempts::Course;
use cuewire::delivery::{Attempt, Reason, State as DeliveryState};
use cuewire::ids::{DeliveryId, Round, WebhookId};
use cuewire::message::DeliveryMessage;
use cuewire::message::delivery::NewDelivery;
use serde::Serialize;
use time::{Date, OffsetDateTime};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::dead_letters;
use super::events::{DeliveryView, read_stored};
use crate::Api;
use crate::auth::{Editor, Viewer};
use crate::error::Problem;
use crate::extract::Path;

/// How long whoever sends something again has the right to do so alone: above the time that a publish may take
/// with its mark on record.
pub(super) const LEASE: Duration = Duration::from_secs(60);

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(read)).routes(routes!(retry))
}

/// A delivery with its attempts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "4a063bb3-75dc-5c7c-814c-564f25dcd0e0", "webhook_id": "0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a12",
    "event_source": "/encoder/3", "event_id": "7c1f8f0e", "state": "retrying", "reason": null,
    "next_attempt_at": "2026-01-31T09:30:05.000Z", "status": 503, "attempts": [{
        "delivery_id": "4a063bb3-75dc-5c7c-814c-564f25dcd0e0", "round": "00000000-0000-0000-0000-000000000000",
        "number": 1, "webhook_id": "0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a12", "event_source": "/encoder/3",
        "event_id": "7c1f8f0e", "event_type": "recordings.completed", "started_at": "2026-01-31T09:30:00.000Z",
        "duration_ms": 12.3, "state": "retrying", "next_attempt_at": "2026-01-31T09:30:05.000Z", "reason": null,
        "status": 503, "error": "the receiver answered 503", "response_headers": [["content-type", "text/plain"]],
        "response_body": "busy"
    }]
}))]
struct DeliveryWithAttempts {
    id: Uuid,
    webhook_id: Uuid,
    event_source: String,
    event_id: String,
    /// `pending` (not attempted yet), `retrying`, `delivered` or `dead`.
    state: &'static str,
    /// Why it is dead.
    #[schema(value_type = Option<String>)]
    reason: Option<Reason>,
    next_attempt_at: Option<String>,
    /// The HTTP status of the last answer.
    status: Option<u16>,
    /// In the order they were made.
    #[schema(value_type = Vec<super::attempts::AttemptView>)]
    attempts: Vec<Attempt>,
}

/// What a request to send something again is answered with.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "delivery_id": "4a063bb3-75dc-5c7c-814c-564f25dcd0e0", "round": "01a1fa47-3de9-7283-ad8d-781674a03c69"
}))]
pub(super) struct SentAgain {
    /// The delivery, whose `webhook-id` stays the same; none where an event was published again.
    delivery_id: Option<Uuid>,
    /// The new run through the retry schedule, by which its attempts are known.
    round: Option<Uuid>,
}

impl SentAgain {
    /// An event was published again.
    pub(super) const EVENT: Self = Self { delivery_id: None, round: None };

    /// A delivery begins a new round.
    pub(super) fn delivery(delivery: DeliveryId, round: Round) -> Self {
        Self { delivery_id: Some(delivery.0), round: Some(round.0) }
    }
}

/// Read a delivery with its attempts
#[utoipa::path(get, path = "/v1/deliveries/{id}", tag = "Deliveries", params(("id" = Uuid, Path)),
    responses((status = 200, body = DeliveryWithAttempts), (status = 404, description = "There is none")))]
async fn read(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Path(id): Path<DeliveryId>,
) -> Result<Json<DeliveryWithAttempts>, Problem> {
    let found = Found::by_id(&api, &caller, id).await?;
    let view = DeliveryView::of(&found.course, found.webhook);
    Ok(Json(DeliveryWithAttempts {
        id: view.id,
        webhook_id: view.webhook_id,
        event_source: found.source,
        event_id: found.event_id,
        state: view.state,
        reason: view.reason,
        next_attempt_at: view.next_attempt_at,
        status: view.status,
        attempts: found.attempts,
    }))
}

/// Send a delivery again
///
/// It runs through its retry schedule anew and keeps its `webhook-id`, so a receiver that took it may ignore
/// it. The event must still be in the log, or the delivery have ended in a dead letter.
#[utoipa::path(post, path = "/v1/deliveries/{id}/retry", tag = "Deliveries", params(("id" = Uuid, Path)),
    responses((status = 202, body = SentAgain), (status = 404, description = "There is none"),
        (status = 409, description = "The delivery is under way, or its webhook is disabled or gone"),
        (status = 410, description = "The event is no longer in the log")))]
async fn retry(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(id): Path<DeliveryId>,
) -> Result<(StatusCode, Json<SentAgain>), Problem> {
    let found = Found::by_id(&api, &caller, id).await?;
    let (Some(DeliveryState::Delivered | DeliveryState::Dead(_)), Some((last, day))) =
        (found.course.state, found.course.run)
    else {
        return Err(under_way());
    };
    check_webhook(&api, &caller, found.webhook).await?;
    if let Some(letter) = found.course.letter
        && let Some(redrive) = api.database.redrive(letter).await?
    {
        return Ok((StatusCode::ACCEPTED, Json(dead_letters::send_again(&api, &redrive).await?)));
    }
    let message = found.again(&api, &caller, last.retry(id, day)).await?;
    if !api.database.claim_retry(id, message.round, LEASE).await? {
        return Err(under_way());
    }
    if let Err(problem) = api.publish_all([message.publication()]).await {
        // Where this fails too, the lease ends by itself.
        let _ = api.database.release_retry(id, message.round).await;
        return Err(problem);
    }
    api.database.retry_is_under_way(id, message.round).await?;
    Ok((StatusCode::ACCEPTED, Json(SentAgain::delivery(id, message.round))))
}

fn under_way() -> Problem {
    Problem::conflict("the delivery is under way; it can be sent again when it has ended")
}

/// A delivery sent again to a webhook that takes none would be a dead letter at once.
pub(super) async fn check_webhook(api: &Api, caller: &KeyHolder, webhook: WebhookId) -> Result<(), Problem> {
    match api.database.webhook_of(caller.organization, webhook).await? {
        None => Err(Problem::conflict("the webhook of this delivery was deleted")),
        Some(webhook) if !webhook.enabled => {
            Err(Problem::conflict("the webhook of this delivery is disabled; enable it first"))
        }
        Some(_) => Ok(()),
    }
}

/// A delivery, wherever its name was found.
struct Found {
    webhook: WebhookId,
    source: String,
    event_id: String,
    course: Course,
    attempts: Vec<Attempt>,
}

impl Found {
    /// A delivery's id says nothing of its parts: they are in its attempts, in its dead letter, or, where it
    /// has neither yet, among the newest events of the log.
    async fn by_id(api: &Api, caller: &KeyHolder, id: DeliveryId) -> Result<Self, Problem> {
        let organization = caller.organization;
        let attempts = api.database.attempts_of(organization, id).await?;
        let (webhook, source, event_id, day) = if let Some(first) = attempts.first() {
            (first.webhook, first.event_source.clone(), first.event_id.clone(), first.day)
        } else if let Some(letter) = api.database.dead_letter_of(organization, id).await?
            && let (Some(webhook), Some(source), Some(event_id)) =
                (letter.webhook, letter.event_source, letter.event_id)
        {
            (webhook, source, event_id, letter.created_at.date())
        } else if let Some((place, webhook)) = api.database.pending_delivery(organization, id).await? {
            (webhook, place.source, place.id, place.day)
        } else {
            return Err(Problem::no_such("delivery"));
        };
        let course = Self::course(api, id, day).await?;
        Ok(Self { webhook, source, event_id, course, attempts })
    }

    /// The delivery once more, in this round.
    async fn again(&self, api: &Api, caller: &KeyHolder, round: Round) -> Result<DeliveryMessage, Problem> {
        let stored = api.database.event(caller.organization, &self.event_id, Some(&self.source)).await?;
        let stored = stored.ok_or_else(|| {
            Problem::new(StatusCode::GONE, "the event is no longer in the log, and cannot be sent again")
        })?;
        let event = read_stored(&stored)?;
        let new = NewDelivery {
            organization: caller.organization,
            webhook: self.webhook,
            source: &self.source,
            event_id: &self.event_id,
            category: event.event_type.category(),
            event: stored.payload.into(),
        };
        Ok(DeliveryMessage::first(new, round, Lane::Due, OffsetDateTime::now_utc()))
    }

    async fn course(api: &Api, id: DeliveryId, day: Date) -> Result<Course, Problem> {
        let courses = api.database.courses(&[id], day).await?;
        courses.first().copied().ok_or_else(|| Problem::no_such("delivery"))
    }
}
