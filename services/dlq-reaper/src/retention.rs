//! The calendar: makes the partitions of the days to come, and removes what is old. Every hour; one replica
//! at a time.

use std::time::Duration;

use cuewire::db::partitions::today;
use cuewire::db::retention::Retention;
use cuewire::db::{Database, DbError};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::config::Config;
use crate::metrics::Metrics;

const LOOK_EVERY: Duration = Duration::from_secs(60);
const RUN_EVERY: Duration = Duration::from_secs(60 * 60);

/// What a run came to.
enum Run {
    Done,
    /// Another replica is at it.
    Elsewhere,
    /// Something old is still there.
    Incomplete,
}

/// Keeps the calendar for ever. A run that did not do all is repeated at the next look.
pub(crate) async fn keep_calendar(database: &Database, config: &Config, metrics: &Metrics) {
    let mut next_run = Instant::now();
    loop {
        if Instant::now() >= next_run {
            let (result, next) = match run(database, config, metrics).await {
                Ok(Run::Done) => ("done", RUN_EVERY),
                Ok(Run::Elsewhere) => ("elsewhere", RUN_EVERY),
                Ok(Run::Incomplete) => ("incomplete", Duration::ZERO),
                Err(error) => {
                    tracing::warn!(%error, "the retention failed; it is tried again in a minute");
                    ("failed", Duration::ZERO)
                }
            };
            metrics.retention_runs.with_label_values(&[result]).inc();
            next_run = Instant::now() + next;
        }
        match database.partitions_ahead().await {
            Ok(days) => metrics.partitions_ahead.set(days),
            Err(error) => tracing::debug!(%error, "the partitions could not be counted"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn run(database: &Database, config: &Config, metrics: &Metrics) -> Result<Run, DbError> {
    // First what others wait for, whoever removes.
    database.ensure_partitions().await?;
    let Some(retention) = database.begin_retention().await? else { return Ok(Run::Elsewhere) };
    delete_old_rows(&retention, config, metrics).await?;
    drop_old_partitions(&retention, config, metrics).await
}

async fn delete_old_rows(retention: &Retention, config: &Config, metrics: &Metrics) -> Result<(), DbError> {
    let now = OffsetDateTime::now_utc();
    let oldest = now - time::Duration::days(i64::from(config.dead_letter_retention_days));
    let deleted = [
        ("dead_letters", retention.delete_dead_letters(oldest).await?),
        ("changes", retention.delete_changes(now).await?),
        ("secrets", retention.delete_expired_secrets(now).await?),
        ("retries", retention.delete_ended_retries(now).await?),
    ];
    for (table, rows) in deleted.into_iter().filter(|(_, rows)| *rows > 0) {
        metrics.rows_deleted.with_label_values(&[table]).inc_by(rows);
        tracing::info!(table, rows, "deleted what was old");
    }
    Ok(())
}

/// Drops what it can: a long transaction that holds up one table's partition does not hold up the others.
async fn drop_old_partitions(
    retention: &Retention,
    config: &Config,
    metrics: &Metrics,
) -> Result<Run, DbError> {
    let oldest = today() - time::Duration::days(i64::from(config.retention_days));
    let mut run = Run::Done;
    for partition in retention.old_partitions(oldest).await? {
        let (table, day) = (partition.table, partition.day);
        match retention.remove(&partition).await {
            Ok(()) => {
                metrics.partitions_dropped.with_label_values(&[table]).inc();
                tracing::info!(table, %day, "dropped an old partition");
            }
            Err(error) => {
                tracing::warn!(table, %day, %error, "an old partition is not dropped; again in a minute");
                run = Run::Incomplete;
            }
        }
    }
    Ok(run)
}
