//! The benchmarks: what the path carries, how fast one event goes through it, and what the router's index costs;
//! beside them what the machine can do without Cuewire, in the same run.
//!
//! Works on a running stack, told by the file that `CUEWIRE_ENV_FILE` names. Every event is reconciled by its id:
//! what is missing or came twice is part of each figure. `bench quick` is the short form, which asserts only
//! that nothing is missing.

mod cost;
mod fair;
mod ingest;
mod load;
mod machine;
mod matching;
mod path;
mod receiver;
mod stack;
mod waiting;

use std::time::Duration;

use fair::Lasting;
use stack::Stack;

/// How much load, for how long.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// Events in a throughput run.
    events: usize,
    /// Runs of which the median is shown.
    runs: usize,
    /// How long single events are sent, for the latency.
    latency_for: Duration,
    /// The largest number of webhooks in the index.
    max_webhooks: usize,
    /// How long the scenarios of fairness last.
    fair: Lasting,
}

const FULL: Load = Load {
    events: 30_000,
    runs: 3,
    latency_for: Duration::from_secs(20),
    max_webhooks: 1_000_000,
    fair: Lasting {
        one_neighbour: Duration::from_secs(60),
        neighbours: Duration::from_secs(120),
        flood: Duration::from_secs(60),
        limit: Duration::from_secs(60),
        waiting: Duration::from_secs(20),
        waiting_deliveries: 100_000,
        outage: Some(Duration::from_secs(60)),
    },
};
const QUICK: Load = Load {
    events: 1_000,
    runs: 1,
    latency_for: Duration::from_secs(3),
    max_webhooks: 1_000,
    fair: Lasting {
        one_neighbour: Duration::from_secs(3),
        neighbours: Duration::from_secs(3),
        flood: Duration::from_secs(2),
        limit: Duration::from_secs(8),
        waiting: Duration::from_secs(2),
        waiting_deliveries: 2_000,
        outage: None,
    },
};

/// What can be measured alone: `make bench` with its name does so.
const SECTIONS: [&str; 4] = ["path", "ingest", "fair", "matching"];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let load = if arguments.iter().any(|argument| argument == "quick") { QUICK } else { FULL };
    let named = |section: &str| arguments.iter().any(|argument| argument == section);
    let all = !SECTIONS.iter().any(|section| named(section));
    let stack = Stack::from_environment()?;
    let mut rows = Vec::new();
    if all || named("path") {
        rows.extend(machine::measure(&stack, load).await?);
        rows.extend(path::measure(&stack, load, &rows[1].clone()).await?);
    }
    if all || named("ingest") {
        rows.extend(ingest::measure(&stack, load).await?);
    }
    if all || named("fair") {
        rows.extend(fair::measure(&stack, load.fair).await?);
    }
    if all || named("matching") {
        rows.extend(matching::measure(load.max_webhooks));
    }
    println!("\n| measured | median | all runs |\n|---|---|---|");
    for Row { name, unit, values, note } in &rows {
        let all: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
        println!("| {name} | {:.3} {unit}{note} | {} |", median(values), all.join(" "));
    }
    Ok(())
}

/// One figure, as often as it was measured.
#[derive(Debug, Clone)]
struct Row {
    name: String,
    unit: &'static str,
    values: Vec<f64>,
    note: String,
}

impl Row {
    fn new(name: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Self {
        let row = Self { name: name.into(), unit, values, note: String::new() };
        eprintln!("{}: {:.3} {unit}", row.name, median(&row.values));
        row
    }

    fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
