//! The schemas in force, held against events before they are accepted. No database on that path: they are read
//! when their organization changes.
//!
//! For a moment after a change, and until they were first read, events pass by what was known before: the router
//! checks every event again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use cuewire::db::changes::Change;
use cuewire::db::{Database, DbError, until_it_answers};
use cuewire::ids::OrganizationId;
use cuewire::schema::InForce;
use tokio::sync::Notify;
use uuid::Uuid;

/// Which organizations have which schemas in force.
pub(crate) struct Schemas {
    database: Database,
    known: RwLock<Known>,
    /// What has changed, and was not read yet.
    changed: Mutex<HashSet<Change>>,
    news: Notify,
}

#[derive(Default)]
struct Known {
    /// Those that have any, each with its name in the upstream platform.
    organizations: HashMap<OrganizationId, (Option<String>, Arc<InForce>)>,
    named: HashMap<String, OrganizationId>,
}

impl Schemas {
    /// Knows nothing yet.
    pub(crate) fn new(database: Database) -> Self {
        Self { database, known: RwLock::default(), changed: Mutex::default(), news: Notify::new() }
    }

    /// What this organization (by its id, or its name in the upstream platform) has in force, if anything.
    pub(crate) fn of(&self, organization: &str) -> Option<Arc<InForce>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).find(organization)
    }

    /// Hears of a change, which [`settle`](Self::settle) will read.
    pub(crate) fn hear(&self, change: Change) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(change);
        self.news.notify_one();
    }

    /// Reads what has changed, for ever.
    pub(crate) async fn settle(&self) {
        loop {
            self.news.notified().await;
            let changed = std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner));
            let everything = changed.contains(&Change::Everything).then_some(Change::Everything);
            for change in everything.map_or(changed, |everything| HashSet::from([everything])) {
                if let Err(error) = until_it_answers("schemas in force", || self.read(change)).await {
                    tracing::error!(%error, ?change, "the schemas in force cannot be read");
                }
            }
        }
    }

    async fn read(&self, change: Change) -> Result<(), DbError> {
        let organizations = match change {
            Change::Organization(id) => vec![id],
            Change::Breaker(_) | Change::Failing(_) => Vec::new(),
            Change::Everything => {
                let mut all = self.database.organizations_with_schemas().await?;
                let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
                all.extend(known.organizations.keys().filter(|id| !all.contains(id)).collect::<Vec<_>>());
                all
            }
        };
        for id in organizations {
            let before = {
                let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
                known.organizations.get(&id).map(|(_, schemas)| Arc::clone(schemas))
            };
            let schemas = InForce::read(&self.database, id, before).await?;
            let name = match &schemas {
                Some(_) => self.database.organization_name(id).await?.flatten(),
                None => None,
            };
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.set(id, schemas.map(|schemas| (name, schemas)));
        }
        Ok(())
    }
}

impl Known {
    fn find(&self, organization: &str) -> Option<Arc<InForce>> {
        if self.organizations.is_empty() {
            return None;
        }
        let by_id = || organization.parse::<Uuid>().ok().map(OrganizationId);
        let id = self.named.get(organization).copied().or_else(by_id)?;
        self.organizations.get(&id).map(|(_, schemas)| Arc::clone(schemas))
    }

    fn set(&mut self, id: OrganizationId, schemas: Option<(Option<String>, Arc<InForce>)>) {
        match schemas {
            Some(schemas) => drop(self.organizations.insert(id, schemas)),
            None if self.organizations.remove(&id).is_none() => return,
            None => {}
        }
        let named = |(id, (name, _)): (&OrganizationId, &(Option<String>, _))| Some((name.clone()?, *id));
        self.named = self.organizations.iter().filter_map(named).collect();
    }
}
