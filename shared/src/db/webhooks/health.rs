//! How webhooks fare: failing, their circuit breakers, disabled. A row of `webhook_health` exists only while a
//! webhook fails, and is written on transitions alone, so that the hot path has no update. Whatever Cuewire has to
//! say of a transition is noted in the same statement.

use std::time::Duration;

use time::OffsetDateTime;

use crate::db::{Database, DbError};
use crate::ids::WebhookId;
use crate::webhook::probe_after;

/// Why a breaker opens.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// The webhook.
    pub webhook: WebhookId,
    /// When the attempt began that opens it.
    pub since: OffsetDateTime,
    /// What went wrong with it, in a sentence.
    pub error: &'a str,
    /// How many failed of late.
    pub failures: u32,
    /// Whether the organization is told of it.
    pub is_told: bool,
}

impl Database {
    /// Disables a webhook whose receiver at `url` is gone, unless it is disabled already, or sent elsewhere by
    /// now.
    pub async fn disable_webhook(&self, webhook: WebhookId, url: &str, reason: &str) -> Result<(), DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "WITH disabled AS (
                     UPDATE webhooks SET enabled = false, disabled_reason = $3, updated_at = now()
                     WHERE id = $1 AND url = $2 AND enabled
                     RETURNING id, organization_id, url
                 )
                 INSERT INTO notices (organization_id, webhook_id, type, data)
                 SELECT organization_id, id, 'webhook.disabled',
                        json_build_object('webhook_id', id, 'url', url, 'reason', $3)
                 FROM disabled",
            )
            .await?;
        connection.execute(&statement, &[&webhook.0, &url, &reason]).await?;
        Ok(())
    }

    /// Disables the webhooks that have failed for `long` without a success, and at least `often`. Answers which.
    pub async fn disable_failing_webhooks(
        &self,
        long: Duration,
        often: i64,
    ) -> Result<Vec<WebhookId>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "WITH hopeless AS (
                     SELECT webhook_id, failed, first_failed_at
                     FROM webhook_health
                     CROSS JOIN LATERAL (
                         SELECT sum(delivered) AS delivered, sum(failed) AS failed FROM delivery_stats
                         WHERE delivery_stats.webhook_id = webhook_health.webhook_id
                           AND minute >= date_trunc('minute', first_failed_at)) AS since
                     WHERE first_failed_at < now() - make_interval(secs => $1)
                       AND delivered = 0 AND failed >= $2::bigint
                 ), disabled AS (
                     UPDATE webhooks SET enabled = false, updated_at = now(),
                         disabled_reason = format('all %s attempts since %s have failed', failed,
                             to_char(first_failed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC'))
                     FROM hopeless WHERE id = webhook_id AND enabled
                     RETURNING id, organization_id, url, disabled_reason
                 ), noted AS (
                     INSERT INTO notices (organization_id, webhook_id, type, data)
                     SELECT organization_id, id, 'webhook.disabled',
                            json_build_object('webhook_id', id, 'url', url, 'reason', disabled_reason)
                     FROM disabled
                 )
                 SELECT id FROM disabled",
            )
            .await?;
        let rows = connection.query(&statement, &[&long.as_secs_f64(), &often]).await?;
        Ok(rows.iter().map(|row| WebhookId(row.get("id"))).collect())
    }

    /// How many webhooks' breakers are open.
    pub async fn open_breakers(&self) -> Result<i64, DbError> {
        let connection = self.connection().await?;
        let count = "SELECT count(*) FROM webhook_health WHERE opened_at IS NOT NULL";
        Ok(connection.query_one(count, &[]).await?.get(0))
    }

    /// Notes that a webhook has begun to fail, unless that is noted already.
    pub async fn webhook_is_failing(
        &self,
        webhook: WebhookId,
        since: OffsetDateTime,
        error: &str,
    ) -> Result<(), DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "INSERT INTO webhook_health (webhook_id, first_failed_at, last_error)
                 SELECT id, $2, $3 FROM webhooks WHERE id = $1
                 ON CONFLICT (webhook_id) DO NOTHING",
            )
            .await?;
        connection.execute(&statement, &[&webhook.0, &since, &text(error)]).await?;
        Ok(())
    }

    /// Notes that a webhook has recovered, unless its breaker is open, which a probe alone closes.
    pub async fn webhook_has_recovered(&self, webhook: WebhookId) -> Result<(), DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached("DELETE FROM webhook_health WHERE webhook_id = $1 AND opened_at IS NULL")
            .await?;
        connection.execute(&statement, &[&webhook.0]).await?;
        Ok(())
    }

    /// Opens a webhook's breaker, unless it is open.
    pub async fn open_breaker(&self, opening: Opening<'_>) -> Result<(), DbError> {
        let Opening { webhook, since, error, failures, is_told } = opening;
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "WITH opened AS (
                     INSERT INTO webhook_health AS health
                         (webhook_id, first_failed_at, last_error, opened_at, next_probe_at)
                     SELECT id, $2, $3, now(), now() + make_interval(secs => $4) FROM webhooks WHERE id = $1
                     ON CONFLICT (webhook_id) DO UPDATE SET last_error = excluded.last_error, probes = 0,
                         opened_at = excluded.opened_at, next_probe_at = excluded.next_probe_at
                     WHERE health.opened_at IS NULL
                     RETURNING first_failed_at
                 )
                 INSERT INTO notices (organization_id, webhook_id, type, data)
                 SELECT organization_id, id, 'webhook.failing',
                        json_build_object('webhook_id', id, 'url', url, 'reason', $3, 'failures_in_a_row', $5::int,
                            'first_failed_at', to_json(first_failed_at AT TIME ZONE 'UTC') #>> '{}' || 'Z')
                 FROM opened, webhooks WHERE id = $1 AND $6",
            )
            .await?;
        let wait_s = probe_after(0).as_secs_f64();
        connection
            .execute(&statement, &[&webhook.0, &since, &text(error), &wait_s, &(failures as i32), &is_told])
            .await?;
        Ok(())
    }

    /// Takes the right to send the probe that is due after `probes` have failed; whether nobody else has it. If
    /// nothing is heard of it for the length of the lease, another may send one.
    pub async fn claim_probe(
        &self,
        webhook: WebhookId,
        probes: u32,
        lease: Duration,
    ) -> Result<bool, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "UPDATE webhook_health SET next_probe_at = now() + make_interval(secs => $3)
                 WHERE webhook_id = $1 AND opened_at IS NOT NULL AND probes = $2 AND next_probe_at <= now()",
            )
            .await?;
        let claimed =
            connection.execute(&statement, &[&webhook.0, &(probes as i32), &lease.as_secs_f64()]).await?;
        Ok(claimed > 0)
    }

    /// Notes that a probe has failed, after `probes` others: the next one follows later.
    pub async fn probe_has_failed(
        &self,
        webhook: WebhookId,
        probes: u32,
        error: &str,
    ) -> Result<(), DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "UPDATE webhook_health SET probes = $2 + 1, last_error = $3,
                     next_probe_at = now() + make_interval(secs => $4)
                 WHERE webhook_id = $1 AND opened_at IS NOT NULL AND probes = $2",
            )
            .await?;
        let wait_s = probe_after(probes + 1).as_secs_f64();
        connection.execute(&statement, &[&webhook.0, &(probes as i32), &text(error), &wait_s]).await?;
        Ok(())
    }

    /// Gives back the right to send a probe, of which nothing was learned.
    pub async fn release_probe(&self, webhook: WebhookId) -> Result<(), DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "UPDATE webhook_health SET next_probe_at = now()
                 WHERE webhook_id = $1 AND opened_at IS NOT NULL",
            )
            .await?;
        connection.execute(&statement, &[&webhook.0]).await?;
        Ok(())
    }

    /// Closes a webhook's breaker: a probe was taken.
    pub async fn close_breaker(&self, webhook: WebhookId, is_told: bool) -> Result<(), DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "WITH closed AS (
                     DELETE FROM webhook_health WHERE webhook_id = $1 RETURNING first_failed_at, opened_at
                 )
                 INSERT INTO notices (organization_id, webhook_id, type, data)
                 SELECT organization_id, id, 'webhook.recovered',
                        json_build_object('webhook_id', id, 'url', url,
                            'failing_since', to_json(first_failed_at AT TIME ZONE 'UTC') #>> '{}' || 'Z')
                 FROM closed, webhooks WHERE id = $1 AND opened_at IS NOT NULL AND $2",
            )
            .await?;
        connection.execute(&statement, &[&webhook.0, &is_told]).await?;
        Ok(())
    }
}

/// Postgres has no NUL in text, and what a receiver says may hold anything.
fn text(error: &str) -> String {
    error.replace('\0', "\u{fffd}")
}
