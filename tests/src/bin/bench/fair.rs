//! Fairness: what one bad receiver, a flood, an outage, a rate limit or a hundred thousand waiting retries does to
//! everybody else. Every event is reconciled by its id.

mod neighbours;

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cost::memory_rows;
use crate::figures::Row;
use crate::load::{PATIENCE, Rate, Upstream};
use crate::path::{self, Latencies};
use crate::receiver::{Manner, Receiver};
use crate::stack::Stack;
use crate::waiting::Waiting;

/// The load of those that are not to notice anything.
const OTHERS_PER_SECOND: u32 = 20;
/// Between two that a receiver gets of what it missed are at most some minutes: the last is what was sent as a probe
/// meanwhile, has failed twice, and is due five minutes after that.
const AFTER_AN_OUTAGE: Duration = Duration::from_secs(300);

/// How long the scenarios last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lasting {
    pub(crate) silent: Duration,
    /// Of neighbours: all else is measured once.
    pub(crate) runs: usize,
    pub(crate) neighbours: Duration,
    pub(crate) flood: Duration,
    pub(crate) limit: Duration,
    pub(crate) waiting: Duration,
    /// So many deliveries.
    pub(crate) waiting_deliveries: usize,
    /// None in the short form, where nobody who was bad gets well, and has to get everything: that takes as long as a
    /// breaker's first probes.
    pub(crate) outage: Option<Duration>,
}

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    Silent,
    Neighbours,
    Flood,
    Limit,
    Waiting,
    Outage,
}

impl Scenario {
    pub(crate) const ALL: [Self; 6] =
        [Self::Silent, Self::Neighbours, Self::Flood, Self::Limit, Self::Waiting, Self::Outage];
}

pub(crate) async fn measure(stack: &Stack, scenario: Scenario, lasting: Lasting) -> anyhow::Result<Vec<Row>> {
    let fair = Fair { stack, upstream: Upstream::start(&stack.amqp_url) };
    let rows = match scenario {
        Scenario::Silent => fair.silent(lasting.silent, lasting.runs).await?,
        Scenario::Neighbours => fair.neighbours(lasting).await?,
        Scenario::Flood => fair.flood(lasting.flood).await?,
        Scenario::Limit => fair.limits(lasting.limit).await?,
        Scenario::Waiting => fair.waiting(lasting).await?,
        Scenario::Outage => match lasting.outage {
            Some(lasting) => fair.outage(lasting).await?,
            None => {
                eprintln!("the short form has no outage");
                Vec::new()
            }
        },
    };
    fair.upstream.stop();
    Ok(rows)
}

struct Fair<'a> {
    stack: &'a Stack,
    upstream: Upstream,
}

impl Fair<'_> {
    /// A healthy webhook beside another organization's, which never answers, and the memory of each service meanwhile.
    async fn silent(&self, lasting: Duration, runs: usize) -> anyhow::Result<Vec<Row>> {
        const PER_SECOND: u32 = 100;
        let rate = Rate { per_second: PER_SECOND, lasting };
        let (mut latencies, mut memory) = (Latencies::default(), Vec::new());
        for _ in 0..runs {
            let receiver = Receiver::start([Manner::Quick, Manner::Silent]).await?;
            let healthy = self.stack.organization_with(&[receiver.url(0)]).await?;
            let silent = self.stack.organization_with(&[receiver.url(1)]).await?;
            self.upstream.warm_up(healthy.alone(), &receiver, 0..1).await?;
            self.stack.processes.forget_peak_memory()?;
            let run = receiver.begin();
            let (published, _) = tokio::join!(
                self.upstream.publish_steadily(run, healthy.alone(), rate),
                self.upstream.publish_steadily(run, silent.alone(), rate)
            );
            receiver.wait(0..1, published.len(), PATIENCE).await;
            latencies.add(&receiver, 0..1, &published)?;
            anyhow::ensure!(receiver.asked(1) > 0, "nothing was sent to the receiver that never answers");
            memory.push(self.stack.processes.peak_memory_mib()?);
            healthy.delete().await?;
            silent.delete().await?;
            self.stack.clear_delayed_queues().await?;
        }
        let what = format!("a webhook of {PER_SECOND} events a second beside one that never answers");
        let mut rows = latencies.rows(&what).to_vec();
        rows.extend(memory_rows("at 200 events a second", &memory));
        Ok(rows)
    }

    /// One organization floods its own webhook while another publishes a little to its own.
    async fn flood(&self, lasting: Duration) -> anyhow::Result<Vec<Row>> {
        const PER_SECOND: u32 = 3_000;
        let receiver = Receiver::start(vec![Manner::Quick; 2]).await?;
        let flooding = self.stack.organization_with(&[receiver.url(0)]).await?;
        let other = self.stack.organization_with(&[receiver.url(1)]).await?;
        self.upstream.warm_up(flooding.alone(), &receiver, 0..1).await?;
        self.upstream.warm_up(other.alone(), &receiver, 1..2).await?;
        // By an upstream each, as organizations have.
        let second = Upstream::start(&self.stack.amqp_url);
        let (run, started) = (receiver.begin(), Instant::now());
        let rate = |per_second| Rate { per_second, lasting };
        let (flooded, trickled) = tokio::join!(
            self.upstream.publish_steadily(run, flooding.alone(), rate(PER_SECOND)),
            second.publish_steadily(run, other.alone(), rate(OTHERS_PER_SECOND))
        );
        let ended = Instant::now();
        second.stop();
        receiver.wait(1..2, trickled.len(), PATIENCE).await;
        let mut latencies = Latencies::default();
        latencies.add(&receiver, 1..2, &trickled)?;
        let what = format!("a small organization beside a flood of {PER_SECOND} events a second");
        let mut rows = latencies.rows(&what).to_vec();
        receiver.wait(0..1, flooded.len(), PATIENCE).await;
        let what = "the flood has all arrived, after its end".to_owned();
        let arrived = arrived_row(what, &receiver, 0..1, flooded.len(), ended)?;
        let rate = flooded.len() as f64 / (ended - started).as_secs_f64();
        let note = format!("; published at {rate:.0} a second{}", arrived.note);
        rows.push(arrived.note(note));
        flooding.delete().await?;
        other.delete().await?;
        Ok(rows)
    }

    /// Webhooks with a rate limit get half as many again, from two senders: few, and many.
    async fn limits(&self, lasting: Duration) -> anyhow::Result<Vec<Row>> {
        let second_sender = self.stack.start_sender().await?;
        let rows = vec![self.limit(10, lasting).await?, self.limit(200, lasting).await?];
        second_sender.stop().await?;
        Ok(rows)
    }

    async fn limit(&self, limit: u32, lasting: Duration) -> anyhow::Result<Row> {
        let receiver = Receiver::start([Manner::Quick]).await?;
        let organization = self.stack.organization("bench").await?;
        organization.webhook(json!({ "url": receiver.url(0), "rate_limit_per_second": limit })).await?;
        self.upstream.warm_up(organization.alone(), &receiver, 0..1).await?;
        let rate = Rate { per_second: limit * 3 / 2, lasting };
        let published = self.upstream.publish_steadily(receiver.begin(), organization.alone(), rate).await;
        receiver.wait(0..1, published.len(), PATIENCE).await;
        let requests = receiver.requests(0);
        let by_second = by_second(&requests);
        // All but the last, which is not whole.
        let whole = &by_second[..by_second.len().saturating_sub(1)];
        let tens = whole.chunks(10).filter(|ten| ten.len() == whole.len().min(10));
        let rates: Vec<f64> = tens.map(|ten| ten.iter().sum::<f64>() / ten.len() as f64).collect();
        let range =
            |pick: fn(f64, f64) -> f64, of: &[f64]| of.iter().copied().reduce(pick).unwrap_or(f64::NAN);
        let note = format!(
            " (in ten seconds from {:.1} to {:.1} a second){}",
            range(f64::min, &rates),
            range(f64::max, &rates),
            receiver.reconcile(0..1, published.len()).complete()?.note()
        );
        let mean = whole.iter().sum::<f64>() / whole.len() as f64;
        organization.delete().await?;
        let what = format!("a limit of {limit} a second, two senders");
        Ok(Row::new(what, "deliveries/s", vec![mean]).note(note))
    }

    /// Deliveries that wait in the delayed queues cost the broker nothing, and delay nobody.
    async fn waiting(&self, lasting: Lasting) -> anyhow::Result<Vec<Row>> {
        let (mut rows, for_how_long) = (Vec::new(), lasting.waiting);
        for waiting in [0, lasting.waiting_deliveries] {
            let waiting = Waiting::of(self.stack, &self.upstream, waiting).await?;
            let before = self.stack.processes.spent()?;
            tokio::time::sleep(for_how_long).await;
            let spent = self.stack.processes.spent()?.since(&before, |name| name == "RABBITMQ");
            let cpu = 100.0 * spent / for_how_long.as_secs_f64();
            let what = format!("{} deliveries wait", waiting.deliveries);
            rows.push(Row::new(format!("{what}: the broker's CPU meanwhile"), "% of a core", vec![cpu]));
            let latencies = path::latencies(self.stack, &self.upstream, for_how_long, 1).await?;
            rows.extend(latencies.rows(&format!("{what}: publish to receipt")));
            waiting.end().await?;
        }
        Ok(rows)
    }

    /// A receiver of 500 events a second is well for a while, down for as long, and comes back, beside another
    /// organization's.
    async fn outage(&self, lasting: Duration) -> anyhow::Result<Vec<Row>> {
        const PER_SECOND: u32 = 500;
        let receiver = Receiver::start([Manner::Failing, Manner::Quick]).await?;
        receiver.are_well(0..1, true);
        let hit = self.stack.organization_with(&[receiver.url(0)]).await?;
        let other = self.stack.organization_with(&[receiver.url(1)]).await?;
        self.upstream.warm_up(hit.alone(), &receiver, 0..1).await?;
        self.upstream.warm_up(other.alone(), &receiver, 1..2).await?;
        let second = Upstream::start(&self.stack.amqp_url);
        let publish = async |run, lasting| {
            let rate = |per_second| Rate { per_second, lasting };
            tokio::join!(
                self.upstream.publish_steadily(run, hit.alone(), rate(PER_SECOND)),
                second.publish_steadily(run, other.alone(), rate(OTHERS_PER_SECOND))
            )
        };
        let (sent, trickled) = publish(receiver.begin(), lasting).await;
        receiver.wait(1..2, trickled.len(), PATIENCE).await;
        receiver.wait(0..1, sent.len(), PATIENCE).await;
        let _ = receiver.reconcile(0..1, sent.len()).complete()?;
        let mut latencies = Latencies::default();
        latencies.add(&receiver, 1..2, &trickled)?;
        let mut rows = latencies.rows("another organization before an outage, under the same load").to_vec();

        // Well for a sixth of the time that it is down, down, then well for another sixth.
        let run = receiver.begin();
        let is_down = async {
            tokio::time::sleep(lasting / 6).await;
            receiver.are_well(0..1, false);
            let from = Instant::now();
            tokio::time::sleep(lasting).await;
            receiver.are_well(0..1, true);
            from..Instant::now()
        };
        let ((sent, trickled), down) = tokio::join!(publish(run, lasting * 8 / 6), is_down);
        second.stop();
        receiver.wait(1..2, trickled.len(), PATIENCE).await;
        let mut latencies = Latencies::default();
        latencies.add(&receiver, 1..2, &trickled)?;
        rows.extend(latencies.rows("another organization during an outage"));
        receiver.wait(0..1, sent.len(), AFTER_AN_OUTAGE).await;
        let what = "everything has arrived, after it is back".to_owned();
        let arrived = arrived_row(what, &receiver, 0..1, sent.len(), down.end)?;
        let requests = receiver.requests(0);
        let during = requests.iter().filter(|at| down.contains(*at)).count() as f64;
        let after: Vec<Instant> = requests.into_iter().filter(|at| *at >= down.end).collect();
        let most = by_second(&after).into_iter().fold(0.0, f64::max);
        let requests = |what: &str, a_second| Row::new(what, "requests/s", vec![a_second]);
        rows.push(requests("to a receiver while it is down", during / lasting.as_secs_f64()));
        rows.push(requests("to it in the busiest second after it is back", most));
        rows.push(arrived);
        hit.delete().await?;
        other.delete().await?;
        Ok(rows)
    }
}

/// How long after `since` the last of all events came to these hooks; an error if one is missing.
fn arrived_row(
    what: String,
    receiver: &Receiver,
    hooks: std::ops::Range<usize>,
    events: usize,
    since: Instant,
) -> anyhow::Result<Row> {
    let reconciled = receiver.reconcile(hooks.clone(), events).complete()?;
    let last =
        receiver.last(hooks).map_or(f64::NAN, |last| last.saturating_duration_since(since).as_secs_f64());
    Ok(Row::new(what, "s", vec![last]).note(reconciled.note()))
}

/// How many there were in each second from the first on.
fn by_second(times: &[Instant]) -> Vec<f64> {
    let Some(first) = times.iter().min() else { return Vec::new() };
    let mut seconds = Vec::new();
    for at in times {
        let second = (*at - *first).as_secs() as usize;
        if seconds.len() <= second {
            seconds.resize(second + 1, 0.0);
        }
        seconds[second] += 1.0;
    }
    seconds
}
