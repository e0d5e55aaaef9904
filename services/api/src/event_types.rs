//! Event types of an organization's own, and the catalogue's schemas that it has in force: by which rules they
//! are saved.

use axum::body::Bytes;
use cuewire::catalogue;
use cuewire::db::DbError;
use cuewire::db::api_keys::KeyHolder;
use cuewire::db::event_types::{NewEventType, OwnEventType};
use cuewire::event::{Event, EventType};
use cuewire::schema::{Misfit, Schema};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::Api;
use crate::checks::{Checks, lines};
use crate::error::Problem;

/// More than the largest platform has. They are read together, and listed on one page.
const MAX_OWN_TYPES: usize = 200;
const MAX_DESCRIPTION_BYTES: usize = 1_000;
/// Beside its schema on the same page.
const MAX_SAMPLE_BYTES: usize = 16 * 1024;

/// An event type, as it is registered. What is left out is none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEventType, example = json!({
    "description": "A slate was shown.", "enforced": true,
    "schema": {"required": ["data"], "properties": {"data": {"required": ["slateId"]}}},
    "sample": {"id": "sample", "source": "/slates", "type": "slate.shown", "data": {"slateId": "s1"}}
}))]
pub(crate) struct EventTypeFields {
    /// What happened, in a sentence.
    description: Option<String>,
    /// The JSON Schema (2020-12) of its events in structured JSON: of the attributes and of `data`. At most
    /// 64 KiB; references by `"$ref": "#/…"` alone, and none that leads to itself.
    #[schema(value_type = Option<Object>)]
    schema: Option<Box<RawValue>>,
    /// An event in structured JSON, at most 16 KiB, which must fit the schema.
    #[schema(value_type = Option<Object>)]
    sample: Option<Box<RawValue>>,
    /// Whether events that do not fit the schema are refused. False unless given.
    enforced: Option<bool>,
}

impl Api {
    /// Makes or replaces the caller's entry of an event type.
    pub(crate) async fn save_event_type(
        &self,
        caller: &KeyHolder,
        name: &str,
        fields: EventTypeFields,
    ) -> Result<OwnEventType, Problem> {
        fields.check(name)?;
        let new = NewEventType {
            name,
            description: fields.description.as_deref(),
            schema: fields.schema.as_deref().map(RawValue::get),
            sample: fields.sample.as_deref().map(RawValue::get),
            enforced: fields.enforced.unwrap_or_default(),
        };
        let listed: Vec<&str> = catalogue::all().iter().map(|entry| entry.name.as_str()).collect();
        let saved = self.database.save_event_type(caller.organization, new, MAX_OWN_TYPES, &listed).await;
        let saved = saved.map_err(|error| match error {
            DbError::Conflict(_) => Problem::no_such("organization"),
            other => other.into(),
        })?;
        let saved = saved.ok_or_else(|| {
            Problem::conflict(format!(
                "the organization has {MAX_OWN_TYPES} event types of its own, and no more are accepted; delete one"
            ))
        })?;
        tracing::info!(event_type = name, enforced = saved.enforced, by = %caller.key, "an event type was saved");
        Ok(saved)
    }

    /// Deletes the caller's entry of an event type.
    pub(crate) async fn delete_event_type(&self, caller: &KeyHolder, name: &str) -> Result<(), Problem> {
        // A name that no type can have would not be understood by the database either.
        let deleted = EventType::parse(name).is_ok()
            && self.database.delete_event_type(caller.organization, name).await?;
        if !deleted {
            return Err(Problem::no_such("event type of your own"));
        }
        tracing::info!(event_type = name, by = %caller.key, "an event type was deleted");
        Ok(())
    }
}

impl EventTypeFields {
    fn check(&self, name: &str) -> Result<(), Problem> {
        let mut checks = Checks::default();
        checks.take("type", EventType::parse(name));
        if let Some(description) = &self.description {
            checks.take("description", lines(description.clone(), MAX_DESCRIPTION_BYTES));
        }
        if catalogue::find(name).is_some() {
            let given = [
                ("description", self.description.is_some()),
                ("schema", self.schema.is_some()),
                ("sample", self.sample.is_some()),
            ];
            for (field, _) in given.into_iter().filter(|(_, given)| *given) {
                checks.refuse(field, "is the catalogue's for this type, and only `enforced` may be given");
            }
            return checks.finish();
        }
        let schema = self
            .schema
            .as_ref()
            .and_then(|schema| note(&mut checks, "schema", Schema::compile(schema.get())));
        if let Some(sample) = self.sample.as_ref().and_then(|sample| read_sample(&mut checks, name, sample)) {
            let fits = schema.map_or(Ok(()), |schema| schema.check(&sample));
            note(&mut checks, "sample", fits);
        }
        if self.enforced == Some(true) && self.schema.is_none() {
            checks.refuse("enforced", "needs a `schema`");
        }
        checks.finish()
    }
}

fn read_sample(checks: &mut Checks, name: &str, sample: &RawValue) -> Option<Event> {
    let text = sample.get();
    if text.len() > MAX_SAMPLE_BYTES {
        checks.refuse(
            "sample",
            format!("is {} bytes, and at most {MAX_SAMPLE_BYTES} are accepted", text.len()),
        );
        return None;
    }
    let event = Event::from_json(&Bytes::copy_from_slice(text.as_bytes()))
        .map_err(|error| format!("is no event: {error}"));
    let event = checks.take("sample", event)?;
    if event.event_type.as_str() != name {
        checks.refuse("sample.type", format!("is {:?}, and must be {name:?}", event.event_type.as_str()));
    }
    Some(event)
}

/// Takes a value, or notes the place in the field at which it is none.
fn note<T>(checks: &mut Checks, field: &str, read: Result<T, Misfit>) -> Option<T> {
    read.map_err(|Misfit { path, reason }| match path.as_str() {
        "" => checks.refuse(field, reason),
        path => checks.refuse(&format!("{field}.{path}"), reason),
    })
    .ok()
}
