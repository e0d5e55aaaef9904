//! Fairness: what one bad receiver, a flood, an outage, a rate limit or a hundred thousand waiting retries does to
//! everybody else. Every event is reconciled by its id.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::figures::{Row, latency_rows, percentile};
use crate::load::{PATIENCE, Rate, Upstream};
use crate::path;
use crate::receiver::{Manner, Receiver};
use crate::stack::Stack;
use crate::waiting::Waiting;

/// The load of those that are not to notice anything.
const OTHERS_PER_SECOND: u32 = 20;
const HEALTHY: usize = 20;
/// Of each kind.
const BAD: usize = 5;
const SLOW: Duration = Duration::from_secs(10);
/// The last that a receiver gets of what it missed is what was sent as a probe meanwhile: it has failed twice, and
/// is due after five minutes.
const AFTER_AN_OUTAGE: Duration = Duration::from_secs(240);

/// How long the scenarios last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lasting {
    pub(crate) one_neighbour: Duration,
    pub(crate) neighbours: Duration,
    pub(crate) flood: Duration,
    pub(crate) limit: Duration,
    pub(crate) waiting: Duration,
    /// So many deliveries.
    pub(crate) waiting_deliveries: usize,
    /// Left out of the short form: it lasts as long as a breaker's first probes.
    pub(crate) outage: Option<Duration>,
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
            let mut rows = fair.one_neighbour(lasting.one_neighbour).await?;
            rows.extend(fair.neighbours(lasting.neighbours).await?);
            rows
        }
        Scenario::Flood => fair.flood(lasting.flood).await?,
        Scenario::Limit => fair.limit(lasting.limit).await?,
        Scenario::Waiting => fair.waiting(lasting).await?,
        Scenario::Outage => match lasting.outage {
            Some(lasting) => fair.outage(lasting).await?,
            None => Vec::new(),
        },
    };
    fair.upstream.stop();
    Ok(rows)
}

struct Fair<'a> {
    stack: &'a Stack,
    upstream: Upstream,
}

/// Where the bad webhooks are that healthy ones are beside.
#[derive(Debug, Clone, Copy)]
enum Bad {
    Nowhere,
    OfAnother,
    OfTheirOwn,
}

impl Bad {
    fn told(self) -> String {
        match self {
            Self::Nowhere => "alone".to_owned(),
            Self::OfAnother => format!("beside {} bad ones of another organization", 3 * BAD),
            Self::OfTheirOwn => format!("beside {} bad ones of their own", 3 * BAD),
        }
    }
}

/// How long deliveries took, and what became of them.
fn noted_latency_rows(what: &str, latencies_ms: &[f64], note: &str) -> [Row; 2] {
    latency_rows(what, latencies_ms).map(|row| row.note(note))
}

impl Fair<'_> {
    /// A healthy webhook beside another organization's, which never answers.
    async fn one_neighbour(&self, lasting: Duration) -> anyhow::Result<Vec<Row>> {
        const PER_SECOND: u32 = 100;
        let receiver = Receiver::start([Manner::Quick, Manner::Silent]).await?;
        let healthy = self.stack.organization_with(&[receiver.url(0)]).await?;
        let silent = self.stack.organization_with(&[receiver.url(1)]).await?;
        self.upstream.warm_up(healthy.alone(), &receiver, 0..1).await?;
        self.stack.processes.forget_peak_memory()?;
        let rate = Rate { per_second: PER_SECOND, lasting };
        let (published, _) = tokio::join!(
            self.upstream.publish_steadily(healthy.alone(), rate),
            self.upstream.publish_steadily(silent.alone(), rate)
        );
        receiver.wait(0..1, published.len(), PATIENCE).await;
        let what = format!("a webhook of {PER_SECOND} events a second beside one that never answers");
        let note = receiver.reconcile(0..1, published.len()).complete()?.note();
        let mut rows = noted_latency_rows(&what, &receiver.latencies_ms(0..1, &published), &note).to_vec();
        rows.extend(self.stack.processes.peak_memory("at 200 events a second")?);
        healthy.delete().await?;
        silent.delete().await?;
        self.stack.clear_delayed_queues().await?;
        Ok(rows)
    }

    /// Healthy webhooks alone, and beside others that never answer, that answer late, and that fail at once: another
    /// organization's, and their own organization's, where each event is for all of them.
    async fn neighbours(&self, lasting: Duration) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        let mut p99 = Vec::new();
        for bad in [Bad::Nowhere, Bad::OfAnother, Bad::OfTheirOwn] {
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
                Bad::Nowhere => {}
                Bad::OfAnother => another.webhooks(others).await?,
                Bad::OfTheirOwn => organization.webhooks(others).await?,
            }
            let rate = Rate { per_second: OTHERS_PER_SECOND, lasting };
            let second = Upstream::start(&self.stack.amqp_url);
            let (published, _) = tokio::join!(
                self.upstream.publish_steadily(organization.alone(), rate),
                second.publish_steadily(another.alone(), rate)
            );
            second.stop();
            receiver.wait(0..HEALTHY, published.len(), PATIENCE).await;
            let latencies = receiver.latencies_ms(0..HEALTHY, &published);
            p99.push(percentile(&latencies, 0.99));
            let what = format!("{HEALTHY} healthy webhooks {}", bad.told());
            let note = receiver.reconcile(0..HEALTHY, published.len()).complete()?.note();
            rows.extend(noted_latency_rows(&what, &latencies, &note));
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
        let receiver = Receiver::start(vec![Manner::Quick; 2]).await?;
        let flooding = self.stack.organization_with(&[receiver.url(0)]).await?;
        let other = self.stack.organization_with(&[receiver.url(1)]).await?;
        self.upstream.warm_up(flooding.alone(), &receiver, 0..1).await?;
        self.upstream.warm_up(other.alone(), &receiver, 1..2).await?;
        let flood = Rate { per_second: 3_000, lasting };
        let trickle = Rate { per_second: OTHERS_PER_SECOND, lasting };
        // By an upstream each, as organizations have.
        let second = Upstream::start(&self.stack.amqp_url);
        let started = Instant::now();
        let (flooded, trickled) = tokio::join!(
            self.upstream.publish_steadily(flooding.alone(), flood),
            second.publish_steadily(other.alone(), trickle)
        );
        let ended = Instant::now();
        let rate = flooded.len() as f64 / (ended - started).as_secs_f64();
        receiver.wait(0..1, flooded.len(), PATIENCE).await;
        receiver.wait(1..2, trickled.len(), PATIENCE).await;
        second.stop();
        let latencies = receiver.latencies_ms(1..2, &trickled);
        let note = receiver.reconcile(1..2, trickled.len()).complete()?.note();
        let mut rows = noted_latency_rows(
            "a small organization beside a flood of 3,000 events a second",
            &latencies,
            &note,
        )
        .to_vec();
        let behind =
            receiver.last(0..1).map_or(f64::NAN, |last| last.saturating_duration_since(ended).as_secs_f64());
        let note = receiver.reconcile(0..1, flooded.len()).complete()?.note();
        let note = format!("; published at {rate:.0} a second{note}");
        rows.push(Row::new("the flood has all arrived, after its end", "s", vec![behind]).note(note));
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
        let published = self.upstream.publish_steadily(organization.alone(), rate).await;
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
            let latencies = path::latencies_ms(self.stack, &self.upstream, for_how_long).await?;
            rows.extend(latency_rows(&format!("{what}: publish to receipt"), &latencies));
            waiting.end().await?;
        }
        Ok(rows)
    }

    /// A receiver of 500 events a second is down for a while and comes back, beside another organization's.
    async fn outage(&self, lasting: Duration) -> anyhow::Result<Vec<Row>> {
        let down = Arc::new(AtomicBool::new(false));
        let receiver = Receiver::start([Manner::Switched(Arc::clone(&down)), Manner::Quick]).await?;
        let hit = self.stack.organization_with(&[receiver.url(0)]).await?;
        let other = self.stack.organization_with(&[receiver.url(1)]).await?;
        self.upstream.warm_up(hit.alone(), &receiver, 0..1).await?;
        self.upstream.warm_up(other.alone(), &receiver, 1..2).await?;
        // Well for a sixth of the time that it is down, down, then well for another sixth.
        let whole = lasting * 8 / 6;
        let second = Upstream::start(&self.stack.amqp_url);
        let switch = async {
            tokio::time::sleep(lasting / 6).await;
            down.store(true, Ordering::Relaxed);
            let from = Instant::now();
            tokio::time::sleep(lasting).await;
            down.store(false, Ordering::Relaxed);
            (from, Instant::now())
        };
        let (sent, trickled, (from, until)) = tokio::join!(
            self.upstream.publish_steadily(hit.alone(), Rate { per_second: 500, lasting: whole }),
            second.publish_steadily(other.alone(), Rate { per_second: OTHERS_PER_SECOND, lasting: whole }),
            switch
        );
        receiver.wait(1..2, trickled.len(), PATIENCE).await;
        let latencies = receiver.latencies_ms(1..2, &trickled);
        let note = receiver.reconcile(1..2, trickled.len()).complete()?.note();
        let mut rows =
            noted_latency_rows("another organization during an outage", &latencies, &note).to_vec();
        receiver.wait(0..1, sent.len(), AFTER_AN_OUTAGE).await;
        second.stop();
        let requests = receiver.requests(0);
        let during = requests.iter().filter(|at| (from..until).contains(*at)).count();
        rows.push(Row::new(
            "requests to a receiver while it is down",
            "requests/s",
            vec![during as f64 / lasting.as_secs_f64()],
        ));
        let after: Vec<Instant> = requests.iter().copied().filter(|at| *at >= until).collect();
        let most = by_second(&after).into_iter().fold(0.0, f64::max);
        rows.push(Row::new("and in the busiest second after it is back", "requests/s", vec![most]));
        let last = receiver.last(0..1).map_or(f64::NAN, |last| (last - until).as_secs_f64());
        let note = receiver.reconcile(0..1, sent.len()).complete()?.note();
        rows.push(Row::new("everything has arrived, after it is back", "s", vec![last]).note(note));
        hit.delete().await?;
        other.delete().await?;
        Ok(rows)
    }
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
