//! Reading the account of attempts: a delivery's course, a webhook's attempts, its statistics.

use std::time::Duration;

use time::{Date, OffsetDateTime};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{decode_headers, read_state};
use crate::db::{Database, DbError};
use crate::delivery::{Answer, Attempt, Failure, Outcome, Reason, State};
use crate::ids::{DeadLetterId, DeliveryId, OrganizationId, Round, WebhookId};

/// A delivery has no more attempts than a schedule has retries, times its rounds; what is above is left out.
const MAX_ATTEMPTS_SHOWN: i64 = 1_000;
/// An attempt is counted on the day on which it was due, which is at most the deadline before it is made.
const MAX_OVERDUE_DAYS: i64 = 3;

/// The columns of an [`Attempt`].
pub(super) const COLUMNS: &str = "day, delivery_id, round, number, organization_id, webhook_id, event_source, event_id,
    event_type, started_at, duration_us, state, next_attempt_at, reason, status, error, response_headers, response_body";

/// Where an attempt stands in the order of a webhook's attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptPlace {
    /// The partition.
    pub day: Date,
    /// When the request began.
    pub started_at: OffsetDateTime,
    /// The delivery.
    pub delivery: DeliveryId,
}

impl AttemptPlace {
    /// Where this attempt stands.
    #[must_use]
    pub fn of(attempt: &Attempt) -> Self {
        Self { day: attempt.day, started_at: attempt.started_at, delivery: attempt.delivery }
    }
}

/// How far a delivery has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    /// The delivery.
    pub delivery: DeliveryId,
    /// What it is; none: not attempted yet, or sent again and not attempted since.
    pub state: Option<State>,
    /// The round that came to this state, and the day on which it did; none: not attempted yet.
    pub run: Option<(Round, Date)>,
    /// The dead letter that it ended in, if that was not sent again.
    pub letter: Option<DeadLetterId>,
    /// How many attempts are on record, over all rounds.
    pub attempts: u32,
    /// The HTTP status of the last answer.
    pub status: Option<u16>,
}

/// What a webhook's attempts came to in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinuteStats {
    /// The minute's beginning.
    pub minute: OffsetDateTime,
    /// Attempts that were taken.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Deliveries that died by an attempt, counted among the failed too.
    pub dead: u64,
    /// The sum of the attempts' durations.
    pub duration: Duration,
    /// How often a delivery had to stay away because the webhook was busy, or its breaker open.
    pub parked: u64,
    /// How often one had to stay away for its rate limit.
    pub limited: u64,
}

impl Database {
    /// How far these deliveries have come, in their order; the event was logged on `day`.
    ///
    /// A delivery's state is that of its last attempt, unless it became a dead letter later (its webhook
    /// was disabled while it waited), and unless it was sent again since.
    pub async fn courses(&self, deliveries: &[DeliveryId], day: Date) -> Result<Vec<Course>, DbError> {
        let ids: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.0).collect();
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "SELECT key.id, attempts, state, next_attempt_at, last.reason, status, started_at, last.day,
                        last.round, dead.reason AS dead_reason, dead.created_at, dead.redriven_at,
                        dead.round AS dead_round, dead.id AS letter,
                        retry.round IS NOT NULL AS under_way
                 FROM unnest($1::uuid[]) WITH ORDINALITY AS key (id, position)
                 LEFT JOIN LATERAL (
                     SELECT count(*) OVER () AS attempts, state, next_attempt_at, reason, status, started_at,
                            day, round
                     FROM attempts WHERE delivery_id = key.id AND day >= $2
                     ORDER BY started_at DESC, number DESC LIMIT 1) AS last ON true
                 LEFT JOIN LATERAL (
                     SELECT id, reason, created_at, redriven_at, round FROM dead_letters
                     WHERE delivery_id = key.id
                     ORDER BY created_at DESC LIMIT 1) AS dead ON true
                 LEFT JOIN retries AS retry ON retry.delivery_id = key.id AND retry.until > now()
                     AND NOT EXISTS (SELECT FROM attempts WHERE delivery_id = key.id AND day >= $2
                                                            AND attempts.round = retry.round)
                     AND NOT EXISTS (SELECT FROM dead_letters WHERE delivery_id = key.id
                                                                AND dead_letters.round = retry.round)
                 ORDER BY key.position",
            )
            .await?;
        // A router's clock may be behind a sender's.
        let day = day.previous_day().unwrap_or(day);
        let rows = connection.query(&statement, &[&ids, &day]).await?;
        rows.iter().map(read_course).collect()
    }

    /// All attempts of an organization's delivery, in the order they were made.
    pub async fn attempts_of(
        &self,
        organization: OrganizationId,
        delivery: DeliveryId,
    ) -> Result<Vec<Attempt>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM attempts WHERE delivery_id = $1 AND organization_id = $2
                 ORDER BY started_at, number LIMIT $3"
            ))
            .await?;
        let rows = connection.query(&statement, &[&delivery.0, &organization.0, &MAX_ATTEMPTS_SHOWN]).await?;
        rows.iter().map(read_attempt).collect()
    }

    /// A webhook's attempts, the newest first: those after the place `after` in that order.
    pub async fn webhook_attempts(
        &self,
        webhook: WebhookId,
        after: Option<AttemptPlace>,
        limit: usize,
    ) -> Result<Vec<Attempt>, DbError> {
        let newest = after.map_or(Date::MAX, |place| place.day);
        let days = self.partition_days("attempts", newest, Date::MIN).await?;
        let connection = self.connection().await?;
        // The bound by the place's time is for the index: the place itself, which may be none, is compared row by row.
        let statement = connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM attempts WHERE day = $1 AND webhook_id = $2
                   AND started_at <= coalesce($3::timestamptz, 'infinity')
                   AND ($3::timestamptz IS NULL OR (started_at, delivery_id) < ($3, $4))
                 ORDER BY started_at DESC, delivery_id DESC LIMIT $5"
            ))
            .await?;
        let mut attempts = Vec::new();
        for day in days {
            let place = after.filter(|place| place.day == day);
            let (at, delivery) = place.map(|place| (place.started_at, place.delivery.0)).unzip();
            let wanted = (limit - attempts.len()) as i64;
            let rows = connection.query(&statement, &[&day, &webhook.0, &at, &delivery, &wanted]).await?;
            for row in &rows {
                attempts.push(read_attempt(row)?);
            }
            if attempts.len() == limit {
                break;
            }
        }
        Ok(attempts)
    }

    /// A webhook's statistics by the minute, from `from` to before `to`, those without attempts left out.
    pub async fn webhook_stats(
        &self,
        webhook: WebhookId,
        from: OffsetDateTime,
        to: OffsetDateTime,
    ) -> Result<Vec<MinuteStats>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "SELECT minute, sum(delivered)::bigint AS delivered, sum(failed)::bigint AS failed,
                        sum(dead)::bigint AS dead, sum(duration_us)::bigint AS duration_us,
                        sum(parked)::bigint AS parked, sum(limited)::bigint AS limited
                 FROM delivery_stats
                 WHERE webhook_id = $1 AND minute >= $2 AND minute < $3 AND day BETWEEN $4 AND $5
                 GROUP BY minute ORDER BY minute",
            )
            .await?;
        let first = from.date() - time::Duration::days(MAX_OVERDUE_DAYS);
        let last = to.date().next_day().unwrap_or(Date::MAX);
        let rows = connection.query(&statement, &[&webhook.0, &from, &to, &first, &last]).await?;
        let count = |row: &Row, column| row.get::<_, i64>(column).unsigned_abs();
        let read = |row: &Row| MinuteStats {
            minute: row.get("minute"),
            delivered: count(row, "delivered"),
            failed: count(row, "failed"),
            dead: count(row, "dead"),
            duration: Duration::from_micros(count(row, "duration_us")),
            parked: count(row, "parked"),
            limited: count(row, "limited"),
        };
        Ok(rows.iter().map(read).collect())
    }
}

fn read_course(row: &Row) -> Result<Course, DbError> {
    let attempted: Option<OffsetDateTime> = row.get("started_at");
    let died: Option<OffsetDateTime> = row.get("created_at");
    let redriven: Option<OffsetDateTime> = row.get("redriven_at");
    // The letter is about what came before the attempts that are newer than it.
    let died = died.filter(|died| attempted.is_none_or(|attempted| attempted <= *died));
    let state = match (attempted, died) {
        _ if row.get("under_way") => None,
        (None, None) => None,
        (_, Some(_)) if redriven.is_some() => None,
        (_, Some(_)) => {
            let reason = Reason::parse(row.get("dead_reason"));
            Some(State::Dead(reason.ok_or_else(|| DbError::Unreadable("a dead letter's reason".to_owned()))?))
        }
        (Some(_), None) => Some(read_state(row, "state", "next_attempt_at", "reason")?),
    };
    let run = match died {
        Some(died) => row.get::<_, Option<Uuid>>("dead_round").map(|round| (Round(round), died.date())),
        None => attempted.map(|_| (Round(row.get("round")), row.get("day"))),
    };
    Ok(Course {
        delivery: DeliveryId(row.get("id")),
        state,
        run,
        letter: row
            .get::<_, Option<Uuid>>("letter")
            .filter(|_| died.is_some() && redriven.is_none())
            .map(DeadLetterId),
        attempts: row.get::<_, Option<i64>>("attempts").unwrap_or_default() as u32,
        status: row.get::<_, Option<i16>>("status").map(i16::unsigned_abs),
    })
}

pub(super) fn read_attempt(row: &Row) -> Result<Attempt, DbError> {
    let outcome = match row.get::<_, Option<i16>>("status") {
        Some(status) => Outcome::Answered(Answer {
            status: status.unsigned_abs(),
            headers: decode_headers(row.get::<_, Option<&[u8]>>("response_headers").unwrap_or_default()),
            body: row.get::<_, Option<Vec<u8>>>("response_body").unwrap_or_default().into(),
        }),
        // The kind is for counting, and not kept; the sentence tells it.
        None => Outcome::Failed {
            kind: Failure::Connection,
            error: row.get::<_, Option<String>>("error").unwrap_or_default(),
        },
    };
    Ok(Attempt {
        day: row.get("day"),
        delivery: DeliveryId(row.get("delivery_id")),
        round: Round(row.get("round")),
        number: row.get::<_, i32>("number").unsigned_abs(),
        organization: OrganizationId(row.get("organization_id")),
        webhook: WebhookId(row.get("webhook_id")),
        event_source: row.get("event_source"),
        event_id: row.get("event_id"),
        event_type: row.get("event_type"),
        started_at: row.get("started_at"),
        duration: Duration::from_micros(row.get::<_, i64>("duration_us").unsigned_abs()),
        outcome,
        state: read_state(row, "state", "next_attempt_at", "reason")?,
    })
}
