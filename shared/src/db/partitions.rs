//! The daily partitions of the event log: made ahead of time, dropped when they are old.

use std::collections::BTreeSet;

use time::{Date, OffsetDateTime};
use tokio_postgres::{Client, Row};

use super::{Database, DbError};

/// How many days ahead partitions are made: the reaper may be away for two weeks.
const DAYS_AHEAD: i64 = 14;
/// The advisory lock under which partitions are made.
const PARTITION_LOCK: i64 = 0x6375_6577_6972_6502;

/// The partitioned tables, and the indexes that each partition gets besides the primary key.
const TABLES: [(&str, &[&str]); 3] = [
    ("events", &["(organization_id, received_at, source, id)"]),
    (
        "attempts",
        &["(webhook_id, started_at, delivery_id)", "(webhook_id, started_at) WHERE state <> 'delivered'"],
    ),
    ("delivery_stats", &[]),
];

/// Whether there is a table of that name. Read from the catalogue's table, since `to_regclass` may answer
/// from a cache that has not heard of what another session has just made.
const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_class WHERE relname = $1 AND relkind = 'r')";

/// Today, as partitions know it.
#[must_use]
pub fn today() -> Date {
    OffsetDateTime::now_utc().date()
}

/// A day's partition of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// The table.
    pub table: &'static str,
    /// The day (UTC).
    pub day: Date,
    state: PartitionState,
}

/// How far the removal of a partition has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartitionState {
    Attached,
    /// Its detachment was interrupted. A table has one such at most, and no other is detached before it.
    Detaching,
    /// A table by itself.
    Detached,
}

impl Partition {
    fn name(&self) -> String {
        partition_name(self.table, self.day)
    }

    fn read(row: &Row) -> Option<Self> {
        let name: &str = row.get("name");
        let (table, day) = name.rsplit_once('_')?;
        let (table, _) = TABLES.into_iter().find(|(known, _)| *known == table)?;
        let day = Date::parse(day, time::macros::format_description!("[year][month][day]")).ok()?;
        let state = match row.get("detaching") {
            None => PartitionState::Detached,
            Some(true) => PartitionState::Detaching,
            Some(false) => PartitionState::Attached,
        };
        Some(Self { table, day, state })
    }

    /// Detaches it and drops it, from wherever an interruption has left it. Its table's writers and readers
    /// do not wait for this; this waits, at most for a statement's time, for transactions that are older.
    pub(super) async fn remove(&self, client: &Client) -> Result<(), DbError> {
        let Self { table, state, .. } = self;
        let name = self.name();
        match state {
            PartitionState::Attached => {
                client
                    .batch_execute(&format!("ALTER TABLE {table} DETACH PARTITION {name} CONCURRENTLY"))
                    .await?;
            }
            PartitionState::Detaching => {
                client
                    .batch_execute(&format!("ALTER TABLE {table} DETACH PARTITION {name} FINALIZE"))
                    .await?;
            }
            PartitionState::Detached => {}
        }
        client.batch_execute(&format!("DROP TABLE {name}")).await?;
        Ok(())
    }
}

pub(super) fn partition_name(table: &str, day: Date) -> String {
    format!("{table}_{:04}{:02}{:02}", day.year(), u8::from(day.month()), day.day())
}

/// All partitions, those first whose removal was begun.
pub(super) async fn partitions(client: &Client) -> Result<Vec<Partition>, DbError> {
    let rows = client
        .query(
            "SELECT relname::text AS name, inhdetachpending AS detaching
             FROM pg_class LEFT JOIN pg_inherits ON inhrelid = pg_class.oid
             WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
             ORDER BY inhdetachpending DESC NULLS LAST, relname",
            &[],
        )
        .await?;
    Ok(rows.iter().filter_map(Partition::read).collect())
}

/// Which partitions are to be removed: all before `before`, and those whose removal was begun.
pub(super) fn to_remove(partitions: Vec<Partition>, before: Date) -> Vec<Partition> {
    let is_old =
        |partition: &Partition| partition.day < before || partition.state == PartitionState::Detaching;
    partitions.into_iter().filter(is_old).collect()
}

/// For how many days after `today` every table has its partition.
fn days_ahead(partitions: &[Partition], today: Date) -> i64 {
    let has = |table, day| partitions.contains(&Partition { table, day, state: PartitionState::Attached });
    let is_made = |ahead: &i64| {
        let day = today + time::Duration::days(*ahead);
        TABLES.iter().all(|(table, _)| has(table, day))
    };
    (1..=DAYS_AHEAD).take_while(is_made).count() as i64
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

    /// For how many days from tomorrow on every table has its partition.
    pub async fn partitions_ahead(&self) -> Result<i64, DbError> {
        let connection = self.connection().await?;
        Ok(days_ahead(&partitions(&connection).await?, today()))
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
            if connection.query_one(EXISTS, &[&partition]).await?.get::<_, bool>(0) {
                continue;
            }
            let transaction = connection.transaction().await?;
            transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&PARTITION_LOCK]).await?;
            let next = day.next_day().unwrap_or(Date::MAX);
            if !transaction.query_one(EXISTS, &[&partition]).await?.get::<_, bool>(0) {
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

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;
    use crate::db::scratch::{self, Scratch};

    const TODAY: Date = date!(2026 - 01 - 31);

    fn partition(table: &'static str, day: Date, state: PartitionState) -> Partition {
        Partition { table, day, state }
    }

    #[test]
    fn a_partition_is_named_by_its_table_and_day() {
        assert_eq!(partition_name("delivery_stats", TODAY), "delivery_stats_20260131");
    }

    #[test]
    fn days_ahead_end_with_the_first_that_lacks_a_partition() {
        let tomorrow = TODAY + time::Duration::DAY;
        let mut made: Vec<Partition> =
            TABLES.iter().map(|(table, _)| partition(table, tomorrow, PartitionState::Attached)).collect();
        assert_eq!(days_ahead(&made, TODAY), 1);
        made[2].state = PartitionState::Detached;
        assert_eq!(days_ahead(&made, TODAY), 0);
    }

    #[test]
    fn old_partitions_are_removed_and_what_was_begun_is_finished() {
        use PartitionState::{Attached, Detached, Detaching};
        let yesterday = TODAY - time::Duration::DAY;
        let old = [partition("events", yesterday, Attached), partition("attempts", yesterday, Detached)];
        let begun = partition("attempts", TODAY, Detaching);
        let kept = [partition("events", TODAY, Attached), partition("attempts", TODAY, Detached)];
        let all = [begun, old[0], old[1], kept[0], kept[1]];
        assert_eq!(to_remove(all.to_vec(), TODAY), [begun, old[0], old[1]]);
    }

    #[test]
    fn partitions_are_made_ahead_for_every_table_while_others_write() {
        scratch::test(async |scratch| {
            let Scratch { database, client, .. } = scratch;
            assert_eq!(database.partitions_ahead().await.unwrap(), DAYS_AHEAD);
            for (table, indexes) in TABLES {
                let attached = scratch.attached(table).await;
                let expected: Vec<String> =
                    (-1..=DAYS_AHEAD).map(|ahead| Scratch::partition(table, ahead)).collect();
                assert_eq!(attached, expected);
                let of_a_partition = format!("pg_indexes WHERE tablename = '{}'", expected[0]);
                assert_eq!(scratch.count(&of_a_partition).await, 1 + indexes.len() as i64);
            }
            // A writer holds its lock on every table until it commits.
            client
                .batch_execute("BEGIN; LOCK TABLE events, attempts, delivery_stats IN ROW EXCLUSIVE MODE")
                .await
                .unwrap();
            let far = today() + time::Duration::days(30);
            database.ensure_partitions_of(far).await.unwrap();
            client.batch_execute("COMMIT").await.unwrap();
            assert_eq!(scratch.attached("events").await.len(), DAYS_AHEAD as usize + 3);
        });
    }

    #[test]
    fn processes_that_make_the_same_partitions_at_once_do_not_collide() {
        scratch::test(async |scratch| {
            let day = today() + time::Duration::days(40);
            let making = (0..8).map(|_| scratch.database.ensure_partitions_of(day));
            for made in futures_util::future::join_all(making).await {
                made.unwrap();
            }
            for (table, _) in TABLES {
                assert!(scratch.attached(table).await.contains(&Scratch::partition(table, 40)));
            }
        });
    }
}
