//! What the machine can do without Cuewire: requests straight to the receiver, and messages through two quorum
//! queues without any work between them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use cuewire::amqp::consumer::Content;
use cuewire::amqp::topology::Topology;
use cuewire::amqp::{Broker, Consumer, Publication, Publisher, Received, Source};
use cuewire::health::{Component, Health};
use cuewire::shutdown::Shutdown;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use prometheus::Registry;

use crate::figures::{Row, latency_rows};
use crate::path::ONE_AT_A_TIME;
use crate::receiver::{Manner, Receiver, Run};
use crate::stack::Stack;
use crate::{Load, load};

const QUEUES: [&str; 2] = ["bench.first", "bench.second"];
/// As many as a webhook of the other sections may have.
const REQUESTS_IN_FLIGHT: usize = 64;
const UNCONFIRMED: usize = 500;
const SYNCED_BYTES: usize = 512;
const SYNC_EVERY: Duration = Duration::from_millis(20);

/// What the machine can do.
pub(crate) struct Machine {
    pub(crate) posts: Row,
    pub(crate) two_hops: Row,
    /// What the two queues cost the broker, and how long single messages take through them (p50 and p99).
    pub(crate) of_two_hops: [Row; 3],
    /// How long the disk takes to have a few bytes: p50, p99, and the longest.
    pub(crate) syncs: [Row; 3],
}

pub(crate) async fn measure(stack: &Stack, load: Load) -> anyhow::Result<Machine> {
    let (mut posts, mut throughput, mut broker_s) = (Vec::new(), Vec::new(), Vec::new());
    let mut hops = TwoHops::start(stack).await?;
    for _ in 0..load.runs {
        posts.push(post_straight(load.events).await?);
        let before = stack.processes.spent()?;
        throughput.push(hops.throughput(load.events).await);
        let spent = stack.processes.spent()?.since(&before, |name| name == "RABBITMQ");
        broker_s.push(1_000.0 * spent / load.events as f64);
    }
    let mut latencies = Vec::new();
    for _ in 0..load.runs {
        latencies.push(hops.latencies_ms(ONE_AT_A_TIME, load.latency_for).await);
    }
    hops.end().await?;
    let file = stack.env_file.with_file_name("synced");
    let syncs = tokio::task::spawn_blocking(move || syncs_ms(&file, load.latency_for)).await??;
    let longest = syncs.iter().copied().fold(0.0, f64::max);
    let synced = format!("{SYNCED_BYTES} bytes synced to the disk");
    let [sync_p50, sync_p99] = latency_rows(&synced, &[syncs]);
    let what = "two quorum queues without work";
    let [p50, p99] = latency_rows(&format!("{what}, {ONE_AT_A_TIME} messages a second"), &latencies);
    Ok(Machine {
        posts: Row::new("POST straight to the receiver", "requests/s", posts),
        two_hops: Row::new(what, "messages/s", throughput),
        of_two_hops: [
            Row::new(format!("CPU for 1,000 messages, {what}: the broker"), "s", broker_s),
            p50,
            p99,
        ],
        syncs: [sync_p50, sync_p99, Row::new(format!("{synced}: the longest"), "ms", vec![longest])],
    })
}

/// How long writes to a file take to be on the disk that the broker and the database have too, in milliseconds.
fn syncs_ms(file: &Path, lasting: Duration) -> anyhow::Result<Vec<f64>> {
    let synced = File::create(file)?;
    let (started, mut took) = (Instant::now(), Vec::new());
    while started.elapsed() < lasting {
        let begun = Instant::now();
        synced.write_all_at(&[0; SYNCED_BYTES], 0)?;
        synced.sync_data()?;
        took.push(begun.elapsed().as_secs_f64() * 1_000.0);
        std::thread::sleep(SYNC_EVERY);
    }
    std::fs::remove_file(file)?;
    Ok(took)
}

async fn post_straight(events: usize) -> anyhow::Result<f64> {
    let receiver = Receiver::start([Manner::Quick]).await?;
    let client = reqwest::Client::new();
    let run = receiver.begin();
    let started = Instant::now();
    let mut in_flight = FuturesUnordered::new();
    for number in 0..events {
        if in_flight.len() == REQUESTS_IN_FLIGHT {
            in_flight.next().await;
        }
        let body = load::event(run, "none", number);
        in_flight.push(client.post(receiver.url(0)).body(body).send());
    }
    while in_flight.next().await.is_some() {}
    let elapsed = started.elapsed();
    receiver.reconcile(0..1, events).complete()?;
    Ok(events as f64 / elapsed.as_secs_f64())
}

/// A message that is only passed on.
struct Body(Received);

impl Content for Body {
    fn decode(received: &Received) -> Result<Self, Vec<Publication>> {
        Ok(Self(Received {
            queue: received.queue.clone(),
            exchange: String::new(),
            routing_key: String::new(),
            redelivered: received.redelivered,
            properties: received.properties.clone(),
            body: received.body.clone(),
        }))
    }
}

/// Publish → queue → consume, publish, confirm, ack → queue → consume, ack: the path's hops with the path's own
/// consumer and publisher.
struct TwoHops {
    broker: Broker,
    publisher: Publisher,
    arrived: Consumer<Body>,
    shutdown: Shutdown,
}

impl TwoHops {
    async fn start(stack: &Stack) -> anyhow::Result<Self> {
        let broker = Broker::new(stack.amqp_url.clone(), Topology::default(), "bench");
        let connection = broker.connect("hops").await?;
        let channel = connection.create_channel().await?;
        for queue in QUEUES {
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
            channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await?;
        }
        connection.close(200, "done".into()).await?;
        let (health, shutdown) = (Health::new(&Registry::new()), Shutdown::new());
        let component = |name| health.component(name);
        let components =
            [component("publisher"), component("passing"), component("first"), component("second")];
        let [publishing, passing, first, second] = components.clone();
        let publisher = Publisher::start(broker.clone(), publishing, shutdown.clone());
        let passing = Publisher::start(broker.clone(), passing, shutdown.clone());
        let consume = |queue: &str, component| {
            let source = Source { queue: queue.to_owned(), prefetch: 1_000, number: 0 };
            let sources = move |_: &Topology| vec![source.clone()];
            Consumer::<Body>::start(broker.clone(), sources, publisher.clone(), component, shutdown.clone())
        };
        let (mut first, arrived) = (consume(QUEUES[0], first), consume(QUEUES[1], second));
        join_all(components.iter().map(Component::wait_until_up)).await;
        tokio::spawn(async move {
            while let Some(message) = first.next().await {
                let passing = passing.clone();
                tokio::spawn(async move {
                    let publication = publication(QUEUES[1], message.content.0.body.clone());
                    passing.publish_until_confirmed(&publication).await;
                    message.ack();
                });
            }
        });
        Ok(Self { broker, publisher, arrived, shutdown })
    }

    /// Messages a second, with as many unconfirmed as the publisher of events has.
    async fn throughput(&mut self, events: usize) -> f64 {
        let started = Instant::now();
        let publish = async {
            let mut unconfirmed = FuturesUnordered::new();
            for number in 0..events {
                if unconfirmed.len() == UNCONFIRMED {
                    unconfirmed.next().await;
                }
                unconfirmed.push(publish(&self.publisher, number));
            }
            while unconfirmed.next().await.is_some() {}
        };
        let receive = async {
            for _ in 0..events {
                if let Some(message) = self.arrived.next().await {
                    message.ack();
                }
            }
        };
        tokio::join!(publish, receive);
        events as f64 / started.elapsed().as_secs_f64()
    }

    /// How long single messages take through both, in milliseconds, whatever becomes of those before them.
    async fn latencies_ms(&mut self, per_second: u32, lasting: Duration) -> Vec<f64> {
        let messages = (lasting.as_secs_f64() * f64::from(per_second)) as usize;
        let publish = async {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
            let (mut published, mut unconfirmed) = (Vec::with_capacity(messages), FuturesUnordered::new());
            while published.len() < messages {
                tokio::select! {
                    _ = ticks.tick() => {
                        unconfirmed.push(publish(&self.publisher, published.len()));
                        published.push(Instant::now());
                    }
                    Some(()) = unconfirmed.next(), if !unconfirmed.is_empty() => {}
                }
            }
            while unconfirmed.next().await.is_some() {}
            published
        };
        let receive = async {
            let mut arrived = Vec::with_capacity(messages);
            while arrived.len() < messages
                && let Some(message) = self.arrived.next().await
            {
                arrived.push(Instant::now());
                message.ack();
            }
            arrived
        };
        // In the order of their queues.
        let (published, arrived) = tokio::join!(publish, receive);
        let took =
            |(published, arrived): (&Instant, &Instant)| (*arrived - *published).as_secs_f64() * 1_000.0;
        published.iter().zip(&arrived).map(took).collect()
    }

    async fn end(self) -> anyhow::Result<()> {
        self.shutdown.stop();
        let connection = self.broker.connect("hops").await?;
        let channel = connection.create_channel().await?;
        for queue in QUEUES {
            channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
        }
        Ok(connection.close(200, "done".into()).await?)
    }
}

async fn publish(publisher: &Publisher, number: usize) {
    let body = load::event(Run::default(), "none", number);
    publisher.publish_until_confirmed(&publication(QUEUES[0], body.into())).await;
}

fn publication(queue: &str, body: bytes::Bytes) -> Publication {
    Publication {
        exchange: String::new(),
        routing_key: queue.to_owned(),
        message_id: String::new(),
        content_type: "application/json".to_owned(),
        headers: FieldTable::default(),
        reply: None,
        body,
    }
}
