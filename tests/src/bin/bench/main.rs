//! The benchmarks: what the path carries, how fast one event goes through it, what that costs and how the cost grows,
//! how fast the API reads; beside them what the machine can do without Cuewire, in the same run.
//!
//! Works on a running stack, told by the file that `CUEWIRE_ENV_FILE` names, and writes its report beside that file.
//! Every event is reconciled by its id: what is missing or came twice is part of each figure. What it can be told is
//! in `deploy/local/bench help`.

mod cost;
mod fair;
mod figures;
mod growth;
mod history;
mod host;
mod ingest;
mod load;
mod machine;
mod matching;
mod meanwhile;
mod memory;
mod path;
mod plot;
mod population;
mod reads;
mod receiver;
mod report;
mod stack;
mod stalls;
mod waiting;

use std::time::Duration;

use cuewire::service::raise_open_files;

use fair::{Lasting, Scenario};
use growth::Growing;
use history::History;
use machine::Machine;
use meanwhile::Meanwhile;
use population::Population;
use reads::Reading;
use report::Report;
use stack::Stack;
use stalls::Stalls;

/// How much load, for how long.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// Events in a throughput run.
    events: usize,
    /// Runs of which the median is shown.
    runs: usize,
    /// How long single events are sent, for the latency.
    latency_for: Duration,
    /// The largest number of webhooks in the index, and of a router's.
    max_webhooks: usize,
    /// How long the scenarios of fairness last.
    fair: Lasting,
    growing: Growing,
    reading: Reading,
}

const FULL: Load = Load {
    events: 30_000,
    runs: 3,
    latency_for: Duration::from_secs(20),
    max_webhooks: 1_000_000,
    fair: Lasting {
        silent: Duration::from_secs(60),
        runs: 3,
        neighbours: Duration::from_secs(120),
        flood: Duration::from_secs(60),
        limit: Duration::from_secs(60),
        waiting: Duration::from_secs(20),
        waiting_deliveries: 100_000,
        outage: Some(Duration::from_secs(60)),
    },
    growing: Growing {
        webhooks: &[100, 10_000, 100_000],
        log: &[0, 100_000, 1_000_000, 10_000_000],
        waiting: &[0, 10_000, 100_000, 1_000_000],
        events: 20_000,
        runs: 3,
        latency_for: Duration::from_secs(10),
    },
    reading: Reading { log: 10_000_000, webhooks: 100_000, runs: 3, requests: 400 },
};
/// What grows, grows to a hundredth of it.
const HUNDREDTH: Load = Load {
    max_webhooks: 10_000,
    growing: Growing {
        webhooks: &[100, 1_000],
        log: &[0, 1_000, 10_000, 100_000],
        waiting: &[0, 100, 1_000, 10_000],
        events: 5_000,
        latency_for: Duration::from_secs(4),
        ..FULL.growing
    },
    reading: Reading { log: 100_000, webhooks: 1_000, ..FULL.reading },
    ..FULL
};
/// All of it takes less than two minutes.
const QUICK: Load = Load {
    events: 1_000,
    runs: 1,
    latency_for: Duration::from_secs(3),
    max_webhooks: 1_000,
    fair: Lasting {
        silent: Duration::from_secs(2),
        runs: 1,
        neighbours: Duration::from_secs(2),
        flood: Duration::from_secs(2),
        limit: Duration::from_secs(4),
        waiting: Duration::from_secs(2),
        waiting_deliveries: 2_000,
        outage: None,
    },
    growing: Growing {
        webhooks: &[100],
        log: &[1_000],
        waiting: &[100],
        events: 500,
        runs: 1,
        latency_for: Duration::from_secs(1),
    },
    reading: Reading { log: 1_000, webhooks: 100, runs: 1, requests: 20 },
};

/// What can be measured alone: `deploy/local/bench` with its name does so. The first is the one that tells the memory
/// of services under its load, which have not had any other.
const SECTIONS: [(&str, Section); 12] = [
    ("silent", Section::Fair(Scenario::Silent)),
    ("path", Section::Path),
    ("ingest", Section::Ingest),
    ("neighbours", Section::Fair(Scenario::Neighbours)),
    ("flood", Section::Fair(Scenario::Flood)),
    ("limit", Section::Fair(Scenario::Limit)),
    ("waiting", Section::Fair(Scenario::Waiting)),
    ("outage", Section::Fair(Scenario::Outage)),
    ("matching", Section::Matching),
    ("growth", Section::Growth),
    ("reads", Section::Reads),
    ("memory", Section::Memory),
];
/// The name of all scenarios of fairness.
const FAIR: &str = "fair";
const SIZES: [(&str, Load); 2] = [("quick", QUICK), ("hundredth", HUNDREDTH)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Path,
    Ingest,
    Fair(Scenario),
    Matching,
    Growth,
    Reads,
    Memory,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The receiver's connections, all those that the sender has open.
    raise_open_files();
    let (load, sections) = asked_for(std::env::args().skip(1))?;
    let stack = Stack::from_environment()?;
    let mut report = Report::of(&stack, report::directory_beside(&stack.env_file)).await?;
    let mut population = Population::new(&stack).await?;
    let mut history = History::new();
    for (name, section) in sections {
        let before = Meanwhile::until_now(&stack).await?;
        let stalls = Stalls::watch(stack.env_file.with_file_name("synced"));
        let mut rows = match section {
            Section::Path => {
                let Machine { two_hops, others } = machine::measure(&stack, load).await?;
                let path = path::measure(&stack, load, &two_hops).await?;
                [two_hops].into_iter().chain(others).chain(path).collect()
            }
            Section::Ingest => ingest::measure(&stack, load).await?,
            Section::Matching => matching::measure(load.max_webhooks),
            Section::Growth => growth::measure(&stack, load.growing, &mut population, &mut history).await?,
            Section::Reads => reads::measure(&stack, load.reading, &mut population, &mut history).await?,
            Section::Memory => memory::measure(&stack, &mut population, load.max_webhooks).await?,
            Section::Fair(scenario) => fair::measure(&stack, scenario, load.fair).await?,
        };
        rows.extend(stalls.end(name)?);
        rows.extend(Meanwhile::until_now(&stack).await?.since(before, name));
        report.add(rows)?;
    }
    println!("\n{}", report.table());
    println!("The report: {} and {}", report.html_file().display(), report.markdown_file().display());
    Ok(())
}

/// How much is measured, and which sections, in their order; all unless some are named.
fn asked_for(
    arguments: impl Iterator<Item = String>,
) -> anyhow::Result<(Load, Vec<(&'static str, Section)>)> {
    let (mut load, mut named) = (FULL, Vec::new());
    for argument in arguments {
        if let Some((_, size)) = SIZES.into_iter().find(|(name, _)| *name == argument) {
            load = size;
        } else if argument == FAIR {
            named.extend(Scenario::ALL.map(Section::Fair));
        } else if let Some((_, section)) = SECTIONS.into_iter().find(|(name, _)| *name == argument) {
            named.push(section);
        } else {
            anyhow::bail!("{argument:?} cannot be measured; `deploy/local/bench help` says what can");
        }
    }
    let asked_for = |(_, section): &(_, Section)| named.is_empty() || named.contains(section);
    Ok((load, SECTIONS.into_iter().filter(asked_for).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(arguments: &[&str]) -> anyhow::Result<(Load, Vec<Section>)> {
        let (load, sections) = asked_for(arguments.iter().map(|argument| (*argument).to_owned()))?;
        Ok((load, sections.into_iter().map(|(_, section)| section).collect()))
    }

    #[test]
    fn everything_is_measured_unless_sections_are_named_and_in_one_order() {
        assert_eq!(asked(&[]).unwrap().1, SECTIONS.map(|(_, section)| section));
        let (load, sections) = asked(&["reads", "quick", "path"]).unwrap();
        assert_eq!((load.events, sections), (QUICK.events, vec![Section::Path, Section::Reads]));
        assert_eq!(asked(&["limit", "fair"]).unwrap().1, Scenario::ALL.map(Section::Fair));
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        assert!(asked(&["path", "quik"]).unwrap_err().to_string().contains("\"quik\""));
    }
}
