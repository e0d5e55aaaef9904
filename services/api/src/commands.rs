//! What is done once, by hand or before a roll-out: the schema, and the topology.

use anyhow::Context as _;
use cuewire::service::{Context, SENDER_QUEUES};

/// Brings the database's schema up to date, and makes its partitions.
pub async fn migrate(context: Context) -> anyhow::Result<()> {
    context.database.migrate().await?;
    tracing::info!("the database's schema is up to date");
    Ok(())
}

/// Declares the topology, and makes `CUEWIRE_SENDER_QUEUES` the number that all services must have.
///
/// The shards are bound to the new queues before the old ones let go of them, so that no delivery is without
/// a queue; while both have a shard, a delivery may be sent twice.
pub async fn apply_topology(context: Context) -> anyhow::Result<()> {
    let topology = &context.common.topology;
    let wanted = topology.sender_queues;
    context.database.migrate().await?;
    let recorded = context.database.agree(SENDER_QUEUES, &wanted.to_string()).await?;
    let recorded: u32 = recorded.parse().context("the recorded number of queues")?;
    let connection = context.broker.connect("topology").await.context("the broker cannot be reached")?;
    let channel = connection.create_channel().await?;
    topology.declare(&channel).await.context("the topology could not be declared")?;
    topology.release(&channel, recorded).await.context("the old queues could not be released")?;
    context.database.decide(SENDER_QUEUES, &wanted.to_string()).await?;
    connection.close(200, "declared".into()).await?;
    tracing::info!(sender_queues = wanted, "the topology is declared");
    if recorded != wanted {
        tracing::info!(
            before = recorded,
            now = wanted,
            "start all services again with the new number; services that still run with the old one bind the \
             old shards again whenever they reconnect, so run this command once more when they are gone"
        );
    }
    if recorded > wanted {
        tracing::info!(
            "the queues sender.<lane>.<{wanted} to {}>.v1 get nothing new; what is left in them is delivered by \
             senders that still run with the old number, so stop those when the queues are empty, and then \
             delete the queues",
            recorded - 1
        );
    }
    Ok(())
}
