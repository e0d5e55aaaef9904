//! Peers: how many processes consume a queue, among which a limit of all of them is divided.

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use super::connection::{Backoff, Broker};
use crate::shutdown::Shutdown;

/// A new process has its part of a limit within this time.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// Tells how many consumers the queue has, again and again until the service stops. Each process has one.
pub async fn follow(broker: Broker, queue: &'static str, shutdown: Shutdown, tell: impl Fn(u32) + Send) {
    let follow = async {
        let mut backoff = Backoff::new();
        loop {
            if let Err(error) = ask(&broker, queue, &tell, &mut backoff).await {
                tracing::debug!(%error, queue, "the number of peers is taken as it was");
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    };
    shutdown.run_until_stopped(follow).await;
}

/// Asks as long as the connection lasts.
async fn ask(
    broker: &Broker,
    queue: &'static str,
    tell: &(impl Fn(u32) + Send),
    backoff: &mut Backoff,
) -> lapin::Result<()> {
    let connection = broker.connect("peers").await?;
    let channel = connection.create_channel().await?;
    loop {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
        tell(declared.consumer_count());
        *backoff = Backoff::new();
        tokio::time::sleep(ASK_EVERY).await;
    }
}
