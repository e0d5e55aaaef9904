//! Webhooks as their organization manages them: made, listed, changed, deleted, and their secrets replaced.

use std::ops::RangeInclusive;
use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{COLUMNS, WEBHOOK, read_webhook};
use crate::db::{Database, DbError};
use crate::formats::Format;
use crate::ids::{OrganizationId, WebhookId};
use crate::webhook::Webhook;

/// Webhooks in a list that has no pages: far more than an organization has of one platform.
const MAX_LISTED: i64 = 10_000;

/// What became of a request to replace a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotatedSecret {
    /// The new one signs.
    Done,
    /// So many are valid that no other is accepted.
    TooMany,
}

/// What saving a webhook means for its failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// It fails as it did before, if it did.
    GoesOn,
    /// It counts as not failing.
    Ends,
}

impl Database {
    /// Makes a webhook with its first secret, sealed. Its `number` and times are the database's.
    /// [`DbError::Conflict`] when its organization is gone.
    pub async fn create_webhook(&self, webhook: &Webhook, sealed: &[u8]) -> Result<Webhook, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(&format!(
                "WITH made AS (
                     INSERT INTO webhooks (id, organization_id, name, description, url, enabled, format,
                         event_types, filter, headers, signature, rate_limit_per_second, max_in_flight,
                         timeout_ms, retry_schedule_ms)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
                     RETURNING {COLUMNS}
                 ), signed AS (
                     INSERT INTO secrets (id, webhook_id, sealed) SELECT $16, id, $17 FROM made
                 )
                 SELECT made.*, first_failed_at, opened_at, probes, next_probe_at
                 FROM made LEFT JOIN webhook_health ON webhook_id = made.id"
            ))
            .await?;
        let row = connection
            .query_one(
                &statement,
                &[
                    &webhook.id.0,
                    &webhook.organization.0,
                    &webhook.name,
                    &webhook.description,
                    &webhook.url,
                    &webhook.enabled,
                    &webhook.format.as_str(),
                    &patterns(webhook),
                    &webhook.filter,
                    &webhook.sealed_headers,
                    &webhook.signature.as_str(),
                    &webhook.own_rate_limit.map(|limit| limit as i32),
                    &(webhook.max_in_flight as i32),
                    &(webhook.timeout.as_millis() as i32),
                    &webhook.retry_schedule.as_ref().map(crate::retry::Schedule::to_millis),
                    &Uuid::now_v7(),
                    &sealed,
                ],
            )
            .await?;
        read_webhook(&row)
    }

    /// An organization's webhook, or none if it has no such one.
    pub async fn webhook_of(
        &self,
        organization: OrganizationId,
        id: WebhookId,
    ) -> Result<Option<Webhook>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(&format!("{WEBHOOK} WHERE webhooks.id = $1 AND organization_id = $2"))
            .await?;
        let row = connection.query_opt(&statement, &[&id.0, &organization.0]).await?;
        row.as_ref().map(read_webhook).transpose()
    }

    /// An organization's webhooks, the newest first: those before `before`.
    pub async fn webhooks_of(
        &self,
        organization: OrganizationId,
        before: Option<(OffsetDateTime, WebhookId)>,
        limit: usize,
    ) -> Result<Vec<Webhook>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(&format!(
                "{WEBHOOK} WHERE organization_id = $1
                   AND (created_at, webhooks.id) < (coalesce($2, 'infinity'::timestamptz), $3)
                 ORDER BY created_at DESC, webhooks.id DESC LIMIT $4"
            ))
            .await?;
        let (at, id) = before.unzip();
        let id = id.map_or(Uuid::max(), |webhook| webhook.0);
        let rows = connection.query(&statement, &[&organization.0, &at, &id, &(limit as i64)]).await?;
        rows.iter().map(read_webhook).collect()
    }

    /// An organization's webhooks of these formats, at most 10,000 of them, in the order in which they were
    /// made.
    pub async fn webhooks_in(
        &self,
        organization: OrganizationId,
        formats: &[Format],
    ) -> Result<Vec<Webhook>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(&format!(
                "{WEBHOOK} WHERE organization_id = $1 AND format = ANY($2) ORDER BY number LIMIT $3"
            ))
            .await?;
        let formats: Vec<_> = formats.iter().map(|format| format.as_str()).collect();
        let rows = connection.query(&statement, &[&organization.0, &formats, &MAX_LISTED]).await?;
        rows.iter().map(read_webhook).collect()
    }

    /// An organization's webhook of this number, or none if it has no such one.
    pub async fn webhook_numbered(
        &self,
        organization: OrganizationId,
        number: i64,
    ) -> Result<Option<Webhook>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(&format!("{WEBHOOK} WHERE number = $1 AND organization_id = $2"))
            .await?;
        let row = connection.query_opt(&statement, &[&number, &organization.0]).await?;
        row.as_ref().map(read_webhook).transpose()
    }

    /// An organization's webhook whose id is among these, or none: for ids that are cut short.
    pub async fn webhook_among(
        &self,
        organization: OrganizationId,
        ids: &RangeInclusive<Uuid>,
    ) -> Result<Option<Webhook>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(&format!(
                "{WEBHOOK} WHERE webhooks.id BETWEEN $1 AND $2 AND organization_id = $3 LIMIT 1"
            ))
            .await?;
        let row = connection.query_opt(&statement, &[ids.start(), ids.end(), &organization.0]).await?;
        row.as_ref().map(read_webhook).transpose()
    }

    /// Writes a webhook that was read and changed, unless someone else has changed or deleted it since:
    /// then none.
    pub async fn save_webhook(
        &self,
        webhook: &Webhook,
        failing: Failing,
    ) -> Result<Option<Webhook>, DbError> {
        let recovered = failing == Failing::Ends;
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(&format!(
                "WITH saved AS (
                     UPDATE webhooks SET name = $3, description = $4, url = $5, enabled = $6,
                         disabled_reason = $7, format = $8, event_types = $9, filter = $10, headers = $11,
                         rate_limit_per_second = $12, max_in_flight = $13, timeout_ms = $14,
                         retry_schedule_ms = $15,
                         updated_at = greatest(now(), updated_at + interval '1 microsecond')
                     WHERE id = $1 AND updated_at = $2
                     RETURNING {COLUMNS}
                 ), recovered AS (
                     DELETE FROM webhook_health USING saved WHERE webhook_id = saved.id AND $16
                 )
                 SELECT saved.*, first_failed_at, opened_at, probes, next_probe_at
                 FROM saved LEFT JOIN webhook_health ON webhook_id = saved.id AND NOT $16"
            ))
            .await?;
        let row = connection
            .query_opt(
                &statement,
                &[
                    &webhook.id.0,
                    &webhook.updated_at,
                    &webhook.name,
                    &webhook.description,
                    &webhook.url,
                    &webhook.enabled,
                    &webhook.disabled_reason,
                    &webhook.format.as_str(),
                    &patterns(webhook),
                    &webhook.filter,
                    &webhook.sealed_headers,
                    &webhook.own_rate_limit.map(|limit| limit as i32),
                    &(webhook.max_in_flight as i32),
                    &(webhook.timeout.as_millis() as i32),
                    &webhook.retry_schedule.as_ref().map(crate::retry::Schedule::to_millis),
                    &recovered,
                ],
            )
            .await?;
        row.as_ref().map(read_webhook).transpose()
    }

    /// Deletes an organization's webhook with its secrets; whether there was one.
    pub async fn delete_webhook(&self, organization: OrganizationId, id: WebhookId) -> Result<bool, DbError> {
        let deleted = self
            .connection()
            .await?
            .execute("DELETE FROM webhooks WHERE id = $1 AND organization_id = $2", &[&id.0, &organization.0])
            .await?;
        Ok(deleted > 0)
    }

    /// Deletes all of an organization's webhooks of these formats, and answers which they were.
    pub async fn delete_webhooks_in(
        &self,
        organization: OrganizationId,
        formats: &[Format],
    ) -> Result<Vec<WebhookId>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "DELETE FROM webhooks WHERE organization_id = $1 AND format = ANY($2) RETURNING id",
            )
            .await?;
        let formats: Vec<_> = formats.iter().map(|format| format.as_str()).collect();
        let rows = connection.query(&statement, &[&organization.0, &formats]).await?;
        Ok(rows.iter().map(|row| WebhookId(row.get("id"))).collect())
    }

    /// The newest secret of each of these webhooks, still sealed.
    pub async fn newest_secrets(&self, webhooks: &[WebhookId]) -> Result<Vec<(WebhookId, Vec<u8>)>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "SELECT DISTINCT ON (webhook_id) webhook_id, sealed FROM secrets
                 WHERE webhook_id = ANY($1) ORDER BY webhook_id, created_at DESC, id DESC",
            )
            .await?;
        let ids: Vec<_> = webhooks.iter().map(|webhook| webhook.0).collect();
        let rows = connection.query(&statement, &[&ids]).await?;
        Ok(rows.iter().map(|row| (WebhookId(row.get("webhook_id")), row.get("sealed"))).collect())
    }

    /// Adds a webhook's new secret, ends the earlier ones after `overlap`, and forgets those that have
    /// ended. At most `max_valid` are valid at a time, the new one among them.
    pub async fn rotate_secret(
        &self,
        webhook: WebhookId,
        sealed: &[u8],
        overlap: Duration,
        max_valid: usize,
    ) -> Result<RotatedSecret, DbError> {
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        // One rotation of a webhook at a time: two must not both find room.
        transaction.execute("SELECT FROM webhooks WHERE id = $1 FOR UPDATE", &[&webhook.0]).await?;
        transaction
            .execute("DELETE FROM secrets WHERE webhook_id = $1 AND expires_at <= now()", &[&webhook.0])
            .await?;
        let overlap_ms = overlap.as_millis() as i64;
        let statement = if overlap.is_zero() {
            "DELETE FROM secrets WHERE webhook_id = $1 AND $2 = 0::bigint"
        } else {
            "UPDATE secrets SET expires_at = least(expires_at, now() + $2::bigint * interval '1 ms')
             WHERE webhook_id = $1"
        };
        let earlier = transaction.execute(statement, &[&webhook.0, &overlap_ms]).await?;
        if !overlap.is_zero() && earlier as usize >= max_valid {
            return Ok(RotatedSecret::TooMany);
        }
        transaction
            .execute(
                "INSERT INTO secrets (id, webhook_id, sealed, created_at)
                 VALUES ($1, $2, $3, clock_timestamp())",
                &[&Uuid::now_v7(), &webhook.0, &sealed],
            )
            .await?;
        transaction.commit().await?;
        Ok(RotatedSecret::Done)
    }
}

fn patterns(webhook: &Webhook) -> Vec<&str> {
    webhook.event_types.iter().map(crate::webhook::Pattern::as_str).collect()
}
