//! Where a comparison looks: an attribute of the event, or a place in its data.

use std::fmt;

use serde_json::Value;

use super::operand::{IndexKey, Operand};
use super::{Attribute, Subject};

/// A place in an event. Two names of the same place are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Path(Place);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    Category,
    Operation,
    SubjectName,
    Attribute(Box<str>),
    Data,
    /// Below the data: names joined by dots, as written. None is empty, and none holds a dot, so that one
    /// string says it all in less memory than a list.
    InData(Box<str>),
}

impl Path {
    /// Reads a dotted path of which no name is empty. One that leads below an attribute is kept as an
    /// attribute of the whole name: no event has it, so it is null.
    pub(super) fn new(text: &str) -> Path {
        if let Some(names) = text.strip_prefix("data.") {
            return Path(Place::InData(names.into()));
        }
        Path(match text {
            "data" => Place::Data,
            "category" | "event_type" => Place::Category,
            "operation" => Place::Operation,
            "subject_name" => Place::SubjectName,
            "object_id" => Place::Attribute("subject".into()),
            "user_id" => Place::Attribute("userid".into()),
            "request_id" => Place::Attribute("requestid".into()),
            "system_domain_id" => Place::Attribute("organization".into()),
            name => Place::Attribute(name.into()),
        })
    }

    /// What an index of webhooks by [`Filter::required_equality`](super::Filter::required_equality) has to
    /// be asked for this event: `None` where the event has no string, number or boolean here.
    pub fn index_key<'e>(&self, event: &'e (impl Subject + ?Sized)) -> Option<IndexKey<'e>> {
        self.lookup(event).index_key()
    }

    /// What the event has here; null where it has nothing.
    pub(super) fn lookup<'e>(&self, event: &'e (impl Subject + ?Sized)) -> Operand<'e> {
        let found = match &self.0 {
            Place::Category => text(event, "type").map(|name| Operand::Text(category(name))),
            Place::Operation => text(event, "type").and_then(|name| behind(name, '.')).map(Operand::Text),
            Place::SubjectName => text(event, "subject").and_then(|id| behind(id, '/')).map(Operand::Text),
            Place::Attribute(name) => event.attribute(name).map(Operand::from),
            Place::Data => event.data().map(Operand::from),
            Place::InData(names) => event.data().and_then(|data| descend(data, names)).map(Operand::from),
        };
        found.unwrap_or(Operand::Null)
    }

    pub(super) fn is_in_data(&self) -> bool {
        matches!(self.0, Place::Data | Place::InData(_))
    }

    /// Whether events usually share their value here with many others, so that it tells little.
    pub(super) fn is_common_to_many_events(&self) -> bool {
        match &self.0 {
            Place::Category | Place::Operation => true,
            Place::Attribute(name) => {
                matches!(&**name, "type" | "source" | "organization" | "application" | "realm")
            }
            Place::SubjectName | Place::Data | Place::InData(_) => false,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Category => formatter.write_str("category"),
            Place::Operation => formatter.write_str("operation"),
            Place::SubjectName => formatter.write_str("subject_name"),
            Place::Attribute(name) => formatter.write_str(name),
            Place::Data => formatter.write_str("data"),
            Place::InData(names) => write!(formatter, "data.{names}"),
        }
    }
}

fn text<'e>(event: &'e (impl Subject + ?Sized), attribute: &str) -> Option<&'e str> {
    match event.attribute(attribute)? {
        Attribute::Text(text) => Some(text),
        Attribute::Integer(_) | Attribute::Boolean(_) => None,
    }
}

fn category(event_type: &str) -> &str {
    event_type.split_once('.').map_or(event_type, |(category, _)| category)
}

/// The text after the first `mark`.
fn behind(text: &str, mark: char) -> Option<&str> {
    text.split_once(mark).map(|(_, rest)| rest)
}

fn descend<'e>(data: &'e Value, names: &str) -> Option<&'e Value> {
    names.split('.').try_fold(data, |value, name| match value {
        Value::Object(members) => members.get(name),
        Value::Array(elements) => elements.get(name.parse::<usize>().ok()?),
        _ => None,
    })
}
