//! The organizations' keys: made, and known again without asking the database each time.
//!
//! When an organization changes, its known keys are doubted and looked up again at once. While the database
//! is away nothing changes, and what is known goes on working, doubted or not; a key that is not known cannot
//! be told from a wrong one then.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use cuewire::db::api_keys::KeyHolder;
use cuewire::db::changes::{Change, Changes};
use cuewire::db::{Database, DbError};
use rand::RngExt;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::metrics::Metrics;

const PREFIX: &str = "cw_";
const KEY_BYTES: usize = 32;
/// 32 bytes in base64url, after the prefix.
const KEY_CHARS: usize = PREFIX.len() + 43;
/// About 20 MB; ten keys for each of 10,000 organizations.
const MAX_KNOWN: usize = 100_000;
/// Wrong keys are worth less memory, and only a moment of it.
const MAX_WRONG: usize = 10_000;
const WRONG_FOR: Duration = Duration::from_secs(5);
/// Look-ups at a time: half of the database's connections, so that wrong keys cannot take them all.
const LOOKUPS_AT_A_TIME: usize = 4;
/// How long a request waits for a doubted key to be looked up before it is taken as known, and how long
/// such a try is not repeated: a database that hangs must not hold up publishing.
const DOUBT_WAIT: Duration = Duration::from_millis(500);
const DOUBT_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Keys in one look-up when many are doubted.
const LOOKUP_BATCH: usize = 1_000;

type Hash = [u8; 32];

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
}

impl Keys {
    /// Knows nothing yet.
    pub(crate) fn new(database: Database, metrics: Metrics) -> Self {
        let lookups = Semaphore::new(LOOKUPS_AT_A_TIME);
        Self { database, metrics, memory: Mutex::default(), lookups }
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
        let changes = {
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
        // What was read before a change is not remembered after it.
        if memory.changes == changes {
            memory.remember(*sha256, found.clone());
            self.metrics.keys_cached.set(memory.known.len() as i64);
        }
        Ok(found)
    }

    /// Looks the keys up again whose organization has changed, until the service stops.
    pub(crate) async fn follow(&self, mut changes: Changes) {
        while let Some(change) = changes.next().await {
            let doubted = self.memory().doubt(change);
            for batch in doubted.chunks(LOOKUP_BATCH) {
                match self.database.key_holders(batch).await {
                    Ok(found) => self.memory().replace(batch, found),
                    // Each is looked up when it comes.
                    Err(error) => tracing::debug!(%error, "keys of a changed organization stay doubted"),
                }
            }
            self.metrics.keys_cached.set(self.memory().known.len() as i64);
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Memory {
    known: HashMap<Hash, Known>,
    /// Keys that were not found, and when.
    wrong: HashMap<Hash, Instant>,
    /// Counts the changes that were heard of.
    changes: u64,
}

struct Known {
    holder: KeyHolder,
    doubt: Option<Doubt>,
}

/// The organization has changed since, and the key was not looked up yet.
struct Doubt {
    /// Before this time it is not tried again.
    again_at: Instant,
}

enum Recalled {
    /// No look-up is needed: the holder, or that there is none.
    Sure(Option<KeyHolder>),
    /// To be looked up, and good as long as that is not possible.
    Doubted(KeyHolder),
    /// To be looked up.
    Unknown,
}

impl Memory {
    fn recall(&self, sha256: &Hash) -> Recalled {
        if let Some(Known { holder, doubt }) = self.known.get(sha256) {
            return match doubt {
                Some(doubt) if doubt.again_at <= Instant::now() => Recalled::Doubted(holder.clone()),
                _ => Recalled::Sure(Some(holder.clone())),
            };
        }
        match self.wrong.get(sha256) {
            Some(since) if since.elapsed() < WRONG_FOR => Recalled::Sure(None),
            _ => Recalled::Unknown,
        }
    }

    fn remember(&mut self, sha256: Hash, holder: Option<KeyHolder>) {
        let Some(holder) = holder else {
            self.known.remove(&sha256);
            if self.wrong.len() >= MAX_WRONG {
                self.wrong.clear();
            }
            self.wrong.insert(sha256, Instant::now());
            return;
        };
        if self.known.len() >= MAX_KNOWN {
            // Any one will do: it is looked up again when it comes.
            let victim = self.known.keys().next().copied();
            victim.map(|victim| self.known.remove(&victim));
        }
        self.known.insert(sha256, Known { holder, doubt: None });
    }

    /// Doubts the keys that a change may concern, and answers which they are.
    fn doubt(&mut self, change: Change) -> Vec<Hash> {
        self.changes += 1;
        // A key that was not found may be the one that was made.
        self.wrong.clear();
        let mut doubted = Vec::new();
        for (sha256, known) in &mut self.known {
            let concerned = match change {
                Change::Organization(organization) => known.holder.organization == organization,
                Change::Everything => true,
            };
            if concerned {
                known.doubt = Some(Doubt { again_at: Instant::now() });
                doubted.push(*sha256);
            }
        }
        doubted
    }

    fn doubt_later(&mut self, sha256: &Hash) {
        if let Some(Known { doubt: Some(doubt), .. }) = self.known.get_mut(sha256) {
            doubt.again_at = Instant::now() + DOUBT_AGAIN_AFTER;
        }
    }

    /// Puts what was found in the place of what was doubted.
    fn replace(&mut self, doubted: &[Hash], found: Vec<(Hash, KeyHolder)>) {
        for sha256 in doubted {
            self.known.remove(sha256);
        }
        for (sha256, holder) in found {
            self.remember(sha256, Some(holder));
        }
    }
}

#[cfg(test)]
mod tests {
    use cuewire::db::api_keys::Role;
    use cuewire::ids::{ApiKeyId, OrganizationId};

    use super::*;

    fn holder(organization: OrganizationId) -> KeyHolder {
        KeyHolder { key: ApiKeyId::new(), organization, external_id: None, role: Role::Viewer }
    }

    #[test]
    fn a_new_key_has_the_form_by_which_keys_are_known() {
        let key = NewKey::generate();
        assert!(is_well_formed(key.text.as_bytes()));
        assert_ne!(key.text, NewKey::generate().text);
    }

    #[test]
    fn a_change_casts_doubt_on_the_organizations_keys_and_no_others() {
        let (one, other) = (OrganizationId::new(), OrganizationId::new());
        let mut memory = Memory::default();
        memory.remember([1; 32], Some(holder(one)));
        memory.remember([2; 32], Some(holder(other)));
        memory.remember([3; 32], None);
        assert!(matches!(memory.recall(&[3; 32]), Recalled::Sure(None)));

        assert_eq!(memory.doubt(Change::Organization(one)), [[1; 32]]);
        assert!(matches!(memory.recall(&[1; 32]), Recalled::Doubted(_)));
        assert!(matches!(memory.recall(&[2; 32]), Recalled::Sure(Some(_))));
        assert!(matches!(memory.recall(&[3; 32]), Recalled::Unknown), "it may be the key that was made");

        memory.doubt_later(&[1; 32]);
        assert!(matches!(memory.recall(&[1; 32]), Recalled::Sure(Some(_))), "the database is away");
        assert_eq!(memory.doubt(Change::Everything).len(), 2);
        memory.replace(&[[1; 32], [2; 32]], vec![([2; 32], holder(other))]);
        assert!(matches!(memory.recall(&[1; 32]), Recalled::Unknown), "it was deleted");
        assert!(matches!(memory.recall(&[2; 32]), Recalled::Sure(Some(_))));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut memory = Memory::default();
        let hash = |number: usize| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&(number as u64).to_be_bytes());
            hash
        };
        for number in 0..=MAX_KNOWN {
            memory.remember(hash(number), Some(holder(OrganizationId::default())));
        }
        for number in 0..=MAX_WRONG {
            memory.remember(hash(MAX_KNOWN + 1 + number), None);
        }
        assert_eq!(memory.known.len(), MAX_KNOWN);
        assert!(memory.wrong.len() <= MAX_WRONG);
    }
}
