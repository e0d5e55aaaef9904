//! The catalogue of event types: what each platform can tell, in one sentence a type, with a sample.
//!
//! It is what `GET /v1/event-types` answers and where a test call finds the event it sends. An
//! event whose type is not listed is routed and delivered like any other; the schema of one that is listed is
//! held against events where an organization has it in force ([`crate::schema`]), and nowhere else.
//!
//! The entries are data, one file a platform beside this one, and a sample is built from the fields that
//! the platform documents and no others. A sample names no `organization`, so that anybody may publish it
//! as it stands with a key of their own. Where a platform writes no `data`, the sample has none.
//!
//! Each type has a JSON Schema (2020-12) of its events in structured JSON, from `schemas/`: the attributes and
//! the members of `data` that are always there, and the types of those that the platform documents. Further
//! members are allowed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, OnceLock};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::schema::{Misfit, Schema};

/// A platform's entries and its schemas, in the order of the answer; Cuewire's own types come last.
macro_rules! files {
    ($($platform:literal),*) => {
        [$((
            include_str!(concat!("catalogue/", $platform, ".json")),
            include_str!(concat!("catalogue/schemas/", $platform, ".json")),
        )),*]
    };
}

const FILES: [(&str, &str); 6] = files!["millicast", "aioz", "iconik", "quortex", "omegastream", "cuewire"];

static CATALOGUE: LazyLock<Vec<EventType>> = LazyLock::new(|| {
    FILES
        .into_iter()
        .flat_map(|(entries, schemas)| read(entries, schemas))
        .flatten()
        .collect::<Result<_, _>>()
        .expect("the catalogue is part of the program, and a test reads it")
});

static CATEGORIES: LazyLock<BTreeSet<&'static str>> =
    LazyLock::new(|| all().iter().filter_map(|entry| entry.name.split('.').next()).collect());

/// Every event type, platform by platform.
pub fn all() -> &'static [EventType] {
    &CATALOGUE
}

/// The entry of an event type by its whole name, case included, as events carry it.
pub fn find(event_type: &str) -> Option<&'static EventType> {
    all().iter().find(|entry| entry.name == event_type)
}

/// A category as a metric's label: one of the catalogue's, or `other`, since anybody may make up another.
#[must_use]
pub fn category_label(category: &str) -> &'static str {
    CATEGORIES.get(category).copied().unwrap_or("other")
}

/// An entry of the catalogue, in the form in which the API shows it.
#[derive(Debug, Serialize)]
pub struct EventType {
    /// `<category>.<operation>`, the `type` of the events.
    #[serde(rename = "type")]
    pub name: String,
    /// The platform whose events these are.
    pub platform: String,
    /// Whether the platform sends it.
    pub state: State,
    /// True where the platform publishes no literal for the type, or not the application it belongs to,
    /// and the choice is Cuewire's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ours: bool,
    /// What happened, in a sentence, with the platform's own remarks on the type.
    pub description: String,
    /// The JSON Schema (2020-12) of events of this type in structured JSON. Types that look alike share one.
    pub schema: &'static RawValue,
    /// A whole CloudEvent 1.0 of this type in structured JSON. Its text is kept as it is, since the order
    /// of the keys is the one that the platform's receivers know.
    pub sample: &'static RawValue,
    /// The schema, once somebody has it in force.
    #[serde(skip)]
    compiled: OnceLock<Arc<Schema>>,
}

/// An entry as its file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    r#type: String,
    platform: String,
    state: State,
    #[serde(default)]
    ours: bool,
    description: String,
    /// Its name in the file of schemas.
    schema: String,
    #[serde(borrow)]
    sample: &'static RawValue,
}

fn read(
    entries: &'static str,
    schemas: &'static str,
) -> serde_json::Result<impl Iterator<Item = serde_json::Result<EventType>>> {
    let entries: Vec<Entry> = serde_json::from_str(entries)?;
    let schemas: HashMap<String, &'static RawValue> = serde_json::from_str(schemas)?;
    Ok(entries.into_iter().map(move |entry| {
        let unknown = || serde::de::Error::custom(format!("there is no schema {}", entry.schema));
        Ok(EventType {
            schema: schemas.get(&entry.schema).ok_or_else(unknown)?,
            name: entry.r#type,
            platform: entry.platform,
            state: entry.state,
            ours: entry.ours,
            description: entry.description,
            sample: entry.sample,
            compiled: OnceLock::new(),
        })
    }))
}

impl EventType {
    /// What happened, without the remarks on the type: the description's first clause.
    #[must_use]
    pub fn in_short(&self) -> &str {
        self.description.split([',', ';', '.']).next().unwrap_or_default()
    }

    /// The schema, ready to be held against events: compiled once for all who have it in force.
    pub fn compiled(&self) -> Result<Arc<Schema>, Misfit> {
        if let Some(compiled) = self.compiled.get() {
            return Ok(Arc::clone(compiled));
        }
        let compiled = Arc::new(Schema::compile(self.schema.get())?);
        Ok(Arc::clone(self.compiled.get_or_init(|| compiled)))
    }
}

/// How far a platform sends events of a type. Cuewire delivers them in any state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Whenever it happens.
    Live,
    /// In some cases only, which the description names.
    Limited,
    /// Announced, but without effect so far.
    #[serde(rename = "none")]
    NoEffect,
}

#[cfg(test)]
mod tests;
