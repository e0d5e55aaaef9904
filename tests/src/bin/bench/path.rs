//! The path: events published to RabbitMQ until their receivers have them, as fast as it carries them, and one at a
//! time.

use std::time::{Duration, Instant};

use crate::Load;
use crate::cost::{SERVICES, memory_rows};
use crate::figures::{Row, latency_rows, median};
use crate::load::{PATIENCE, Rate, Upstream};
use crate::receiver::{Manner, Receiver, Reconciled};
use crate::stack::Stack;

const FAN_OUT: usize = 10;
pub(crate) const ONE_AT_A_TIME: u32 = 50;

pub(crate) async fn measure(stack: &Stack, load: Load, two_hops: &Row) -> anyhow::Result<Vec<Row>> {
    let upstream = Upstream::start(&stack.amqp_url);
    stack.processes.forget_peak_memory()?;
    let single = to_webhooks(stack, &upstream, load.events, load.runs, 1).await?;
    let share = 100.0 * median(&single.rates) / median(&two_hops.values);
    let mut rows =
        single.rows("1 webhook, 1 KiB events", &format!(", {share:.0}% of two queues without work")).to_vec();
    let fan_out = to_webhooks(stack, &upstream, load.events / 5, load.runs, FAN_OUT).await?;
    rows.extend(fan_out.rows(&format!("fan-out to {FAN_OUT} webhooks"), ""));
    rows.extend(memory_rows("at full load", &[stack.processes.peak_memory_mib()?]));
    let latencies = latencies(stack, &upstream, load.latency_for, load.runs).await?;
    rows.extend(latencies.rows(&format!("publish to receipt at {ONE_AT_A_TIME} events a second")));
    upstream.stop();
    Ok(rows)
}

/// Who gets the events: by turns these organizations, whose webhooks are the receiver's first hooks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Audience<'a> {
    pub(crate) organizations: &'a [String],
    pub(crate) receiver: &'a Receiver,
    /// How many hooks get each event.
    pub(crate) hooks: usize,
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
    /// The rate, and the cost of the services, of the broker and of the database.
    pub(crate) fn rows(self, load: &str, note: &str) -> [Row; 4] {
        let cpu = |of: &str, values| Row::new(format!("CPU for 1,000 deliveries, {load}: {of}"), "s", values);
        [
            Row::new(format!("deliveries, {load}"), "deliveries/s", self.rates)
                .note(format!("{note}{}", self.reconciled.note())),
            cpu("the four services", self.services_s),
            cpu("the broker", self.broker_s),
            cpu("the database", self.database_s),
        ]
    }
}

async fn to_webhooks(
    stack: &Stack,
    upstream: &Upstream,
    events: usize,
    runs: usize,
    webhooks: usize,
) -> anyhow::Result<Throughput> {
    let receiver = Receiver::start(vec![Manner::Quick; webhooks]).await?;
    let organization = stack.organization_with(&receiver.urls()).await?;
    upstream.warm_up(organization.alone(), &receiver, 0..webhooks).await?;
    let audience = Audience { organizations: organization.alone(), receiver: &receiver, hooks: webhooks };
    let throughput = throughput(stack, upstream, audience, events, runs).await?;
    organization.delete().await?;
    Ok(throughput)
}

/// Publishes as fast as confirms allow, and reconciles what arrives.
pub(crate) async fn throughput(
    stack: &Stack,
    upstream: &Upstream,
    audience: Audience<'_>,
    events: usize,
    runs: usize,
) -> anyhow::Result<Throughput> {
    let Audience { organizations, receiver, hooks } = audience;
    let mut throughput = Throughput::default();
    for _ in 0..runs {
        let run = receiver.begin();
        let before = stack.processes.spent()?;
        let started = Instant::now();
        upstream.publish_all(run, organizations, events).await;
        receiver.wait(0..hooks, events, PATIENCE).await;
        let elapsed = receiver.last(0..hooks).map_or(Duration::MAX, |last| last - started);
        let deliveries = (events * hooks) as f64;
        throughput.rates.push(deliveries / elapsed.as_secs_f64());
        let after = stack.processes.spent()?;
        let cost =
            |is_counted: &dyn Fn(&str) -> bool| 1_000.0 * after.since(&before, is_counted) / deliveries;
        throughput.services_s.push(cost(&|name| SERVICES.contains(&name)));
        throughput.broker_s.push(cost(&|name| name == "RABBITMQ"));
        throughput.database_s.push(cost(&|name| name == "POSTGRES"));
        throughput.reconciled += receiver.reconcile(0..hooks, events);
    }
    throughput.reconciled.complete()?;
    Ok(throughput)
}

/// How long deliveries took, in milliseconds, run by run, and what became of them.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    pub(crate) runs_ms: Vec<Vec<f64>>,
    reconciled: Reconciled,
}

impl Latencies {
    /// Those of one more run; an error if something is missing.
    pub(crate) fn add(
        &mut self,
        receiver: &Receiver,
        hooks: std::ops::Range<usize>,
        published: &[Instant],
    ) -> anyhow::Result<()> {
        self.reconciled += receiver.reconcile(hooks.clone(), published.len()).complete()?;
        self.runs_ms.push(receiver.latencies_ms(hooks, published));
        Ok(())
    }

    pub(crate) fn rows(&self, what: &str) -> [Row; 2] {
        latency_rows(what, &self.runs_ms).map(|row| row.note(self.note()))
    }

    pub(crate) fn note(&self) -> String {
        self.reconciled.note()
    }
}

/// How long single events take to their receiver on a system with nothing else to do.
pub(crate) async fn latencies(
    stack: &Stack,
    upstream: &Upstream,
    lasting: Duration,
    runs: usize,
) -> anyhow::Result<Latencies> {
    let receiver = Receiver::start([Manner::Quick]).await?;
    let organization = stack.organization_with(&receiver.urls()).await?;
    upstream.warm_up(organization.alone(), &receiver, 0..1).await?;
    let audience = Audience { organizations: organization.alone(), receiver: &receiver, hooks: 1 };
    let latencies = latencies_to(upstream, audience, lasting, runs).await?;
    organization.delete().await?;
    Ok(latencies)
}

/// How long single events take to these, with nothing else to do.
pub(crate) async fn latencies_to(
    upstream: &Upstream,
    audience: Audience<'_>,
    lasting: Duration,
    runs: usize,
) -> anyhow::Result<Latencies> {
    let Audience { organizations, receiver, hooks } = audience;
    let rate = Rate { per_second: ONE_AT_A_TIME, lasting };
    let mut latencies = Latencies::default();
    for _ in 0..runs {
        let published = upstream.publish_steadily(receiver.begin(), organizations, rate).await;
        receiver.wait(0..hooks, published.len(), PATIENCE).await;
        latencies.add(receiver, 0..hooks, &published)?;
    }
    Ok(latencies)
}
