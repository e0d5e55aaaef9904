//! The path: events published to RabbitMQ until their receivers have them, as fast as it carries them, and one at a time.

use std::time::{Duration, Instant};

use crate::cost::SERVICES;
use crate::load::{PATIENCE, Rate, Upstream};
use crate::receiver::{Manner, Receiver, Reconciled};
use crate::stack::Stack;
use crate::{Load, Row, median, percentile};

const FAN_OUT: usize = 10;
const ONE_AT_A_TIME: u32 = 50;

pub(crate) async fn measure(stack: &Stack, load: Load, two_hops: &Row) -> anyhow::Result<Vec<Row>> {
    let upstream = Upstream::start(&stack.amqp_url);
    let single = throughput(stack, &upstream, load.events, load.runs, 1).await?;
    let share = 100.0 * median(&single.rates) / median(&two_hops.values);
    let mut rows =
        single.rows("1 webhook, 1 KiB events", &format!(", {share:.0}% of two queues without work"));
    let fan_out = throughput(stack, &upstream, load.events / 5, load.runs, FAN_OUT).await?;
    rows.extend(fan_out.rows(&format!("fan-out to {FAN_OUT} webhooks"), ""));
    rows.extend(stack.processes.peak_memory("at full load")?);
    let latencies = latencies_ms(stack, &upstream, load.latency_for).await?;
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let name = format!("publish to receipt at {ONE_AT_A_TIME} events a second, {name}");
        rows.push(Row::new(name, "ms", vec![percentile(&latencies, share)]));
    }
    upstream.stop();
    Ok(rows)
}

/// What a load came to, run by run.
#[derive(Debug, Default)]
pub(crate) struct Throughput {
    /// Deliveries a second.
    pub(crate) rates: Vec<f64>,
    /// Seconds of the processor's time for 1,000 deliveries: of the services, of the broker, of the database.
    pub(crate) services_s: Vec<f64>,
    pub(crate) broker_s: Vec<f64>,
    pub(crate) database_s: Vec<f64>,
    pub(crate) reconciled: Reconciled,
}

impl Throughput {
    fn rows(self, load: &str, note: &str) -> Vec<Row> {
        let cpu = |of: &str, values| Row::new(format!("CPU for 1,000 deliveries, {load}: {of}"), "s", values);
        vec![
            Row::new(format!("deliveries, {load}"), "deliveries/s", self.rates)
                .note(format!("{note}{}", self.reconciled.note())),
            cpu("the four services", self.services_s),
            cpu("the broker", self.broker_s),
            cpu("the database", self.database_s),
        ]
    }
}

/// Publishes as fast as confirms allow to an organization of so many webhooks, and reconciles what arrives.
pub(crate) async fn throughput(
    stack: &Stack,
    upstream: &Upstream,
    events: usize,
    runs: usize,
    webhooks: usize,
) -> anyhow::Result<Throughput> {
    let receiver = Receiver::start(vec![Manner::Quick; webhooks]).await?;
    let organization = stack.organization_with(&receiver.urls()).await?;
    upstream.warm_up(&organization, &receiver, 0..webhooks).await;
    let mut throughput = Throughput::default();
    for _ in 0..runs {
        receiver.clear();
        let before = stack.processes.spent()?;
        let started = Instant::now();
        upstream.publish_all(&organization.id, events).await;
        receiver.wait(0..webhooks, events, PATIENCE).await;
        let elapsed = receiver.last(0..webhooks).map_or(Duration::MAX, |last| last - started);
        let deliveries = (events * webhooks) as f64;
        throughput.rates.push(deliveries / elapsed.as_secs_f64());
        let after = stack.processes.spent()?;
        let cost =
            |is_counted: &dyn Fn(&str) -> bool| 1_000.0 * after.since(&before, is_counted) / deliveries;
        throughput.services_s.push(cost(&|name| SERVICES.contains(&name)));
        throughput.broker_s.push(cost(&|name| name == "RABBITMQ"));
        throughput.database_s.push(cost(&|name| name == "POSTGRES"));
        throughput.reconciled += receiver.reconcile(0..webhooks, events);
    }
    anyhow::ensure!(
        throughput.reconciled.missing == 0,
        "deliveries are missing: {:?}",
        throughput.reconciled
    );
    organization.delete().await?;
    Ok(throughput)
}

/// How long single events take to their receiver on a system with nothing else to do, in milliseconds.
pub(crate) async fn latencies_ms(
    stack: &Stack,
    upstream: &Upstream,
    lasting: Duration,
) -> anyhow::Result<Vec<f64>> {
    let receiver = Receiver::start([Manner::Quick]).await?;
    let organization = stack.organization_with(&receiver.urls()).await?;
    upstream.warm_up(&organization, &receiver, 0..1).await;
    let rate = Rate { per_second: ONE_AT_A_TIME, lasting };
    let published = upstream.publish_steadily(&organization.id, rate).await;
    receiver.wait(0..1, published.len(), PATIENCE).await;
    let latencies = receiver.latencies_ms(0..1, &published);
    anyhow::ensure!(latencies.len() == published.len(), "events are missing");
    organization.delete().await?;
    Ok(latencies)
}
