//! The router's index: what an event costs by the number of webhooks, and what a webhook costs in memory.

use std::hint::black_box;
use std::time::Instant;

use cuewire::event::Event;
use cuewire::filter::Filter;
use cuewire::ids::{OrganizationId, WebhookId};
use cuewire::webhook::{Pattern, Subscription};
use cuewire_router::matching::Index;

use crate::figures::{Place, Row};

const ORGANIZATIONS: usize = 10_000;
const CATEGORIES: [&str; 10] =
    ["feeds", "media", "recordings", "transcoder", "input", "output", "assets", "video", "file", "encoding"];
const EVENTS: usize = 200_000;

pub(crate) fn measure(max_webhooks: usize) -> Vec<Row> {
    // Kept to the end: in what one of them gives back, the next would cost nothing.
    let (mut rows, mut kept) = (Vec::new(), Vec::new());
    for webhooks in [1_000, 100_000, 1_000_000] {
        if webhooks <= max_webhooks {
            rows.extend(measure_with(webhooks, &mut kept));
        }
    }
    rows
}

/// Webhooks spread over the organizations as customers have them: most want one category, some everything, some
/// one pool of a category.
fn measure_with(webhooks: usize, kept: &mut Vec<Vec<Index>>) -> [Row; 2] {
    let before = resident_bytes();
    let organizations = ORGANIZATIONS.min(webhooks);
    let mut indexes = Vec::with_capacity(organizations);
    for organization in 0..organizations {
        let share = webhooks / organizations;
        let id = OrganizationId::new();
        indexes.push(Index::new((0..share).map(|n| subscription(id, organization + n)).collect()));
    }
    let bytes = resident_bytes().saturating_sub(before) as f64 / webhooks as f64;
    let events: Vec<Event> = (0..100).map(event).collect();
    let mut matched = 0;
    let started = Instant::now();
    for n in 0..EVENTS {
        let index = &indexes[n.wrapping_mul(7_919) % organizations];
        matched += black_box(index.matches(&events[n % events.len()])).len();
    }
    let micros = started.elapsed().as_secs_f64() * 1e6 / EVENTS as f64;
    let per_event = matched as f64 / EVENTS as f64;
    let place = |plot: &str| Place { plot: plot.to_owned(), axis: "webhooks", x: webhooks, line: "matching" };
    kept.push(indexes);
    [
        Row::new(
            format!("matching, {webhooks} webhooks in {organizations} organizations"),
            "µs/event",
            vec![micros],
        )
        .note(format!(", {per_event:.1} matches an event"))
        .at(place("time of an event in the router's index, by webhooks")),
        Row::new(format!("memory of the index, {webhooks} webhooks"), "bytes/webhook", vec![bytes]),
    ]
}

fn subscription(organization: OrganizationId, n: usize) -> Subscription {
    let category = CATEGORIES[n % CATEGORIES.len()];
    let pattern = Pattern::parse(&format!("{category}.*")).ok();
    let filter = match n % 10 {
        0..5 => None,
        5..9 => Filter::parse(&format!("pooluuid = \"pool-{}\"", n % 1_000)).ok(),
        _ => Filter::parse("data.size > 1000 AND data.status = \"active\"").ok(),
    };
    let event_types = if n.is_multiple_of(50) { Vec::new() } else { pattern.into_iter().collect() };
    Subscription { webhook: WebhookId::new(), organization, event_types, filter }
}

fn event(n: usize) -> Event {
    let category = CATEGORIES[n % CATEGORIES.len()];
    let json = format!(
        r#"{{"id":"{n}","source":"/bench","type":"{category}.started","pooluuid":"pool-{n}","data":{{"size":{n},"status":"active"}}}}"#
    );
    Event::from_json(&json.into()).expect("an event of this file")
}

/// Memory that this process has, as the kernel counts it.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4_096
}
