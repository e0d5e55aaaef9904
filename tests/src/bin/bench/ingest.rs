//! Ingest over HTTP: events that the api accepts, one by one and in batches, each of which must be in the event log.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::Load;
use crate::figures::Row;
use crate::load::{PATIENCE, event};
use crate::receiver::Run;
use crate::stack::{Organization, Stack};

/// One organization may publish 5,000 events a second by one api.
const ORGANIZATIONS: usize = 8;
const REQUESTS_IN_FLIGHT: usize = 64;
const BATCH: usize = 100;

pub(crate) async fn measure(stack: &Stack, load: Load) -> anyhow::Result<Vec<Row>> {
    let mut organizations = Vec::new();
    for _ in 0..ORGANIZATIONS {
        organizations.push(stack.organization("bench").await?);
    }
    let mut rows = Vec::new();
    for (what, batch) in [("one by one", 1), ("in batches of 100", BATCH)] {
        let mut rates = Vec::new();
        for _ in 0..load.runs {
            rates.push(accepted_per_second(stack, &organizations, load.events / batch, batch).await?);
        }
        rows.push(Row::new(format!("accepted over HTTP {what}"), "events/s", rates).note("; all are logged"));
    }
    for organization in organizations {
        organization.delete().await?;
    }
    Ok(rows)
}

async fn accepted_per_second(
    stack: &Stack,
    organizations: &[Organization],
    requests: usize,
    batch: usize,
) -> anyhow::Result<f64> {
    let run = Run::new();
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    stream::iter(0..requests)
        .map(|request| {
            let next = &next;
            async move {
                let organization = &organizations[request % ORGANIZATIONS];
                let number = || next.fetch_add(1, Ordering::Relaxed);
                let events: Vec<String> =
                    (0..batch).map(|_| event(run, &organization.id, number())).collect();
                organization.publish(&events).await
            }
        })
        .buffer_unordered(REQUESTS_IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await?;
    let rate = (requests * batch) as f64 / started.elapsed().as_secs_f64();
    are_logged(stack, run, requests * batch).await?;
    Ok(rate)
}

/// Waits until all events of a run are in the event log.
async fn are_logged(stack: &Stack, run: Run, events: usize) -> anyhow::Result<()> {
    let database = stack.database().await?;
    let deadline = Instant::now() + PATIENCE;
    let logged = "SELECT count(*) FROM events WHERE id LIKE 'bench-' || $1 || '-%'";
    loop {
        let count: i64 = database.query_one(logged, &[&run.to_string()]).await?.get(0);
        if usize::try_from(count).context("a count")? == events {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "of {events} accepted events {count} are logged");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
