//! The webhooks that this sender has deliveries for, with all that a request needs, prepared once.
//!
//! Read from the database when first needed, many in one statement where many are needed at once; forgotten when the
//! database announces a change of their organization or of their breaker.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cuewire::db::changes::{Change, Changes};
use cuewire::db::webhooks::{self, SealedSecret};
use cuewire::db::{Database, DbError, until_it_answers};
use cuewire::formats::Owner;
use cuewire::guard::Guard;
use cuewire::ids::{OrganizationId, WebhookId};
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

/// A webhook of whose deliveries half fail would be written twice for each of them.
const NOTE_EVERY_S: i64 = 1;
/// How often one that is known to fail is noted again: another sender may have seen it recover.
const NOTE_AGAIN_EVERY_S: i64 = 60;
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
    /// Whether it fails, as far as this sender knows: of another that sees it begin to fail it hears.
    failing: AtomicBool,
    /// When a dead letter last noted that it fails, unix time in seconds.
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

    /// Whether a success ends its failing: it is on record as failing, unless another has seen it recover.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Whether a dead letter may begin its failing: it is well as far as this sender knows and was not noted to fail
    /// just now, or was so noted a while ago, since when another may have seen it recover.
    #[must_use]
    pub fn may_be_well(&self) -> bool {
        let every_s = if self.is_failing() { NOTE_AGAIN_EVERY_S } else { NOTE_EVERY_S };
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
    /// What has changed since a look-up began, while one is under way: what it read of that is out of date.
    meanwhile: Option<Changed>,
}

/// Several changes together.
#[derive(Debug, Default)]
struct Changed {
    everything: bool,
    organizations: HashSet<OrganizationId>,
    webhooks: HashSet<WebhookId>,
    /// Those that have begun to fail.
    failing: HashSet<WebhookId>,
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
        self.cache.locked().hear(Changed { webhooks: [webhook].into(), ..Changed::default() });
    }

    /// Forgets what changes, until the service stops.
    pub fn follow(&self, changes: Changes) -> impl Future<Output = ()> + use<> {
        self.cache.clone().follow(changes)
    }
}

impl Cache {
    /// Those of these that are known; what changes from now on is remembered, for those that are looked up.
    fn begin(&self, webhooks: &[WebhookId]) -> HashMap<WebhookId, LookedUp> {
        let mut cached = self.locked();
        cached.meanwhile = Some(Changed::default());
        let known = |webhook: &WebhookId| {
            let target = cached.targets.get(webhook)?;
            Some((*webhook, Ok(Some(Arc::clone(target)))))
        };
        webhooks.iter().filter_map(known).collect()
    }

    /// Keeps what was looked up since [`begin`](Self::begin), but for what has changed meanwhile.
    fn end(&self, read: impl Iterator<Item = Arc<Target>>) {
        let mut cached = self.locked();
        let meanwhile = cached.meanwhile.take().unwrap_or_default();
        for target in read.filter(|target| !meanwhile.concerns(&target.webhook)) {
            if cached.targets.len() >= MAX_TARGETS {
                cached.targets.clear();
            }
            if meanwhile.failing.contains(&target.webhook.id) {
                target.note_failing(true);
            }
            cached.targets.insert(target.webhook.id, target);
        }
        self.metrics.targets.set(cached.targets.len() as i64);
    }

    async fn follow(self, mut changes: Changes) {
        while let Some(first) = changes.next().await {
            let mut changed = Changed::default();
            changed.add(first);
            while let Some(change) = changes.try_next() {
                changed.add(change);
            }
            let mut cached = self.locked();
            cached.hear(changed);
            self.metrics.targets.set(cached.targets.len() as i64);
        }
    }

    fn locked(&self) -> MutexGuard<'_, Cached> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cached {
    fn hear(&mut self, changed: Changed) {
        if changed.everything {
            self.targets.clear();
        } else if !changed.organizations.is_empty() {
            self.targets.retain(|_, target| !changed.organizations.contains(&target.webhook.organization));
        }
        for webhook in &changed.webhooks {
            self.targets.remove(webhook);
        }
        for target in changed.failing.iter().filter_map(|webhook| self.targets.get(webhook)) {
            target.note_failing(true);
        }
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile.merge(changed);
        }
    }
}

impl Changed {
    fn add(&mut self, change: Change) {
        match change {
            Change::Everything => self.everything = true,
            Change::Organization(organization) => _ = self.organizations.insert(organization),
            Change::Breaker(webhook) => _ = self.webhooks.insert(webhook),
            Change::Failing(webhook) => _ = self.failing.insert(webhook),
        }
    }

    fn merge(&mut self, other: Self) {
        self.everything |= other.everything;
        self.organizations.extend(other.organizations);
        self.webhooks.extend(other.webhooks);
        self.failing.extend(other.failing);
    }

    /// Whether what was read of the webhook before is out of date.
    fn concerns(&self, webhook: &Webhook) -> bool {
        self.everything
            || self.organizations.contains(&webhook.organization)
            || self.webhooks.contains(&webhook.id)
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
        let mut found = self.cache.begin(&webhooks);
        let unknown: HashSet<WebhookId> =
            webhooks.iter().copied().filter(|webhook| !found.contains_key(webhook)).collect();
        if !unknown.is_empty() {
            let unknown: Vec<WebhookId> = unknown.into_iter().collect();
            found.extend(self.read(&unknown).await.unwrap_or_else(|error| {
                unknown.iter().map(|webhook| (*webhook, Err(error.to_string()))).collect()
            }));
        }
        self.cache.end(found.values().flatten().flatten().cloned());
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cuewire::formats::Format;
    use cuewire::signature::Scheme;
    use prometheus::Registry;

    use super::*;

    fn target(organization: OrganizationId) -> Arc<Target> {
        let webhook = Webhook {
            id: WebhookId::new(),
            number: 1,
            organization,
            name: String::new(),
            description: None,
            url: "http://receiver/".to_owned(),
            enabled: true,
            disabled_reason: None,
            first_failed_at: None,
            breaker: None,
            format: Format::Standard,
            event_types: Vec::new(),
            filter: None,
            sealed_headers: Vec::new(),
            signature: Scheme::V1,
            own_rate_limit: None,
            max_in_flight: 1,
            timeout: Duration::from_secs(1),
            retry_schedule: None,
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
        };
        Arc::new(Target {
            url: Err("is never asked for".to_owned()),
            schedule: webhook.schedule(),
            headers: HeaderMap::new(),
            secrets: Vec::new(),
            failing: AtomicBool::new(false),
            noted: AtomicI64::new(0),
            webhook,
            owner: Owner { id: organization, name: String::new(), external_id: None },
        })
    }

    /// Hears of what `changes` makes of the webhook and its organization, while it and another organization's are looked
    /// up, or afterwards. Answers whether each is kept, and whether the first one is failing then.
    fn after(changes: fn(&Webhook) -> Change, meanwhile: bool) -> (bool, bool, bool) {
        let cache = Cache { cached: Arc::default(), metrics: Metrics::new(&Registry::new()) };
        let (one, other) = (target(OrganizationId::new()), target(OrganizationId::new()));
        let hear = || {
            let mut changed = Changed::default();
            changed.add(changes(&one.webhook));
            cache.locked().hear(changed);
        };
        assert!(cache.begin(&[one.webhook.id]).is_empty());
        if meanwhile {
            hear();
        }
        cache.end([&one, &other].into_iter().cloned());
        if !meanwhile {
            hear();
        }
        let is_kept = |target: &Target| cache.locked().targets.contains_key(&target.webhook.id);
        (is_kept(&one), is_kept(&other), one.is_failing())
    }

    #[test]
    fn what_changes_is_forgotten_also_while_it_is_looked_up_and_what_begins_to_fail_is_kept() {
        for meanwhile in [true, false] {
            let after = |changes| after(changes, meanwhile);
            assert_eq!(after(|webhook| Change::Breaker(webhook.id)), (false, true, false));
            assert_eq!(after(|webhook| Change::Organization(webhook.organization)), (false, true, false));
            assert_eq!(after(|_| Change::Everything), (false, false, false));
            assert_eq!(after(|webhook| Change::Failing(webhook.id)), (true, true, true));
            assert_eq!(after(|_| Change::Breaker(WebhookId::new())), (true, true, false));
        }
    }
}
