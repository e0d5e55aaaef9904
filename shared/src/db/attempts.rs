//! The account of every attempt, and the statistics that are counted with it.

mod failures;
mod latest;
mod read;

use std::time::Duration;

use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::{Database, DbError};
use crate::delivery::{self, Attempt, Outcome, Reason, State};
use crate::ids::{DeliveryId, Round, WebhookId};

pub use failures::{FailedAttempt, LastFailure};
pub use read::{AttemptPlace, Course, MinuteStats};

/// Deliveries to a webhook that had to stay away in a minute, without an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParkedMinute {
    /// The webhook.
    pub webhook: WebhookId,
    /// The minute's beginning.
    pub minute: OffsetDateTime,
    /// Because it was busy, or its breaker open.
    pub parked: i64,
    /// Because its rate limit was reached.
    pub limited: i64,
}

/// What names an attempt, and the day whose partition has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptKey {
    /// The partition (UTC).
    pub day: Date,
    /// The delivery.
    pub delivery: DeliveryId,
    /// Which run through the schedule.
    pub round: Round,
    /// From 1 within the round.
    pub number: u32,
}

/// What the record of an attempt says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedAttempt {
    /// Which attempt.
    pub key: AttemptKey,
    /// What the delivery is after it.
    pub state: State,
    /// When the request began.
    pub started_at: OffsetDateTime,
    /// How long it took.
    pub duration: Duration,
    /// The answer's status, if there was one.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
}

impl RecordedAttempt {
    /// The attempt in short, as it goes with a dead letter.
    #[must_use]
    pub fn summary(&self) -> String {
        delivery::summary(self.key.number, self.started_at, self.duration, self.status, self.error.as_deref())
    }
}

impl Attempt {
    /// What names it.
    #[must_use]
    pub fn key(&self) -> AttemptKey {
        AttemptKey { day: self.day, delivery: self.delivery, round: self.round, number: self.number }
    }
}

impl Database {
    /// Records a batch with its statistics, in one statement, making its partitions where they are
    /// missing. Answers the keys that were not on record
    /// before; no row is ever changed.
    pub async fn record_attempts(&self, batch: &[Attempt]) -> Result<Vec<AttemptKey>, DbError> {
        match self.insert_attempts(batch).await {
            Err(DbError::NoPartition) => {
                self.ensure_partitions_of_all(batch.iter().map(|attempt| attempt.day)).await?;
                self.insert_attempts(batch).await
            }
            result => result,
        }
    }

    async fn insert_attempts(&self, batch: &[Attempt]) -> Result<Vec<AttemptKey>, DbError> {
        let column = Columns::of(batch);
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "WITH recorded AS (
                     INSERT INTO attempts (day, delivery_id, round, number, organization_id, webhook_id,
                         event_source, event_id, event_type, started_at, duration_us, state,
                         next_attempt_at, reason, status, error, response_headers, response_body)
                     SELECT * FROM unnest($1::date[], $2::uuid[], $3::uuid[], $4::int[], $5::uuid[],
                         $6::uuid[], $7::text[], $8::text[], $9::text[], $10::timestamptz[],
                         $11::bigint[], $12::text[], $13::timestamptz[], $14::text[], $15::smallint[],
                         $16::text[], $17::bytea[], $18::bytea[])
                     ON CONFLICT DO NOTHING
                     RETURNING day, delivery_id, round, number, webhook_id, started_at, duration_us, state
                 ), counted AS (
                     INSERT INTO delivery_stats (day, webhook_id, minute, delivered, failed, dead, duration_us)
                     SELECT day, webhook_id, date_trunc('minute', started_at),
                            count(*) FILTER (WHERE state = 'delivered'),
                            count(*) FILTER (WHERE state <> 'delivered'),
                            count(*) FILTER (WHERE state = 'dead'),
                            sum(duration_us)
                     FROM recorded GROUP BY 1, 2, 3
                     -- one order for all senders, so that none waits for one that waits for it
                     ORDER BY 1, 2, 3
                     ON CONFLICT (webhook_id, minute, day) DO UPDATE SET
                         delivered = delivery_stats.delivered + excluded.delivered,
                         failed = delivery_stats.failed + excluded.failed,
                         dead = delivery_stats.dead + excluded.dead,
                         duration_us = delivery_stats.duration_us + excluded.duration_us
                 )
                 SELECT day, delivery_id, round, number FROM recorded",
            )
            .await?;
        let rows = connection
            .query(
                &statement,
                &[
                    &column.days,
                    &column.deliveries,
                    &column.rounds,
                    &column.numbers,
                    &column.organizations,
                    &column.webhooks,
                    &column.event_sources,
                    &column.event_ids,
                    &column.event_types,
                    &column.started,
                    &column.durations_us,
                    &column.states,
                    &column.next_attempts,
                    &column.reasons,
                    &column.statuses,
                    &column.errors,
                    &column.response_headers,
                    &column.response_bodies,
                ],
            )
            .await?;
        Ok(rows.iter().map(key_of).collect())
    }

    /// Adds deliveries that had to stay away to the statistics.
    pub async fn record_parkings(&self, minutes: &[ParkedMinute]) -> Result<(), DbError> {
        let days: Vec<Date> = minutes.iter().map(|parked| parked.minute.date()).collect();
        let webhooks: Vec<Uuid> = minutes.iter().map(|parked| parked.webhook.0).collect();
        let starts: Vec<OffsetDateTime> = minutes.iter().map(|parked| parked.minute).collect();
        let parked: Vec<i64> = minutes.iter().map(|minute| minute.parked).collect();
        let limited: Vec<i64> = minutes.iter().map(|minute| minute.limited).collect();
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "INSERT INTO delivery_stats
                     (day, webhook_id, minute, delivered, failed, dead, duration_us, parked, limited)
                 SELECT day, webhook, minute, 0, 0, 0, 0, parked, limited
                 FROM unnest($1::date[], $2::uuid[], $3::timestamptz[], $4::bigint[], $5::bigint[])
                     AS stats (day, webhook, minute, parked, limited)
                 ORDER BY 1, 2, 3
                 ON CONFLICT (webhook_id, minute, day) DO UPDATE SET
                     parked = delivery_stats.parked + excluded.parked,
                     limited = delivery_stats.limited + excluded.limited",
            )
            .await?;
        connection.execute(&statement, &[&days, &webhooks, &starts, &parked, &limited]).await?;
        Ok(())
    }

    /// Which of these attempts are on record, and what they came to.
    pub async fn recorded_attempts(&self, keys: &[AttemptKey]) -> Result<Vec<RecordedAttempt>, DbError> {
        let days: Vec<Date> = keys.iter().map(|key| key.day).collect();
        let deliveries: Vec<Uuid> = keys.iter().map(|key| key.delivery.0).collect();
        let rounds: Vec<Uuid> = keys.iter().map(|key| key.round.0).collect();
        let numbers: Vec<i32> = keys.iter().map(|key| key.number as i32).collect();
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "SELECT recorded.day, recorded.delivery_id, recorded.round, recorded.number,
                        recorded.state, recorded.next_attempt_at, recorded.reason,
                        recorded.started_at, recorded.duration_us, recorded.status, recorded.error
                 FROM unnest($1::date[], $2::uuid[], $3::uuid[], $4::int[])
                     AS key (day, delivery_id, round, number)
                 CROSS JOIN LATERAL (
                     SELECT * FROM attempts
                     WHERE attempts.day = key.day AND attempts.delivery_id = key.delivery_id
                       AND attempts.round = key.round AND attempts.number = key.number
                     LIMIT 1) AS recorded",
            )
            .await?;
        let rows = connection.query(&statement, &[&days, &deliveries, &rounds, &numbers]).await?;
        let read = |row: &tokio_postgres::Row| {
            Ok(RecordedAttempt {
                key: key_of(row),
                state: read_state(row, "state", "next_attempt_at", "reason")?,
                started_at: row.get("started_at"),
                duration: Duration::from_micros(row.get::<_, i64>("duration_us").unsigned_abs()),
                status: row.get::<_, Option<i16>>("status").map(i16::unsigned_abs),
                error: row.get("error"),
            })
        };
        rows.iter().map(read).collect()
    }
}

fn key_of(row: &tokio_postgres::Row) -> AttemptKey {
    AttemptKey {
        day: row.get("day"),
        delivery: DeliveryId(row.get("delivery_id")),
        round: Round(row.get("round")),
        number: row.get::<_, i32>("number") as u32,
    }
}

/// Reads a delivery's state from the three columns that keep it.
fn read_state(
    row: &tokio_postgres::Row,
    state: &str,
    next_attempt_at: &str,
    reason: &str,
) -> Result<State, DbError> {
    let unreadable = || DbError::Unreadable("an attempt's state".to_owned());
    match row.get::<_, &str>(state) {
        "delivered" => Ok(State::Delivered),
        "retrying" => {
            row.get::<_, Option<OffsetDateTime>>(next_attempt_at).map(State::Retrying).ok_or_else(unreadable)
        }
        "dead" => {
            row.get::<_, Option<&str>>(reason).and_then(Reason::parse).map(State::Dead).ok_or_else(unreadable)
        }
        _ => Err(unreadable()),
    }
}

/// A batch by columns, as unnest wants it.
#[derive(Default)]
struct Columns<'a> {
    days: Vec<Date>,
    deliveries: Vec<Uuid>,
    rounds: Vec<Uuid>,
    numbers: Vec<i32>,
    organizations: Vec<Uuid>,
    webhooks: Vec<Uuid>,
    event_sources: Vec<&'a str>,
    event_ids: Vec<&'a str>,
    event_types: Vec<&'a str>,
    started: Vec<OffsetDateTime>,
    durations_us: Vec<i64>,
    states: Vec<&'static str>,
    next_attempts: Vec<Option<OffsetDateTime>>,
    reasons: Vec<Option<&'static str>>,
    statuses: Vec<Option<i16>>,
    errors: Vec<Option<String>>,
    response_headers: Vec<Option<Vec<u8>>>,
    response_bodies: Vec<Option<&'a [u8]>>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a [Attempt]) -> Self {
        let mut columns = Self::default();
        for attempt in batch {
            columns.push(attempt);
        }
        columns
    }

    fn push(&mut self, attempt: &'a Attempt) {
        self.days.push(attempt.day);
        self.deliveries.push(attempt.delivery.0);
        self.rounds.push(attempt.round.0);
        self.numbers.push(attempt.number as i32);
        self.organizations.push(attempt.organization.0);
        self.webhooks.push(attempt.webhook.0);
        self.event_sources.push(&attempt.event_source);
        self.event_ids.push(&attempt.event_id);
        self.event_types.push(&attempt.event_type);
        self.started.push(attempt.started_at);
        self.durations_us.push(i64::try_from(attempt.duration.as_micros()).unwrap_or(i64::MAX));
        self.states.push(attempt.state.as_str());
        let (next, reason) = match attempt.state {
            State::Delivered => (None, None),
            State::Retrying(at) => (Some(at), None),
            State::Dead(reason) => (None, Some(reason.as_str())),
        };
        self.next_attempts.push(next);
        self.reasons.push(reason);
        self.statuses.push(attempt.status().map(|status| status as i16));
        // Postgres has no NUL in text, and what a receiver or resolver says may hold anything.
        self.errors.push(attempt.error().map(|error| error.replace('\0', "\u{fffd}")));
        let answer = match &attempt.outcome {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Failed { .. } => None,
        };
        self.response_headers.push(answer.map(|answer| encode_headers(&answer.headers)));
        self.response_bodies.push(answer.map(|answer| answer.body.as_ref()));
    }
}

/// Headers as they are kept: `name: value` lines as on the wire, whose values may be any bytes but a line's end.
fn encode_headers(headers: &[(String, bytes::Bytes)]) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in headers {
        lines.extend_from_slice(name.as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value);
        lines.push(b'\n');
    }
    lines
}

/// Reads what [`encode_headers`] wrote.
fn decode_headers(lines: &[u8]) -> Vec<(String, bytes::Bytes)> {
    let header = |line: &[u8]| {
        let colon = line.windows(2).position(|pair| pair == b": ")?;
        let name = String::from_utf8_lossy(&line[..colon]).into_owned();
        Some((name, bytes::Bytes::copy_from_slice(&line[colon + 2..])))
    };
    lines.split(|byte| *byte == b'\n').filter_map(header).collect()
}
