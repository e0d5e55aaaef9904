//! How long the machine itself makes everybody wait while a section is measured: some bytes are synced to the disk that
//! the broker and the database have too, and a thread sleeps and sees how late it wakes. What takes long in the section
//! and not here is Cuewire's own; what takes long here as well may be the machine's.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::figures::{Row, percentile};

const SYNCED_BYTES: usize = 512;
const SYNC_EVERY: Duration = Duration::from_millis(20);
const SLEEP: Duration = Duration::from_millis(5);

/// The two threads that watch.
pub(crate) struct Stalls {
    watching: Arc<AtomicBool>,
    syncs: JoinHandle<anyhow::Result<Vec<f64>>>,
    wake_ups: JoinHandle<Vec<f64>>,
}

impl Stalls {
    /// Begins to watch, by a file of this name.
    pub(crate) fn watch(file: PathBuf) -> Self {
        let watching = Arc::new(AtomicBool::new(true));
        let syncing = Arc::clone(&watching);
        let sleeping = Arc::clone(&watching);
        let syncs = std::thread::spawn(move || {
            let synced = File::create(&file)?;
            let mut took = Vec::new();
            while syncing.load(Ordering::Relaxed) {
                let begun = Instant::now();
                synced.write_all_at(&[0; SYNCED_BYTES], 0)?;
                synced.sync_data()?;
                took.push(begun.elapsed());
                std::thread::sleep(SYNC_EVERY);
            }
            std::fs::remove_file(file)?;
            Ok(took.iter().map(milliseconds).collect())
        });
        let wake_ups = std::thread::spawn(move || {
            let mut late = Vec::new();
            while sleeping.load(Ordering::Relaxed) {
                let begun = Instant::now();
                std::thread::sleep(SLEEP);
                late.push(begun.elapsed().saturating_sub(SLEEP));
            }
            late.iter().map(milliseconds).collect()
        });
        Self { watching, syncs, wake_ups }
    }

    /// Ends, and tells what was seen while this was measured.
    pub(crate) fn end(self, section: &str) -> anyhow::Result<[Row; 2]> {
        self.watching.store(false, Ordering::Relaxed);
        let ended = |_| anyhow::anyhow!("a thread that watches the machine has panicked");
        let row = |what: &str, seen: &[f64]| {
            let name = format!("{what}, meanwhile ({section}): p99");
            let note = format!(
                "; p50 {:.3}, p99.9 {:.3}, the longest {:.3}",
                percentile(seen, 0.5),
                percentile(seen, 0.999),
                percentile(seen, 1.0)
            );
            Row::new(name, "ms", vec![percentile(seen, 0.99)]).note(note)
        };
        let syncs = self.syncs.join().map_err(ended)??;
        let wake_ups = self.wake_ups.join().map_err(ended)?;
        let synced = format!("{SYNCED_BYTES} bytes synced to the disk");
        let slept = format!("a thread that sleeps {} ms wakes late", SLEEP.as_millis());
        Ok([row(&synced, &syncs), row(&slept, &wake_ups)])
    }
}

fn milliseconds(duration: &Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_watched_until_the_end_and_nothing_is_left() {
        let file = std::env::temp_dir().join(format!("bench-stalls-{}", std::process::id()));
        let stalls = Stalls::watch(file.clone());
        std::thread::sleep(Duration::from_millis(100));
        let [synced, slept] = stalls.end("nothing").unwrap();
        for row in [&synced, &slept] {
            assert!(row.values[0].is_finite() && row.name.ends_with("meanwhile (nothing): p99"), "{row:?}");
        }
        assert!(!file.exists());
    }
}
