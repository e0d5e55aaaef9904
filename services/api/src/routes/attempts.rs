//! A webhook's attempts and its statistics.

use axum::Json;
use axum::extract::State;
use cuewire::db::attempts::{AttemptPlace, MinuteStats};
use cuewire::delivery::{Attempt, duration_ms, rfc3339};
use cuewire::ids::{DeliveryId, WebhookId};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::times;
use crate::Api;
use crate::auth::Viewer;
use crate::checks::Checks;
use crate::error::Problem;
use crate::extract::{Path, Query};
use crate::page::{Day, Micros, Page, PageQuery};

const DEFAULT_STATS_RANGE: Duration = Duration::DAY;
/// 10,080 minutes: what one answer may hold.
const MAX_STATS_RANGE: Duration = Duration::WEEK;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(stats))
}

/// One HTTP request of a delivery, and what became of it.
///
/// What is serialized is the library's own attempt; this says how it looks.
#[derive(ToSchema)]
#[schema(as = Attempt, example = json!({
    "delivery_id": "4a063bb3-75dc-5c7c-814c-564f25dcd0e0", "round": "00000000-0000-0000-0000-000000000000",
    "number": 1, "webhook_id": "0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a12", "event_source": "/encoder/3",
    "event_id": "7c1f8f0e", "event_type": "recordings.completed", "started_at": "2026-01-31T09:30:00.000Z",
    "duration_ms": 12.3, "state": "retrying", "next_attempt_at": "2026-01-31T09:30:05.000Z", "reason": null,
    "status": 503, "error": "the receiver answered 503", "response_headers": [["content-type", "text/plain"]],
    "response_body": "busy"
}))]
#[allow(dead_code, reason = "for the document alone")]
pub(super) struct AttemptView {
    delivery_id: Uuid,
    /// Which run through the retry schedule; zero is the first.
    round: Uuid,
    /// From 1 within the round.
    number: u32,
    webhook_id: Uuid,
    event_source: String,
    event_id: String,
    event_type: String,
    started_at: String,
    duration_ms: f64,
    /// What the delivery is after it: `retrying`, `delivered` or `dead`.
    state: String,
    next_attempt_at: Option<String>,
    /// Why the delivery is dead.
    reason: Option<String>,
    /// The answer's HTTP status; null: there was none.
    status: Option<u16>,
    /// What went wrong, in a sentence.
    error: Option<String>,
    response_headers: Option<Vec<Vec<String>>>,
    /// At most 16 KiB.
    response_body: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StatsQuery {
    /// The first minute (RFC 3339); a day before `to` unless given.
    #[param(example = "2026-01-31T09:30:00Z")]
    from: Option<String>,
    /// The end (RFC 3339); now unless given. At most a week after `from`.
    to: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Stats {
    #[schema(example = "2026-01-30T09:30:00.000Z")]
    from: String,
    #[schema(example = "2026-01-31T09:30:00.000Z")]
    to: String,
    /// Minutes in which there was something to send, the oldest first.
    data: Vec<MinuteView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Minute, example = json!({
    "minute": "2026-01-31T09:30:00.000Z", "delivered": 120, "failed": 3, "dead": 0, "mean_duration_ms": 41.7,
    "parked": 0, "limited": 0
}))]
struct MinuteView {
    minute: String,
    /// Attempts that were taken.
    delivered: u64,
    /// Attempts that failed.
    failed: u64,
    /// Deliveries that an attempt of this minute was the last of, in vain; they count as failed too.
    dead: u64,
    /// Of all attempts of the minute.
    mean_duration_ms: f64,
    /// How often a delivery had to stay away, without an attempt: the webhook was busy, or its breaker open.
    parked: u64,
    /// How often one had to stay away for the webhook's rate limit.
    limited: u64,
}

/// List a webhook's attempts, the newest first
#[utoipa::path(get, path = "/v1/webhooks/{id}/attempts", tag = "Deliveries",
    params(("id" = Uuid, Path), PageQuery),
    responses((status = 200, body = Page<AttemptView>), (status = 404, description = "There is no such webhook")))]
async fn list(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Attempt>>, Problem> {
    let (limit, after) = query.read::<Place>()?;
    let webhook = api.webhook(&caller, id).await?;
    let after = after.map(AttemptPlace::from);
    let attempts = api.database.webhook_attempts(webhook.id, after, limit).await?;
    Ok(Json(Page::of(attempts, limit, Place::of, |attempt| attempt)))
}

/// What a webhook's attempts came to, minute by minute
#[utoipa::path(get, path = "/v1/webhooks/{id}/stats", tag = "Deliveries", params(("id" = Uuid, Path), StatsQuery),
    responses((status = 200, body = Stats), (status = 404, description = "There is no such webhook")))]
async fn stats(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
    Query(query): Query<StatsQuery>,
) -> Result<Json<Stats>, Problem> {
    let mut checks = Checks::default();
    let to = times::read(&mut checks, "to", query.to).unwrap_or_else(OffsetDateTime::now_utc);
    let from = times::read(&mut checks, "from", query.from).unwrap_or(to - DEFAULT_STATS_RANGE);
    if from > to || to - from > MAX_STATS_RANGE {
        checks.refuse("from", "must be before `to`, and not by more than a week");
    }
    checks.finish()?;
    let webhook = api.webhook(&caller, id).await?;
    let minutes = api.database.webhook_stats(webhook.id, from, to).await?;
    let data = minutes.iter().map(MinuteView::of).collect();
    Ok(Json(Stats { from: rfc3339(from), to: rfc3339(to), data }))
}

/// A place in a webhook's attempts, as a cursor holds it.
#[derive(Debug, Serialize, Deserialize)]
struct Place(Day, Micros, DeliveryId);

impl Place {
    fn of(attempt: &Attempt) -> Self {
        Self(Day(attempt.day), Micros(attempt.started_at), attempt.delivery)
    }
}

impl From<Place> for AttemptPlace {
    fn from(Place(day, started_at, delivery): Place) -> Self {
        Self { day: day.0, started_at: started_at.0, delivery }
    }
}

impl MinuteView {
    fn of(stats: &MinuteStats) -> Self {
        let attempts = stats.delivered + stats.failed;
        Self {
            minute: rfc3339(stats.minute),
            delivered: stats.delivered,
            failed: stats.failed,
            dead: stats.dead,
            mean_duration_ms: duration_ms(stats.duration) / attempts.max(1) as f64,
            parked: stats.parked,
            limited: stats.limited,
        }
    }
}
