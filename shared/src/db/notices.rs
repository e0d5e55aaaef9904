//! What Cuewire has to say of its own: notices, written by the statements that change what they tell of, until they
//! are published as events.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Database, DbError};
use crate::ids::{OrganizationId, WebhookId};

/// An event of Cuewire's own that is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The event's id.
    pub id: Uuid,
    /// Whom it concerns.
    pub organization: OrganizationId,
    /// Of which webhook it tells.
    pub webhook: WebhookId,
    /// The event's type.
    pub event_type: String,
    /// When what it tells of happened.
    pub noted_at: OffsetDateTime,
    /// The event's data, as JSON.
    pub data: String,
}

impl Database {
    /// Takes at most `limit` notices, the oldest. Nobody else gets them for the length of the lease; those that
    /// are not forgotten by then come again.
    pub async fn claim_notices(&self, lease: Duration, limit: i64) -> Result<Vec<Notice>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "UPDATE notices SET claimed_until = now() + make_interval(secs => $1)
                 WHERE id IN (
                     SELECT id FROM notices WHERE claimed_until IS NULL OR claimed_until <= now()
                     ORDER BY noted_at LIMIT $2 FOR UPDATE SKIP LOCKED)
                 RETURNING id, organization_id, webhook_id, type, noted_at, data",
            )
            .await?;
        let rows = connection.query(&statement, &[&lease.as_secs_f64(), &limit]).await?;
        let read = rows.iter().map(|row| Notice {
            id: row.get("id"),
            organization: OrganizationId(row.get("organization_id")),
            webhook: WebhookId(row.get("webhook_id")),
            event_type: row.get("type"),
            noted_at: row.get("noted_at"),
            data: row.get("data"),
        });
        Ok(read.collect())
    }

    /// Gives back notices that were taken and not published: they come again at once.
    pub async fn release_notices(&self, ids: &[Uuid]) -> Result<(), DbError> {
        let connection = self.connection().await?;
        let statement =
            connection.prepare_cached("UPDATE notices SET claimed_until = NULL WHERE id = ANY($1)").await?;
        connection.execute(&statement, &[&ids]).await?;
        Ok(())
    }

    /// Forgets notices that were published.
    pub async fn forget_notices(&self, ids: &[Uuid]) -> Result<(), DbError> {
        let connection = self.connection().await?;
        let statement = connection.prepare_cached("DELETE FROM notices WHERE id = ANY($1)").await?;
        connection.execute(&statement, &[&ids]).await?;
        Ok(())
    }
}
