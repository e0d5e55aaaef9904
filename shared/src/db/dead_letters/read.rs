//! Dead letters as they are listed, read, deleted, and marked as sent again.

use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::db::{Database, DbError};
use crate::delivery::Reason;
use crate::ids::{DeadLetterId, DeliveryId, OrganizationId, WebhookId};

/// Rows that one page reads at most, whether or not they match.
const MAX_ROWS_PER_PAGE: i64 = 10_000;

/// All columns but those of the message itself.
const COLUMNS: &str = "id, reason, detail, organization_id, category, event_source, event_id, event_type,
    webhook_id, delivery_id, last_attempt, created_at, redriven_at";

/// The condition on a dead letter of the organization `$2`, or where that is null, of none that there is.
const WHOSE: &str = "(organization_id = $2 OR $2::uuid IS NULL AND NOT EXISTS (
    SELECT FROM organizations WHERE organizations.id = organization_id))";

/// A dead letter, without the message itself.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Its id.
    pub id: DeadLetterId,
    /// Why it is one.
    pub reason: Reason,
    /// What was wrong, in a sentence.
    pub detail: String,
    /// Whose it is, or was before that was deleted; none: it could not be told.
    pub organization: Option<OrganizationId>,
    /// The event's category, `unknown` where it could not be told.
    pub category: String,
    /// The event's source.
    pub event_source: Option<String>,
    /// The event's id.
    pub event_id: Option<String>,
    /// The event's type.
    pub event_type: Option<String>,
    /// Where the delivery went, if it was one.
    pub webhook: Option<WebhookId>,
    /// The delivery, if it was one.
    pub delivery: Option<DeliveryId>,
    /// The last attempt, as JSON.
    pub last_attempt: Option<String>,
    /// When it became one.
    pub created_at: OffsetDateTime,
    /// When it was sent again.
    pub redriven_at: Option<OffsetDateTime>,
}

/// A dead letter with the message itself.
#[derive(Debug, Clone)]
pub struct StoredDeadLetter {
    /// What is known of it.
    pub letter: DeadLetter,
    /// The message's body, whole.
    pub payload: Vec<u8>,
    /// The body's media type.
    pub content_type: Option<String>,
    /// The message's own headers, as far as they can be told as JSON.
    pub message_headers: serde_json::Value,
    /// Where the message was first published to.
    pub exchange: String,
    /// With which routing key.
    pub routing_key: String,
}

/// Which dead letters are listed; none of a field: any.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeadLetterFilter {
    /// Of this webhook.
    pub webhook: Option<WebhookId>,
    /// For this reason.
    pub reason: Option<Reason>,
}

/// Where a dead letter stands in the order of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetterPlace {
    /// When it became one.
    pub created_at: OffsetDateTime,
    /// Its id.
    pub id: DeadLetterId,
}

/// A page of dead letters.
#[derive(Debug)]
pub struct DeadLetterPage {
    /// The dead letters, the newest first.
    pub letters: Vec<DeadLetter>,
    /// Where the next page begins, unless this is the last. A page may be short and still have a next.
    pub next: Option<DeadLetterPlace>,
}

impl Database {
    /// A page of an organization's dead letters, or of those that belong to none (any more), the newest first.
    pub async fn dead_letters(
        &self,
        organization: Option<OrganizationId>,
        filter: DeadLetterFilter,
        after: Option<DeadLetterPlace>,
        limit: usize,
    ) -> Result<DeadLetterPage, DbError> {
        let connection = self.connection().await?;
        let read = match organization {
            Some(_) => of("organization_id = $1"),
            None => of_nobody(),
        };
        // The last row read always comes along, so that the next page knows where to begin.
        let statement = connection
            .prepare_cached(&format!(
                "WITH read AS MATERIALIZED (
                     {read}
                 ), judged AS (
                     SELECT *, coalesce(($5::uuid IS NULL OR webhook_id = $5)
                                        AND ($6::text IS NULL OR reason = $6), false) AS wanted,
                            row_number() OVER (ORDER BY created_at DESC, id DESC) AS position,
                            count(*) OVER () AS rows
                     FROM read
                 )
                 SELECT * FROM judged WHERE wanted OR position = rows ORDER BY position LIMIT $7"
            ))
            .await?;
        let (at, id) = after.map(|place| (place.created_at, place.id.0)).unzip();
        let unfiltered = filter.webhook.is_none() && filter.reason.is_none();
        let limit = limit as i64;
        let max_rows = if unfiltered { limit } else { MAX_ROWS_PER_PAGE };
        let parameters: [&(dyn ToSql + Sync); 7] = [
            &organization.map(|organization| organization.0),
            &at,
            &id,
            &max_rows,
            &filter.webhook.map(|webhook| webhook.0),
            &filter.reason.map(Reason::as_str),
            &limit,
        ];
        let rows = connection.query(&statement, &parameters).await?;
        let wanted = rows.iter().filter(|row| row.get("wanted"));
        let letters = wanted.map(read_letter).collect::<Result<Vec<_>, _>>()?;
        let all_read = rows.last().map_or(0, |row| row.get::<_, i64>("rows")) < max_rows;
        let more = letters.len() as i64 == limit || !all_read;
        let next = rows.last().filter(|_| more).map(|row| DeadLetterPlace {
            created_at: row.get("created_at"),
            id: DeadLetterId(row.get("id")),
        });
        Ok(DeadLetterPage { letters, next })
    }

    /// One dead letter of an organization, or of none (any more), with the message itself.
    pub async fn dead_letter(
        &self,
        organization: Option<OrganizationId>,
        id: DeadLetterId,
    ) -> Result<Option<StoredDeadLetter>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS}, payload, content_type, message_headers, exchange, routing_key
                 FROM dead_letters WHERE id = $1 AND {WHOSE}"
            ))
            .await?;
        let organization = organization.map(|organization| organization.0);
        let row = connection.query_opt(&statement, &[&id.0, &organization]).await?;
        let read = |row: Row| {
            Ok(StoredDeadLetter {
                letter: read_letter(&row)?,
                payload: row.get("payload"),
                content_type: row.get("content_type"),
                message_headers: row.get("message_headers"),
                exchange: row.get("exchange"),
                routing_key: row.get("routing_key"),
            })
        };
        row.map(read).transpose()
    }

    /// The newest dead letter of an organization's delivery.
    pub async fn dead_letter_of(
        &self,
        organization: OrganizationId,
        delivery: DeliveryId,
    ) -> Result<Option<DeadLetter>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM dead_letters WHERE delivery_id = $1 AND organization_id = $2
                 ORDER BY created_at DESC LIMIT 1"
            ))
            .await?;
        let row = connection.query_opt(&statement, &[&delivery.0, &organization.0]).await?;
        row.as_ref().map(read_letter).transpose()
    }

    /// Deletes a dead letter of an organization, or of none (any more); whether there was one.
    pub async fn delete_dead_letter(
        &self,
        organization: Option<OrganizationId>,
        id: DeadLetterId,
    ) -> Result<bool, DbError> {
        let organization = organization.map(|organization| organization.0);
        let deleted = self
            .connection()
            .await?
            .execute(&format!("DELETE FROM dead_letters WHERE id = $1 AND {WHOSE}"), &[&id.0, &organization])
            .await?;
        Ok(deleted > 0)
    }
}

/// The newest `$4` dead letters after a place, of those that the condition is true of. The bound by the place's time is
/// for the index: the place itself, which may be none, is compared row by row.
fn of(whose: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM dead_letters
         WHERE {whose} AND created_at <= coalesce($2::timestamptz, 'infinity')
           AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3))
         ORDER BY created_at DESC, id DESC LIMIT $4"
    )
}

/// The same of those that belong to no organization, or to one that was deleted. Which these are is found by one
/// look at the index for each organization that has dead letters, and not by reading everybody's: neither `=` nor
/// `IS NOT DISTINCT FROM` finds null by an index, and nothing finds what is not there.
fn of_nobody() -> String {
    let (nobodys, of_one_deleted) =
        (of("organization_id IS NULL AND $1::uuid IS NULL"), of("organization_id = deleted.id"));
    format!(
        "WITH RECURSIVE owner (id) AS (
             (SELECT organization_id FROM dead_letters WHERE organization_id IS NOT NULL
              ORDER BY organization_id LIMIT 1)
             UNION ALL
             SELECT (SELECT organization_id FROM dead_letters WHERE organization_id > owner.id
                     ORDER BY organization_id LIMIT 1)
             FROM owner WHERE owner.id IS NOT NULL
         ), deleted AS (
             SELECT id FROM owner
             WHERE id IS NOT NULL AND NOT EXISTS (SELECT FROM organizations WHERE organizations.id = owner.id)
         )
         SELECT * FROM ({nobodys}) AS nobodys
         UNION ALL
         SELECT letter.* FROM deleted CROSS JOIN LATERAL ({of_one_deleted}) AS letter
         ORDER BY created_at DESC, id DESC LIMIT $4"
    )
}

fn read_letter(row: &Row) -> Result<DeadLetter, DbError> {
    let reason = Reason::parse(row.get("reason"));
    Ok(DeadLetter {
        id: DeadLetterId(row.get("id")),
        reason: reason.ok_or_else(|| DbError::Unreadable("a dead letter's reason".to_owned()))?,
        detail: row.get("detail"),
        organization: row.get::<_, Option<Uuid>>("organization_id").map(OrganizationId),
        category: row.get("category"),
        event_source: row.get("event_source"),
        event_id: row.get("event_id"),
        event_type: row.get("event_type"),
        webhook: row.get::<_, Option<Uuid>>("webhook_id").map(WebhookId),
        delivery: row.get::<_, Option<Uuid>>("delivery_id").map(DeliveryId),
        last_attempt: row.get("last_attempt"),
        created_at: row.get("created_at"),
        redriven_at: row.get("redriven_at"),
    })
}
