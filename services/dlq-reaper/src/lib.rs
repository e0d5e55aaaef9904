//! dlq-reaper: keeps the dead letters, and the calendar.
//!
//! - `reap` puts on record what failed for good, was not understood, or matched no binding.
//! - `redrive` sends again what the broker gave up for having been delivered too often, once.
//! - `notices` publishes what Cuewire has to say of its own.
//! - `disabling` disables the webhooks that have failed for days.
//! - `retention` makes the partitions of the days to come and removes what is old.
//!
//! Dead letters come from the router, the senders and the broker itself; the API shows them, deletes them,
//! and redrives them when asked to. Any number of replicas may run.

mod config;
mod disabling;
mod metrics;
mod notices;
mod reap;
mod redrive;
mod retention;

use cuewire::amqp::topology::{REAPER_DEAD, REAPER_UNROUTED};
use cuewire::amqp::{Consumer, Publisher, Source};
use cuewire::service::Context;

pub use config::Config;
use metrics::Metrics;
use reap::Reaper;

/// Several batches of dead letters, so that the next is there when one is on record. Their bodies are in
/// memory meanwhile, and one may be as large as the broker accepts.
const DEAD_PREFETCH: u16 = 256;
/// What matches no binding is a fault, and rare.
const UNROUTED_PREFETCH: u16 = 32;

/// Runs the service until it is told to stop.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    let metrics = Metrics::new(&context.registry);
    let Context { database, broker, health, shutdown, .. } = &context;
    let (consuming, publishing) = (health.component("consumer"), health.component("publisher"));
    health.is_complete();
    if context.prepare().await?.is_none() {
        return Ok(());
    }
    // What is claimed at the signal to stop is published after it.
    let finishing = shutdown.later();
    let publisher = Publisher::start(broker.clone(), publishing, finishing.clone());
    let source = |queue: &str, prefetch| Source { queue: queue.to_owned(), prefetch, number: 0 };
    let sources =
        move |_: &_| vec![source(REAPER_DEAD, DEAD_PREFETCH), source(REAPER_UNROUTED, UNROUTED_PREFETCH)];
    let mut consumer =
        Consumer::start(broker.clone(), sources, publisher.clone(), consuming, shutdown.clone());
    let reaper = Reaper {
        database: database.clone(),
        publisher: publisher.clone(),
        topology: broker.topology.known(),
        redrive_after: config.redrive_after,
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
    };
    // In one task: none of them can end unnoticed while the others go on.
    tokio::join!(
        reaper.reap(&mut consumer),
        redrive::keep_redriving(database, &publisher, &metrics, shutdown),
        notices::keep_publishing(database, &publisher, &metrics, shutdown),
        shutdown.run_until_stopped(disabling::keep_disabling(database, config.disable_after, &metrics)),
        shutdown.run_until_stopped(retention::keep_calendar(database, &config, &metrics)),
    );
    consumer.close().await;
    finishing.stop();
    Ok(())
}
