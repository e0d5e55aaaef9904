//! What the work costs: the processor's time and the memory of each process of the stack, as the kernel counts them, and
//! the blocks that the database reads, as it counts them itself.

use std::collections::BTreeMap;

use anyhow::Context;

use crate::figures::Row;
use crate::stack::Stack;

/// The kernel's unit of a process's time.
const TICKS_A_SECOND: f64 = 100.0;
/// What the kernel forgets of a process by this.
const PEAK_MEMORY: &str = "5";
/// The services, as the stack's file names them.
pub(crate) const SERVICES: [&str; 4] = ["API", "ROUTER", "SENDER", "DLQ_REAPER"];

/// The stack's processes, by name.
#[derive(Debug, Clone)]
pub(crate) struct Processes(pub(crate) BTreeMap<String, u32>);

/// The processor's time of each, in seconds, until a moment.
#[derive(Debug, Clone)]
pub(crate) struct Spent(BTreeMap<String, f64>);

impl Processes {
    /// What each has spent so far.
    pub(crate) fn spent(&self) -> anyhow::Result<Spent> {
        let spent = self.0.iter().map(|(name, pid)| {
            let children: f64 =
                children_of(*pid)?.into_iter().map(|child| seconds(child).unwrap_or(0.0)).sum();
            Ok((name.clone(), seconds(*pid)? + children))
        });
        Ok(Spent(spent.collect::<anyhow::Result<_>>()?))
    }

    /// From now on the most memory that each service has is counted anew.
    pub(crate) fn forget_peak_memory(&self) -> anyhow::Result<()> {
        for name in SERVICES {
            let pid = self.0.get(name).with_context(|| format!("the stack has no {name}"))?;
            std::fs::write(format!("/proc/{pid}/clear_refs"), PEAK_MEMORY)?;
        }
        Ok(())
    }

    /// The most memory that each of the services has had since then, or ever, in MiB.
    pub(crate) fn peak_memory_mib(&self) -> anyhow::Result<Vec<f64>> {
        let of = |name| {
            let pid = self.0.get(name).with_context(|| format!("the stack has no {name}"))?;
            memory_mib(*pid, Memory::Most)
        };
        SERVICES.into_iter().map(of).collect()
    }
}

/// The most memory that each service has had under a load, run by run.
pub(crate) fn memory_rows(under: &str, runs_mib: &[Vec<f64>]) -> Vec<Row> {
    let of = |(at, name): (usize, &str)| {
        let name = name.to_lowercase().replace('_', "-");
        let peaks = runs_mib.iter().map(|run| run[at]).collect();
        Row::new(format!("memory of the {name}, {under}, at most"), "MiB", peaks)
    };
    SERVICES.into_iter().enumerate().map(of).collect()
}

impl Spent {
    /// The seconds that these have spent since `before`, all together.
    pub(crate) fn since(&self, before: &Self, is_counted: impl Fn(&str) -> bool) -> f64 {
        let spent =
            |(name, seconds): (&String, &f64)| seconds - before.0.get(name).copied().unwrap_or_default();
        self.0.iter().filter(|(name, _)| is_counted(name)).map(spent).sum()
    }
}

/// Of a process, as its `status` has it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Memory {
    Now,
    /// The most that it had since that was forgotten, or ever.
    Most,
}

/// How much of a process is resident, in MiB.
pub(crate) fn memory_mib(pid: u32, memory: Memory) -> anyhow::Result<f64> {
    let name = match memory {
        Memory::Now => "VmRSS:",
        Memory::Most => "VmHWM:",
    };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context(name)?;
    let kib: f64 = line.trim().strip_suffix(" kB").context(name)?.parse()?;
    Ok(kib / 1_024.0)
}

/// The blocks that the database has looked for, until a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocks {
    /// Those that were not in its own memory.
    read: i64,
    /// Those that were.
    found: i64,
}

impl Blocks {
    /// So far; what a connection that is idle now has done within the last ten seconds may not be counted yet.
    pub(crate) async fn until_now(stack: &Stack) -> anyhow::Result<Self> {
        let database = stack.database().await?;
        let counted = database
            .query_one(
                "SELECT blks_read, blks_hit FROM pg_stat_database WHERE datname = current_database()",
                &[],
            )
            .await?;
        Ok(Self { read: counted.get(0), found: counted.get(1) })
    }

    pub(crate) fn since(self, before: &Self) -> Self {
        Self { read: self.read - before.read, found: self.found - before.found }
    }

    pub(crate) fn row(self, load: &str, deliveries: usize) -> Row {
        let for_1_000 = |blocks: i64| 1_000.0 * blocks as f64 / deliveries as f64;
        let name = format!("blocks read by the database for 1,000 deliveries, {load}");
        let note = format!("; {:.0} were in its own memory", for_1_000(self.found));
        Row::new(name, "blocks", vec![for_1_000(self.read)]).note(note)
    }
}

/// What this program has spent so far: of the publisher and of the receiver.
pub(crate) fn own_seconds() -> anyhow::Result<f64> {
    seconds(std::process::id())
}

/// A process's own time, with that of its children that have ended.
fn seconds(pid: u32) -> anyhow::Result<f64> {
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    // The name in parentheses may hold anything: what follows it begins with the state, the third field.
    let fields: Vec<&str> = stat.rsplit_once(") ").context("a process has a name")?.1.split(' ').collect();
    let ticks: f64 = fields[11..15].iter().filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_A_SECOND)
}

fn children_of(pid: u32) -> anyhow::Result<Vec<u32>> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(children.split_whitespace().filter_map(|child| child.parse().ok()).collect())
}
