//! What the machine can do without Cuewire: requests straight to the receiver, and messages through two quorum
//! queues without any work between them.

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

use crate::figures::Row;
use crate::receiver::{Manner, Receiver};
use crate::stack::Stack;
use crate::{Load, load};

const QUEUES: [&str; 2] = ["bench.first", "bench.second"];
/// As many as a sender has, and a publisher.
const REQUESTS_IN_FLIGHT: usize = 64;
const UNCONFIRMED: usize = 500;

pub(crate) async fn measure(stack: &Stack, load: Load) -> anyhow::Result<Vec<Row>> {
    let (mut posts, mut hops) = (Vec::new(), Vec::new());
    for _ in 0..load.runs {
        posts.push(post_straight(load.events).await?);
        hops.push(two_hops(stack, load.events).await?);
    }
    Ok(vec![
        Row::new("POST straight to the receiver", "requests/s", posts),
        Row::new("two quorum queues without work", "messages/s", hops),
    ])
}

async fn post_straight(events: usize) -> anyhow::Result<f64> {
    let receiver = Receiver::start([Manner::Quick]).await?;
    let client = reqwest::Client::new();
    let started = Instant::now();
    let mut in_flight = FuturesUnordered::new();
    for number in 0..events {
        if in_flight.len() == REQUESTS_IN_FLIGHT {
            in_flight.next().await;
        }
        let body = load::event("straight", "none", number);
        in_flight.push(client.post(receiver.url(0)).body(body).send());
    }
    while in_flight.next().await.is_some() {}
    receiver.wait(0..1, events, Duration::from_secs(5)).await;
    Ok(events as f64 / started.elapsed().as_secs_f64())
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
async fn two_hops(stack: &Stack, events: usize) -> anyhow::Result<f64> {
    let broker = Broker::new(stack.amqp_url.clone(), Topology::default(), "bench");
    let connection = broker.connect("hops").await?;
    let channel = connection.create_channel().await?;
    for queue in QUEUES {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
        channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await?;
    }
    let (health, shutdown) = (Health::new(&Registry::new()), Shutdown::new());
    let component = |name| health.component(name);
    let components = [component("publisher"), component("passing"), component("first"), component("second")];
    let [publishing, passing, consuming @ ..] = components.clone();
    let publisher = Publisher::start(broker.clone(), publishing, shutdown.clone());
    let passing = Publisher::start(broker.clone(), passing, shutdown.clone());
    let mut consumers = Vec::new();
    for (queue, component) in QUEUES.into_iter().zip(consuming) {
        let source = Source { queue: queue.to_owned(), prefetch: 1_000, number: 0 };
        consumers.push(Consumer::<Body>::start(
            broker.clone(),
            move |_| vec![source.clone()],
            publisher.clone(),
            component,
            shutdown.clone(),
        ));
    }
    join_all(components.iter().map(Component::wait_until_up)).await;
    let (mut second, mut first) = (consumers.remove(1), consumers.remove(0));
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
    let started = Instant::now();
    let publish = async {
        let mut unconfirmed = FuturesUnordered::new();
        for number in 0..events {
            if unconfirmed.len() == UNCONFIRMED {
                unconfirmed.next().await;
            }
            let body = load::event("hops", "none", number);
            let publication = publication(QUEUES[0], body.into());
            let publisher = publisher.clone();
            unconfirmed.push(async move { publisher.publish_until_confirmed(&publication).await });
        }
        while unconfirmed.next().await.is_some() {}
    };
    let receive = async {
        for _ in 0..events {
            if let Some(message) = second.next().await {
                message.ack();
            }
        }
    };
    tokio::join!(publish, receive);
    let elapsed = started.elapsed();
    shutdown.stop();
    for queue in QUEUES {
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
    }
    connection.close(200, "done".into()).await?;
    Ok(events as f64 / elapsed.as_secs_f64())
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
