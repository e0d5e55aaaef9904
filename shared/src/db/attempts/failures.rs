//! Reading how webhooks last failed.

use time::OffsetDateTime;

use crate::db::{Database, DbError};
use crate::ids::{DeliveryId, WebhookId};

/// How a webhook last failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFailure {
    /// The webhook.
    pub webhook: WebhookId,
    /// What went wrong, in a sentence.
    pub error: String,
    /// The attempt that failed, as long as it is on record.
    pub attempt: Option<FailedAttempt>,
}

/// What was sent in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAttempt {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The event's source.
    pub event_source: String,
    /// The event's id.
    pub event_id: String,
    /// When the request began.
    pub started_at: OffsetDateTime,
}

impl Database {
    /// How those of these webhooks last failed that have failed at all, as far back as the record goes.
    pub async fn last_failures(&self, webhooks: &[WebhookId]) -> Result<Vec<LastFailure>, DbError> {
        let connection = self.connection().await?;
        // By the index of what was not delivered: one look a webhook and day.
        let statement = connection
            .prepare_cached(
                "SELECT key.webhook, coalesce(last.error, last_error, '') AS error,
                        delivery_id, event_source, event_id, started_at
                 FROM unnest($1::uuid[]) AS key (webhook)
                 LEFT JOIN webhook_health ON webhook_health.webhook_id = key.webhook
                 LEFT JOIN LATERAL (
                     SELECT error, delivery_id, event_source, event_id, started_at FROM attempts
                     WHERE webhook_id = key.webhook AND state <> 'delivered'
                       AND reason IS DISTINCT FROM 'test'
                     ORDER BY started_at DESC LIMIT 1) AS last ON true
                 WHERE last.delivery_id IS NOT NULL OR last_error IS NOT NULL",
            )
            .await?;
        let ids: Vec<_> = webhooks.iter().map(|webhook| webhook.0).collect();
        let rows = connection.query(&statement, &[&ids]).await?;
        let read = rows.iter().map(|row| LastFailure {
            webhook: WebhookId(row.get("webhook")),
            error: row.get("error"),
            attempt: row.get::<_, Option<_>>("delivery_id").map(|delivery| FailedAttempt {
                delivery: DeliveryId(delivery),
                event_source: row.get("event_source"),
                event_id: row.get("event_id"),
                started_at: row.get("started_at"),
            }),
        });
        Ok(read.collect())
    }
}
