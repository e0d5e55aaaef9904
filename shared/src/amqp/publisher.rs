//! Publishing with confirms: many messages under way, each answered for by itself.
//!
//! One task owns the channel (concurrent publishes on clones of a channel can swap their confirms); callers
//! hand it a message and await the broker's word. A nack or a return concerns its message alone; an error,
//! or silence while messages are unconfirmed, ends the connection and fails what was under way. A return from an
//! exchange of the topology ends it too, when all is confirmed: the next one declares what is missing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Event};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use super::connection::{Backoff, Broker};
use super::link::Link;
use super::verdicts::{Said, Verdicts, Waiting};
use crate::health::Component;
use crate::shutdown::Shutdown;

/// Unconfirmed messages at a time: what a broker confirms in one round of disk writes, and no more, since
/// all of them are published again when the connection breaks.
pub const MAX_UNCONFIRMED: usize = 1_000;
const PERSISTENT: u8 = 2;

/// A message to be published.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Where to.
    pub exchange: String,
    /// How it is routed there.
    pub routing_key: String,
    /// By which a returned message is known again.
    pub message_id: String,
    /// The body's media type.
    pub content_type: String,
    /// Headers of ours.
    pub headers: FieldTable,
    /// Where an answer is to go, and what it is to be known by.
    pub reply: Option<ReplyTo>,
    /// The body.
    pub body: Bytes,
}

/// Where an answer to a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyTo {
    /// A queue.
    pub queue: String,
    /// What the caller knows its answer by.
    pub correlation_id: String,
}

/// A message is not with the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The connection was lost, or there is none: whether the broker has it is unknown.
    #[error("the connection to the broker was lost")]
    Lost,
    /// The broker did not take it (a queue is full).
    #[error("the broker refused the message")]
    Refused,
    /// No queue takes it.
    #[error("no queue takes the message")]
    Unroutable,
}

/// A message that comes back however often everything is declared is no reason to do so all the time.
const DECLARE_AGAIN_AFTER: Duration = Duration::from_secs(60);

type Handed = (Publication, Waiting);

/// What outlives a connection.
struct Desk {
    handed: mpsc::Receiver<Handed>,
    /// When a connection was ended last, so that the next one declares everything.
    declared_again: Option<Instant>,
}

impl Desk {
    /// Whether it may help to declare everything again, which is done then.
    fn may_declare_again(&mut self) -> bool {
        let may = self.declared_again.is_none_or(|at| at.elapsed() > DECLARE_AGAIN_AFTER);
        if may {
            self.declared_again = Some(Instant::now());
        }
        may
    }
}

/// Hands messages to the task that owns the channel. Clones share it.
#[derive(Debug, Clone)]
pub struct Publisher(mpsc::Sender<Handed>);

impl Publisher {
    /// Starts publishing, over a connection of its own that is made anew whenever it breaks.
    #[must_use]
    pub fn start(broker: Broker, component: Component, shutdown: Shutdown) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_UNCONFIRMED);
        shutdown.clone().spawn_vital("publisher", run(broker, component, shutdown, receiver));
        Self(sender)
    }

    /// Publishes once. Returns when the broker has it, or does not.
    pub async fn publish(&self, publication: Publication) -> Result<(), PublishError> {
        let (confirm, confirmed) = oneshot::channel();
        self.0.send((publication, confirm)).await.map_err(|_| PublishError::Lost)?;
        confirmed.await.unwrap_or(Err(PublishError::Lost))
    }

    /// Publishes until the broker has it. Gives up only when the caller drops the future.
    pub async fn publish_until_confirmed(&self, publication: &Publication) {
        let mut backoff = Backoff::new();
        while let Err(error) = self.publish(publication.clone()).await {
            let wait = backoff.pause();
            let Publication { exchange, routing_key, .. } = publication;
            tracing::debug!(%error, %exchange, %routing_key, ?wait, "publishing again");
            tokio::time::sleep(wait).await;
        }
    }
}

async fn run(broker: Broker, component: Component, shutdown: Shutdown, handed: mpsc::Receiver<Handed>) {
    // The sessions take turns with the receiver; between them, what is handed over fails at once.
    let desk = Arc::new(Mutex::new(Desk { handed, declared_again: None }));
    let silence = broker.timeouts.confirm;
    let sessions = broker.supervise(&component, &shutdown, |connection| {
        let desk = Arc::clone(&desk);
        let component = &component;
        async move { publish_over(connection, component, silence, &mut *desk.lock().await).await }
    });
    let refuse = async {
        loop {
            // Locked only while no session runs.
            let next = desk.lock().await.handed.try_recv();
            match next {
                Ok((_, confirm)) => {
                    let _ = confirm.send(Err(PublishError::Lost));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::select! {
        () = sessions => {}
        () = refuse => {}
    }
}

/// A message under way: what the broker says, the message's id, and who waits.
type UnderWay = (lapin::Result<Said>, String, Waiting);

/// Publishes over one connection, until it is of no use any more, or nobody has anything to publish.
async fn publish_over(
    connection: Link,
    component: &Component,
    silence: Duration,
    desk: &mut Desk,
) -> lapin::Result<()> {
    // Or a loss would go unnoticed until there is something to publish, which would then fail.
    let mut events = connection.events_listener();
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut verdicts = Verdicts::default();
    let mut under_way = FuturesUnordered::new();
    let mut silent_since = Instant::now();
    // The broker is short of memory or disk and reads no more. What is under way stays so: published
    // again on another connection, it would be there as often as was tried, once the broker reads on.
    let mut blocked = false;
    // Nobody has anything to publish any more, or everything is to be declared again.
    let mut is_ending = false;
    while !(is_ending && under_way.is_empty()) {
        tokio::select! {
            biased;
            Some(confirmed) = under_way.next(), if !under_way.is_empty() => {
                silent_since = Instant::now();
                let noted = note(&mut verdicts, confirmed, &mut under_way);
                verdicts.tell();
                noted?;
                if let Some(exchange) = verdicts.take_queueless()
                    && desk.may_declare_again()
                {
                    tracing::warn!(exchange, "no queue takes what is published there; declaring everything again");
                    is_ending = true;
                }
            }
            next = desk.handed.recv(), if under_way.len() < MAX_UNCONFIRMED && !blocked && !is_ending => match next {
                // Whoever gave up while the broker took nothing will come again.
                Some((_, waiting)) if waiting.is_closed() => {}
                Some((publication, waiting)) => {
                    if under_way.is_empty() {
                        silent_since = Instant::now();
                    }
                    under_way.push(publish(&channel, publication, waiting));
                }
                None => is_ending = true,
            },
            Some(event) = events.next() => match event {
                Event::Error(error) => return Err(error),
                Event::ConnectionBlocked(reason) => {
                    blocked = true;
                    component.down(&format!("the broker takes no messages: {reason}"));
                }
                Event::ConnectionUnblocked => {
                    blocked = false;
                    silent_since = Instant::now();
                    component.up();
                }
                _ => {}
            },
            () = tokio::time::sleep_until(silent_since + silence), if !under_way.is_empty() && !blocked => {
                let what = format!("the broker confirmed nothing for {silence:?}");
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, what).into());
            }
        }
    }
    connection.close(200, "done".into()).await
}

/// Notes what the broker has said of a message, and of all others by now.
fn note<F>(verdicts: &mut Verdicts, first: UnderWay, under_way: &mut FuturesUnordered<F>) -> lapin::Result<()>
where
    F: Future<Output = UnderWay>,
{
    let mut next = Some(first);
    while let Some((said, id, waiting)) = next {
        match said {
            Ok(said) => verdicts.note(said, id, waiting),
            Err(error) => {
                let _ = waiting.send(Err(PublishError::Lost));
                return Err(error);
            }
        }
        next = under_way.next().now_or_never().flatten();
    }
    Ok(())
}

async fn publish(channel: &Channel, publication: Publication, waiting: Waiting) -> UnderWay {
    let Publication { exchange, routing_key, message_id, content_type, headers, reply, body } = publication;
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(message_id.as_str().into())
        .with_content_type(content_type.into())
        .with_headers(headers);
    if let Some(ReplyTo { queue, correlation_id }) = reply {
        properties = properties.with_reply_to(queue.into()).with_correlation_id(correlation_id.into());
    }
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let said =
        match channel.basic_publish(exchange.into(), routing_key.into(), options, &body, properties).await {
            Ok(confirmation) => confirmation.await.map(Said::from),
            Err(error) => Err(error),
        };
    (said, message_id, waiting)
}
