//! The organizations' keys: made, and known again without asking the database each time.
//!
//! When an organization changes, its known keys are doubted from the moment that this is heard: whoever comes
//! with one is not believed before it was looked up again, which is also done at once for all. While the
//! database is away nothing changes, and what is known goes on working, doubted or not; a key that is not known
//! cannot be told from a wrong one then.

mod memory;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use cuewire::db::api_keys::KeyHolder;
use cuewire::db::changes::Change;
use cuewire::db::{Database, DbError};
use rand::RngExt;
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, Semaphore};

use self::memory::{Hash, Memory, Recalled};
use crate::metrics::Metrics;

const PREFIX: &str = "cw_";
const KEY_BYTES: usize = 32;
/// 32 bytes in base64url, after the prefix.
const KEY_CHARS: usize = PREFIX.len() + 43;
/// Look-ups at a time: half of the database's connections, so that wrong keys cannot take them all.
const LOOKUPS_AT_A_TIME: usize = 4;
/// How long a request waits for a doubted key to be looked up before it is taken as known: a database that
/// hangs must not hold up publishing.
const DOUBT_WAIT: Duration = Duration::from_millis(500);
/// Keys in one look-up when many are doubted.
const LOOKUP_BATCH: usize = 1_000;
/// Between two tries to look up what is doubted: a key that was deleted works no longer than this after the
/// database is back.
const SETTLE_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// A key that was just made: shown once, and kept only as its SHA-256.
pub(crate) struct NewKey {
    /// The key itself.
    pub(crate) text: String,
    /// What is kept of it.
    pub(crate) sha256: Hash,
}

impl NewKey {
    /// A random key.
    pub(crate) fn generate() -> Self {
        let bytes: [u8; KEY_BYTES] = rand::rng().random();
        let text = format!("{PREFIX}{}", BASE64.encode(bytes));
        let sha256 = Sha256::digest(text.as_bytes()).into();
        Self { text, sha256 }
    }
}

/// Whether it may be an organization's key, by its form.
pub(super) fn is_well_formed(key: &[u8]) -> bool {
    key.len() == KEY_CHARS && key.starts_with(PREFIX.as_bytes())
}

/// Who holds which key.
pub(crate) struct Keys {
    database: Database,
    metrics: Metrics,
    memory: Mutex<Memory>,
    lookups: Semaphore,
    /// There are doubts to be settled.
    doubts: Notify,
}

impl Keys {
    /// Knows nothing yet.
    pub(crate) fn new(database: Database, metrics: Metrics) -> Self {
        let lookups = Semaphore::new(LOOKUPS_AT_A_TIME);
        Self { database, metrics, memory: Mutex::default(), lookups, doubts: Notify::new() }
    }

    /// Who holds this key, asking the database only when it is not known.
    pub(crate) async fn holder(&self, sha256: &Hash) -> Result<Option<KeyHolder>, DbError> {
        let recalled = self.memory().recall(sha256);
        match recalled {
            Recalled::Sure(answer) => Ok(answer),
            Recalled::Unknown => self.look_up(sha256).await,
            Recalled::Doubted(holder) => match tokio::time::timeout(DOUBT_WAIT, self.look_up(sha256)).await {
                Ok(Ok(found)) => Ok(found),
                Ok(Err(DbError::Unavailable(_))) | Err(_) => {
                    self.memory().doubt_later(sha256);
                    Ok(Some(holder))
                }
                Ok(Err(error)) => Err(error),
            },
        }
    }

    async fn look_up(&self, sha256: &Hash) -> Result<Option<KeyHolder>, DbError> {
        let closed = |_| DbError::Unavailable("stopping".to_owned());
        let _turn = self.lookups.acquire().await.map_err(closed)?;
        let as_of = {
            let memory = self.memory();
            // Others may have asked for the same key while this one waited.
            if let Recalled::Sure(answer) = memory.recall(sha256) {
                return Ok(answer);
            }
            memory.changes
        };
        let found = self.database.key_holders(std::slice::from_ref(sha256)).await;
        let found = found.map(|mut holders| holders.pop().map(|(_, holder)| holder));
        let result = match &found {
            Ok(Some(_)) => "found",
            Ok(None) => "unknown",
            Err(_) => "failed",
        };
        self.metrics.key_lookups.with_label_values(&[result]).inc();
        let found = found?;
        let mut memory = self.memory();
        memory.remember(*sha256, found.clone(), as_of);
        self.metrics.keys_cached.set(memory.known.len() as i64);
        Ok(found)
    }

    /// Hears of a change: the keys of its organization are doubted, until [`settle`](Self::settle) has looked
    /// them up again.
    pub(crate) fn hear(&self, change: Change) {
        self.memory().doubt(change);
        self.doubts.notify_one();
    }

    /// Looks the doubted keys up again, for ever.
    pub(crate) async fn settle(&self) {
        loop {
            self.doubts.notified().await;
            self.settle_doubts().await;
        }
    }

    /// Looks up what is doubted, until nothing is.
    async fn settle_doubts(&self) {
        loop {
            let (doubted, as_of) = self.memory().doubted(LOOKUP_BATCH);
            if doubted.is_empty() {
                return;
            }
            match self.database.key_holders(&doubted).await {
                Ok(found) => self.memory().replace(&doubted, found, as_of),
                Err(error) => {
                    tracing::debug!(%error, "keys of a changed organization stay doubted");
                    tokio::time::sleep(SETTLE_AGAIN_AFTER).await;
                }
            }
            self.metrics.keys_cached.set(self.memory().known.len() as i64);
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_has_the_form_by_which_keys_are_known() {
        let key = NewKey::generate();
        assert!(is_well_formed(key.text.as_bytes()));
        assert_ne!(key.text, NewKey::generate().text);
    }
}
