//! Reading the newest of the event log whole, for what only the events themselves tell.

use time::{Date, Duration};

use super::read::{EventPlace, StoredEvent, read_stored};
use crate::db::partitions::today;
use crate::db::{Database, DbError};
use crate::ids::OrganizationId;

/// How far back is read, in events.
const MAX_ROWS: usize = 10_000;
/// How far back is read, in bytes of events: a third of a second's work.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// What is in memory at a time, besides the event that goes beyond it.
const ROWS_AT_A_TIME: usize = 1_000;
const BYTES_AT_A_TIME: usize = 4 * 1024 * 1024;

impl Database {
    /// Shows `look` an organization's newest events, the newest first: at most 10,000 of them, and none more
    /// once they are 32 MiB.
    pub async fn newest_events(
        &self,
        organization: OrganizationId,
        mut look: impl FnMut(StoredEvent) + Send,
    ) -> Result<(), DbError> {
        let (mut rows_left, mut bytes_left) = (MAX_ROWS, MAX_BYTES);
        // A router's clock may be ahead.
        for day in self.partition_days("events", today() + Duration::days(1), Date::MIN).await? {
            let mut after = None;
            loop {
                let limits = (rows_left.min(ROWS_AT_A_TIME), bytes_left.min(BYTES_AT_A_TIME));
                let events = self.events_before(organization, day, after.as_ref(), limits).await?;
                let Some(last) = events.last() else { break };
                after = Some(last.place.clone());
                for event in events {
                    rows_left -= 1;
                    bytes_left = bytes_left.saturating_sub(event.payload.len());
                    look(event);
                }
                if rows_left == 0 || bytes_left == 0 {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The newest events of a day before a place: so many, and none more once they are so many bytes. There are
    /// none when the day has no more.
    async fn events_before(
        &self,
        organization: OrganizationId,
        day: Date,
        before: Option<&EventPlace>,
        (rows, bytes): (usize, usize),
    ) -> Result<Vec<StoredEvent>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            // The bound by the place's time is for the index, as in `scan_day`.
            .prepare_cached(
                "WITH newest AS (
                     SELECT * FROM events
                     WHERE day = $1 AND organization_id = $2
                       AND received_at <= coalesce($3::timestamptz, 'infinity')
                       AND ($3::timestamptz IS NULL OR (received_at, source, id) < ($3, $4, $5))
                     ORDER BY received_at DESC, source DESC, id DESC LIMIT $6
                 ), measured AS (
                     SELECT *, sum(octet_length(payload))
                                   OVER (ORDER BY received_at DESC, source DESC, id DESC) AS bytes
                     FROM newest
                 )
                 SELECT day, received_at, source, id, payload, webhooks FROM measured
                 WHERE bytes - octet_length(payload) < $7::bigint
                 ORDER BY received_at DESC, source DESC, id DESC",
            )
            .await?;
        let (at, source, id) = match before {
            Some(place) => (Some(place.received_at), Some(&place.source), Some(&place.id)),
            None => (None, None, None),
        };
        let rows = connection
            .query(&statement, &[&day, &organization.0, &at, &source, &id, &(rows as i64), &(bytes as i64)])
            .await?;
        Ok(rows.iter().map(read_stored).collect())
    }
}
