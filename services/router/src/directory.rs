//! The router's picture of the configuration: which organizations there are, and who wants what.
//!
//! Loaded whole at start, kept fresh by the changes that the database announces. Reading it takes a lock for
//! a moment and never waits for the database.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use cuewire::db::changes::{Change, Changes};
use cuewire::db::{Database, DbError, until_it_answers};
use cuewire::health::Component;
use cuewire::ids::OrganizationId;
use cuewire::webhook::Subscription;
use uuid::Uuid;

use crate::matching::Index;
use crate::metrics::Metrics;

/// What the router knows of the configuration. Clones share it.
#[derive(Debug, Clone)]
pub struct Directory {
    database: Database,
    known: Arc<RwLock<Known>>,
    metrics: Metrics,
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
}

impl Directory {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(database: Database, metrics: Metrics) -> Self {
        Self { database, known: Arc::default(), metrics }
    }

    /// The organization of that id or name in the upstream platform, with its webhooks.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(OrganizationId, Arc<Index>)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let by_id = || name.parse::<Uuid>().ok().map(OrganizationId);
        let id = known.named.get(name).copied().or_else(by_id)?;
        known.organizations.get(&id).map(|organization| (id, Arc::clone(&organization.index)))
    }

    /// The name of an organization in the upstream platform.
    #[must_use]
    pub fn external_id(&self, id: OrganizationId) -> Option<String> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.organizations.get(&id)?.external_id.clone()
    }

    /// Looks in the database for an organization that is not known here, which may be seconds old.
    pub async fn look_up(&self, name: &str) -> Result<Option<(OrganizationId, Arc<Index>)>, DbError> {
        let Some(id) = self.database.organization_named(name).await? else { return Ok(None) };
        self.reload(id).await?;
        Ok(self.find(name))
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
        }
    }

    async fn load(&self) -> Result<(), DbError> {
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
        let mut known = Known::default();
        for (id, external_id) in names {
            let index = Index::new(subscriptions.remove(&id).unwrap_or_default());
            known.insert(id, external_id, index);
        }
        self.change(|current| *current = known);
        Ok(())
    }

    async fn reload(&self, id: OrganizationId) -> Result<(), DbError> {
        let name = self.database.organization_name(id).await?;
        let subscriptions = self.database.subscriptions_of(id).await?;
        self.change(|known| {
            known.remove(id);
            if let Some(external_id) = name {
                known.insert(id, external_id, Index::new(subscriptions));
            }
        });
        Ok(())
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
    fn insert(&mut self, id: OrganizationId, external_id: Option<String>, index: Index) {
        if let Some(name) = &external_id {
            self.named.insert(name.clone(), id);
        }
        self.organizations.insert(id, Organization { external_id, index: Arc::new(index) });
    }

    fn remove(&mut self, id: OrganizationId) {
        let external_id = self.organizations.remove(&id).and_then(|organization| organization.external_id);
        if let Some(name) = external_id {
            self.named.remove(&name);
        }
    }
}
