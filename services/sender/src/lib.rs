//! The sender: takes deliveries, makes the requests, keeps account of them, and says what follows.
//!
//! `deliveries` → [`deliver`] → receivers; retries go to the delayed queues, what failed for good to `dead`. The
//! [`gate`] keeps one bad receiver from hurting the others, the [`client`] keeps all of them out of the
//! private network.

mod attempt;
pub mod attempt_log;
pub mod batch;
pub mod client;
pub mod config;
pub mod deliver;
pub mod gate;
mod health;
pub mod metrics;
pub mod targets;
mod test_call;
mod waiting;

use std::sync::Arc;

use cuewire::amqp::topology::Topology;
use cuewire::amqp::{Consumer, Publisher, Source};
use cuewire::message::DeliveryMessage;
use cuewire::service::Context;
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
    let changes = context.database.watch_changes(context.shutdown.clone());
    context.shutdown.spawn_vital("watch over webhooks", targets.clone().follow(changes));
    // What is in flight is recorded and published after the signal to stop.
    let finishing = context.shutdown.later();
    let publisher =
        Publisher::start(context.broker.clone(), context.health.component("publisher"), finishing.clone());
    let gate = Gate::new(metrics.clone());
    let rooms = (Arc::clone(&gate), config.prefetch);
    let mut deliveries: Consumer<DeliveryMessage> = Consumer::start(
        context.broker.clone(),
        move |topology| sources(topology, &rooms.0, rooms.1),
        publisher.clone(),
        context.health.component("consumer"),
        context.shutdown.clone(),
    );
    context.health.is_complete();
    let sender = Arc::new(Sender {
        database: context.database.clone(),
        publisher,
        targets,
        gate,
        receivers: Receivers::new(config.guard)?,
        log: AttemptLog::start(context.database.clone(), metrics.clone(), &finishing),
        metrics,
        shutdown: context.shutdown.clone(),
    });
    let mut tasks = JoinSet::new();
    while let Some(message) = deliveries.next().await {
        tasks.spawn(Arc::clone(&sender).deliver(message));
        while tasks.try_join_next().is_some() {}
    }
    // One that panicked has returned its message; the others finish.
    while tasks.join_next().await.is_some() {}
    deliveries.close().await;
    finishing.stop();
    Ok(())
}

/// The queues of all lanes, each lane's prefetch divided among those that get deliveries, and each with its
/// room at the gate.
fn sources(topology: &Topology, gate: &Gate, prefetch: Prefetch) -> Vec<Source> {
    topology
        .lane_queues()
        .map(|(lane, m, queue)| {
            let share = u32::from(prefetch.of(lane)).div_ceil(topology.sender_queues);
            let prefetch = u16::try_from(share).unwrap_or(u16::MAX);
            Source { queue, prefetch, number: gate.room(lane, m, prefetch) }
        })
        .collect()
}
