//! What is removed when it is old: by one process at a time, in small steps, without making anybody wait.

use std::time::Duration;

use time::{Date, OffsetDateTime};
use tokio_postgres::Client;

use super::partitions::{Partition, partitions, to_remove};
use super::{Database, DbError};

/// The advisory lock that says who is at it.
const RETENTION_LOCK: i64 = 0x6375_6577_6972_6503;
/// Rows deleted by one statement: a few tens of milliseconds.
const ROWS_AT_A_TIME: i64 = 1_000;
/// Changes are read back for some minutes; a day of them tells a person what happened.
const KEEP_CHANGES: Duration = Duration::from_secs(24 * 60 * 60);
/// An expired secret signs nothing; for a day it tells a person why signatures did not match.
const KEEP_EXPIRED_SECRETS: Duration = Duration::from_secs(24 * 60 * 60);

/// The right to remove what is old. It ends when this is dropped.
pub struct Retention(Client);

impl Database {
    /// Takes the right to remove what is old, or answers none while another process has it.
    pub async fn begin_retention(&self) -> Result<Option<Retention>, DbError> {
        // A connection of its own, with which the lock ends however the work does.
        let client = self.dedicated().await?;
        let row = client.query_one("SELECT pg_try_advisory_lock($1)", &[&RETENTION_LOCK]).await?;
        Ok(row.get::<_, bool>(0).then_some(Retention(client)))
    }
}

impl Retention {
    /// The partitions of days before `before`, each to be removed with [`Retention::remove`] in this order.
    pub async fn old_partitions(&self, before: Date) -> Result<Vec<Partition>, DbError> {
        Ok(to_remove(partitions(&self.0).await?, before))
    }

    /// Drops a partition, while its table is written to and read.
    pub async fn remove(&self, partition: &Partition) -> Result<(), DbError> {
        partition.remove(&self.0).await
    }

    /// Deletes dead letters from before `before`, and answers how many there were.
    pub async fn delete_dead_letters(&self, before: OffsetDateTime) -> Result<u64, DbError> {
        self.delete("dead_letters", "created_at", before).await
    }

    /// Deletes the log of old changes of configuration, and answers how many there were.
    pub async fn delete_changes(&self, now: OffsetDateTime) -> Result<u64, DbError> {
        self.delete("changes", "changed_at", now - KEEP_CHANGES).await
    }

    /// Deletes secrets that have long expired, and answers how many there were.
    pub async fn delete_expired_secrets(&self, now: OffsetDateTime) -> Result<u64, DbError> {
        self.delete("secrets", "expires_at", now - KEEP_EXPIRED_SECRETS).await
    }

    /// Deletes what is known of deliveries sent again by hand whose time is over, and answers how many there
    /// were.
    pub async fn delete_ended_retries(&self, now: OffsetDateTime) -> Result<u64, DbError> {
        self.delete("retries", "until", now).await
    }

    /// Deletes the rows of a table whose `column` is before `before`, a bounded number at a time. Rows that
    /// somebody else has locked wait for the next time.
    async fn delete(&self, table: &str, column: &str, before: OffsetDateTime) -> Result<u64, DbError> {
        let statement = self
            .0
            .prepare(&format!(
                "DELETE FROM {table} WHERE ctid = ANY (ARRAY(
                     SELECT ctid FROM {table} WHERE {column} < $1
                     ORDER BY {column} LIMIT $2 FOR UPDATE SKIP LOCKED))"
            ))
            .await?;
        let mut deleted = 0;
        loop {
            let rows = self.0.execute(&statement, &[&before, &ROWS_AT_A_TIME]).await?;
            deleted += rows;
            if rows < ROWS_AT_A_TIME.unsigned_abs() {
                return Ok(deleted);
            }
        }
    }
}

impl std::fmt::Debug for Retention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Retention")
    }
}

#[cfg(test)]
mod tests {
    use super::super::partitions::today;
    use super::super::scratch::{self, Scratch};
    use super::*;

    /// Longer than any of this takes, and shorter than a statement may.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn days_ago(days: i64) -> Date {
        today() - time::Duration::days(days)
    }

    async fn begin(scratch: &Scratch) -> Retention {
        scratch.database.begin_retention().await.unwrap().expect("nobody else is at it")
    }

    /// Partitions of the days so long ago, each with a row.
    async fn old_events(scratch: &Scratch, days: &[i64]) {
        for days in days {
            let day = days_ago(*days);
            scratch.database.ensure_partitions_of(day).await.unwrap();
            let insert = format!(
                "INSERT INTO events VALUES ('{day}', gen_random_uuid(), 's', 'i', 'a.b', 'a', NULL, now(), '', '{{}}')"
            );
            scratch.client.batch_execute(&insert).await.unwrap();
        }
    }

    async fn exists(scratch: &Scratch, table: &str) -> bool {
        scratch.count(&format!("pg_class WHERE relname = '{table}'")).await == 1
    }

    #[test]
    fn old_partitions_are_dropped_and_the_others_stay() {
        scratch::test(async |scratch| {
            old_events(scratch, &[40, 31, 30]).await;
            let retention = begin(scratch).await;
            let old = retention.old_partitions(days_ago(30)).await.unwrap();
            // Of each of the three tables.
            assert_eq!(old.len(), 6);
            for partition in &old {
                retention.remove(partition).await.unwrap();
            }
            assert_eq!(scratch.count("events").await, 1);
            for (days, stays) in [(40, false), (31, false), (30, true), (0, true)] {
                assert_eq!(exists(scratch, &Scratch::partition("events", -days)).await, stays, "{days} days");
            }
            assert!(retention.old_partitions(days_ago(30)).await.unwrap().is_empty());
        });
    }

    #[test]
    fn a_detachment_that_was_interrupted_is_finished_by_the_next_run_before_any_other() {
        scratch::test(async |scratch| {
            old_events(scratch, &[40, 39]).await;
            let (younger, older) = (Scratch::partition("events", -39), Scratch::partition("events", -40));
            // A reader of the younger one, whose transaction the detachment must wait for.
            let reader = scratch.connect().await;
            reader.batch_execute(&format!("BEGIN; SELECT FROM {younger}")).await.unwrap();
            let interrupted = begin(scratch).await;
            let pid: i32 = interrupted.0.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
            let old = interrupted.old_partitions(days_ago(30)).await.unwrap();
            let partition = *old.iter().find(|it| it.table == "events" && it.day == days_ago(39)).unwrap();
            let removing = tokio::spawn(async move { interrupted.remove(&partition).await });
            let pending = format!("pg_inherits WHERE inhdetachpending AND inhrelid = '{younger}'::regclass");
            tokio::time::timeout(PATIENCE, async { while scratch.count(&pending).await == 0 {} })
                .await
                .unwrap();
            // What a crash of the reaper, or of its connection, does.
            scratch.client.execute("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
            removing.await.unwrap().expect_err("its connection was ended");
            assert_eq!(scratch.count(&pending).await, 1, "it is neither attached nor detached");
            reader.batch_execute("COMMIT").await.unwrap();

            let retention = begin(scratch).await;
            let old = retention.old_partitions(days_ago(30)).await.unwrap();
            assert_eq!((old[0].table, old[0].day), ("events", days_ago(39)));
            for partition in &old {
                retention.remove(partition).await.unwrap();
            }
            assert!(!exists(scratch, &younger).await && !exists(scratch, &older).await);
        });
    }

    #[test]
    fn a_partition_that_was_detached_and_not_dropped_is_dropped_by_the_next_run() {
        scratch::test(async |scratch| {
            old_events(scratch, &[40]).await;
            let name = Scratch::partition("events", -40);
            let detach = format!("ALTER TABLE events DETACH PARTITION {name}");
            scratch.client.batch_execute(&detach).await.unwrap();
            let retention = begin(scratch).await;
            for partition in retention.old_partitions(days_ago(30)).await.unwrap() {
                retention.remove(&partition).await.unwrap();
            }
            assert!(!exists(scratch, &name).await);
        });
    }

    #[test]
    fn one_process_at_a_time_removes_and_the_next_may_when_its_connection_ends() {
        scratch::test(async |scratch| {
            let first = begin(scratch).await;
            assert!(scratch.database.begin_retention().await.unwrap().is_none());
            drop(first);
            let again = async {
                loop {
                    if let Some(retention) = scratch.database.begin_retention().await.unwrap() {
                        return retention;
                    }
                }
            };
            tokio::time::timeout(PATIENCE, again).await.expect("the lock goes with the connection");
        });
    }

    #[test]
    fn old_rows_are_deleted_in_steps_without_waiting_for_those_that_others_have_locked() {
        scratch::test(async |scratch| {
            let now = OffsetDateTime::now_utc();
            let letters = "INSERT INTO dead_letters (id, reason, detail, category, payload, exchange, routing_key, created_at)
                SELECT gen_random_uuid(), 'gone', '', 'a', '', '', '', now() - age
                FROM generate_series(1, $1::int), (SELECT $2::int * interval '1 day' AS age) AS aged";
            // Two steps and a half.
            let old = i32::try_from(ROWS_AT_A_TIME * 5 / 2).unwrap();
            scratch.client.execute(letters, &[&old, &91]).await.unwrap();
            scratch.client.execute(letters, &[&3, &89]).await.unwrap();
            let other = scratch.connect().await;
            let lock = "BEGIN; SELECT FROM dead_letters ORDER BY created_at LIMIT 1 FOR UPDATE";
            other.batch_execute(lock).await.unwrap();
            let retention = begin(scratch).await;
            let before = now - time::Duration::days(90);
            assert_eq!(
                retention.delete_dead_letters(before).await.unwrap(),
                u64::from(old.unsigned_abs()) - 1
            );
            other.batch_execute("COMMIT").await.unwrap();
            assert_eq!(retention.delete_dead_letters(before).await.unwrap(), 1);
            assert_eq!(scratch.count("dead_letters").await, 3);
        });
    }

    #[test]
    fn old_changes_and_secrets_that_have_long_expired_are_deleted() {
        scratch::test(async |scratch| {
            let rows = "
                INSERT INTO organizations (id, name) VALUES (gen_random_uuid(), 'o');
                INSERT INTO webhooks
                        (id, organization_id, name, url, format, headers, signature, max_in_flight, timeout_ms)
                    SELECT gen_random_uuid(), id, '', '', '', '', 'v1', 1, 1 FROM organizations;
                INSERT INTO secrets (id, webhook_id, sealed, expires_at)
                    SELECT gen_random_uuid(), id, '', expires_at
                    FROM webhooks, (VALUES (NULL), (now() - interval '25 h'), (now() - interval '23 h'),
                                           (now() + interval '1 h')) AS secrets (expires_at);
                UPDATE changes SET changed_at = now() - interval '25 h' WHERE seq <= 2;";
            scratch.client.batch_execute(rows).await.unwrap();
            let changes = scratch.count("changes").await;
            let (retention, now) = (begin(scratch).await, OffsetDateTime::now_utc());
            assert_eq!(retention.delete_changes(now).await.unwrap(), 2);
            assert_eq!(scratch.count("changes").await, changes - 2);
            assert_eq!(retention.delete_expired_secrets(now).await.unwrap(), 1);
            assert_eq!(scratch.count("secrets").await, 3);
        });
    }
}
