//! What the machine can do without Cuewire: requests straight to the receiver, messages through one quorum queue and
//! through two without any work between them, rows into the database.

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
use uuid::Uuid;

use crate::cost::own_seconds;
use crate::figures::{Row, latency_rows};
use crate::path::ONE_AT_A_TIME;
use crate::receiver::{Manner, Receiver, Run};
use crate::stack::Stack;
use crate::{Load, load};

const QUEUES: [&str; 2] = ["bench.first", "bench.second"];
/// As many as a webhook of the other sections may have.
const REQUESTS_IN_FLIGHT: usize = 64;
const UNCONFIRMED: usize = 500;
const ROWS_IN_A_BATCH: usize = 1_000;

/// What the machine can do.
pub(crate) struct Machine {
    /// Messages through two queues.
    pub(crate) two_hops: Row,
    /// All else.
    pub(crate) others: Vec<Row>,
}

pub(crate) async fn measure(stack: &Stack, load: Load) -> anyhow::Result<Machine> {
    let (mut posts, mut posts_s) = (Vec::new(), Vec::new());
    let (mut one_hop, mut two_hops, mut broker_s) = (Vec::new(), Vec::new(), Vec::new());
    let (mut batched, mut single) = (Vec::new(), Vec::new());
    let mut hops = Hops::start(stack).await?;
    for _ in 0..load.runs {
        let before = own_seconds()?;
        posts.push(post_straight(load.events).await?);
        posts_s.push(1_000.0 * (own_seconds()? - before) / load.events as f64);
        one_hop.push(hops.throughput(QUEUES[1], load.events).await);
        let before = stack.processes.spent()?;
        two_hops.push(hops.throughput(QUEUES[0], load.events).await);
        let spent = stack.processes.spent()?.since(&before, |name| name == "RABBITMQ");
        broker_s.push(1_000.0 * spent / load.events as f64);
        batched.push(rows_a_second(stack, 5 * load.events, ROWS_IN_A_BATCH).await?);
        single.push(rows_a_second(stack, load.events / 10, 1).await?);
    }
    let mut latencies = Vec::new();
    for _ in 0..load.runs {
        latencies.push(hops.latencies_ms(ONE_AT_A_TIME, load.latency_for).await);
    }
    hops.end().await?;
    let what = "two quorum queues without work";
    let [p50, p99] = latency_rows(&format!("{what}, {ONE_AT_A_TIME} messages a second"), &latencies);
    let others = vec![
        Row::new("POST straight to the receiver", "requests/s", posts),
        Row::new("CPU for 1,000 POSTs straight to the receiver: client and receiver", "s", posts_s),
        Row::new("one quorum queue without work", "messages/s", one_hop),
        Row::new(format!("CPU for 1,000 messages, {what}: the broker"), "s", broker_s),
        p50,
        p99,
        Row::new(format!("rows into a table, {ROWS_IN_A_BATCH} a statement"), "rows/s", batched),
        Row::new("rows into a table, one by one", "rows/s", single),
    ];
    Ok(Machine { two_hops: Row::new(what, "messages/s", two_hops), others })
}

/// How many rows of a key and a number the database takes, so many by each statement, one statement after another.
async fn rows_a_second(stack: &Stack, rows: usize, in_a_batch: usize) -> anyhow::Result<f64> {
    let database = stack.database().await?;
    // One that broke off may have left it.
    database.batch_execute("DROP TABLE IF EXISTS bench_rows").await?;
    database.batch_execute("CREATE TABLE bench_rows (id uuid PRIMARY KEY, number bigint NOT NULL)").await?;
    let insert = "INSERT INTO bench_rows SELECT * FROM unnest($1::uuid[], $2::bigint[])";
    let insert = database.prepare(insert).await?;
    let started = Instant::now();
    for _ in 0..rows / in_a_batch {
        let ids: Vec<Uuid> = (0..in_a_batch).map(|_| Uuid::now_v7()).collect();
        let numbers: Vec<i64> = (0..).take(in_a_batch).collect();
        database.execute(&insert, &[&ids, &numbers]).await?;
    }
    let elapsed = started.elapsed();
    database.batch_execute("DROP TABLE bench_rows").await?;
    Ok((rows / in_a_batch * in_a_batch) as f64 / elapsed.as_secs_f64())
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
/// consumer and publisher. What is published to the second queue has one hop.
struct Hops {
    broker: Broker,
    publisher: Publisher,
    arrived: Consumer<Body>,
    shutdown: Shutdown,
}

impl Hops {
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

    /// Messages a second from this queue on, with as many unconfirmed as the publisher of events has.
    async fn throughput(&mut self, queue: &str, events: usize) -> f64 {
        let started = Instant::now();
        let publish = async {
            let mut unconfirmed = FuturesUnordered::new();
            for number in 0..events {
                if unconfirmed.len() == UNCONFIRMED {
                    unconfirmed.next().await;
                }
                unconfirmed.push(publish(&self.publisher, queue, number));
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
                        unconfirmed.push(publish(&self.publisher, QUEUES[0], published.len()));
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

async fn publish(publisher: &Publisher, queue: &str, number: usize) {
    let body = load::event(Run::default(), "none", number);
    publisher.publish_until_confirmed(&publication(queue, body.into())).await;
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
