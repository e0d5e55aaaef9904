//! The router's picture of the configuration: which organizations there are, who wants
//! what, and which schemas are in force.
//!
//! Loaded whole at start, kept fresh by the changes that the database announces. Reading it takes a lock for
//! a moment and never waits for the database.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use cuewire::db::changes::{Change, Changes};
use cuewire::db::{Database, DbError, until_it_answers};
use cuewire::health::Component;
use cuewire::ids::OrganizationId;
use cuewire::schema::InForce;
use cuewire::webhook::Subscription;
use uuid::Uuid;

use crate::matching::Index;
use crate::metrics::Metrics;

/// Within a second, a newly created organization takes effect, whatever was asked before.
const ABSENT_FOR: Duration = Duration::from_secs(1);
/// Names of 2 KiB at most, as all attributes, and mostly of a few bytes.
const MOST_ABSENT: usize = 10_000;

/// What the router knows of the configuration. Clones share it.
#[derive(Debug, Clone)]
pub struct Directory {
    database: Database,
    known: Arc<RwLock<Known>>,
    absent: Arc<Mutex<Absent>>,
    /// Held from reading to writing, so that no older picture comes over a newer one.
    loading: Arc<tokio::sync::Mutex<()>>,
    metrics: Metrics,
}

/// An organization as events need it.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its id.
    pub id: OrganizationId,
    /// Its webhooks.
    pub index: Arc<Index>,
    /// What its events must fit, if it has any schema in force.
    pub schemas: Option<Arc<InForce>>,
}

#[derive(Debug, Default)]
struct Known {
    organizations: HashMap<OrganizationId, Organization>,
    /// Names in the upstream platform.
    named: HashMap<String, OrganizationId>,
}

#[derive(Debug)]
struct Organization {
    external_id: Option<String>,
    index: Arc<Index>,
    schemas: Option<Arc<InForce>>,
}

impl Directory {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(database: Database, metrics: Metrics) -> Self {
        let (known, absent, loading) = Default::default();
        Self { database, known, absent, loading, metrics }
    }

    /// The organization of that id or name in the upstream platform, with its webhooks.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Found> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let by_id = || name.parse::<Uuid>().ok().map(OrganizationId);
        let id = known.named.get(name).copied().or_else(by_id)?;
        let organization = known.organizations.get(&id)?;
        Some(Found { id, index: Arc::clone(&organization.index), schemas: organization.schemas.clone() })
    }

    /// The name of an organization in the upstream platform.
    #[must_use]
    pub fn external_id(&self, id: OrganizationId) -> Option<String> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.organizations.get(&id)?.external_id.clone()
    }

    /// The organizations of these ids or names, by what was asked for. Those that are not known here, and may
    /// be seconds old, are looked up in the database, all at once.
    pub async fn find_all<'a>(&self, names: &HashSet<&'a str>) -> Result<HashMap<&'a str, Found>, DbError> {
        let mut found: HashMap<&str, Found> =
            names.iter().filter_map(|name| Some((*name, self.find(name)?))).collect();
        let unknown: Vec<&str> = {
            let absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            names.iter().copied().filter(|name| !found.contains_key(name) && !absent.has(name, now)).collect()
        };
        if unknown.is_empty() {
            return Ok(found);
        }
        self.metrics.look_ups.inc();
        let asked = Instant::now();
        for (_, id) in self.database.organizations_named(&unknown).await? {
            self.reload(id).await?;
        }
        found.extend(unknown.iter().filter_map(|name| Some((*name, self.find(name)?))));
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.note(unknown.into_iter().filter(|name| !found.contains_key(name)), asked);
        Ok(found)
    }

    /// Follows the changes until the service stops. The first makes it load everything; `component` is up
    /// from then on, unless what has changed cannot be read.
    pub async fn follow(self, mut changes: Changes, component: Component) {
        while let Some(first) = changes.next().await {
            let mut waiting = HashSet::from([first]);
            waiting.extend(std::iter::from_fn(|| changes.try_next()));
            if waiting.contains(&Change::Everything) {
                waiting = HashSet::from([Change::Everything]);
            }
            for change in waiting {
                match until_it_answers("changes of configuration", || self.apply(change)).await {
                    Ok(()) => component.up(),
                    Err(error) => {
                        tracing::error!(%error, ?change, "a change of configuration cannot be read");
                        component.down(&error.to_string());
                    }
                }
            }
        }
    }

    /// Reads again what has changed.
    async fn apply(&self, change: Change) -> Result<(), DbError> {
        match change {
            Change::Everything => self.load().await,
            Change::Organization(id) => self.reload(id).await,
            Change::Breaker(_) | Change::Failing(_) => Ok(()),
        }
    }

    async fn load(&self) -> Result<(), DbError> {
        let _one_at_a_time = self.loading.lock().await;
        let names = self.database.organization_names().await?;
        let mut subscriptions: HashMap<OrganizationId, Vec<Subscription>> = HashMap::new();
        let mut after = None;
        loop {
            let page = self.database.subscriptions(after).await?;
            let Some(last) = page.last else { break };
            after = Some(last);
            for subscription in page.subscriptions {
                subscriptions.entry(subscription.organization).or_default().push(subscription);
            }
        }
        let mut schemas = HashMap::new();
        for id in self.database.organizations_with_schemas().await? {
            schemas.extend(self.schemas(id).await?.map(|schemas| (id, schemas)));
        }
        let mut known = Known::default();
        for (id, external_id) in names {
            let index = Arc::new(Index::new(subscriptions.remove(&id).unwrap_or_default()));
            known.insert(id, Organization { external_id, index, schemas: schemas.remove(&id) });
        }
        self.change(|current| *current = known);
        Ok(())
    }

    async fn reload(&self, id: OrganizationId) -> Result<(), DbError> {
        let _one_at_a_time = self.loading.lock().await;
        let name = self.database.organization_name(id).await?;
        let index = Arc::new(Index::new(self.database.subscriptions_of(id).await?));
        let schemas = self.schemas(id).await?;
        self.change(|known| {
            known.remove(id);
            if let Some(external_id) = name {
                known.insert(id, Organization { external_id, index, schemas });
            }
        });
        Ok(())
    }

    /// What an organization has in force now.
    async fn schemas(&self, id: OrganizationId) -> Result<Option<Arc<InForce>>, DbError> {
        let before = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            known.organizations.get(&id).and_then(|organization| organization.schemas.clone())
        };
        InForce::read(&self.database, id, before).await
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        let webhooks: usize = known.organizations.values().map(|organization| organization.index.len()).sum();
        self.metrics.webhooks.set(webhooks as i64);
        self.metrics.organizations.set(known.organizations.len() as i64);
    }
}

impl Known {
    fn insert(&mut self, id: OrganizationId, organization: Organization) {
        if let Some(name) = &organization.external_id {
            self.named.insert(name.clone(), id);
        }
        self.organizations.insert(id, organization);
    }

    fn remove(&mut self, id: OrganizationId) {
        let external_id = self.organizations.remove(&id).and_then(|organization| organization.external_id);
        // It may be another's by now.
        if let Some(name) = external_id
            && self.named.get(&name) == Some(&id)
        {
            self.named.remove(&name);
        }
    }
}

/// Names that the database did not know a moment ago: a flood of events that nobody has a right to must not
/// become a flood of questions.
#[derive(Debug, Default)]
struct Absent(HashMap<String, Instant>);

impl Absent {
    fn has(&self, name: &str, now: Instant) -> bool {
        self.0.get(name).is_some_and(|asked| now < *asked + ABSENT_FOR)
    }

    fn note<'a>(&mut self, names: impl Iterator<Item = &'a str>, asked: Instant) {
        if self.0.len() > MOST_ABSENT {
            self.0.retain(|_, asked_before| asked < *asked_before + ABSENT_FOR);
        }
        if self.0.len() <= MOST_ABSENT {
            self.0.extend(names.map(|name| (name.to_owned(), asked)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(organizations: &[(OrganizationId, &str)]) -> Known {
        let mut known = Known::default();
        for (id, name) in organizations {
            let external_id = Some((*name).to_owned());
            known.insert(*id, Organization { external_id, index: Arc::default(), schemas: None });
        }
        known
    }

    #[test]
    fn a_name_that_another_organization_has_taken_stays_with_it_when_the_first_is_removed() {
        let (first, second) = (OrganizationId::new(), OrganizationId::new());
        let mut known = known(&[(first, "acme"), (second, "acme")]);
        known.remove(first);
        assert_eq!(known.named.get("acme"), Some(&second));
        known.remove(second);
        assert_eq!(known.named.get("acme"), None);
    }

    #[test]
    fn a_name_is_absent_for_a_second_after_it_was_asked_for() {
        let (mut absent, asked) = (Absent::default(), Instant::now());
        absent.note(["acme"].into_iter(), asked);
        assert!(absent.has("acme", asked) && !absent.has("other", asked));
        assert!(!absent.has("acme", asked + ABSENT_FOR));
        absent.note(["acme"].into_iter(), asked + ABSENT_FOR);
        assert!(absent.has("acme", asked + ABSENT_FOR));
    }

    #[test]
    fn a_flood_of_names_is_forgotten_when_it_is_over_and_takes_bounded_room() {
        let (mut absent, asked) = (Absent::default(), Instant::now());
        let names: Vec<String> = (0..3 * MOST_ABSENT).map(|name| name.to_string()).collect();
        for some in names.chunks(MOST_ABSENT / 4) {
            absent.note(some.iter().map(String::as_str), asked);
        }
        assert!(absent.0.len() <= MOST_ABSENT + MOST_ABSENT / 4, "{}", absent.0.len());
        absent.note(["later"].into_iter(), asked + ABSENT_FOR);
        assert_eq!(absent.0.len(), 1);
    }
}
