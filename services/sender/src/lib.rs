//! The sender: takes deliveries, makes the requests, keeps account of them, and says what follows.
//!
//! `deliveries` → [`deliver`] → receivers; retries go to the delayed queues, what failed for good to `dead`. The
//! [`gate`] keeps one bad receiver from hurting the others, the [`client`] keeps all of them out of the
//! private network.

pub mod attempt_log;
pub mod batch;
pub mod client;
pub mod config;
pub mod deliver;
pub mod gate;
pub mod metrics;
pub mod targets;

use std::sync::Arc;

use cuewire::amqp::topology::{Lane, Topology};
use cuewire::amqp::{Consumer, Publisher, Source};
use cuewire::message::DeliveryMessage;
use cuewire::service::Context;
use cuewire::shutdown::Shutdown;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use attempt_log::AttemptLog;
use client::Receivers;
pub use config::Config;
use config::Prefetch;
use deliver::Sender;
use gate::Gate;
use metrics::Metrics;
use targets::Targets;

/// Runs a sender until it is told to stop.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    if context.prepare().await?.is_none() {
        return Ok(());
    }
    let metrics = Metrics::new(&context.registry);
    let targets = Targets::new(context.database.clone(), context.common.vault.clone(), metrics.clone());
    tokio::spawn(targets.clone().follow(context.database.watch_changes(context.shutdown.clone())));
    // The publisher outlives the consumer: what is in flight is settled after the signal to stop.
    let publishing = Shutdown::new();
    let publisher =
        Publisher::start(context.broker.clone(), context.health.component("publisher"), publishing.clone());
    let prefetch = config.prefetch;
    let mut deliveries: Consumer<DeliveryMessage> = Consumer::start(
        context.broker.clone(),
        move |topology| sources(topology, prefetch),
        publisher.clone(),
        context.health.component("consumer"),
        context.shutdown.clone(),
    );
    context.health.is_complete();
    let sender = Arc::new(Sender {
        database: context.database.clone(),
        publisher,
        targets,
        gate: Gate::new(config.prefetch, metrics.clone()),
        receivers: Receivers::new(config.guard)?,
        log: AttemptLog::start(context.database.clone(), metrics.clone()),
        holds: Lane::ALL.map(|lane| Semaphore::new(usize::from(config.prefetch.of(lane)) / 2)),
        metrics,
        shutdown: context.shutdown.clone(),
    });
    let mut tasks = JoinSet::new();
    while let Some(message) = deliveries.next().await {
        tasks.spawn(Arc::clone(&sender).deliver(message));
        while tasks.try_join_next().is_some() {}
    }
    tasks.join_all().await;
    deliveries.close().await;
    publishing.stop();
    Ok(())
}

/// The queues of all lanes, each lane's prefetch divided among those that get deliveries.
fn sources(topology: &Topology, prefetch: Prefetch) -> Vec<Source> {
    topology
        .lane_queues()
        .map(|(lane, _, queue)| {
            let share = u32::from(prefetch.of(lane)).div_ceil(topology.sender_queues);
            Source { queue, prefetch: u16::try_from(share).unwrap_or(u16::MAX) }
        })
        .collect()
}
