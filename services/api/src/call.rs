//! Test calls: a delivery whose attempt comes back to the caller.
//!
//! It is published with RabbitMQ's direct reply-to: the answer goes to the channel that published, so one
//! task owns the channel, publishes on it and consumes the answers. A call that is lost with the connection
//! is not repeated: its caller is told. No gate of a sender holds a test call, so what it takes up there is
//! bounded here, by each api, as long as a sender may be at it: also when nobody waits for the answer any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cuewire::amqp::publisher::ReplyTo;
use cuewire::amqp::{Broker, Link, Publication};
use cuewire::health::Component;
use cuewire::message::DeliveryMessage;
use cuewire::shutdown::Shutdown;
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use crate::quota::{Full, Quota};

/// RabbitMQ's name for the channel that consumes it.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";
/// Test calls under way: people make them, one at a time. All of them may be of one queue, of which a sender takes 256
/// messages by default, and hang.
const MAX_UNDER_WAY: usize = 128;
/// Of them, one organization's.
pub(crate) const MAX_OWN: usize = 32;
const TRANSIENT: u8 = 1;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallError {
    /// There is no connection to the broker, or it was lost.
    Lost,
    /// So many are under way that no other is taken.
    TooMany,
    /// So many of the organization's own.
    TooManyOwn,
    /// No sender answered in time.
    Timeout,
}

/// Makes test calls. Clones share the task that does it.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    handed: mpsc::Sender<Call>,
    component: Component,
    under_way: Quota,
}

#[derive(Debug)]
struct Call {
    correlation_id: String,
    publication: Publication,
    answer: oneshot::Sender<Bytes>,
}

impl Calls {
    /// Starts over a connection of its own, made anew whenever it breaks.
    pub(crate) fn start(broker: Broker, component: Component, shutdown: Shutdown) -> Self {
        let (handed, receiver) = mpsc::channel(MAX_UNDER_WAY);
        let under_way = Quota::new(MAX_UNDER_WAY, MAX_OWN);
        let calls = Self { handed, component: component.clone(), under_way };
        shutdown.clone().spawn_vital("caller", async move {
            // The sessions take turns with the receiver.
            let receiver = Arc::new(Mutex::new(receiver));
            broker
                .supervise(&component, &shutdown, |connection| {
                    let receiver = Arc::clone(&receiver);
                    async move { Session::run(connection, &mut *receiver.lock().await).await }
                })
                .await;
        });
        calls
    }

    /// Sends a delivery, and waits for its attempt as JSON.
    pub(crate) async fn call(
        &self,
        mut delivery: DeliveryMessage,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        if !self.component.is_up() {
            return Err(CallError::Lost);
        }
        let place = self.under_way.one(delivery.organization)?;
        let correlation_id = Uuid::now_v7().to_string();
        let queue = DIRECT_REPLY.to_owned();
        delivery.reply = Some(ReplyTo { queue, correlation_id: correlation_id.clone() });
        let (answer, answered) = oneshot::channel();
        let call = Call { correlation_id, publication: delivery.publication(), answer };
        self.handed.try_send(call).map_err(|_| CallError::TooMany)?;
        // A task of its own: the sender goes on, whether or not somebody waits.
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let began = Instant::now();
            let answer = match tokio::time::timeout(timeout, answered).await {
                Ok(Ok(attempt)) => Ok(attempt),
                Ok(Err(_)) => Err(CallError::Lost),
                Err(_) => Err(CallError::Timeout),
            };
            let held = answer.is_err().then_some(place);
            let _ = tell.send(answer);
            if let Some(_place) = held {
                // It may have been taken at the last moment, and take as long once more.
                tokio::time::sleep_until(began + 2 * timeout).await;
            }
        });
        told.await.unwrap_or(Err(CallError::Lost))
    }
}

impl From<Full> for CallError {
    fn from(full: Full) -> Self {
        match full {
            Full::All => Self::TooMany,
            Full::Own => Self::TooManyOwn,
        }
    }
}

/// One connection's worth of calls.
struct Session {
    channel: Channel,
    waiting: HashMap<String, oneshot::Sender<Bytes>>,
}

impl Session {
    async fn run(connection: Link, handed: &mut mpsc::Receiver<Call>) -> lapin::Result<()> {
        let channel = connection.create_channel().await?;
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let mut answers =
            channel.basic_consume(DIRECT_REPLY.into(), "".into(), options, FieldTable::default()).await?;
        let mut session = Self { channel, waiting: HashMap::new() };
        loop {
            tokio::select! {
                answer = answers.next() => {
                    // The end of the stream means that the channel is gone.
                    let Some(answer) = answer else { return Ok(()) };
                    session.answer(answer?);
                }
                call = handed.recv(), if session.has_room() => match call {
                    Some(call) => session.publish(call).await?,
                    None => return connection.close(200, "done".into()).await,
                },
            }
        }
    }

    /// Whether another call may be under way; those whose caller gave up do not count.
    fn has_room(&mut self) -> bool {
        if self.waiting.len() >= MAX_UNDER_WAY {
            self.waiting.retain(|_, answer| !answer.is_closed());
        }
        self.waiting.len() < MAX_UNDER_WAY
    }

    async fn publish(&mut self, call: Call) -> lapin::Result<()> {
        let Call { correlation_id, publication, answer } = call;
        if answer.is_closed() {
            return Ok(());
        }
        let Publication { exchange, routing_key, message_id, content_type, headers, body, .. } = publication;
        let properties = BasicProperties::default()
            .with_delivery_mode(TRANSIENT)
            .with_message_id(message_id.into())
            .with_content_type(content_type.into())
            .with_headers(headers)
            .with_reply_to(DIRECT_REPLY.into())
            .with_correlation_id(correlation_id.as_str().into());
        self.waiting.insert(correlation_id, answer);
        // No confirm is awaited: the answer is one, and without it the caller is told so.
        self.channel
            .basic_publish(
                exchange.into(),
                routing_key.into(),
                BasicPublishOptions::default(),
                &body,
                properties,
            )
            .await?;
        Ok(())
    }

    fn answer(&mut self, delivery: lapin::message::Delivery) {
        let correlation_id = delivery.properties.correlation_id().as_ref().map(ShortString::as_str);
        // A late answer finds nobody waiting.
        if let Some(caller) = correlation_id.and_then(|id| self.waiting.remove(id)) {
            let _ = caller.send(delivery.data.into());
        }
    }
}
