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

use crate::cost::SERVICES;
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
    let share = 100.0 * median(&single.rates) / median(&machine[1].values);
    let mut rows =
        single.rows("1 webhook, 1 KiB events", &format!(", {share:.0}% of two queues without work"));
    let fan_out = bench.throughput(stack, Load { events: load.events / 5, ..load }, FAN_OUT).await?;
    rows.extend(fan_out.rows(&format!("fan-out to {FAN_OUT} webhooks"), ""));
    rows.extend(stack.processes.peak_memory()?);
    let latencies = bench.latency(stack, load.latency_for).await?;
    bench.shutdown.stop();
    rows.push(Row::new("publish to receipt at 50 events a second, p50", "ms", vec![median(&latencies)]));
    rows.push(Row::new(
        "publish to receipt at 50 events a second, p99",
        "ms",
        vec![percentile(&latencies, 0.99)],
    ));
    Ok(rows)
}

/// What a load came to, run by run.
#[derive(Debug, Default)]
struct Throughput {
    /// Deliveries a second.
    rates: Vec<f64>,
    /// Seconds of the processor's time for 1,000 deliveries: of the services, of the broker, of the database.
    services_s: Vec<f64>,
    broker_s: Vec<f64>,
    database_s: Vec<f64>,
    missing: usize,
    duplicates: usize,
}

impl Throughput {
    fn rows(self, load: &str, note: &str) -> Vec<Row> {
        let Self { missing, duplicates, .. } = self;
        let cpu = |of: &str, values| Row::new(format!("CPU for 1,000 deliveries, {load}: {of}"), "s", values);
        vec![
            Row::new(format!("deliveries, {load}"), "deliveries/s", self.rates)
                .note(format!("{note}; {missing} missing, {duplicates} duplicates")),
            cpu("the four services", self.services_s),
            cpu("the broker", self.broker_s),
            cpu("the database", self.database_s),
        ]
    }
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

    /// Publishes as fast as confirms allow, and reconciles what arrives.
    async fn throughput(&self, stack: &Stack, load: Load, webhooks: usize) -> anyhow::Result<Throughput> {
        let receiver = Receiver::start().await?;
        let organization = organization(stack, &receiver, webhooks).await?;
        self.warm_up(&organization, &receiver, webhooks).await;
        let mut throughput = Throughput::default();
        for _ in 0..load.runs {
            receiver.clear();
            let before = stack.processes.spent()?;
            let run = Uuid::new_v4().simple().to_string();
            let started = Instant::now();
            self.publish_all(&run, &organization.id, load.events).await;
            receiver.wait(load.events, webhooks, PATIENCE).await;
            let last = receiver.with(|arrived| arrived.values().flatten().max().copied());
            let elapsed = last.map_or(Duration::MAX, |last| last - started);
            let deliveries = (load.events * webhooks) as f64;
            throughput.rates.push(deliveries / elapsed.as_secs_f64());
            let after = stack.processes.spent()?;
            let cost =
                |is_counted: &dyn Fn(&str) -> bool| 1_000.0 * after.since(&before, is_counted) / deliveries;
            throughput.services_s.push(cost(&|name| SERVICES.contains(&name)));
            throughput.broker_s.push(cost(&|name| name == "RABBITMQ"));
            throughput.database_s.push(cost(&|name| name == "POSTGRES"));
            let counts: Vec<usize> = receiver
                .with(|arrived| (0..load.events).map(|n| arrived.get(&n).map_or(0, Vec::len)).collect());
            throughput.missing += counts.iter().map(|count| webhooks.saturating_sub(*count)).sum::<usize>();
            throughput.duplicates += counts.iter().map(|count| count.saturating_sub(webhooks)).sum::<usize>();
        }
        anyhow::ensure!(throughput.missing == 0, "{} deliveries are missing", throughput.missing);
        Ok(throughput)
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
