//! The schemas that an organization has in force, ready to be held against its events.

use std::collections::HashMap;
use std::sync::Arc;

use time::OffsetDateTime;

use super::{Misfit, Schema};
use crate::catalogue;
use crate::db::event_types::Enforced;
use crate::db::{Database, DbError};
use crate::event::Event;
use crate::ids::OrganizationId;

/// One organization's schemas in force, by event type; at least one.
#[derive(Debug)]
pub struct InForce(HashMap<String, Entry>);

#[derive(Debug, Clone)]
struct Entry {
    schema: Arc<Schema>,
    /// While it stays the same, so does the schema.
    updated_at: OffsetDateTime,
}

impl InForce {
    /// Whether the event fits the schema of its type, if one is in force.
    pub fn check(&self, event: &Event) -> Result<(), Misfit> {
        self.0.get(event.event_type.as_str()).map_or(Ok(()), |entry| entry.schema.check(event))
    }

    /// How many steps that takes at most, told by the event's bytes; none where nothing is checked.
    #[must_use]
    pub fn most_steps(&self, event: &Event) -> usize {
        self.0.get(event.event_type.as_str()).map_or(0, |entry| entry.schema.most_steps(event))
    }

    /// Reads what an organization has in force now; none: nothing. What has not changed since `before` is not
    /// compiled again.
    pub async fn read(
        database: &Database,
        organization: OrganizationId,
        before: Option<Arc<Self>>,
    ) -> Result<Option<Arc<Self>>, DbError> {
        let enforced = database.enforced_event_types(organization).await?;
        if enforced.is_empty() {
            return Ok(None);
        }
        // Patterns can take a schema some milliseconds, and there may be hundreds.
        let compile = move || Self::compile(enforced, before.as_deref());
        let compiled = tokio::task::spawn_blocking(compile).await;
        compiled
            .map(|compiled| Some(Arc::new(compiled)))
            .map_err(|error| DbError::Unreadable(format!("the schemas of {organization}: {error}")))
    }

    fn compile(enforced: Vec<Enforced>, before: Option<&Self>) -> Self {
        let entry = |Enforced { event_type, schema, updated_at }: Enforced| {
            let known = before.and_then(|before| before.0.get(&event_type));
            if let Some(entry) = known.filter(|entry| entry.updated_at == updated_at) {
                return Some((event_type, entry.clone()));
            }
            let schema = match (schema, catalogue::find(&event_type)) {
                (Some(text), _) => Schema::compile(&text).map(Arc::new),
                (None, Some(listed)) => listed.compiled(),
                (None, None) => return None,
            };
            match schema {
                Ok(schema) => Some((event_type, Entry { schema, updated_at })),
                Err(error) => {
                    tracing::error!(%event_type, %error, "a schema in force cannot be read; its events are not checked");
                    None
                }
            }
        };
        Self(enforced.into_iter().filter_map(entry).collect())
    }
}
