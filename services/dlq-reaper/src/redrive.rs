//! The redrive that nobody asks for: a message that the broker gave up for having been delivered too often
//! is not proven to be poison, since a crash counts against all that was under way. It is sent again once;
//! if it comes back the same way, it stays dead until a person redrives it.

use std::time::Duration;

use cuewire::amqp::Publisher;
use cuewire::db::dead_letters::DueRedrive;
use cuewire::db::{Database, DbError};
use cuewire::ids::DeadLetterId;
use cuewire::shutdown::Shutdown;
use futures_util::future::join_all;
use time::OffsetDateTime;

use crate::metrics::Metrics;

/// Against a wait of minutes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Above the time that a publish may take (30 s without a confirm) with its mark on record.
const LEASE: Duration = Duration::from_secs(90);
/// Their bodies are in memory, and a flood of them is spread out.
const AT_A_TIME: i64 = 100;

/// Sends again what is due until the service stops; what is claimed then is sent, and marked.
pub(crate) async fn keep_redriving(
    database: &Database,
    publisher: &Publisher,
    metrics: &Metrics,
    shutdown: &Shutdown,
) {
    while !shutdown.is_stopped() {
        match shutdown.finish(redrive_due(database, publisher, metrics)).await {
            // There may be more.
            Some(Ok(redriven)) if redriven == AT_A_TIME as usize => continue,
            Some(Ok(_)) | None => {}
            Some(Err(error)) => tracing::warn!(%error, "dead letters that are due wait for the database"),
        }
        shutdown.run_until_stopped(tokio::time::sleep(LOOK_EVERY)).await;
    }
}

/// Claims, publishes, awaits the confirms, and marks: what is not marked is due again when its lease ends,
/// and its repeat is the same round of the same delivery. Answers how many were redriven.
async fn redrive_due(
    database: &Database,
    publisher: &Publisher,
    metrics: &Metrics,
) -> Result<usize, DbError> {
    let due = database.claim_due_redrives(LEASE, AT_A_TIME).await?;
    let sent = join_all(due.iter().map(|due| send(publisher, due, metrics))).await;
    let (redriven, left): (Vec<_>, Vec<_>) = due.iter().zip(sent).partition(|(_, sent)| *sent);
    let redriven: Vec<DeadLetterId> = redriven.into_iter().map(|(due, _)| due.redrive.id).collect();
    if !redriven.is_empty() {
        database.mark_redriven(&redriven).await?;
        metrics.redriven.inc_by(redriven.len() as u64);
    }
    for (due, _) in left {
        metrics.redrive_failures.inc();
        database.release_redrive(due.redrive.id).await?;
    }
    Ok(redriven.len())
}

/// Whether it is with the broker.
async fn send(publisher: &Publisher, DueRedrive { redrive, due }: &DueRedrive, metrics: &Metrics) -> bool {
    let dead_letter = redrive.id;
    match publisher.publish(redrive.unasked(OffsetDateTime::now_utc())).await {
        Ok(()) => {
            let late = OffsetDateTime::now_utc() - *due;
            metrics.redrive_lateness.observe(late.as_seconds_f64().max(0.0));
            tracing::info!(%dead_letter, event = redrive.event_id, "sent again");
            true
        }
        Err(error) => {
            tracing::warn!(%dead_letter, %error, "not sent again; it is due again soon");
            false
        }
    }
}
