//! The sender: takes deliveries, makes the requests, keeps account of them, and says what follows.
//!
//! `deliveries` → [`deliver`] → receivers; retries go to the delayed queues, what failed for good to `dead`. The
//! [`gate`] keeps one bad receiver from hurting the others, the [`client`] keeps all of them out of the
//! private network.

mod attempt;
pub mod attempt_log;
pub mod batch;
mod breaker;
pub mod client;
pub mod config;
pub mod deliver;
pub mod gate;
pub mod metrics;
mod parkings;
pub mod targets;
mod test_call;
mod together;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use cuewire::amqp::peers;
use cuewire::amqp::topology::{FIRST_SENDER_QUEUE, Topology};
use cuewire::amqp::{Consumer, Publisher, Source};
use cuewire::db::changes::Watched;
use cuewire::message::Deliveries;
use cuewire::service::Context;
use tokio::task::JoinSet;

use attempt_log::AttemptLog;
use client::Receivers;
pub use config::Config;
use config::Prefetch;
use deliver::Sender;
use gate::Gate;
use metrics::Metrics;
use parkings::Parkings;
use targets::Targets;

/// The statistics' last record takes a statement.
const LAST_RECORD: Duration = Duration::from_secs(2);

/// Runs a sender until it is told to stop.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    if context.prepare().await?.is_none() {
        return Ok(());
    }
    let metrics = Metrics::new(&context.registry);
    let guard = Arc::new(config.guard);
    let vault = context.common.vault.clone();
    // What is in flight is recorded and published after the signal to stop.
    let finishing = context.shutdown.later();
    let targets =
        Targets::start(context.database.clone(), vault, Arc::clone(&guard), metrics.clone(), &finishing);
    let changes = context.database.watch_changes(Watched::HealthToo, context.shutdown.clone());
    context.shutdown.spawn_vital("watch over webhooks", targets.follow(changes));
    let publisher =
        Publisher::start(context.broker.clone(), context.health.component("publisher"), finishing.clone());
    let gate = Gate::new(metrics.clone());
    let rooms = (Arc::clone(&gate), config.prefetch);
    let mut deliveries: Consumer<Deliveries> = Consumer::start(
        context.broker.clone(),
        move |topology| sources(topology, &rooms.0, rooms.1),
        publisher.clone(),
        context.health.component("consumer"),
        context.shutdown.clone(),
    );
    context.health.is_complete();
    follow_peers(&context, &gate, &metrics);
    let parkings = Parkings::default();
    let put_off = metrics.put_off.clone();
    let recording = parkings.clone().keep_recording(context.database.clone(), put_off, finishing.clone());
    let recording = finishing.spawn_vital("record of parked deliveries", recording);
    let sender = Arc::new(Sender {
        database: context.database.clone(),
        publisher,
        targets,
        gate,
        receivers: Receivers::new(guard)?,
        log: AttemptLog::start(context.database.clone(), metrics.clone(), &finishing),
        parkings,
        metrics,
        shutdown: context.shutdown.clone(),
    });
    let mut tasks = JoinSet::new();
    while let Some(message) = deliveries.next().await {
        tasks.spawn(Arc::clone(&sender).deliver_all(message));
        while tasks.try_join_next().is_some() {}
    }
    // One that panicked has returned its message; the others finish.
    while tasks.join_next().await.is_some() {}
    deliveries.close().await;
    finishing.stop();
    // A count, for which no database that is away is waited for long.
    let _ = tokio::time::timeout(LAST_RECORD, recording).await;
    Ok(())
}

/// Divides the webhooks' rate limits among the senders that there are.
fn follow_peers(context: &Context, gate: &Arc<Gate>, metrics: &Metrics) {
    let (gate, senders) = (Arc::clone(gate), metrics.senders.clone());
    let tell = move |peers: u32| {
        gate.share_limits_among(peers);
        senders.set(i64::from(peers));
    };
    // Every sender consumes every queue, so that one tells of all.
    let follow = peers::follow(context.broker.clone(), FIRST_SENDER_QUEUE, context.shutdown.clone(), tell);
    context.shutdown.spawn_vital("watch over peers", follow);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cuewire::config::Environment;
    use prometheus::Registry;

    use super::*;

    #[test]
    fn each_lane_has_a_prefetch_of_its_own_divided_among_its_queues() {
        let (gate, environment) =
            (Gate::new(Metrics::new(&Registry::new())), Environment::of::<&str, &str>([]));
        let prefetch = Config::read(&environment).unwrap().prefetch;
        let sources = sources(&Topology::default(), &gate, prefetch);
        let by_queue: BTreeMap<&str, u16> =
            sources.iter().map(|source| (source.queue.as_str(), source.prefetch)).collect();
        let expected = [
            ("sender.bulk.0.v1", 128),
            ("sender.bulk.1.v1", 128),
            ("sender.due.0.v1", 64),
            ("sender.due.1.v1", 64),
            ("sender.fresh.0.v1", 256),
            ("sender.fresh.1.v1", 256),
        ];
        assert_eq!(by_queue, BTreeMap::from(expected));
    }
}
