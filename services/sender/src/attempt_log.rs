//! The account of attempts: written and looked up in batches, for as long as it takes.

use std::collections::{HashMap, HashSet};

use cuewire::db::attempts::{AttemptKey, RecordedAttempt};
use cuewire::db::{Database, until_it_answers};
use cuewire::delivery::Attempt;
use cuewire::shutdown::Shutdown;
use time::OffsetDateTime;

use crate::batch::{Batcher, Ended};
use crate::metrics::Metrics;

/// Attempts in one statement: beyond this a larger batch gains nothing.
const MAX_BATCH: usize = 256;

/// Writes and reads the account of attempts.
#[derive(Debug)]
pub struct AttemptLog {
    record: Batcher<Attempt, Result<Recorded, String>>,
    look_up: Batcher<AttemptKey, Option<RecordedAttempt>>,
}

/// What came of recording an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is on record now.
    New,
    /// It was on record before: another copy of the work owns it.
    Before,
}

impl AttemptLog {
    /// Starts the two tasks.
    #[must_use]
    pub fn start(database: Database, metrics: Metrics, shutdown: &Shutdown) -> Self {
        let reading = database.clone();
        Self {
            record: Batcher::start("record of attempts", MAX_BATCH, shutdown, move |attempts| {
                let (database, metrics) = (database.clone(), metrics.clone());
                async move { record(&database, &metrics, attempts).await }
            }),
            look_up: Batcher::start("look-up of attempts", MAX_BATCH, shutdown, move |keys| {
                let database = reading.clone();
                async move { look_up(&database, keys).await }
            }),
        }
    }

    /// Records an attempt. Returns when it is committed, however long the database is away; the inner
    /// error is the database's sentence about an attempt that it will never take.
    pub async fn record(&self, attempt: Attempt) -> Result<Result<Recorded, String>, Ended> {
        self.record.submit(attempt).await
    }

    /// What is on record of an attempt.
    pub async fn look_up(&self, key: AttemptKey) -> Result<Option<RecordedAttempt>, Ended> {
        self.look_up.submit(key).await
    }
}

async fn record(
    database: &Database,
    metrics: &Metrics,
    attempts: Vec<Attempt>,
) -> Vec<Result<Recorded, String>> {
    metrics.record_batch.observe(attempts.len() as f64);
    let timer = metrics.record_duration.start_timer();
    let result = until_it_answers("deliveries", || database.record_attempts(&attempts)).await;
    timer.observe_duration();
    match result {
        Ok(new) => {
            // Two copies of one attempt in a batch: the first is its owner.
            let mut new: HashSet<AttemptKey> = new.into_iter().collect();
            if new.len() < attempts.len() {
                new.extend(committed_unheard(database, &attempts).await);
            }
            let recorded = |attempt: &Attempt| {
                Ok(if new.remove(&attempt.key()) { Recorded::New } else { Recorded::Before })
            };
            attempts.iter().map(recorded).collect()
        }
        Err(error) if attempts.len() == 1 => vec![Err(error.to_string())],
        Err(error) => {
            tracing::error!(%error, "a batch of attempts was refused; recording them one by one");
            let mut results = Vec::with_capacity(attempts.len());
            for attempt in attempts {
                results.extend(Box::pin(record(database, metrics, vec![attempt])).await);
            }
            results
        }
    }
}

/// The attempts that an earlier try committed before the connection broke, so that nobody heard of it: what
/// is on record is what was to be recorded, to the microsecond. Taken for another's, a retry would be lost.
async fn committed_unheard(database: &Database, attempts: &[Attempt]) -> Vec<AttemptKey> {
    let keys: Vec<AttemptKey> = attempts.iter().map(Attempt::key).collect();
    let recorded = look_up(database, keys).await;
    let micros = |at: OffsetDateTime| at.unix_timestamp_nanos().div_euclid(1_000);
    let own = |(attempt, recorded): (&Attempt, Option<RecordedAttempt>)| {
        let recorded = recorded?;
        let same = micros(recorded.started_at) == micros(attempt.started_at)
            && recorded.duration.as_micros() == attempt.duration.as_micros();
        same.then_some(recorded.key)
    };
    attempts.iter().zip(recorded).filter_map(own).collect()
}

async fn look_up(database: &Database, keys: Vec<AttemptKey>) -> Vec<Option<RecordedAttempt>> {
    let recorded = until_it_answers("deliveries", || database.recorded_attempts(&keys)).await;
    let recorded = recorded.unwrap_or_else(|error| {
        // Without the record every copy is sent: at least once, and the log says why.
        tracing::error!(%error, "the record of attempts cannot be read");
        Vec::new()
    });
    let recorded: HashMap<AttemptKey, RecordedAttempt> =
        recorded.into_iter().map(|recorded| (recorded.key, recorded)).collect();
    keys.iter().map(|key| recorded.get(key).cloned()).collect()
}
