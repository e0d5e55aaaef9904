//! How webhooks fare: failing, their circuit breakers, disabled. A row of `webhook_health` exists only while a
//! webhook fails, and is written on transitions alone, so that the hot path has no update. Whatever Cuewire has to
//! say of a transition is noted in the same statement.

use std::time::Duration;

use time::OffsetDateTime;

use crate::db::{Database, DbError};
use crate::ids::WebhookId;
use crate::webhook::probe_after;

/// Who is told of what becomes of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Its organization, by an event of Cuewire's own.
    Organization,
    /// Nobody: what tells of such must not cause more of it.
    Nobody,
}

/// Why a breaker opens.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// The webhook.
    pub webhook: WebhookId,
    /// Where the attempt went that opens it.
    pub url: &'a str,
    /// When the attempt began that opens it.
    pub since: OffsetDateTime,
    /// What went wrong with it, in a sentence.
    pub error: &'a str,
    /// How many failed of late.
    pub failures: u32,
    /// Who is told of it.
    pub told: Told,
}

impl Database {
    /// Disables a webhook whose receiver at `url` is gone, unless it is disabled already, or sent elsewhere by
    /// now.
    pub async fn disable_webhook(
        &self,
        webhook: WebhookId,
        url: &str,
        reason: &str,
        told: Told,
    ) -> Result<(), DbError> {
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
                 FROM disabled WHERE $4",
            )
            .await?;
        let is_told = told == Told::Organization;
        connection.execute(&statement, &[&webhook.0, &url, &reason, &is_told]).await?;
        Ok(())
    }

    /// Disables the webhooks that have failed for as long as `long`, without a success in that time and at least
    /// `often`. Answers which.
    pub async fn disable_failing_webhooks(
        &self,
        long: Duration,
        often: i64,
    ) -> Result<Vec<WebhookId>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "WITH hopeless AS (
                     SELECT webhook_id, failed
                     FROM webhook_health JOIN webhooks ON webhooks.id = webhook_id AND enabled
                     CROSS JOIN LATERAL (
                         SELECT sum(delivered) AS delivered, sum(failed) AS failed FROM delivery_stats
                         WHERE delivery_stats.webhook_id = webhook_health.webhook_id
                           AND minute > now() - make_interval(secs => $1)
                           -- the day on which an attempt was due, at most its deadline before
                           AND day > (now() - make_interval(secs => $1))::date - 4) AS since
                     WHERE first_failed_at < now() - make_interval(secs => $1)
                       AND delivered = 0 AND failed >= $2::bigint
                 ), disabled AS (
                     UPDATE webhooks SET enabled = false, updated_at = now(),
                         disabled_reason = format('all %s attempts since %s have failed', failed,
                             to_char(now() - make_interval(secs => $1), 'YYYY-MM-DD HH24:MI TZ'))
                     FROM hopeless WHERE id = webhook_id
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

    /// How many webhooks' breakers are open, of those that are enabled.
    pub async fn open_breakers(&self) -> Result<i64, DbError> {
        let connection = self.connection().await?;
        let count = "SELECT count(*) FROM webhook_health JOIN webhooks ON id = webhook_id AND enabled
                     WHERE opened_at IS NOT NULL";
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

    /// Opens a webhook's breaker, unless it is open, or the webhook has another receiver by now; whether it did.
    pub async fn open_breaker(&self, opening: Opening<'_>) -> Result<bool, DbError> {
        let Opening { webhook, url, since, error, failures, told } = opening;
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "WITH opened AS (
                     INSERT INTO webhook_health AS health
                         (webhook_id, first_failed_at, last_error, opened_at, next_probe_at, is_told)
                     SELECT id, $2, $3, now(), now() + make_interval(secs => $4), $6
                     FROM webhooks WHERE id = $1 AND url = $7
                     ON CONFLICT (webhook_id) DO UPDATE SET last_error = excluded.last_error, probes = 0,
                         opened_at = excluded.opened_at, next_probe_at = excluded.next_probe_at,
                         is_told = excluded.is_told
                     WHERE health.opened_at IS NULL
                     RETURNING first_failed_at
                 ), noted AS (
                     INSERT INTO notices (organization_id, webhook_id, type, data)
                     SELECT organization_id, id, 'webhook.failing',
                            json_build_object('webhook_id', id, 'url', url, 'reason', $3,
                                'failures_in_a_row', $5::int,
                                'first_failed_at', to_json(first_failed_at AT TIME ZONE 'UTC') #>> '{}' || 'Z')
                     FROM opened, webhooks WHERE id = $1 AND $6
                 )
                 SELECT FROM opened",
            )
            .await?;
        let wait_s = probe_after(0).as_secs_f64();
        let is_told = told == Told::Organization;
        let opened = connection
            .query_opt(
                &statement,
                &[&webhook.0, &since, &text(error), &wait_s, &(failures as i32), &is_told, &url],
            )
            .await?;
        Ok(opened.is_some())
    }

    /// Takes the right to send the probe that is due after `probes` have failed, unless somebody else has it.
    /// Answers when it ends: if nothing is heard of the probe until then, another may send one.
    pub async fn claim_probe(
        &self,
        webhook: WebhookId,
        probes: u32,
        lease: Duration,
    ) -> Result<Option<OffsetDateTime>, DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "UPDATE webhook_health SET next_probe_at = now() + make_interval(secs => $3)
                 WHERE webhook_id = $1 AND opened_at IS NOT NULL AND probes = $2 AND next_probe_at <= now()
                 RETURNING next_probe_at",
            )
            .await?;
        let claimed =
            connection.query_opt(&statement, &[&webhook.0, &(probes as i32), &lease.as_secs_f64()]).await?;
        Ok(claimed.map(|row| row.get(0)))
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

    /// Gives back the right to send a probe that ends at `lease`: nothing was learned of it.
    pub async fn release_probe(&self, webhook: WebhookId, lease: OffsetDateTime) -> Result<(), DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "UPDATE webhook_health SET next_probe_at = now()
                 WHERE webhook_id = $1 AND opened_at IS NOT NULL AND next_probe_at = $2",
            )
            .await?;
        connection.execute(&statement, &[&webhook.0, &lease]).await?;
        Ok(())
    }

    /// Closes a webhook's breaker: a probe was taken. Who was not told that it opened is not told of this.
    pub async fn close_breaker(&self, webhook: WebhookId, told: Told) -> Result<(), DbError> {
        let connection = self.connection().await?;
        let statement = connection
            .prepare_cached(
                "WITH closed AS (
                     DELETE FROM webhook_health WHERE webhook_id = $1
                     RETURNING first_failed_at, opened_at, is_told
                 )
                 INSERT INTO notices (organization_id, webhook_id, type, data)
                 SELECT organization_id, id, 'webhook.recovered',
                        json_build_object('webhook_id', id, 'url', url,
                            'failing_since', to_json(first_failed_at AT TIME ZONE 'UTC') #>> '{}' || 'Z')
                 FROM closed, webhooks WHERE id = $1 AND opened_at IS NOT NULL AND is_told AND $2",
            )
            .await?;
        connection.execute(&statement, &[&webhook.0, &(told == Told::Organization)]).await?;
        Ok(())
    }
}

/// Postgres has no NUL in text, and what a receiver says may hold anything.
fn text(error: &str) -> String {
    error.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use time::Duration as Span;
    use uuid::Uuid;

    use super::*;
    use crate::db::scratch::{self, Scratch};

    const URL: &str = "http://receiver/";
    const LEASE: Duration = Duration::from_secs(20);

    /// An enabled webhook.
    async fn webhook(scratch: &Scratch) -> WebhookId {
        let made = "
            WITH organization AS (
                INSERT INTO organizations (id, name) VALUES (gen_random_uuid(), 'o') RETURNING id
            )
            INSERT INTO webhooks
                (id, organization_id, name, url, format, headers, signature, max_in_flight, timeout_ms)
            SELECT gen_random_uuid(), id, '', $1, 'standard', '', 'v1', 1, 1 FROM organization RETURNING id";
        WebhookId(scratch.client.query_one(made, &[&URL]).await.unwrap().get(0))
    }

    fn opening(webhook: WebhookId) -> Opening<'static> {
        let since = OffsetDateTime::now_utc();
        Opening { webhook, url: URL, since, error: "nobody\0answers", failures: 5, told: Told::Organization }
    }

    /// How many seconds until the next probe, and how many have failed.
    async fn next_probe(scratch: &Scratch, webhook: WebhookId) -> (i64, i32) {
        let row =
            "SELECT round(extract(epoch FROM next_probe_at - now()))::bigint, probes FROM webhook_health
                   WHERE webhook_id = $1";
        let row = scratch.client.query_one(row, &[&webhook.0]).await.unwrap();
        (row.get(0), row.get(1))
    }

    async fn probe_is_due(scratch: &Scratch) {
        let due = "UPDATE webhook_health SET next_probe_at = now() - interval '1 s'";
        scratch.client.execute(due, &[]).await.unwrap();
    }

    async fn notices(scratch: &Scratch) -> Vec<String> {
        let types = "SELECT type FROM notices ORDER BY noted_at";
        scratch.client.query(types, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    #[test]
    fn a_breaker_opens_once_and_not_for_a_receiver_that_is_no_more() {
        scratch::test(async |scratch| {
            let (database, webhook) = (&scratch.database, webhook(scratch).await);
            let elsewhere = Opening { url: "http://before/", ..opening(webhook) };
            assert!(!database.open_breaker(elsewhere).await.unwrap());
            let (one, other) = tokio::join!(
                database.open_breaker(opening(webhook)),
                database.open_breaker(opening(webhook))
            );
            assert!(one.unwrap() != other.unwrap());
            assert_eq!(next_probe(scratch, webhook).await, (30, 0));
            database.webhook_has_recovered(webhook).await.unwrap();
            assert_eq!(database.open_breakers().await.unwrap(), 1, "a probe alone closes it");
            database.close_breaker(webhook, Told::Organization).await.unwrap();
            database.close_breaker(webhook, Told::Organization).await.unwrap();
            assert_eq!(notices(scratch).await, ["webhook.failing", "webhook.recovered"]);
            database.webhook_is_failing(webhook, OffsetDateTime::now_utc(), "a dead letter").await.unwrap();
            let untold = Opening { told: Told::Nobody, ..opening(webhook) };
            assert!(database.open_breaker(untold).await.unwrap());
            database.close_breaker(webhook, Told::Organization).await.unwrap();
            assert_eq!(
                notices(scratch).await.len(),
                2,
                "who was not told that it opened is not told that it closed"
            );
            assert!(database.open_breaker(opening(webhook)).await.unwrap());
            scratch.client.execute("UPDATE webhooks SET enabled = false", &[]).await.unwrap();
            assert_eq!(database.open_breakers().await.unwrap(), 0, "nobody is asked for a disabled one");
        });
    }

    #[test]
    fn a_probe_is_one_senders_until_its_lease_ends_and_comes_later_after_each_that_failed() {
        scratch::test(async |scratch| {
            let (database, webhook) = (&scratch.database, webhook(scratch).await);
            database.open_breaker(opening(webhook)).await.unwrap();
            assert_eq!(database.claim_probe(webhook, 0, LEASE).await.unwrap(), None, "it is not due");
            for (failed, next_s) in [(0, 2 * 60), (1, 10 * 60), (2, 60 * 60), (3, 60 * 60)] {
                probe_is_due(scratch).await;
                let (one, other) = tokio::join!(
                    database.claim_probe(webhook, failed, LEASE),
                    database.claim_probe(webhook, failed, LEASE)
                );
                assert!(one.unwrap().is_some() != other.unwrap().is_some());
                assert_eq!(next_probe(scratch, webhook).await, (20, failed as i32));
                database.probe_has_failed(webhook, failed, "again").await.unwrap();
                // Heard of once more, late.
                database.probe_has_failed(webhook, failed, "again").await.unwrap();
                assert_eq!(next_probe(scratch, webhook).await, (next_s, failed as i32 + 1));
            }
        });
    }

    #[test]
    fn a_probe_of_which_nothing_was_learned_is_given_back_by_who_has_it() {
        scratch::test(async |scratch| {
            let (database, webhook) = (&scratch.database, webhook(scratch).await);
            database.open_breaker(opening(webhook)).await.unwrap();
            probe_is_due(scratch).await;
            let lease = database.claim_probe(webhook, 0, LEASE).await.unwrap().unwrap();
            database.release_probe(webhook, lease - Span::SECOND).await.unwrap();
            assert_eq!(database.claim_probe(webhook, 0, LEASE).await.unwrap(), None);
            database.release_probe(webhook, lease).await.unwrap();
            assert!(database.claim_probe(webhook, 0, LEASE).await.unwrap().is_some());
        });
    }

    #[test]
    fn a_webhook_is_disabled_that_had_no_success_for_so_long_and_many_failures() {
        const DAYS: Duration = Duration::from_secs(5 * 24 * 60 * 60);
        scratch::test(async |scratch| {
            let (database, webhook) = (&scratch.database, webhook(scratch).await);
            let days_ago = |days: i64| OffsetDateTime::now_utc() - Span::days(days);
            let count = async |at: OffsetDateTime, delivered: i64, failed: i64| {
                let sql = "INSERT INTO delivery_stats
                               (day, webhook_id, minute, delivered, failed, dead, duration_us)
                           VALUES ($1, $2, $3, $4, $5, 0, 0)";
                database.ensure_partitions_of_all([at.date()].into_iter()).await.unwrap();
                scratch
                    .client
                    .execute(sql, &[&at.date(), &webhook.0, &at, &delivered, &failed])
                    .await
                    .unwrap();
            };
            database.webhook_is_failing(webhook, days_ago(6), "since then").await.unwrap();
            // In the minute in which it began to fail there were successes.
            count(days_ago(6), 50, 1).await;
            count(days_ago(2), 0, 49).await;
            assert_eq!(database.disable_failing_webhooks(DAYS, 50).await.unwrap(), [], "too few");
            count(days_ago(1), 0, 1).await;
            assert_eq!(database.disable_failing_webhooks(DAYS * 2, 50).await.unwrap(), [], "too short");
            assert_eq!(database.disable_failing_webhooks(DAYS, 50).await.unwrap(), [webhook]);
            assert_eq!(database.disable_failing_webhooks(DAYS, 50).await.unwrap(), [], "once");
            assert_eq!(notices(scratch).await, ["webhook.disabled"]);
            let again = "UPDATE webhooks SET enabled = true";
            scratch.client.execute(again, &[]).await.unwrap();
            count(days_ago(3), 1, 0).await;
            assert_eq!(database.disable_failing_webhooks(DAYS, 50).await.unwrap(), [], "it had a success");
        });
    }

    #[test]
    fn notices_are_one_replicas_until_they_are_given_back_or_forgotten() {
        scratch::test(async |scratch| {
            let (database, webhook) = (&scratch.database, webhook(scratch).await);
            database.disable_webhook(webhook, "http://before/", "gone", Told::Organization).await.unwrap();
            database.disable_webhook(webhook, URL, "gone", Told::Organization).await.unwrap();
            database.disable_webhook(webhook, URL, "gone", Told::Organization).await.unwrap();
            let claimed = database.claim_notices(LEASE, 10).await.unwrap();
            assert_eq!((claimed.len(), claimed[0].webhook), (1, webhook));
            let ids: Vec<Uuid> = claimed.iter().map(|notice| notice.id).collect();
            assert_eq!(database.claim_notices(LEASE, 10).await.unwrap(), []);
            database.release_notices(&ids).await.unwrap();
            assert_eq!(database.claim_notices(LEASE, 10).await.unwrap(), claimed);
            database.forget_notices(&ids).await.unwrap();
            assert_eq!(scratch.count("notices").await, 0);
        });
    }
}
