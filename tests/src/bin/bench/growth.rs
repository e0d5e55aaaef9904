//! What a delivery costs as there is more of everything else: webhooks, events in the log, deliveries that wait.

use std::time::Duration;

use crate::cost::Blocks;
use crate::figures::{Place, Row, percentiles, thousands};
use crate::history::History;
use crate::load::{CHANNELS, Upstream};
use crate::path::{self, Audience};
use crate::population::Population;
use crate::receiver::{Manner, Receiver};
use crate::stack::Stack;
use crate::waiting::Waiting;

/// How far everything grows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Growing {
    /// Registered webhooks, after the first: of organizations with a hundred each.
    pub(crate) webhooks: &'static [usize],
    /// Events in the log.
    pub(crate) log: &'static [usize],
    /// Deliveries that wait.
    pub(crate) waiting: &'static [usize],
    /// Events in a run, or one for each webhook if that is more.
    pub(crate) events: usize,
    pub(crate) runs: usize,
    pub(crate) latency_for: Duration,
}

pub(crate) async fn measure(
    stack: &Stack,
    growing: Growing,
    population: &mut Population,
    history: &mut History,
) -> anyhow::Result<Vec<Row>> {
    let upstream = Upstream::start(&stack.amqp_url);
    let growth = Growth { stack, upstream: &upstream, growing };
    let mut rows = growth.alone().await?;
    population.grow_to(stack, CHANNELS).await?;
    rows.extend(growth.waiting(population.the_first()).await?);
    for webhooks in growing.webhooks {
        population.grow_to(stack, *webhooks).await?;
        rows.extend(growth.point(population.everybody(), "webhooks registered", *webhooks).await?);
    }
    history.clear(stack).await?;
    for events in growing.log {
        history.grow_to(stack, population, *events).await?;
        rows.extend(growth.point(population.the_first(), "events in the log", *events).await?);
    }
    upstream.stop();
    Ok(rows)
}

struct Growth<'a> {
    stack: &'a Stack,
    upstream: &'a Upstream,
    growing: Growing,
}

impl Growth<'_> {
    /// One webhook and no other.
    async fn alone(&self) -> anyhow::Result<Vec<Row>> {
        let receiver = Receiver::start([Manner::Quick]).await?;
        let organization = self.stack.organization_with(&receiver.urls()).await?;
        let audience = Audience { organizations: organization.alone(), receiver: &receiver, hooks: 1 };
        let rows = self.point(audience, "webhooks registered", 1).await?;
        organization.delete().await?;
        Ok(rows)
    }

    async fn waiting(&self, audience: Audience<'_>) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        let mut waiting = Waiting::of(self.stack, self.upstream, 0).await?;
        for deliveries in self.growing.waiting {
            let more = deliveries - waiting.deliveries;
            waiting = waiting.and(self.upstream, more).await?;
            rows.extend(self.point(audience, "deliveries waiting", *deliveries).await?);
        }
        waiting.end().await?;
        Ok(rows)
    }

    /// What deliveries cost, and how long they take, with so much of what grows.
    async fn point(&self, audience: Audience<'_>, axis: &'static str, x: usize) -> anyhow::Result<Vec<Row>> {
        let Growing { events, runs, latency_for, .. } = self.growing;
        let Audience { organizations, receiver, .. } = audience;
        self.upstream.warm_up(organizations, receiver, 0..1).await?;
        let events = events.max(organizations.len() * CHANNELS);
        let before = Blocks::until_now(self.stack).await?;
        let throughput = path::throughput(self.stack, self.upstream, audience, events, runs).await?;
        let latencies = path::latencies_to(self.upstream, audience, latency_for, runs).await?;
        let deliveries = events * runs + latencies.runs_ms.iter().map(Vec::len).sum::<usize>();
        let blocks = Blocks::until_now(self.stack).await?.since(&before);
        let load = format!("{axis} = {}", thousands(x));
        let place = |what: &str, line| Place { plot: format!("{what}, by {axis}"), axis, x, line };
        let took = |line, share| {
            let name = format!("publish to receipt, {load}: {line}");
            let values = percentiles(&latencies.runs_ms, share);
            let row = Row::new(name, "ms", values).note(latencies.note());
            row.at(place("from publish to receipt", line))
        };
        let [rate, services, broker, database] = throughput.rows(&load, "");
        let cost = |row: Row, line| row.at(place("CPU for 1,000 deliveries", line));
        Ok(vec![
            rate.at(place("deliveries a second", "deliveries")),
            cost(services, "the four services"),
            cost(broker, "the broker"),
            cost(database, "the database"),
            took("p50", 0.5),
            took("p99", 0.99),
            blocks.row(&load, deliveries),
        ])
    }
}
