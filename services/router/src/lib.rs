//! The router: takes events, finds the webhooks that want them, and publishes one delivery for each.
//!
//! `events` → [`fan_out`] → `deliveries`. Who wants what it knows from the [`directory`], found by the index
//! of [`matching`]. It sends no request and knows nothing of formats.

pub mod config;
pub mod directory;
pub mod fan_out;
pub mod matching;
pub mod metrics;
pub mod shares;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cuewire::amqp::consumer::Limits;
use cuewire::amqp::topology::ROUTER_EVENTS;
use cuewire::amqp::{Consumer, Publisher, Source, peers};
use cuewire::db::changes::Watched;
use cuewire::message::EventMessage;
use cuewire::metrics::Counted;
use cuewire::service::Context;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use config::Config;
use directory::Directory;
use fan_out::FanOut;
use metrics::Metrics;
use shares::Shares;

/// What one statement logs: beyond this a larger batch gains nothing.
const BATCH: Limits = Limits {
    messages: 256,
    // No waiting for more: while batches are under way, the next one fills by itself.
    wait: Duration::ZERO,
};
/// One being matched while others wait for commits and confirms.
const BATCHES_IN_FLIGHT: usize = 4;

/// Runs the router until it is told to stop.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    if context.prepare().await?.is_none() {
        return Ok(());
    }
    let metrics = Metrics::new(&context.registry);
    let directory = Directory::new(context.database.clone(), metrics.clone());
    let changes = context.database.watch_changes(Watched::Configuration, context.shutdown.clone());
    let webhooks = context.health.component("webhooks");
    context.shutdown.spawn_vital("watch over webhooks", directory.clone().follow(changes, webhooks.clone()));
    if context.shutdown.run_until_stopped(webhooks.wait_until_up()).await.is_none() {
        return Ok(());
    }
    // The publisher outlives the consumer: what is under way is published after the signal to stop.
    let publishing = context.shutdown.later();
    let publisher =
        Publisher::start(context.broker.clone(), context.health.component("publisher"), publishing.clone());
    let bulk_publisher = Publisher::start(
        context.broker.clone(),
        context.health.component("bulk-publisher"),
        publishing.clone(),
    );
    let mut events: Consumer<EventMessage> = Consumer::start(
        context.broker.clone(),
        move |_| vec![Source { queue: ROUTER_EVENTS.to_owned(), prefetch: config.prefetch, number: 0 }],
        publisher.clone(),
        context.health.component("consumer"),
        context.shutdown.clone(),
    );
    context.health.is_complete();
    let fan_out = Arc::new(FanOut {
        database: context.database.clone(),
        directory,
        publisher,
        bulk_publisher,
        topology: context.broker.topology.clone(),
        metrics,
        shares: Shares::new(config.fresh_share_per_second),
        under_way: Mutex::default(),
        shutdown: context.shutdown.clone(),
    });
    let (sharing, shutdown) = (Arc::clone(&fan_out), context.shutdown.clone());
    let follow = peers::follow(context.broker.clone(), ROUTER_EVENTS, shutdown.clone(), move |routers| {
        sharing.shares.share_among(routers);
    });
    shutdown.spawn_vital("watch over peers", follow);
    let slots = Arc::new(Semaphore::new(BATCHES_IN_FLIGHT));
    let mut batches = JoinSet::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let Some(batch) = events.next_batch(BATCH).await else { break };
        let fan_out = Arc::clone(&fan_out);
        batches.spawn(async move {
            let in_flight = Counted::new(&fan_out.metrics.in_flight, 1);
            fan_out.fan_out(batch).await;
            drop((in_flight, slot));
        });
        while batches.try_join_next().is_some() {}
    }
    // One that panicked has returned its messages; the others finish.
    while batches.join_next().await.is_some() {}
    events.close().await;
    publishing.stop();
    Ok(())
}
