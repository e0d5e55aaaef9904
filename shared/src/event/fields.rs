//! An event as the filter language sees it.

use std::cell::OnceCell;

use super::{AttributeValue, Data, Event};
use crate::filter;

/// An event as the filter language sees it, its data parsed at most once and only when asked for.
#[derive(Debug)]
pub struct Fields<'a> {
    event: &'a Event,
    data: OnceCell<Option<serde_json::Value>>,
}

impl<'a> Fields<'a> {
    /// Looks at `event`; nothing is parsed yet.
    #[must_use]
    pub fn new(event: &'a Event) -> Self {
        Self { event, data: OnceCell::new() }
    }
}

impl filter::Subject for Fields<'_> {
    fn attribute(&self, name: &str) -> Option<filter::Attribute<'_>> {
        let event = self.event;
        let text = match name {
            "id" => Some(event.id.as_str()),
            "source" => Some(event.source.as_str()),
            "type" => Some(event.event_type.as_str()),
            "specversion" => Some("1.0"),
            "subject" => event.subject.as_deref(),
            "time" => event.time.as_deref(),
            "datacontenttype" => event.datacontenttype.as_deref(),
            "dataschema" => event.dataschema.as_deref(),
            _ => {
                let (_, value) = event.extensions.iter().find(|(key, _)| key == name)?;
                return Some(match value {
                    AttributeValue::Text(text) => filter::Attribute::Text(text),
                    AttributeValue::Integer(number) => filter::Attribute::Integer(i64::from(*number)),
                    AttributeValue::Boolean(truth) => filter::Attribute::Boolean(*truth),
                });
            }
        };
        text.map(filter::Attribute::Text)
    }

    fn data(&self) -> Option<&serde_json::Value> {
        let parse = || match &self.event.data {
            Data::Json(bytes) => serde_json::from_slice(bytes).ok(),
            Data::Absent | Data::Binary(_) => None,
        };
        self.data.get_or_init(parse).as_ref()
    }
}
