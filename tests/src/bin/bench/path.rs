//! The path: events published to RabbitMQ until their receivers have them.

use std::time::{Duration, Instant};

use cuewire::amqp::topology::{EVENTS, Topology};
use cuewire::amqp::{Broker, Publication, Publisher};
use cuewire::health::Health;
use cuewire::message::CLOUDEVENTS_JSON;
use cuewire::shutdown::Shutdown;
use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::types::FieldTable;
use prometheus::Registry;
use uuid::Uuid;

use crate::receiver::Receiver;
use crate::stack::{Organization, Stack};
use crate::{Load, Row, median, percentile};

/// A publisher's unconfirmed events.
const UNCONFIRMED: usize = 500;
/// Nothing arriving for so long means that nothing will.
const PATIENCE: Duration = Duration::from_secs(30);
const EVENT_BYTES: usize = 1_024;
const FAN_OUT: usize = 10;
const LATENCY_EVERY: Duration = Duration::from_millis(20);

pub(crate) async fn measure(stack: &Stack, load: Load, machine: &[Row]) -> anyhow::Result<Vec<Row>> {
    let bench = Bench::start(stack);
    let single = bench.throughput(stack, load, 1).await?;
    let share = 100.0 * median(&single.0) / median(&machine[1].values);
    let fan_out = bench.throughput(stack, Load { events: load.events / 5, ..load }, FAN_OUT).await?;
    let latencies = bench.latency(stack, load.latency_for).await?;
    bench.shutdown.stop();
    Ok(vec![
        Row::new("deliveries, 1 webhook, 1 KiB events", "deliveries/s", single.0)
            .note(format!(", {share:.0}% of two queues without work; {}", single.1)),
        Row::new(format!("deliveries, fan-out to {FAN_OUT} webhooks"), "deliveries/s", fan_out.0)
            .note(format!("; {}", fan_out.1)),
        Row::new("publish to receipt at 50 events a second, p50", "ms", vec![median(&latencies)]),
        Row::new("publish to receipt at 50 events a second, p99", "ms", vec![percentile(&latencies, 0.99)]),
    ])
}

struct Bench {
    publisher: Publisher,
    shutdown: Shutdown,
}

impl Bench {
    fn start(stack: &Stack) -> Self {
        let broker = Broker::new(stack.amqp_url.clone(), Topology::default(), "bench");
        let (health, shutdown) = (Health::new(&Registry::new()), Shutdown::new());
        let publisher = Publisher::start(broker, health.component("publisher"), shutdown.clone());
        Self { publisher, shutdown }
    }

    /// Publishes as fast as confirms allow. Answers deliveries a second of each run, and what was missing or
    /// came twice.
    async fn throughput(
        &self,
        stack: &Stack,
        load: Load,
        webhooks: usize,
    ) -> anyhow::Result<(Vec<f64>, String)> {
        let receiver = Receiver::start().await?;
        let organization = organization(stack, &receiver, webhooks).await?;
        self.warm_up(&organization, &receiver, webhooks).await;
        let (mut rates, mut missing, mut duplicates) = (Vec::new(), 0, 0);
        for _ in 0..load.runs {
            receiver.clear();
            let run = Uuid::new_v4().simple().to_string();
            let started = Instant::now();
            self.publish_all(&run, &organization.id, load.events).await;
            receiver.wait(load.events, webhooks, PATIENCE).await;
            let last = receiver.with(|arrived| arrived.values().flatten().max().copied());
            let elapsed = last.map_or(Duration::MAX, |last| last - started);
            rates.push((load.events * webhooks) as f64 / elapsed.as_secs_f64());
            let counts: Vec<usize> = receiver
                .with(|arrived| (0..load.events).map(|n| arrived.get(&n).map_or(0, Vec::len)).collect());
            missing += counts.iter().map(|count| webhooks.saturating_sub(*count)).sum::<usize>();
            duplicates += counts.iter().map(|count| count.saturating_sub(webhooks)).sum::<usize>();
        }
        anyhow::ensure!(missing == 0, "{missing} deliveries are missing");
        Ok((rates, format!("{missing} missing, {duplicates} duplicates")))
    }

    async fn publish_all(&self, run: &str, organization: &str, events: usize) {
        let mut unconfirmed = FuturesUnordered::new();
        for number in 0..events {
            if unconfirmed.len() == UNCONFIRMED {
                unconfirmed.next().await;
            }
            unconfirmed.push(self.publish(run, organization, number));
        }
        while unconfirmed.next().await.is_some() {}
    }

    async fn publish(&self, run: &str, organization: &str, number: usize) {
        let publication = Publication {
            exchange: EVENTS.to_owned(),
            routing_key: "feeds.started".to_owned(),
            message_id: number.to_string(),
            content_type: CLOUDEVENTS_JSON.to_owned(),
            headers: FieldTable::default(),
            reply: None,
            body: event(run, organization, number).into(),
        };
        self.publisher.publish_until_confirmed(&publication).await;
    }

    /// Until the webhooks are known everywhere, and connections are open.
    async fn warm_up(&self, organization: &Organization, receiver: &Receiver, webhooks: usize) {
        for round in 0.. {
            let run = format!("warm{round}");
            self.publish_all(&run, &organization.id, 100).await;
            receiver.wait(100, webhooks, Duration::from_secs(2)).await;
            let complete =
                receiver.with(|arrived| arrived.values().filter(|times| times.len() >= webhooks).count());
            receiver.clear();
            if complete == 100 {
                return;
            }
        }
    }

    /// Publishes one event at a time, and answers how long each took to its receiver, in milliseconds.
    async fn latency(&self, stack: &Stack, for_how_long: Duration) -> anyhow::Result<Vec<f64>> {
        let receiver = Receiver::start().await?;
        let organization = organization(stack, &receiver, 1).await?;
        self.warm_up(&organization, &receiver, 1).await;
        let run = Uuid::new_v4().simple().to_string();
        let mut published = Vec::new();
        let mut ticks = tokio::time::interval(LATENCY_EVERY);
        let mut publishing = FuturesUnordered::new();
        while LATENCY_EVERY * (published.len() as u32) < for_how_long {
            tokio::select! {
                _ = ticks.tick() => {
                    publishing.push(self.publish(&run, &organization.id, published.len()));
                    published.push(Instant::now());
                }
                Some(()) = publishing.next(), if !publishing.is_empty() => {}
            }
        }
        while publishing.next().await.is_some() {}
        receiver.wait(published.len(), 1, PATIENCE).await;
        let latencies: Vec<f64> = receiver.with(|arrived| {
            let latency = |(number, at): (usize, &Instant)| {
                Some((*arrived.get(&number)?.first()? - *at).as_secs_f64() * 1_000.0)
            };
            published.iter().enumerate().filter_map(latency).collect()
        });
        anyhow::ensure!(latencies.len() == published.len(), "events are missing");
        Ok(latencies)
    }
}

async fn organization(stack: &Stack, receiver: &Receiver, webhooks: usize) -> anyhow::Result<Organization> {
    let organization = stack.organization("bench").await?;
    for _ in 0..webhooks {
        organization.webhook(&receiver.url).await?;
    }
    Ok(organization)
}

/// An event of 1 KiB.
pub(crate) fn event(run: &str, organization: &str, number: usize) -> String {
    let head = format!(
        r#"{{"id":"bench-{run}-{number}","specversion":"1.0","source":"/bench","type":"feeds.started","time":"2026-01-31T09:30:00Z","organization":"{organization}","data":{{"feedId":"369e4a86-f937-4254-bd9f-99dc484d2bd6","padding":""#
    );
    let padding = "x".repeat(EVENT_BYTES.saturating_sub(head.len() + 3));
    format!("{head}{padding}\"}}}}")
}
