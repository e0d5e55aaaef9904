//! An upstream's end of the broker: publishing with confirms, and looking at queues.

use std::time::Duration;

use async_rs::Runtime;
use cuewire::amqp::Publication;
use futures_util::future::join_all;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::{
    BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use serde_json::Value;
use tokio::sync::Mutex;

/// As upstreams name the form in which they send.
pub const CLOUDEVENTS_JSON: &str = "application/cloudevents+json";
/// Unconfirmed at a time, as publishers are told to.
const AT_A_TIME: usize = 500;

/// A connection as an upstream has one.
#[derive(Debug)]
pub struct Amqp {
    connection: Connection,
    channel: Channel,
    /// Confirms could be swapped between publishes that run side by side on one channel.
    publishing: Mutex<()>,
}

/// A message, whatever it holds.
#[derive(Debug, Clone)]
pub struct Raw {
    /// Where to.
    pub exchange: String,
    /// Its routing key.
    pub routing_key: String,
    /// Content type, headers and the like.
    pub properties: BasicProperties,
    /// The body.
    pub body: Vec<u8>,
}

impl Raw {
    /// An event in structured JSON to `events`, by its type.
    #[must_use]
    pub fn event(event: &Value) -> Self {
        Self::body(event["type"].as_str().unwrap_or_default(), event.to_string())
    }

    /// A body to `events` that claims to be an event in structured JSON.
    #[must_use]
    pub fn body(routing_key: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            exchange: "events".to_owned(),
            routing_key: routing_key.to_owned(),
            properties: BasicProperties::default()
                .with_content_type(CLOUDEVENTS_JSON.into())
                .with_delivery_mode(2),
            body: body.into(),
        }
    }

    /// To another exchange.
    #[must_use]
    pub fn to(mut self, exchange: &str) -> Self {
        self.exchange = exchange.to_owned();
        self
    }

    /// With other properties.
    #[must_use]
    pub fn properties(mut self, change: impl FnOnce(BasicProperties) -> BasicProperties) -> Self {
        self.properties = change(self.properties);
        self
    }
}

/// A message of Cuewire's own.
impl From<Publication> for Raw {
    fn from(publication: Publication) -> Self {
        let Publication { exchange, routing_key, message_id, content_type, headers, body, .. } = publication;
        let raw = Self::body(&routing_key, body).to(&exchange);
        raw.properties(|properties| {
            let properties = properties.with_message_id(message_id.into()).with_headers(headers);
            properties.with_content_type(content_type.into())
        })
    }
}

impl Amqp {
    /// Connects.
    pub async fn open(url: &str) -> lapin::Result<Self> {
        // This runtime, of the many that tests have in one process.
        let runtime = Runtime::tokio_current();
        let connect = Connection::connect_with_runtime(url, ConnectionProperties::default(), runtime);
        let connection = tokio::time::timeout(Duration::from_secs(10), connect)
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { connection, channel, publishing: Mutex::default() })
    }

    /// Publishes an event; fails the test if the broker does not take it.
    pub async fn publish(&self, event: &Value) {
        self.publish_raw(&Raw::event(event)).await.expect("the broker takes it");
    }

    /// Publishes as many events as fast as the broker takes them.
    pub async fn publish_all(&self, events: &[Value]) {
        for some in events.chunks(AT_A_TIME) {
            let raw: Vec<_> = some.iter().map(Raw::event).collect();
            for confirmed in self.send(&raw).await {
                confirmed.expect("the broker takes it");
            }
        }
    }

    /// Publishes any message; an error where the broker does not take it.
    pub async fn publish_raw(&self, raw: &Raw) -> lapin::Result<()> {
        self.send(std::slice::from_ref(raw)).await.remove(0)
    }

    async fn send(&self, messages: &[Raw]) -> Vec<lapin::Result<()>> {
        let _one_at_a_time = self.publishing.lock().await;
        let mut under_way = Vec::with_capacity(messages.len());
        for Raw { exchange, routing_key, properties, body } in messages {
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            let (exchange, key) = (exchange.as_str().into(), routing_key.as_str().into());
            under_way
                .push(self.channel.basic_publish(exchange, key, options, body, properties.clone()).await);
        }
        join_all(under_way.into_iter().map(async |publish| match publish?.await? {
            Confirmation::Ack(None) => Ok(()),
            other => Err(std::io::Error::other(format!("the broker did not take it: {other:?}")).into()),
        }))
        .await
    }

    /// Messages that wait in a queue, or an error where there is none.
    pub async fn depth(&self, queue: &str) -> lapin::Result<u32> {
        // A channel of its own, since one that asks for what is not there is closed.
        let channel = self.connection.create_channel().await?;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
        let _ = channel.close(200, "asked".into()).await;
        Ok(declared.message_count())
    }

    /// Takes the next message of a queue, if there is one, and gives it back, as a consumer that breaks down
    /// over it does.
    pub async fn give_back(&self, queue: &str) -> Option<Raw> {
        let message = self.channel.basic_get(queue.into(), BasicGetOptions::default()).await;
        let message = message.expect("the queue is there")?;
        let options = BasicNackOptions { requeue: true, ..Default::default() };
        message.delivery.nack(options).await.expect("it is given back");
        Some(raw(message))
    }

    /// Takes the next message of a queue for good.
    pub async fn take(&self, queue: &str) -> Option<Raw> {
        let message = self.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await;
        message.expect("the queue is there").map(raw)
    }

    /// A channel of its own, to do with it what an upstream may try; the first error closes it.
    pub async fn channel(&self) -> Channel {
        self.connection.create_channel().await.expect("a channel")
    }

    /// Deletes a queue with all that is in it, as an operator's mistake would.
    pub async fn delete_queue(&self, queue: &str) {
        let channel = self.connection.create_channel().await.expect("a channel");
        let deleted = channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await;
        deleted.expect("the queue is there");
    }
}

fn raw(message: BasicGetMessage) -> Raw {
    let Delivery { exchange, routing_key, properties, data, .. } = message.delivery;
    Raw { exchange: exchange.to_string(), routing_key: routing_key.to_string(), properties, body: data }
}

/// Publishes every event until the broker has confirmed it, whatever becomes of the broker meanwhile.
pub async fn publish_through_faults(url: &str, events: &[Value]) {
    let mut left: Vec<Raw> = events.iter().map(Raw::event).collect();
    while !left.is_empty() {
        let Ok(amqp) = Amqp::open(url).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        while !left.is_empty() {
            let some: Vec<_> = left.drain(..left.len().min(50)).collect();
            let confirmed = amqp.send(&some).await;
            let lost = confirmed.iter().any(Result::is_err);
            left.extend(some.into_iter().zip(confirmed).filter(|(_, it)| it.is_err()).map(|(raw, _)| raw));
            if lost {
                break;
            }
        }
    }
}
