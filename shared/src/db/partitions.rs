//! The daily partitions of the event log: made ahead of time, dropped when they are old.

use std::collections::BTreeSet;

use time::{Date, OffsetDateTime};

use super::{Database, DbError};

/// How many days ahead partitions are made: the reaper may be away for two weeks.
const DAYS_AHEAD: i64 = 14;
/// The advisory lock under which partitions are made and dropped.
const PARTITION_LOCK: i64 = 0x6375_6577_6972_6502;

/// The partitioned tables, and the indexes that each partition gets besides the primary key.
const TABLES: [(&str, &[&str]); 3] = [
    ("events", &["(organization_id, received_at, source, id)"]),
    ("attempts", &["(webhook_id, started_at, delivery_id)"]),
    ("delivery_stats", &[]),
];

/// Today, as partitions know it.
#[must_use]
pub fn today() -> Date {
    OffsetDateTime::now_utc().date()
}

fn partition_name(table: &str, day: Date) -> String {
    format!("{table}_{:04}{:02}{:02}", day.year(), u8::from(day.month()), day.day())
}

impl Database {
    /// Makes the partitions of yesterday (for messages under way at midnight), today and the days ahead,
    /// where they are missing.
    pub async fn ensure_partitions(&self) -> Result<(), DbError> {
        let today = today();
        for ahead in -1..=DAYS_AHEAD {
            self.ensure_partitions_of(today + time::Duration::days(ahead)).await?;
        }
        Ok(())
    }

    /// Makes the partitions of these days where they are missing.
    pub(super) async fn ensure_partitions_of_all(
        &self,
        days: impl Iterator<Item = Date>,
    ) -> Result<(), DbError> {
        for day in days.collect::<BTreeSet<_>>() {
            self.ensure_partitions_of(day).await?;
        }
        Ok(())
    }

    /// Makes one day's partitions where they are missing: made apart with their indexes, then attached, so
    /// that no write waits.
    pub async fn ensure_partitions_of(&self, day: Date) -> Result<(), DbError> {
        let mut connection = self.connection().await?;
        for (table, indexes) in TABLES {
            let partition = partition_name(table, day);
            let known = connection.query_one("SELECT to_regclass($1) IS NOT NULL", &[&partition]).await?;
            if known.get::<_, bool>(0) {
                continue;
            }
            let transaction = connection.transaction().await?;
            transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&PARTITION_LOCK]).await?;
            let next = day.next_day().unwrap_or(Date::MAX);
            let known = transaction.query_one("SELECT to_regclass($1) IS NOT NULL", &[&partition]).await?;
            if !known.get::<_, bool>(0) {
                let mut statements = format!(
                    "CREATE TABLE {partition} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES);"
                );
                for columns in indexes {
                    statements += &format!("CREATE INDEX ON {partition} {columns};");
                }
                statements += &format!(
                    "ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ('{day}') TO ('{next}');"
                );
                transaction.batch_execute(&statements).await?;
            }
            transaction.commit().await?;
        }
        Ok(())
    }
}
