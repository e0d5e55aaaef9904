//! The webhooks that this sender has deliveries for, with all that a request needs, prepared once.
//!
//! Read from the database when first needed, many in one statement where many are needed at once; forgotten when the
//! database announces a change of their organization.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cuewire::db::changes::{Change, Changes};
use cuewire::db::webhooks::{self, SealedSecret};
use cuewire::db::{Database, DbError, until_it_answers};
use cuewire::formats::Owner;
use cuewire::guard::Guard;
use cuewire::ids::WebhookId;
use cuewire::retry::Schedule;
use cuewire::shutdown::Shutdown;
use cuewire::signature::Secret;
use cuewire::vault::Vault;
use cuewire::webhook::Webhook;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use time::OffsetDateTime;

use crate::batch::{Batcher, Ended};
use crate::metrics::Metrics;

/// How long a webhook may be shown as failing though it has recovered, where one sender saw the one and another
/// the other.
const ASK_EVERY_S: i64 = 60;
/// A webhook of whose deliveries half fail would be written twice for each of them.
const NOTE_EVERY_S: i64 = 1;
/// Beyond this the cache starts anew: at 2 KiB each, 100 MiB.
const MAX_TARGETS: usize = 50_000;
/// Webhooks in one statement: beyond this a larger batch gains nothing.
const MAX_BATCH: usize = 256;

/// A webhook, ready to be sent to.
#[derive(Debug)]
pub struct Target {
    /// As it is configured.
    pub webhook: Webhook,
    /// Its URL, as the guard judges its text; the error is a sentence to be read after the word URL.
    pub url: Result<Url, String>,
    /// Whose it is, as deliveries name it.
    pub owner: Owner,
    /// The retry schedule in force.
    pub schedule: Schedule,
    /// Its own headers.
    pub headers: HeaderMap,
    secrets: Vec<(Secret, Option<OffsetDateTime>)>,
    /// Whether it fails, as far as this sender knows.
    failing: AtomicBool,
    /// When a success last asked whether it fails, unix time in seconds.
    asked: AtomicI64,
    /// When a dead letter last noted that it fails.
    noted: AtomicI64,
}

impl Target {
    fn new(read: webhooks::Target, vault: &Vault, guard: &Guard) -> Self {
        let webhooks::Target { webhook, owner, secrets: sealed } = read;
        let header = |(name, value): (&String, &String)| {
            let mut value = value.parse::<HeaderValue>().ok()?;
            value.set_sensitive(true);
            Some((name.parse::<HeaderName>().ok()?, value))
        };
        let headers = vault.open_headers(webhook.id, &webhook.sealed_headers).unwrap_or_else(|error| {
            tracing::error!(webhook = %webhook.id, %error, "deliveries go without the webhook's headers");
            Default::default()
        });
        let open = |sealed: &SealedSecret| {
            let opened = vault.open(webhook.id, &sealed.sealed).map_err(|error| error.to_string());
            match opened.and_then(|text| text.parse::<Secret>()) {
                Ok(secret) => Some((secret, sealed.expires_at)),
                Err(error) => {
                    tracing::error!(webhook = %webhook.id, %error, "a delivery goes without one of its signatures");
                    None
                }
            }
        };
        Self {
            url: guard.check_url(&webhook.url),
            schedule: webhook.schedule(),
            headers: headers.iter().filter_map(header).collect(),
            secrets: sealed.iter().filter_map(open).collect(),
            failing: AtomicBool::new(webhook.first_failed_at.is_some()),
            asked: AtomicI64::new(OffsetDateTime::now_utc().unix_timestamp()),
            noted: AtomicI64::new(0),
            webhook,
            owner,
        }
    }

    /// The secrets that are valid, the newest first.
    #[must_use]
    pub fn secrets(&self, now: OffsetDateTime) -> Vec<Secret> {
        let valid = |expires_at: &Option<OffsetDateTime>| expires_at.is_none_or(|at| at > now);
        self.secrets
            .iter()
            .filter(|(_, expires_at)| valid(expires_at))
            .map(|(secret, _)| secret.clone())
            .collect()
    }

    /// Whether a success may end its failing: it fails as far as this sender knows, or has not asked for a while,
    /// in which another may have noted it.
    #[must_use]
    pub fn may_be_failing(&self) -> bool {
        is_due(&self.asked, ASK_EVERY_S) || self.failing.load(Ordering::Relaxed)
    }

    /// Whether a dead letter may begin its failing: it is well as far as this sender knows and was not noted to fail
    /// just now, or was so noted a while ago, since when another may have seen it recover.
    #[must_use]
    pub fn may_be_well(&self) -> bool {
        let every_s = if self.failing.load(Ordering::Relaxed) { ASK_EVERY_S } else { NOTE_EVERY_S };
        is_due(&self.noted, every_s)
    }

    /// Notes what is on record now.
    pub fn note_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }
}

/// Whether so many seconds have passed since the time `last`, which is now then: so for one of many that ask at once.
fn is_due(last: &AtomicI64, every_s: i64) -> bool {
    let before = last.load(Ordering::Relaxed);
    let now = OffsetDateTime::now_utc().unix_timestamp();
    now - before >= every_s
        && last.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// The webhooks by their ids.
#[derive(Debug)]
pub struct Targets {
    cache: Cache,
    look_up: Batcher<WebhookId, LookedUp>,
}

/// A webhook, or none if it does not exist. The error is a sentence about one that cannot be read.
pub type LookedUp = Result<Option<Arc<Target>>, String>;

#[derive(Debug, Clone)]
struct Cache {
    cached: Arc<Mutex<Cached>>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Cached {
    targets: HashMap<WebhookId, Arc<Target>>,
    /// Counts the changes, so that what was read before one is not kept after it.
    changes: u64,
}

impl Targets {
    /// An empty cache, and the task that looks up what is not in it.
    #[must_use]
    pub fn start(
        database: Database,
        vault: Vault,
        guard: Arc<Guard>,
        metrics: Metrics,
        shutdown: &Shutdown,
    ) -> Self {
        let cache = Cache { cached: Arc::default(), metrics };
        let reader = Arc::new(Reader { database, vault, guard, cache: cache.clone() });
        let look_up = Batcher::start("look-up of webhooks", MAX_BATCH, shutdown, move |webhooks| {
            let reader = Arc::clone(&reader);
            async move { reader.look_up(webhooks).await }
        });
        Self { cache, look_up }
    }

    /// The webhook, however long the database is away.
    pub async fn get(&self, webhook: WebhookId) -> Result<LookedUp, Ended> {
        let known = self.cache.locked().targets.get(&webhook).cloned();
        match known {
            Some(target) => Ok(Ok(Some(target))),
            None => self.look_up.submit(webhook).await,
        }
    }

    /// Forgets a webhook, which this sender has changed itself.
    pub fn forget(&self, webhook: WebhookId) {
        let mut cached = self.cache.locked();
        cached.changes += 1;
        cached.targets.remove(&webhook);
    }

    /// Forgets what changes, until the service stops.
    pub fn follow(&self, changes: Changes) -> impl Future<Output = ()> + use<> {
        self.cache.clone().follow(changes)
    }
}

impl Cache {
    /// Those of these that are known, and after how many changes.
    fn those_of(&self, webhooks: &[WebhookId]) -> (HashMap<WebhookId, LookedUp>, u64) {
        let cached = self.locked();
        let known = |webhook: &WebhookId| {
            let target = cached.targets.get(webhook)?;
            Some((*webhook, Ok(Some(Arc::clone(target)))))
        };
        (webhooks.iter().filter_map(known).collect(), cached.changes)
    }

    async fn follow(self, mut changes: Changes) {
        while let Some(change) = changes.next().await {
            let mut cached = self.locked();
            cached.changes += 1;
            match change {
                Change::Everything => cached.targets.clear(),
                Change::Organization(id) => {
                    cached.targets.retain(|_, target| target.webhook.organization != id);
                }
                Change::Breaker(webhook) => {
                    cached.targets.remove(&webhook);
                }
            }
            self.metrics.targets.set(cached.targets.len() as i64);
        }
    }

    /// Keeps what was read after so many changes, unless there was another meanwhile.
    fn keep(&self, targets: impl Iterator<Item = Arc<Target>>, changes: u64) {
        let mut cached = self.locked();
        if cached.changes != changes {
            return;
        }
        for target in targets {
            if cached.targets.len() >= MAX_TARGETS {
                cached.targets.clear();
            }
            cached.targets.insert(target.webhook.id, target);
        }
        self.metrics.targets.set(cached.targets.len() as i64);
    }

    fn locked(&self) -> MutexGuard<'_, Cached> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads webhooks from the database into the cache.
#[derive(Debug)]
struct Reader {
    database: Database,
    vault: Vault,
    guard: Arc<Guard>,
    cache: Cache,
}

impl Reader {
    async fn look_up(&self, webhooks: Vec<WebhookId>) -> Vec<LookedUp> {
        // What many wait for at once, an earlier batch may have read.
        let (mut found, changes) = self.cache.those_of(&webhooks);
        let unknown: HashSet<WebhookId> =
            webhooks.iter().copied().filter(|webhook| !found.contains_key(webhook)).collect();
        if !unknown.is_empty() {
            let unknown: Vec<WebhookId> = unknown.into_iter().collect();
            match self.read(&unknown).await {
                Ok(read) => {
                    self.cache.keep(read.values().flatten().flatten().cloned(), changes);
                    found.extend(read);
                }
                Err(error) => {
                    found.extend(unknown.into_iter().map(|webhook| (webhook, Err(error.to_string()))));
                }
            }
        }
        webhooks.iter().map(|webhook| found.get(webhook).cloned().unwrap_or(Ok(None))).collect()
    }

    /// Those that exist. An error of all lies with the database's state, and is waited out.
    async fn read(&self, webhooks: &[WebhookId]) -> Result<HashMap<WebhookId, LookedUp>, DbError> {
        let read = until_it_answers("deliveries", || self.database.targets(webhooks)).await?;
        let ready = |read| Some(Arc::new(Target::new(read, &self.vault, &self.guard)));
        let looked_up = |(webhook, read): (WebhookId, Result<webhooks::Target, DbError>)| {
            (webhook, read.map(ready).map_err(|error| error.to_string()))
        };
        Ok(read.into_iter().map(looked_up).collect())
    }
}
