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
