//! An event being read: what was found, then held against the rules of CloudEvents and Cuewire's limits.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{AttributeValue, Data, Event, EventError, EventType, MAX_EVENT_BYTES, is_json};

const MAX_ID_BYTES: usize = 128;
const MAX_SOURCE_BYTES: usize = 512;
/// Subject, time, content type, schema and every extension: enough for any URL, and an index entry.
const MAX_ATTRIBUTE_BYTES: usize = 2_048;
const MAX_EXTENSIONS: usize = 64;
const MAX_EXTENSION_NAME_BYTES: usize = 64;

/// An event being read: what was found, not yet held against the rules.
#[derive(Debug, Default)]
pub struct Draft {
    attributes: Vec<(String, AttributeValue)>,
    data: Option<Data>,
    /// What [`MAX_EVENT_BYTES`] bounds.
    size: usize,
}

impl Draft {
    /// Reads one JSON object, without judging its attributes.
    pub fn from_json(body: &Bytes) -> Result<Self, EventError> {
        let Members(members) =
            serde_json::from_slice(body).map_err(|error| EventError::Syntax(error.to_string()))?;
        let mut draft = Self { attributes: Vec::with_capacity(members.len()), data: None, size: body.len() };
        for (name, raw) in members {
            let data = match name.as_str() {
                _ if raw.get() == "null" => continue,
                "data" => Data::Json(body.slice_ref(raw.get().as_bytes())),
                "data_base64" => {
                    let bytes = decode_base64(raw)?;
                    draft.size = draft.size - raw.get().len() + bytes.len();
                    Data::Binary(bytes)
                }
                _ => {
                    if is_added_by_cuewire(&name) {
                        draft.size = draft.size.saturating_sub(member_bytes(&name, raw.get().len()));
                    }
                    let value = AttributeValue::from_json(&name, raw)?;
                    draft.attributes.push((name, value));
                    continue;
                }
            };
            if draft.data.replace(data).is_some() {
                return Err(EventError::invalid(name, "is a second `data`, and an event has one"));
            }
        }
        Ok(draft)
    }

    /// Takes the attributes and the body of binary mode; a body of a JSON media type must be JSON.
    pub fn from_attributes(
        attributes: impl IntoIterator<Item = (String, AttributeValue)>,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Self, EventError> {
        let mut attributes: Vec<_> = attributes.into_iter().collect();
        attributes.retain(|(name, _)| name != "datacontenttype");
        if let Some(content_type) = content_type {
            attributes.push(("datacontenttype".to_owned(), AttributeValue::Text(content_type.to_owned())));
        }
        let counted = attributes.iter().filter(|(name, _)| !is_added_by_cuewire(name));
        let size = member_bytes("data_base64", body.len())
            + counted.map(|(name, value)| member_bytes(name, value.json_bytes())).sum::<usize>();
        let data = if body.is_empty() {
            None
        } else if content_type.is_some_and(is_json) {
            serde_json::from_slice::<&RawValue>(&body)
                .map_err(|error| EventError::Syntax(format!("in its data, {error}")))?;
            Some(Data::Json(body))
        } else {
            Some(Data::Binary(body))
        };
        Ok(Self { attributes, data, size })
    }

    /// Sets an attribute that is not there yet.
    pub fn set_default(&mut self, name: &str, value: impl FnOnce() -> String) {
        if !self.attributes.iter().any(|(key, _)| key == name) {
            self.attributes.push((name.to_owned(), AttributeValue::Text(value())));
        }
    }

    /// Holds what was read against the rules of CloudEvents and Cuewire's limits.
    pub fn into_event(self) -> Result<Event, EventError> {
        if self.size > MAX_EVENT_BYTES {
            return Err(EventError::TooLarge { bytes: self.size });
        }
        let mut required = [None, None, None];
        let mut optional = [None, None, None, None];
        let mut extensions = Vec::new();
        for (name, value) in self.attributes {
            let slot = match name.as_str() {
                "specversion" => {
                    if value != AttributeValue::Text("1.0".to_owned()) {
                        return Err(EventError::invalid(name, "must be \"1.0\""));
                    }
                    continue;
                }
                "id" => &mut required[0],
                "source" => &mut required[1],
                "type" => &mut required[2],
                "subject" => &mut optional[0],
                "time" => &mut optional[1],
                "datacontenttype" => &mut optional[2],
                "dataschema" => &mut optional[3],
                _ => {
                    check_extension(&name, &value, &extensions)?;
                    extensions.push((name, value));
                    continue;
                }
            };
            let max_bytes = match name.as_str() {
                "id" => MAX_ID_BYTES,
                "source" => MAX_SOURCE_BYTES,
                _ => MAX_ATTRIBUTE_BYTES,
            };
            let text = check_text(&name, value, max_bytes)?;
            if slot.replace(text).is_some() {
                return Err(EventError::invalid(name, "is there twice"));
            }
        }
        let [id, source, event_type] = required;
        let [subject, time, datacontenttype, dataschema] = optional;
        let missing = |field: &str| EventError::invalid(field, "is missing");
        let event_type = event_type.ok_or_else(|| missing("type"))?;
        if time.as_deref().is_some_and(|time| OffsetDateTime::parse(time, &Rfc3339).is_err()) {
            return Err(EventError::invalid(
                "time",
                "must be a time as in RFC 3339, such as 2026-01-31T09:30:00Z",
            ));
        }
        Ok(Event {
            id: id.ok_or_else(|| missing("id"))?,
            source: source.ok_or_else(|| missing("source"))?,
            event_type: EventType::parse(&event_type)
                .map_err(|reason| EventError::invalid("type", reason))?,
            subject,
            time,
            datacontenttype,
            dataschema,
            extensions,
            data: self.data.unwrap_or(Data::Absent),
        })
    }
}

/// Text that is not empty, not longer than `max_bytes`, and free of control characters (which
/// CloudEvents forbids, and Postgres cannot store in the case of NUL).
fn check_text(name: &str, value: AttributeValue, max_bytes: usize) -> Result<String, EventError> {
    match value {
        AttributeValue::Text(text) if text.is_empty() => Err(EventError::invalid(name, "is empty")),
        AttributeValue::Text(text) if text.len() > max_bytes => Err(EventError::invalid(
            name,
            format!("is {} bytes, and at most {max_bytes} are accepted", text.len()),
        )),
        AttributeValue::Text(text) if text.chars().any(char::is_control) => {
            Err(EventError::invalid(name, "contains a control character"))
        }
        AttributeValue::Text(text) => Ok(text),
        AttributeValue::Integer(_) | AttributeValue::Boolean(_) => {
            Err(EventError::invalid(name, "must be text"))
        }
    }
}

fn check_extension(
    name: &str,
    value: &AttributeValue,
    others: &[(String, AttributeValue)],
) -> Result<(), EventError> {
    let is_name_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() || name.len() > MAX_EXTENSION_NAME_BYTES || !name.bytes().all(is_name_byte) {
        return Err(EventError::invalid(
            name,
            "is not a name for an attribute: at most 64 lower-case letters and digits",
        ));
    }
    if others.iter().any(|(other, _)| other == name) {
        return Err(EventError::invalid(name, "is there twice"));
    }
    if others.len() == MAX_EXTENSIONS {
        return Err(EventError::invalid(name, format!("is one attribute more than {MAX_EXTENSIONS}")));
    }
    match value {
        AttributeValue::Text(text) => {
            if text.len() > MAX_ATTRIBUTE_BYTES {
                return Err(EventError::invalid(
                    name,
                    format!("is {} bytes, and at most {MAX_ATTRIBUTE_BYTES} are accepted", text.len()),
                ));
            }
            if text.chars().any(char::is_control) {
                return Err(EventError::invalid(name, "contains a control character"));
            }
            Ok(())
        }
        AttributeValue::Integer(_) | AttributeValue::Boolean(_) => Ok(()),
    }
}

/// Attributes that an event may gain on its way.
fn is_added_by_cuewire(name: &str) -> bool {
    matches!(name, "specversion" | "organization" | "time")
}

/// What a member of an object takes: `"name":value,`.
fn member_bytes(name: &str, value_bytes: usize) -> usize {
    name.len() + value_bytes + 4
}

impl AttributeValue {
    fn from_json(name: &str, raw: &RawValue) -> Result<Self, EventError> {
        let text = raw.get();
        match text.as_bytes()[0] {
            b't' => Ok(Self::Boolean(true)),
            b'f' => Ok(Self::Boolean(false)),
            b'"' => serde_json::from_str(text)
                .map(Self::Text)
                .map_err(|error| EventError::invalid(name, format!("is not valid text: {error}"))),
            b'{' | b'[' => Err(EventError::invalid(name, "must be text, a whole number or a boolean")),
            _ => text
                .parse()
                .map(Self::Integer)
                .map_err(|_| EventError::invalid(name, "must be a whole number of 32 bits")),
        }
    }

    fn json_bytes(&self) -> usize {
        serde_json::to_string(self).map_or(0, |json| json.len())
    }
}

fn decode_base64(raw: &RawValue) -> Result<Bytes, EventError> {
    let text: Cow<'_, str> = serde_json::from_str(raw.get())
        .map_err(|_| EventError::invalid("data_base64", "must be text in base64"))?;
    let bytes = BASE64
        .decode(text.as_bytes())
        .map_err(|error| EventError::invalid("data_base64", format!("is not base64: {error}")))?;
    Ok(bytes.into())
}

/// The members of a JSON object in their order, each value still as it was written.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of event attributes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(12);
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}
