//! Fairness: what one bad receiver, a flood, an outage, a rate limit or a hundred thousand waiting retries does to
//! everybody else. Every event is reconciled by its id.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cost::memory_rows;
use crate::figures::{Row, latency_rows, percentile};
use crate::load::{PATIENCE, Rate, Upstream};
use crate::path;
use crate::receiver::{Manner, Receiver, Reconciled};
use crate::stack::Stack;
use crate::waiting::Waiting;

/// The load of those that are not to notice anything.
const OTHERS_PER_SECOND: u32 = 20;
const HEALTHY: usize = 20;
/// Of each of three kinds.
const BAD: usize = 5;
const SLOW: Duration = Duration::from_secs(10);
/// The last that a receiver gets of what it missed is what was sent as a probe meanwhile: it has failed twice, and
/// is due after five minutes. Nothing arriving for so long means that nothing will.
const AFTER_AN_OUTAGE: Duration = Duration::from_secs(240);

/// How long the scenarios last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lasting {
    pub(crate) one_neighbour: Duration,
    /// Of one neighbour: the others are once.
    pub(crate) runs: usize,
    pub(crate) neighbours: Duration,
    pub(crate) flood: Duration,
    pub(crate) limit: Duration,
    pub(crate) waiting: Duration,
    /// So many deliveries.
    pub(crate) waiting_deliveries: usize,
    pub(crate) outage: Duration,
    /// Whether who was bad gets well, and has to get everything then: it takes as long as a breaker's first probes.
    pub(crate) recovery: bool,
}

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    Neighbours,
    Flood,
    Limit,
    Waiting,
    Outage,
}

impl Scenario {
    pub(crate) const ALL: [Self; 5] =
        [Self::Neighbours, Self::Flood, Self::Limit, Self::Waiting, Self::Outage];
}

pub(crate) async fn measure(stack: &Stack, scenario: Scenario, lasting: Lasting) -> anyhow::Result<Vec<Row>> {
    let fair = Fair { stack, upstream: Upstream::start(&stack.amqp_url) };
    let rows = match scenario {
        Scenario::Neighbours => {
            let mut rows = fair.one_neighbour(lasting.one_neighbour, lasting.runs).await?;
            rows.extend(fair.neighbours(lasting).await?);
            rows
        }
        Scenario::Flood => fair.flood(lasting.flood).await?,
        Scenario::Limit => fair.limit(lasting.limit).await?,
        Scenario::Waiting => fair.waiting(lasting).await?,
        Scenario::Outage if lasting.recovery => fair.outage(lasting.outage).await?,
        Scenario::Outage => Vec::new(),
    };
    fair.upstream.stop();
    Ok(rows)
}

struct Fair<'a> {
    stack: &'a Stack,
    upstream: Upstream,
}

/// Whose the bad webhooks are that healthy ones are beside.
#[derive(Debug, Clone, Copy)]
enum Bad {
    Nobodys,
    Anothers,
    TheirOwn,
}

impl Bad {
    fn told(self) -> &'static str {
        match self {
            Self::Nobodys => "no bad ones",
            Self::Anothers => "15 bad ones of another organization",
            Self::TheirOwn => "15 bad ones of their own",
        }
    }
}

/// How long a run's deliveries took, and what became of them.
fn reconciled_latency_rows(what: &str, latencies_ms: Vec<f64>, reconciled: Reconciled) -> [Row; 2] {
    latency_rows(what, &[latencies_ms]).map(|row| row.note(reconciled.note()))
}

impl Fair<'_> {
    /// A healthy webhook beside another organization's, which never answers, and the memory of each service meanwhile.
    async fn one_neighbour(&self, lasting: Duration, runs: usize) -> anyhow::Result<Vec<Row>> {
        const PER_SECOND: u32 = 100;
        let rate = Rate { per_second: PER_SECOND, lasting };
        let (mut latencies, mut memory) = (Vec::new(), Vec::new());
        let mut reconciled = Reconciled::default();
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
            reconciled += receiver.reconcile(0..1, published.len()).complete()?;
            latencies.push(receiver.latencies_ms(0..1, &published));
            memory.push(self.stack.processes.peak_memory_mib()?);
            healthy.delete().await?;
            silent.delete().await?;
            self.stack.clear_delayed_queues().await?;
        }
        let what = format!("a webhook of {PER_SECOND} events a second beside one that never answers");
        let mut rows = latency_rows(&what, &latencies).map(|row| row.note(reconciled.note())).to_vec();
        rows.extend(memory_rows("at 200 events a second", &memory));
        Ok(rows)
    }

    /// Healthy webhooks alone, and beside others that never answer, that answer late, and that fail at once: another
    /// organization's, and their own organization's, where each event is for all of them. Then the others are well, and
    /// have to get everything.
    async fn neighbours(&self, lasting: Lasting) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        let mut p99 = Vec::new();
        for bad in [Bad::Nobodys, Bad::Anothers, Bad::TheirOwn] {
            let manners = [
                vec![Manner::Quick; HEALTHY],
                vec![Manner::Silent; BAD],
                vec![Manner::Slow(SLOW); BAD],
                vec![Manner::Failing; BAD],
            ];
            let receiver = Receiver::start(manners.concat()).await?;
            let urls = receiver.urls();
            let (healthy, others) = urls.split_at(HEALTHY);
            let organization = self.stack.organization_with(healthy).await?;
            let another = self.stack.organization("bench").await?;
            self.upstream.warm_up(organization.alone(), &receiver, 0..HEALTHY).await?;
            match bad {
                Bad::Nobodys => {}
                Bad::Anothers => another.webhooks(others).await?,
                Bad::TheirOwn => organization.webhooks(others).await?,
            }
            let rate = Rate { per_second: OTHERS_PER_SECOND, lasting: lasting.neighbours };
            let second = Upstream::start(&self.stack.amqp_url);
            let run = receiver.begin();
            let (published, _) = tokio::join!(
                self.upstream.publish_steadily(run, organization.alone(), rate),
                second.publish_steadily(run, another.alone(), rate)
            );
            second.stop();
            receiver.wait(0..HEALTHY, published.len(), PATIENCE).await;
            let latencies = receiver.latencies_ms(0..HEALTHY, &published);
            p99.push(percentile(&latencies, 0.99));
            let what = format!("{HEALTHY} healthy webhooks beside {}", bad.told());
            let reconciled = receiver.reconcile(0..HEALTHY, published.len()).complete()?;
            rows.extend(reconciled_latency_rows(&what, latencies, reconciled));
            if lasting.recovery && !matches!(bad, Bad::Nobodys) {
                receiver.are_well(HEALTHY..urls.len(), true);
                let what = format!("everything has arrived at {}, after they are well", bad.told());
                let well_at = Instant::now();
                rows.push(arrived_row(what, &receiver, HEALTHY..urls.len(), published.len(), well_at).await?);
            }
            organization.delete().await?;
            another.delete().await?;
            self.stack.clear_delayed_queues().await?;
        }
        for (what, p99_beside) in [("another's", p99[1]), ("their own", p99[2])] {
            let what = format!("their p99 beside {what} bad ones, of that without");
            rows.push(Row::new(what, "times", vec![p99_beside / p99[0]]));
        }
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
        let what = format!("a small organization beside a flood of {PER_SECOND} events a second");
        let reconciled = receiver.reconcile(1..2, trickled.len()).complete()?;
        let mut rows =
            reconciled_latency_rows(&what, receiver.latencies_ms(1..2, &trickled), reconciled).to_vec();
        let rate = flooded.len() as f64 / (ended - started).as_secs_f64();
        let what = format!("the flood, published at {rate:.0} a second, has all arrived, after its end");
        rows.push(arrived_row(what, &receiver, 0..1, flooded.len(), ended).await?);
        flooding.delete().await?;
        other.delete().await?;
        Ok(rows)
    }

    /// A webhook whose limit is 10 a second gets half as many again, from two senders.
    async fn limit(&self, lasting: Duration) -> anyhow::Result<Vec<Row>> {
        const LIMIT: u32 = 10;
        let second_sender = self.stack.start_sender().await?;
        let receiver = Receiver::start([Manner::Quick]).await?;
        let organization = self.stack.organization("bench").await?;
        organization.webhook(json!({ "url": receiver.url(0), "rate_limit_per_second": LIMIT })).await?;
        self.upstream.warm_up(organization.alone(), &receiver, 0..1).await?;
        let rate = Rate { per_second: LIMIT * 3 / 2, lasting };
        let published = self.upstream.publish_steadily(receiver.begin(), organization.alone(), rate).await;
        receiver.wait(0..1, published.len(), PATIENCE).await;
        let requests = receiver.requests(0);
        // In the first seconds it is not yet above the limit.
        let by_second = by_second(&requests);
        let whole = &by_second[by_second.len().min(5)..by_second.len().saturating_sub(1)];
        let rates: Vec<f64> =
            whole.chunks(10).map(|ten| ten.iter().sum::<f64>() / ten.len() as f64).collect();
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
        second_sender.stop().await?;
        Ok(vec![Row::new("a limit of 10 a second, two senders", "deliveries/s", vec![mean]).note(note)])
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
            let latencies = path::latencies_ms(self.stack, &self.upstream, for_how_long, 1).await?;
            rows.extend(latency_rows(&format!("{what}: publish to receipt"), &latencies));
            waiting.end().await?;
        }
        Ok(rows)
    }

    /// A receiver of 500 events a second is down for a while and comes back, beside another organization's.
    async fn outage(&self, lasting: Duration) -> anyhow::Result<Vec<Row>> {
        const PER_SECOND: u32 = 500;
        let receiver = Receiver::start([Manner::Failing, Manner::Quick]).await?;
        receiver.are_well(0..1, true);
        let hit = self.stack.organization_with(&[receiver.url(0)]).await?;
        let other = self.stack.organization_with(&[receiver.url(1)]).await?;
        self.upstream.warm_up(hit.alone(), &receiver, 0..1).await?;
        self.upstream.warm_up(other.alone(), &receiver, 1..2).await?;
        // Well for a sixth of the time that it is down, down, then well for another sixth.
        let rate = |per_second| Rate { per_second, lasting: lasting * 8 / 6 };
        let second = Upstream::start(&self.stack.amqp_url);
        let run = receiver.begin();
        let is_down = async {
            tokio::time::sleep(lasting / 6).await;
            receiver.are_well(0..1, false);
            let from = Instant::now();
            tokio::time::sleep(lasting).await;
            receiver.are_well(0..1, true);
            from..Instant::now()
        };
        let (sent, trickled, down) = tokio::join!(
            self.upstream.publish_steadily(run, hit.alone(), rate(PER_SECOND)),
            second.publish_steadily(run, other.alone(), rate(OTHERS_PER_SECOND)),
            is_down
        );
        second.stop();
        receiver.wait(1..2, trickled.len(), PATIENCE).await;
        let reconciled = receiver.reconcile(1..2, trickled.len()).complete()?;
        let latencies = receiver.latencies_ms(1..2, &trickled);
        let mut rows =
            reconciled_latency_rows("another organization during an outage", latencies, reconciled).to_vec();
        let what = "everything has arrived, after it is back".to_owned();
        let arrived = arrived_row(what, &receiver, 0..1, sent.len(), down.end).await?;
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

/// How long after `since` these hooks have everything, in seconds: it waits for that.
async fn arrived_row(
    what: String,
    receiver: &Receiver,
    hooks: std::ops::Range<usize>,
    events: usize,
    since: Instant,
) -> anyhow::Result<Row> {
    receiver.wait(hooks.clone(), events, AFTER_AN_OUTAGE).await;
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
