//! What is done once, by hand or before a roll-out: the schema, and the topology.

use anyhow::Context as _;
use cuewire::amqp::topology::Topology;
use cuewire::config::Common;
use cuewire::db::settings::{SENDER_QUEUES, SenderQueues};
use cuewire::service::Context;

/// Brings the database's schema up to date, and makes its partitions.
pub async fn migrate(context: Context) -> anyhow::Result<()> {
    context.database.migrate().await?;
    tracing::info!("the database's schema is up to date");
    Ok(())
}

/// Declares the topology, and makes `CUEWIRE_SENDER_QUEUES` the number that all services must have.
///
/// Services that run follow it: what has its place in a queue is delivered from there. A shard is bound to its
/// new queue before the old one lets go of it, so that no delivery is without a queue; one that is published in
/// that millisecond is in both.
pub async fn apply_topology(context: Context) -> anyhow::Result<()> {
    let Context { database, broker, common: Common { topology: configured, .. }, .. } = &context;
    let wanted = configured.sender_queues;
    database.migrate().await?;
    database.agree(SENDER_QUEUES, &wanted.to_string()).await?;
    let SenderQueues { now: before, most } =
        database.sender_queues().await?.context("the number of queues is recorded")?;
    let most = most.max(wanted);
    let connection = broker.connect("topology").await.context("the broker cannot be reached")?;
    let channel = connection.create_channel().await?;
    // All queues first: services look for them as soon as the number is on record. The number next: a
    // service that declares the old one meanwhile finds it, and declares again.
    let wider = Topology { sender_queues: before, most_sender_queues: most, ..configured.clone() };
    wider.declare(&channel).await.context("the queues could not be declared")?;
    database.decide_sender_queues(wanted).await?;
    let new = Topology { most_sender_queues: most, ..configured.clone() };
    new.declare(&channel).await.context("the topology could not be declared")?;
    connection.close(200, "declared".into()).await?;
    tracing::info!(sender_queues = wanted, before, "the topology is declared");
    if before != wanted {
        tracing::info!(
            "services that run follow within seconds; those that start need CUEWIRE_SENDER_QUEUES={wanted}"
        );
    }
    Ok(())
}
