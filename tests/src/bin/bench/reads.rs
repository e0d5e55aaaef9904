//! What the API takes to read from a long event log: its lists, one event with its deliveries, statistics; each asked
//! of many organizations, one request after another.

use std::time::Instant;

use anyhow::Context;
use cuewire::delivery::rfc3339;
use serde_json::Value;
use time::Duration;

use crate::figures::{Row, percentile, thousands};
use crate::history::{DAYS, History, Past, TYPES};
use crate::population::Population;
use crate::stack::Stack;

/// Of which the first has a tenth of the log.
const ORGANIZATIONS: usize = 20;
/// Primes, so that places in the log and in time repeat as late as they can.
const EVENT_STRIDE: usize = 7_368_787;
const MINUTE_STRIDE: usize = 4_013;
/// How far a reader turns the pages.
const PAGES: usize = 10;
const STATISTICS_DAYS: i64 = 7;

/// How much is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// Events in the log, at least.
    pub(crate) log: usize,
    /// Webhooks registered, at least.
    pub(crate) webhooks: usize,
    pub(crate) runs: usize,
    /// Requests of each kind in a run.
    pub(crate) requests: usize,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Events,
    EventsOfAnHour,
    EventsOfAType,
    EventsOfASubject,
    Event,
    Delivery,
    Attempts,
    DeadLetters,
    DeadLettersOfAWebhook,
    Webhooks,
    StatisticsOfADay,
    StatisticsOfAWeek,
}

const KINDS: [(Kind, &str); 12] = [
    (Kind::Events, "events, page by page"),
    (Kind::EventsOfAnHour, "events of an hour"),
    (Kind::EventsOfAType, "events of one type, from some time back"),
    (Kind::EventsOfASubject, "events of one subject in a thousand"),
    (Kind::Event, "one event with its deliveries"),
    (Kind::Delivery, "one delivery with its attempts"),
    (Kind::Attempts, "a webhook's attempts, page by page"),
    (Kind::DeadLetters, "dead letters, page by page"),
    (Kind::DeadLettersOfAWebhook, "dead letters of a webhook"),
    (Kind::Webhooks, "an organization's webhooks, page by page"),
    (Kind::StatisticsOfADay, "a webhook's statistics of a day"),
    (Kind::StatisticsOfAWeek, "a webhook's statistics of a week"),
];

pub(crate) async fn measure(
    stack: &Stack,
    reading: Reading,
    population: &mut Population,
    history: &mut History,
) -> anyhow::Result<Vec<Row>> {
    population.grow_to(stack, reading.webhooks).await?;
    history.grow_to(stack, population, reading.log).await?;
    history.count(stack).await?;
    let mut keys = Vec::new();
    for organization in population.organizations.iter().take(ORGANIZATIONS) {
        keys.push(stack.key_of(organization).await?);
    }
    let reader = Reader { stack, population, history, keys };
    let mut rows = Vec::new();
    for (kind, what) in KINDS {
        let (mut p50, mut p99) = (Vec::new(), Vec::new());
        for run in 0..reading.runs {
            let took = reader.read(kind, run * reading.requests, reading.requests).await?;
            p50.push(percentile(&took, 0.5));
            p99.push(percentile(&took, 0.99));
        }
        let name = format!("read of {} events: {what}", thousands(history.events));
        rows.push(Row::new(format!("{name}, p50"), "ms", p50));
        rows.push(Row::new(format!("{name}, p99"), "ms", p99));
    }
    Ok(rows)
}

struct Reader<'a> {
    stack: &'a Stack,
    population: &'a Population,
    history: &'a History,
    keys: Vec<String>,
}

impl Reader<'_> {
    /// How long so many requests took, in milliseconds, of those from `first` on.
    async fn read(&self, kind: Kind, first: usize, requests: usize) -> anyhow::Result<Vec<f64>> {
        let (mut took, mut number, mut found) = (Vec::with_capacity(requests), first, 0);
        while took.len() < requests {
            let organization = number % self.keys.len();
            let path = self.path(kind, organization, number)?;
            let mut page = path.clone();
            for _ in 0..PAGES.min(requests - took.len()) {
                let started = Instant::now();
                let body = self.stack.get(&page, &self.keys[organization]).await?;
                took.push(started.elapsed().as_secs_f64() * 1e3);
                let answer: Value = serde_json::from_slice(&body)?;
                let list = ["data", "deliveries", "attempts"].iter().find_map(|list| answer[list].as_array());
                found += list.map_or(0, Vec::len);
                let Some(cursor) = answer["next_cursor"].as_str() else { break };
                let joint = if path.contains('?') { '&' } else { '?' };
                page = format!("{path}{joint}cursor={cursor}");
            }
            number += 1;
        }
        anyhow::ensure!(found > 0, "{kind:?}: nothing was found");
        Ok(took)
    }

    /// What the request of this number asks for, of an organization.
    fn path(&self, kind: Kind, organization: usize, number: usize) -> anyhow::Result<String> {
        let past = self.event(organization, number)?;
        let Past { id, webhook, subject, .. } = &past;
        // Within all days but the last, which may have only just begun.
        let back = number * MINUTE_STRIDE % ((DAYS - 1) * 24 * 60 - 60);
        let to = self.history.minutes_before_today(back);
        Ok(match kind {
            Kind::Events => "/v1/events".to_owned(),
            Kind::EventsOfAnHour => {
                format!("/v1/events?from={}&to={}", rfc3339(to - Duration::HOUR), rfc3339(to))
            }
            Kind::EventsOfAType => {
                format!("/v1/events?type={}&to={}", TYPES[number % TYPES.len()], rfc3339(to))
            }
            Kind::EventsOfASubject => format!("/v1/events?subject={subject}"),
            Kind::Event => format!("/v1/events/{id}"),
            Kind::Delivery => format!("/v1/deliveries/{}", past.delivery()),
            Kind::Attempts => format!("/v1/webhooks/{webhook}/attempts"),
            Kind::DeadLetters => "/v1/dead-letters".to_owned(),
            Kind::DeadLettersOfAWebhook => format!("/v1/dead-letters?webhook_id={webhook}"),
            Kind::Webhooks => "/v1/webhooks".to_owned(),
            Kind::StatisticsOfADay => {
                format!(
                    "/v1/webhooks/{webhook}/stats?from={}&to={}",
                    rfc3339(to - Duration::DAY),
                    rfc3339(to)
                )
            }
            Kind::StatisticsOfAWeek => {
                let to = self.history.minutes_before_today(0);
                let from = to - Duration::days(STATISTICS_DAYS);
                format!("/v1/webhooks/{webhook}/stats?from={}&to={}", rfc3339(from), rfc3339(to))
            }
        })
    }

    /// An event of the organization, from anywhere in the log.
    fn event(&self, organization: usize, number: usize) -> anyhow::Result<Past> {
        let from = number * EVENT_STRIDE % (self.history.events / 2).max(1);
        let event = self.history.first_of(self.population, organization, from);
        event.with_context(|| format!("the log has no event of organization {organization}"))
    }
}
