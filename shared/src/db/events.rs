//! The event log: every event that was accepted, once, with the webhooks it was fanned out to.

mod newest;
mod read;

use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::{Database, DbError};
use crate::event::Event;
use crate::ids::{OrganizationId, WebhookId};

pub use read::{EventFilter, EventPage, EventPlace, EventSummary, StoredEvent};

/// An event to be logged.
#[derive(Debug)]
pub struct LoggedEvent<'a> {
    /// The day whose partition takes it (UTC).
    pub day: Date,
    /// Whose it is.
    pub organization: OrganizationId,
    /// The event.
    pub event: &'a Event,
    /// The event in structured JSON, as it travels on.
    pub payload: &'a [u8],
    /// When the router took it.
    pub received_at: OffsetDateTime,
    /// The webhooks it is fanned out to.
    pub webhooks: &'a [WebhookId],
}

/// What names an event: whose it is, its source and its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventKey {
    /// Whose it is.
    pub organization: OrganizationId,
    /// Its source.
    pub source: String,
    /// Its id.
    pub id: String,
}

impl Database {
    /// Which of these events are in the partitions of today and yesterday: their positions in `keys`, and when
    /// the router took them last.
    pub async fn logged_events(
        &self,
        keys: &[&EventKey],
        today: Date,
    ) -> Result<Vec<(usize, OffsetDateTime)>, DbError> {
        let organizations: Vec<Uuid> = keys.iter().map(|key| key.organization.0).collect();
        let sources: Vec<&str> = keys.iter().map(|key| key.source.as_str()).collect();
        let ids: Vec<&str> = keys.iter().map(|key| key.id.as_str()).collect();
        let yesterday = today.previous_day().unwrap_or(today);
        let connection = self.connection().await?;
        // Lateral with a limit: an index look-up a key, whatever the planner thinks of the table's size.
        let statement = connection
            .prepare_cached(
                "SELECT key.position, logged.received_at
                 FROM unnest($1::uuid[], $2::text[], $3::text[])
                     WITH ORDINALITY AS key (organization_id, source, id, position)
                 CROSS JOIN LATERAL (
                     SELECT received_at FROM events
                     WHERE events.day IN ($4, $5)
                       AND events.organization_id = key.organization_id
                       AND events.source = key.source AND events.id = key.id
                     ORDER BY events.day DESC LIMIT 1) AS logged",
            )
            .await?;
        let rows =
            connection.query(&statement, &[&organizations, &sources, &ids, &today, &yesterday]).await?;
        Ok(rows.iter().map(|row| (row.get::<_, i64>(0) as usize - 1, row.get(1))).collect())
    }

    /// Logs a batch, making its partition where it is missing. Events that are there already stay as they are.
    pub async fn log_events(&self, batch: &[LoggedEvent<'_>]) -> Result<(), DbError> {
        match self.insert_events(batch).await {
            Err(DbError::NoPartition) => {
                self.ensure_partitions_of_all(batch.iter().map(|logged| logged.day)).await?;
                self.insert_events(batch).await
            }
            result => result,
        }
    }

    async fn insert_events(&self, batch: &[LoggedEvent<'_>]) -> Result<(), DbError> {
        let days: Vec<Date> = batch.iter().map(|logged| logged.day).collect();
        let organizations: Vec<Uuid> = batch.iter().map(|logged| logged.organization.0).collect();
        let sources: Vec<&str> = batch.iter().map(|logged| logged.event.source.as_str()).collect();
        let ids: Vec<&str> = batch.iter().map(|logged| logged.event.id.as_str()).collect();
        let types: Vec<&str> = batch.iter().map(|logged| logged.event.event_type.as_str()).collect();
        let categories: Vec<&str> = batch.iter().map(|logged| logged.event.event_type.category()).collect();
        let subjects: Vec<Option<&str>> =
            batch.iter().map(|logged| logged.event.subject.as_deref()).collect();
        let received: Vec<OffsetDateTime> = batch.iter().map(|logged| logged.received_at).collect();
        let payloads: Vec<&[u8]> = batch.iter().map(|logged| logged.payload).collect();
        let webhooks: Vec<String> = batch.iter().map(|logged| uuid_array(logged.webhooks)).collect();
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "INSERT INTO events (day, organization_id, source, id, type, category, subject,
                                     received_at, payload, webhooks)
                 SELECT day, organization_id, source, id, type, category, subject,
                        received_at, payload, webhooks::uuid[]
                 FROM unnest($1::date[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[],
                             $7::text[], $8::timestamptz[], $9::bytea[], $10::text[])
                     AS logged (day, organization_id, source, id, type, category, subject,
                                received_at, payload, webhooks)
                 ON CONFLICT DO NOTHING",
            )
            .await?;
        connection
            .execute(
                &statement,
                &[
                    &days,
                    &organizations,
                    &sources,
                    &ids,
                    &types,
                    &categories,
                    &subjects,
                    &received,
                    &payloads,
                    &webhooks,
                ],
            )
            .await?;
        Ok(())
    }
}

/// An array literal: unnest flattens arrays of arrays, so each row's array goes as text.
fn uuid_array(webhooks: &[WebhookId]) -> String {
    let ids: Vec<String> = webhooks.iter().map(ToString::to_string).collect();
    format!("{{{}}}", ids.join(","))
}

#[cfg(test)]
mod tests {
    use super::super::partitions::today;
    use super::super::scratch::{self, Scratch};
    use super::*;

    #[test]
    fn a_partition_that_is_missing_is_made_by_whoever_logs_an_event() {
        scratch::test(async |scratch| {
            let json = br#"{"id":"1","source":"s","type":"a.b"}"#;
            let event = Event::from_json(&json.as_slice().into()).unwrap();
            let on = |days: i64| LoggedEvent {
                day: today() + time::Duration::days(days),
                organization: OrganizationId::new(),
                event: &event,
                payload: json,
                received_at: OffsetDateTime::now_utc(),
                webhooks: &[],
            };
            // Over days that have their partition and days that have not, by several routers at once.
            let batches: Vec<_> = (0..4).map(|_| [on(0), on(40), on(41), on(-10)]).collect();
            let logging = batches.iter().map(|batch| scratch.database.log_events(batch));
            for logged in futures_util::future::join_all(logging).await {
                logged.unwrap();
            }
            assert_eq!(scratch.count("events").await, 16);
            let attached = scratch.attached("events").await;
            assert!(attached.contains(&Scratch::partition("events", 41)), "{attached:?}");
        });
    }
}
