//! Consuming: typed messages, over any loss of the connection, until the service stops.
//!
//! A message settles by value. One that is dropped unsettled goes back to its queue; one whose connection
//! is gone is delivered again by the broker, and [`Message::lost`] tells its worker to leave it. What
//! cannot be decoded becomes a dead letter here and never reaches a service.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::connection::Broker;
use super::link::Link;
use super::publisher::{Publication, Publisher};
use super::settle::{self, Settled};
use super::topology::Topology;
use crate::health::Component;
use crate::shutdown::Shutdown;

/// A broker that takes longer to say goodbye is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A queue to consume, and how many of its messages may be under way.
#[derive(Debug, Clone)]
pub struct Source {
    /// The queue.
    pub queue: String,
    /// Unsettled messages at a time: the backpressure.
    pub prefetch: u16,
    /// What its messages are told apart by.
    pub number: usize,
}

/// A message as the broker delivered it.
#[derive(Debug)]
pub struct Received {
    /// The queue it came from.
    pub queue: Arc<str>,
    /// The exchange it was first published to.
    pub exchange: String,
    /// The key it was published with.
    pub routing_key: String,
    /// Whether it was delivered before, to us or another.
    pub redelivered: bool,
    /// Its properties, with its headers.
    pub properties: BasicProperties,
    /// Its body.
    pub body: Bytes,
}

/// What a service reads from its queue.
pub trait Content: Sized + Send + 'static {
    /// Reads a message. What cannot be read as one becomes what is returned for it: a dead letter, or one for each
    /// part.
    fn decode(received: &Received) -> Result<Self, Vec<Publication>>;
}

/// A message under way.
#[derive(Debug)]
pub struct Message<C> {
    /// What it says.
    pub content: C,
    /// Whether it was delivered before: another may have worked on it.
    pub redelivered: bool,
    /// The number of the source that it came from.
    pub source: usize,
    settlement: Settlement,
}

impl<C> Message<C> {
    /// It is done: whatever follows from it is with the broker or the database.
    pub fn ack(self) {
        self.settlement.ack();
    }

    /// The content, and what settles the message.
    pub fn into_parts(self) -> (C, Settlement) {
        (self.content, self.settlement)
    }

    /// Waits until the broker delivers it again to someone else, because the connection it came by is gone.
    pub async fn lost(&self) {
        self.settlement.lost().await;
    }

    /// Whether the connection it came by is gone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.settlement.session.is_stopped()
    }
}

/// What settles a message.
#[derive(Debug)]
pub struct Settlement {
    tag: u64,
    settled: mpsc::UnboundedSender<Settled>,
    session: Shutdown,
    done: bool,
}

impl Settlement {
    /// The message is done.
    pub fn ack(mut self) {
        self.done = true;
        // A session that is gone needs no ack: the broker delivers the message again.
        let _ = self.settled.send(Settled::Done(self.tag));
    }

    /// Waits until the connection it came by is gone.
    pub async fn lost(&self) {
        self.session.stopped().await;
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.settled.send(Settled::Returned(self.tag));
        }
    }
}

/// The messages of some queues.
#[derive(Debug)]
pub struct Consumer<C> {
    messages: mpsc::Receiver<Message<C>>,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

/// How large a batch may become, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages at most.
    pub messages: usize,
    /// How long to wait for more after the first.
    pub wait: Duration,
}

impl<C: Content> Consumer<C> {
    /// Starts consuming the `sources` of the topology, each by a channel of its own on one connection. When
    /// the topology changes, what is under way is finished, and the new sources are consumed.
    #[must_use]
    pub fn start(
        broker: Broker,
        sources: impl Fn(&Topology) -> Vec<Source> + Send + Sync + 'static,
        dead_letters: Publisher,
        component: Component,
        shutdown: Shutdown,
    ) -> Self {
        let capacity =
            sources(&broker.topology.known()).iter().map(|source| usize::from(source.prefetch)).sum();
        let (sender, messages) = mpsc::channel(std::cmp::max(capacity, 1));
        let stopping = shutdown.clone();
        let task = shutdown.clone().spawn_vital("consumer", async move {
            let (agreed, sources) = (&broker.topology, &sources);
            broker
                .supervise(&component, &shutdown, |connection| {
                    let session = Session {
                        messages: sender.clone(),
                        dead_letters: dead_letters.clone(),
                        ending: shutdown.child(),
                        lost: Shutdown::new(),
                    };
                    async move {
                        let topology = agreed.known();
                        session.run(connection, &sources(&topology), agreed.changed_from(&topology)).await
                    }
                })
                .await;
        });
        Self { messages, shutdown: stopping, task }
    }

    /// The next message, or none when the service stops.
    pub async fn next(&mut self) -> Option<Message<C>> {
        loop {
            let Some(message) = self.shutdown.run_until_stopped(self.messages.recv()).await else {
                // What nobody will take goes back at once.
                self.messages.close();
                while self.messages.try_recv().is_ok() {}
                return None;
            };
            let message = message?;
            // The broker delivers it again on the new connection.
            if !message.is_lost() {
                return Some(message);
            }
        }
    }

    /// The next messages, or none when the service stops: what is there, and what comes within the wait.
    pub async fn next_batch(&mut self, limits: Limits) -> Option<Vec<Message<C>>> {
        let mut batch = vec![self.next().await?];
        let deadline = tokio::time::Instant::now() + limits.wait;
        while batch.len() < limits.messages {
            match self.messages.try_recv() {
                Ok(message) if message.is_lost() => {}
                Ok(message) => batch.push(message),
                // A timer has a millisecond's grain: not even one of no time is free.
                Err(_) if limits.wait.is_zero() => break,
                Err(_) => match tokio::time::timeout_at(deadline, self.next()).await {
                    Ok(Some(message)) => batch.push(message),
                    Ok(None) | Err(_) => break,
                },
            }
        }
        Some(batch)
    }

    /// Waits until what was settled is with the broker. To be called when all messages are settled or
    /// dropped; those that nobody took go back to their queues.
    pub async fn close(self) {
        drop(self.messages);
        let _ = self.task.await;
    }
}

/// One connection's worth of consuming.
struct Session<C> {
    messages: mpsc::Sender<Message<C>>,
    dead_letters: Publisher,
    /// Nothing more is taken: the service stops, or the topology has changed.
    ending: Shutdown,
    /// What was taken is no longer ours.
    lost: Shutdown,
}

impl<C: Content> Session<C> {
    async fn run(
        self,
        connection: Link,
        sources: &[Source],
        changed: impl Future<Output = ()>,
    ) -> lapin::Result<()> {
        let end_with_change = async {
            changed.await;
            self.ending.stop();
            std::future::pending().await
        };
        let result = tokio::select! {
            result = self.consume_all(&connection, sources) => result,
            result = end_with_change => result,
        };
        self.lost.stop();
        // Closing takes with it whatever was neither settled nor taken; a broker that does not answer notices
        // the end by itself.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "done".into())).await;
        result
    }

    /// Ends with the first queue that fails, or when nothing more is taken and all is settled.
    async fn consume_all(&self, connection: &Connection, sources: &[Source]) -> lapin::Result<()> {
        let mut consuming = Vec::new();
        for source in sources {
            let channel = connection.create_channel().await?;
            channel.basic_qos(source.prefetch, BasicQosOptions::default()).await?;
            consuming.push(self.consume(channel, source));
        }
        futures_util::future::try_join_all(consuming).await?;
        Ok(())
    }

    async fn consume(&self, channel: Channel, source: &Source) -> lapin::Result<()> {
        let (settled, settlements) = mpsc::unbounded_channel();
        let queue: Arc<str> = source.queue.as_str().into();
        let mut consumer = channel
            .basic_consume(
                source.queue.as_str().into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let cancelled = Shutdown::new();
        let settling = settle::run(channel.clone(), settlements, self.ending.clone(), cancelled.clone());
        let mut settling = tokio::spawn(settling);
        let mut burying = JoinSet::new();
        loop {
            let next = tokio::select! {
                () = self.ending.stopped() => break,
                next = consumer.next() => next,
                // It goes on until the session ends; should it not, nothing would be acknowledged any more.
                _ = &mut settling => return Err(aborted("messages are no longer acknowledged")),
            };
            // The end of the stream means that the broker cancelled the consumer: its queue is gone.
            let Some(delivery) = next else { return Err(aborted("the broker cancelled the consumer")) };
            let delivery = delivery?;
            let settlement = Settlement {
                tag: delivery.delivery_tag,
                settled: settled.clone(),
                session: self.lost.clone(),
                done: false,
            };
            let received = Received {
                queue: Arc::clone(&queue),
                exchange: delivery.exchange.to_string(),
                routing_key: delivery.routing_key.to_string(),
                redelivered: delivery.redelivered,
                properties: delivery.properties,
                body: delivery.data.into(),
            };
            match C::decode(&received) {
                Ok(content) => {
                    let redelivered = received.redelivered;
                    // Hardly ever waits: there is room for the prefetch of all queues that there were at
                    // the start. A service that has stopped listening drops what it was sent, which
                    // returns it.
                    let message = Message { content, redelivered, source: source.number, settlement };
                    let _ = self.messages.send(message).await;
                }
                Err(dead_letters) => {
                    burying.spawn(bury(self.dead_letters.clone(), dead_letters, settlement));
                    while burying.try_join_next().is_some() {}
                }
            }
        }
        let cancel = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, cancel).await;
        cancelled.stop();
        // What the broker had sent before it heard of the end goes back at once.
        while let Some(Some(Ok(delivery))) = consumer.next().now_or_never() {
            let _ = settled.send(Settled::Returned(delivery.delivery_tag));
        }
        // One that panicked has returned its message.
        while burying.join_next().await.is_some() {}
        drop(settled);
        // Ends when the last message under way is settled or dropped.
        let _ = settling.await;
        let heard = acks_are_heard(&channel, &source.queue);
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, heard).await;
        // A channel that is only dropped is closed without anybody waiting, and the connection then refuses to
        // wait for it: it would be broken off, and the broker log a warning at every stop.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, channel.close(200, "done".into())).await;
        Ok(())
    }
}

/// Waits until the queue has heard of every ack. With 32 of them under way to a quorum queue, the broker keeps
/// further ones in the channel until those are applied, and forgets them when the channel closes (see
/// `rabbit_fifo_client`, `unsent_commands`): then they would be delivered again. A get is answered behind what is
/// under way to the queue, and the declaration behind the queue's word of it to the channel, which then sends what it
/// kept. Nothing gentler waits for a quorum queue: declarations, or a get on another queue, only let time pass. A
/// message that it is given goes back when the channel closes, as one that was delivered before.
async fn acks_are_heard(channel: &Channel, queue: &str) -> lapin::Result<()> {
    channel.basic_get(queue.into(), BasicGetOptions::default()).await?;
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
    Ok(())
}

async fn bury(publisher: Publisher, dead_letters: Vec<Publication>, settlement: Settlement) {
    let publish = dead_letters.iter().map(|dead_letter| publisher.publish_until_confirmed(dead_letter));
    tokio::select! {
        _ = join_all(publish) => settlement.ack(),
        () = settlement.lost() => {}
    }
}

fn aborted(why: &'static str) -> lapin::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionAborted, why).into()
}
