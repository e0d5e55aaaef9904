//! Reading the event log, day by day from the newest, each read within bounds.

use std::pin::pin;

use futures_util::TryStreamExt;
use time::{Date, Duration, OffsetDateTime};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::db::{Database, DbError};
use crate::event::Event;
use crate::ids::{DeliveryId, OrganizationId, WebhookId};

/// Rows that one page reads at most, whether or not they match.
const MAX_ROWS_PER_PAGE: i64 = 10_000;
/// Rows read at a time: a page that fills early stops early.
const ROWS_AT_A_TIME: i64 = 1_000;
/// How many days back a delivery without a record is looked for: it would be given up after three.
const PENDING_DAYS: i64 = 4;
/// Deliveries computed in that search.
const MAX_COMPUTED_IDS: usize = 100_000;

/// Which events are listed; none of a field: any.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// The whole type.
    pub event_type: Option<String>,
    /// The type's first word.
    pub category: Option<String>,
    /// The subject.
    pub subject: Option<String>,
    /// Received at this time or later.
    pub from: Option<OffsetDateTime>,
    /// Received before this time.
    pub to: Option<OffsetDateTime>,
}

/// Where an event stands in the log's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPlace {
    /// The partition.
    pub day: Date,
    /// When the router took it.
    pub received_at: OffsetDateTime,
    /// Its source.
    pub source: String,
    /// Its id.
    pub id: String,
}

/// An event in a list: without its data.
#[derive(Debug, Clone)]
pub struct EventSummary {
    /// Where it stands, with its source and id.
    pub place: EventPlace,
    /// Its type.
    pub event_type: String,
    /// Its subject.
    pub subject: Option<String>,
    /// To how many webhooks it was fanned out.
    pub webhooks: usize,
}

/// A page of the log.
#[derive(Debug)]
pub struct EventPage {
    /// The events, the newest first.
    pub events: Vec<EventSummary>,
    /// Where the next page begins, unless this is the last. A page may be short and still have a next.
    pub next: Option<EventPlace>,
}

/// An event as it was logged.
#[derive(Debug)]
pub struct StoredEvent {
    /// Where it stands, with its source and id.
    pub place: EventPlace,
    /// The event in structured JSON.
    pub payload: Vec<u8>,
    /// The webhooks it was fanned out to.
    pub webhooks: Vec<WebhookId>,
}

impl Database {
    /// A page of an organization's events, the newest first, after the place `after`.
    pub async fn events(
        &self,
        organization: OrganizationId,
        filter: &EventFilter,
        after: Option<EventPlace>,
        limit: usize,
    ) -> Result<EventPage, DbError> {
        let newest = after.as_ref().map_or(Date::MAX, |place| place.day);
        let newest = filter.to.map_or(newest, |to| newest.min(day_of(to)));
        let oldest = filter.from.map_or(Date::MIN, day_of);
        let mut page = EventPage { events: Vec::new(), next: None };
        let mut rows_left = MAX_ROWS_PER_PAGE;
        let mut after = after;
        for day in self.partition_days("events", newest, oldest).await? {
            loop {
                let at_a_time = rows_left.min(ROWS_AT_A_TIME);
                let place = after.as_ref().filter(|place| place.day == day);
                let scan = self.scan_day(organization, filter, day, place, at_a_time).await?;
                let Some(last) = scan.last_place.clone() else { break };
                rows_left -= scan.rows;
                after = Some(last);
                for summary in scan.wanted {
                    page.events.push(summary);
                    if page.events.len() == limit {
                        page.next = page.events.last().map(|summary| summary.place.clone());
                        return Ok(page);
                    }
                }
                if rows_left == 0 {
                    page.next = after;
                    return Ok(page);
                }
                if scan.rows < at_a_time {
                    break;
                }
            }
        }
        Ok(page)
    }

    /// Reads up to `rows` of one day, and keeps those that the filter wants.
    async fn scan_day(
        &self,
        organization: OrganizationId,
        filter: &EventFilter,
        day: Date,
        after: Option<&EventPlace>,
        rows: i64,
    ) -> Result<Scan, DbError> {
        let connection = self.connection().await?;
        // The last row read always comes along, so that the next read knows where to go on. The bound by the place's
        // time is for the index: the place itself, which may be none, is compared row by row.
        let statement = connection
            .prepare_cached(
                "WITH read AS MATERIALIZED (
                     SELECT received_at, source, id, type, category, subject, cardinality(webhooks) AS webhooks
                     FROM events
                     WHERE day = $1 AND organization_id = $2
                       AND received_at >= $3 AND received_at < $4 AND received_at <= coalesce($5::timestamptz, $4)
                       AND ($5::timestamptz IS NULL OR (received_at, source, id) < ($5, $6, $7))
                     ORDER BY received_at DESC, source DESC, id DESC
                     LIMIT $8
                 ), judged AS (
                     SELECT *, ($9::text IS NULL OR type = $9) AND ($10::text IS NULL OR category = $10)
                               AND coalesce($11::text IS NULL OR subject = $11, false) AS wanted,
                            row_number() OVER (ORDER BY received_at DESC, source DESC, id DESC) AS position,
                            count(*) OVER () AS rows
                     FROM read
                 )
                 SELECT * FROM judged WHERE wanted OR position = rows ORDER BY position",
            )
            .await?;
        let from = filter.from.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let to = filter.to.unwrap_or(END_OF_TIME);
        let (after_at, after_source, after_id) = match after {
            Some(place) => (Some(place.received_at), Some(&place.source), Some(&place.id)),
            None => (None, None, None),
        };
        let read = connection
            .query(
                &statement,
                &[
                    &day,
                    &organization.0,
                    &from,
                    &to,
                    &after_at,
                    &after_source,
                    &after_id,
                    &rows,
                    &filter.event_type,
                    &filter.category,
                    &filter.subject,
                ],
            )
            .await?;
        let wanted = read.iter().filter(|row| row.get("wanted")).map(|row| EventSummary {
            place: read_place(row, day),
            event_type: row.get("type"),
            subject: row.get("subject"),
            webhooks: row.get::<_, i32>("webhooks") as usize,
        });
        Ok(Scan {
            wanted: wanted.collect(),
            last_place: read.last().map(|row| read_place(row, day)),
            rows: read.last().map_or(0, |row| row.get("rows")),
        })
    }

    /// An organization's newest event of this id, and of this source if one is given.
    pub async fn event(
        &self,
        organization: OrganizationId,
        id: &str,
        source: Option<&str>,
    ) -> Result<Option<StoredEvent>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "SELECT day, received_at, source, id, payload, webhooks FROM events
                 WHERE organization_id = $1 AND id = $2 AND ($3::text IS NULL OR source = $3)
                 ORDER BY day DESC, received_at DESC LIMIT 1",
            )
            .await?;
        let row = connection.query_opt(&statement, &[&organization.0, &id, &source]).await?;
        Ok(row.as_ref().map(read_stored))
    }

    /// When these events of an organization happened, each told by its source and id, in their order; none for
    /// one that is not in the log or has no time.
    pub async fn event_times(
        &self,
        organization: OrganizationId,
        events: &[(&str, &str)],
    ) -> Result<Vec<Option<OffsetDateTime>>, DbError> {
        let (sources, ids): (Vec<&str>, Vec<&str>) = events.iter().copied().unzip();
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "SELECT key.position, event.payload
                 FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS key (source, id, position)
                 CROSS JOIN LATERAL (
                     SELECT payload FROM events
                     WHERE organization_id = $1 AND events.id = key.id AND events.source = key.source
                     ORDER BY day DESC LIMIT 1) AS event",
            )
            .await?;
        let parameters: [&(dyn ToSql + Sync); 3] = [&organization.0, &sources, &ids];
        // One at a time, since each may be large.
        let mut rows = pin!(connection.query_raw(&statement, parameters).await?);
        let mut times = vec![None; events.len()];
        while let Some(row) = rows.try_next().await? {
            let event = Event::from_json(&row.get::<_, Vec<u8>>("payload").into());
            times[row.get::<_, i64>("position") as usize - 1] =
                event.ok().and_then(|event| event.timestamp());
        }
        Ok(times)
    }

    /// An organization's events after a place, up to a time, the oldest first.
    pub async fn events_since(
        &self,
        organization: OrganizationId,
        after: &EventPlace,
        until: OffsetDateTime,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "SELECT day, received_at, source, id, payload, webhooks FROM events
                 WHERE day >= $1 AND organization_id = $2
                   AND (received_at, source, id) > ($3, $4, $5) AND received_at <= $6
                 ORDER BY received_at, source, id LIMIT $7",
            )
            .await?;
        let rows = connection
            .query(
                &statement,
                &[
                    &after.day,
                    &organization.0,
                    &after.received_at,
                    &after.source,
                    &after.id,
                    &until,
                    &(limit as i64),
                ],
            )
            .await?;
        Ok(rows.iter().map(read_stored).collect())
    }

    /// The source, id and webhook of a delivery that has no record yet, looked for among the newest of its
    /// organization's events: its id cannot be turned back into them.
    pub async fn pending_delivery(
        &self,
        organization: OrganizationId,
        delivery: DeliveryId,
    ) -> Result<Option<(EventPlace, WebhookId)>, DbError> {
        let newest = crate::db::partitions::today() + Duration::days(1);
        let days = self.partition_days("events", newest, newest - Duration::days(PENDING_DAYS)).await?;
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "SELECT received_at, source, id, webhooks FROM events
                 WHERE day = $1 AND organization_id = $2
                 ORDER BY received_at DESC, source DESC, id DESC LIMIT $3",
            )
            .await?;
        let (mut rows_left, mut ids_left) = (MAX_ROWS_PER_PAGE, MAX_COMPUTED_IDS);
        for day in days {
            let rows = connection.query(&statement, &[&day, &organization.0, &rows_left]).await?;
            for row in &rows {
                let place = read_place(row, day);
                let webhooks: Vec<Uuid> = row.get("webhooks");
                ids_left = ids_left.saturating_sub(webhooks.len());
                if ids_left == 0 {
                    return Ok(None);
                }
                let is_it = |webhook: &WebhookId| {
                    DeliveryId::of(organization, &place.source, &place.id, *webhook) == delivery
                };
                if let Some(webhook) = webhooks.into_iter().map(WebhookId).find(is_it) {
                    return Ok(Some((place, webhook)));
                }
            }
            rows_left -= rows.len() as i64;
            if rows_left <= 0 {
                break;
            }
        }
        Ok(None)
    }

    /// The days from `newest` back to `oldest` that have a partition of `table`, the newest first.
    pub(in crate::db) async fn partition_days(
        &self,
        table: &str,
        newest: Date,
        oldest: Date,
    ) -> Result<Vec<Date>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "SELECT to_date(right(relname, 8), 'YYYYMMDD') AS day
                 FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
                 WHERE inhparent = $1::text::regclass ORDER BY relname DESC",
            )
            .await?;
        let rows = connection.query(&statement, &[&table]).await?;
        let days = rows.iter().map(|row| row.get::<_, Date>("day"));
        Ok(days.filter(|day| (oldest..=newest).contains(day)).collect())
    }
}

/// Later than any event, and a time that Postgres and RFC 3339 can both write.
const END_OF_TIME: OffsetDateTime = time::macros::datetime!(9999-12-31 23:59:59 UTC);

/// What one read of a day found.
struct Scan {
    wanted: Vec<EventSummary>,
    last_place: Option<EventPlace>,
    rows: i64,
}

fn day_of(at: OffsetDateTime) -> Date {
    at.to_offset(time::UtcOffset::UTC).date()
}

fn read_place(row: &Row, day: Date) -> EventPlace {
    EventPlace { day, received_at: row.get("received_at"), source: row.get("source"), id: row.get("id") }
}

pub(super) fn read_stored(row: &Row) -> StoredEvent {
    StoredEvent {
        place: read_place(row, row.get("day")),
        payload: row.get("payload"),
        webhooks: row.get::<_, Vec<Uuid>>("webhooks").into_iter().map(WebhookId).collect(),
    }
}
