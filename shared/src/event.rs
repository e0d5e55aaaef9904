//! An event: a CloudEvent 1.0 and its limits, read from the forms in which publishers send it.
//!
//! Events enter as structured JSON ([`Event::from_json`]) or in binary mode, attributes apart from the
//! data ([`Event::from_attributes`]). Inside Cuewire they travel as structured JSON
//! ([`Event::to_json`]); `data` keeps its exact bytes all the way, since signatures cover them.
//! Which organization an event belongs to, and who may publish it, is not judged here.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::filter;

/// The whole event in structured JSON, with binary data decoded, in bytes; `specversion` and
/// `organization`, which Cuewire adds on the way, do not count, so that what was accepted stays so. Keeps a
/// full prefetch of 512 under 128 MiB.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;
/// Events in one batch over HTTP.
pub const MAX_BATCH_EVENTS: usize = 1_000;
/// A batch over HTTP, in bytes.
pub const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// An event as JSON: 256 KiB of data grow by a third in base64, and the attributes come on top.
pub const MAX_EVENT_JSON_BYTES: usize = MAX_EVENT_BYTES / 3 * 4 + 64 * 1024;

const MAX_ID_BYTES: usize = 128;
const MAX_SOURCE_BYTES: usize = 512;
const MAX_TYPE_BYTES: usize = 128;
/// Subject, time, content type, schema and every extension: enough for any URL, and an index entry.
const MAX_ATTRIBUTE_BYTES: usize = 2_048;
const MAX_EXTENSIONS: usize = 64;
const MAX_EXTENSION_NAME_BYTES: usize = 64;

/// Why something is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Not JSON, or not a JSON object; the sentence holds the position.
    #[error("the event is not valid JSON: {0}")]
    Syntax(String),
    /// An attribute is missing or not as it must be.
    #[error("`{field}` {reason}")]
    Invalid {
        /// The attribute's name.
        field: String,
        /// What is wrong, to be read after the field's name.
        reason: String,
    },
    /// Over [`MAX_EVENT_BYTES`].
    #[error("the event is {bytes} bytes, and at most {MAX_EVENT_BYTES} are accepted")]
    TooLarge {
        /// The event's size, with binary data decoded.
        bytes: usize,
    },
}

impl EventError {
    /// An attribute that is not as it must be: `reason` reads on from the field's name.
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }
}

/// A CloudEvent 1.0 within Cuewire's limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The publisher's id, at most 128 bytes.
    pub id: String,
    /// Who published it, at most 512 bytes; `source` and `id` together name an event.
    pub source: String,
    /// What happened: `<category>.<operation>`.
    pub event_type: EventType,
    /// What it happened to.
    pub subject: Option<String>,
    /// When it happened, RFC 3339, as the publisher wrote it.
    pub time: Option<String>,
    /// Media type of the data.
    pub datacontenttype: Option<String>,
    /// URI of the data's schema.
    pub dataschema: Option<String>,
    /// All other attributes, `organization` among them, in the order they came in.
    pub extensions: Vec<(String, AttributeValue)>,
    /// What the event carries.
    pub data: Data,
}

/// An extension attribute's value: the CloudEvents types that JSON can tell apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    /// Text, also URIs and timestamps.
    Text(String),
    /// A whole number of 32 bits.
    Integer(i32),
    /// True or false.
    Boolean(bool),
}

/// An event's data, as the bytes that were received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// The event has none.
    Absent,
    /// A JSON value.
    Json(Bytes),
    /// Anything else: an image, text.
    Binary(Bytes),
}

/// An event's type, `<category>.<operation>`: words of `[A-Za-z0-9_-]` joined by dots.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType(String);

impl EventType {
    /// Reads a type; the error is a sentence to be read after the field's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TYPE_BYTES {
            return Err(format!("is {} bytes, and at most {MAX_TYPE_BYTES} are accepted", text.len()));
        }
        let word = |word: &str| !word.is_empty() && word.bytes().all(is_word_byte);
        match text.split_once('.') {
            None => Err(format!("is {text:?}, and must be `<category>.<operation>`")),
            Some(_) if text.split('.').all(word) => Ok(Self(text.to_owned())),
            Some(_) => {
                Err(format!("is {text:?}, and must be words of A-Z, a-z, 0-9, _ and - joined by dots"))
            }
        }
    }

    /// The whole type.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first word: the key of the exchanges.
    #[must_use]
    pub fn category(&self) -> &str {
        self.0.split_once('.').map_or(self.0.as_str(), |(category, _)| category)
    }

    /// All that follows the first dot.
    #[must_use]
    pub fn operation(&self) -> &str {
        self.0.split_once('.').map_or("", |(_, operation)| operation)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether the byte may stand in a word of an event's type.
#[must_use]
pub fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

impl Event {
    /// Reads structured JSON: one object of attributes with `data` or `data_base64`.
    ///
    /// `specversion` may be missing (a convenience); a missing `id` is an error here.
    pub fn from_json(body: &Bytes) -> Result<Self, EventError> {
        Draft::from_json(body)?.into_event()
    }

    /// Reads binary mode: the attributes by name, and the data as a body of `content_type`.
    pub fn from_attributes(
        attributes: impl IntoIterator<Item = (String, AttributeValue)>,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Self, EventError> {
        Draft::from_attributes(attributes, content_type, body)?.into_event()
    }

    /// The event as structured JSON, its data byte for byte as it was received.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        let size = match &self.data {
            Data::Absent => 512,
            Data::Json(bytes) | Data::Binary(bytes) => 512 + bytes.len() / 3 * 4,
        };
        let mut out = Vec::with_capacity(size);
        serde_json::to_writer(&mut out, self).expect("an event has text keys, and a Vec takes every write");
        out.into()
    }

    /// An extension attribute that holds text, `organization` among them.
    #[must_use]
    pub fn extension(&self, name: &str) -> Option<&str> {
        self.extensions.iter().find(|(key, _)| key == name).and_then(|(_, value)| match value {
            AttributeValue::Text(text) => Some(text.as_str()),
            AttributeValue::Integer(_) | AttributeValue::Boolean(_) => None,
        })
    }

    /// Sets an extension attribute, over an earlier one of that name.
    pub fn set_extension(&mut self, name: &str, value: AttributeValue) {
        match self.extensions.iter_mut().find(|(key, _)| key == name) {
            Some((_, slot)) => *slot = value,
            None => self.extensions.push((name.to_owned(), value)),
        }
    }

    /// When it happened, if the publisher said so.
    #[must_use]
    pub fn timestamp(&self) -> Option<OffsetDateTime> {
        self.time.as_deref().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok())
    }
}

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
    matches!(name, "specversion" | "organization")
}

/// What a member of an object takes: `"name":value,`.
fn member_bytes(name: &str, value_bytes: usize) -> usize {
    name.len() + value_bytes + 4
}

/// Whether a media type is JSON's: `application/json`, `text/json`, or any `…+json`.
#[must_use]
pub fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
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

impl Serialize for AttributeValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Integer(number) => serializer.serialize_i32(*number),
            Self::Boolean(truth) => serializer.serialize_bool(*truth),
        }
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::{Error, SerializeMap};
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", "1.0")?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("source", &self.source)?;
        map.serialize_entry("type", self.event_type.as_str())?;
        let optional = [
            ("subject", &self.subject),
            ("time", &self.time),
            ("datacontenttype", &self.datacontenttype),
            ("dataschema", &self.dataschema),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        for (name, value) in &self.extensions {
            map.serialize_entry(name, value)?;
        }
        match &self.data {
            Data::Absent => {}
            Data::Json(bytes) => map.serialize_entry("data", &raw_json(bytes).map_err(S::Error::custom)?)?,
            Data::Binary(bytes) => map.serialize_entry("data_base64", &BASE64.encode(bytes))?,
        }
        map.end()
    }
}

/// JSON that was checked when it was read, to be written as it stands.
pub fn raw_json(bytes: &[u8]) -> Result<&RawValue, serde_json::Error> {
    serde_json::from_slice(bytes)
}

/// An event as the filter language sees it, its data parsed at most once and only when asked for.
#[derive(Debug)]
pub struct Fields<'a> {
    event: &'a Event,
    data: std::cell::OnceCell<Option<serde_json::Value>>,
}

impl<'a> Fields<'a> {
    /// Looks at `event`; nothing is parsed yet.
    #[must_use]
    pub fn new(event: &'a Event) -> Self {
        Self { event, data: std::cell::OnceCell::new() }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> Result<Event, EventError> {
        Event::from_json(&Bytes::copy_from_slice(json.as_bytes()))
    }

    fn with(member: &str) -> Result<Event, EventError> {
        event(&format!(r#"{{"id":"1","source":"s","type":"a.b",{member}}}"#))
    }

    #[test]
    fn data_keeps_its_exact_bytes_on_the_way_through() {
        let data = r#"{ "b":1,  "a": 1.50e2, "e":"\u00e9" }"#;
        let read = with(&format!(r#""data": {data} "#)).unwrap();
        assert_eq!(read.data, Data::Json(Bytes::copy_from_slice(data.as_bytes())));
        let written = read.to_json();
        assert!(std::str::from_utf8(&written).unwrap().contains(data));
        assert_eq!(Event::from_json(&written).unwrap(), read);
    }

    #[test]
    fn binary_data_survives_as_base64() {
        let image = Bytes::from_static(&[0xff, 0xd8, 0, 1, 2, 0xff]);
        let attributes =
            [("id", "1"), ("source", "s"), ("type", "thumbnail.captured"), ("specversion", "1.0")]
                .map(|(name, value)| (name.to_owned(), AttributeValue::Text(value.to_owned())));
        let read = Event::from_attributes(attributes, Some("image/jpeg"), image.clone()).unwrap();
        assert_eq!(read.data, Data::Binary(image));
        assert_eq!(Event::from_json(&read.to_json()).unwrap(), read);
    }

    #[test]
    fn all_attributes_and_extensions_are_kept_in_their_order() {
        let read = with(r#""subject":"x","zeta":1,"alpha":true,"organization":"o","time":"2026-01-31T09:30:00+01:00","data":null"#)
            .unwrap();
        let names: Vec<_> = read.extensions.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["zeta", "alpha", "organization"]);
        assert_eq!(read.data, Data::Absent);
        assert_eq!(Event::from_json(&read.to_json()).unwrap(), read);
    }

    #[test]
    fn what_is_not_an_event_is_told_by_field_and_reason() {
        let long = "x".repeat(513);
        let cases = [
            (
                event("[]"),
                "the event is not valid JSON: invalid type: sequence, expected an object of event attributes at line 1 column 0",
            ),
            (event(r#"{"id":"1","type":"a.b"}"#), "`source` is missing"),
            (event(r#"{"source":"s","type":"a.b"}"#), "`id` is missing"),
            (event(r#"{"id":"1","source":"s"}"#), "`type` is missing"),
            (
                event(r#"{"id":"1","source":"s","type":"nodot"}"#),
                "`type` is \"nodot\", and must be `<category>.<operation>`",
            ),
            (
                event(r#"{"id":"1","source":"s","type":"a..b"}"#),
                "`type` is \"a..b\", and must be words of A-Z, a-z, 0-9, _ and - joined by dots",
            ),
            (event(r#"{"id":"","source":"s","type":"a.b"}"#), "`id` is empty"),
            (
                event(&format!(r#"{{"id":"1","source":"{long}","type":"a.b"}}"#)),
                "`source` is 513 bytes, and at most 512 are accepted",
            ),
            (with(r#""id":"2""#), "`id` is there twice"),
            (with(r#""specversion":"0.3""#), "`specversion` must be \"1.0\""),
            (
                with(r#""time":"yesterday""#),
                "`time` must be a time as in RFC 3339, such as 2026-01-31T09:30:00Z",
            ),
            (
                with(r#""Realm":"x""#),
                "`Realm` is not a name for an attribute: at most 64 lower-case letters and digits",
            ),
            (with(r#""realm":{}"#), "`realm` must be text, a whole number or a boolean"),
            (with(r#""realm":1.5"#), "`realm` must be a whole number of 32 bits"),
            (with(r#""subject":"a\u0000b""#), "`subject` contains a control character"),
            (with(r#""subject":7"#), "`subject` must be text"),
            (
                with(r#""data":1,"data_base64":"AA==""#),
                "`data_base64` is a second `data`, and an event has one",
            ),
            (with(r#""data_base64":"*""#), "`data_base64` is not base64: Invalid symbol 42, offset 0."),
        ];
        for (read, message) in cases {
            assert_eq!(read.unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn an_event_may_be_256_kib_and_not_a_byte_more() {
        let fill = |bytes: usize| with(&format!(r#""data":"{}""#, "x".repeat(bytes)));
        let overhead = r#"{"id":"1","source":"s","type":"a.b","data":""}"#.len();
        assert!(fill(MAX_EVENT_BYTES - overhead).is_ok());
        assert_eq!(
            fill(MAX_EVENT_BYTES - overhead + 1).unwrap_err(),
            EventError::TooLarge { bytes: MAX_EVENT_BYTES + 1 }
        );
    }

    #[test]
    fn what_was_accepted_at_the_limit_is_accepted_again_with_its_organization() {
        let quotes = "\"".repeat(2_000);
        let attributes = || {
            [("id", "1"), ("source", "s"), ("type", "a.b"), ("subject", &quotes)]
                .map(|(name, value)| (name.to_owned(), AttributeValue::Text(value.to_owned())))
        };
        let binary = |bytes| {
            Event::from_attributes(
                attributes(),
                Some("application/json"),
                format!(r#""{}""#, "x".repeat(bytes)).into(),
            )
        };
        let structured = |bytes| with(&format!(r#""data":"{}""#, "x".repeat(bytes)));
        for read in [&binary as &dyn Fn(usize) -> Result<Event, EventError>, &structured] {
            let largest =
                (0..MAX_EVENT_BYTES).collect::<Vec<_>>().partition_point(|bytes| read(*bytes).is_ok());
            let mut event = read(largest - 1).unwrap();
            event.set_extension("organization", AttributeValue::Text("o".repeat(255)));
            assert_eq!(Event::from_json(&event.to_json()).unwrap(), event);
        }
    }

    #[test]
    fn a_json_body_in_binary_mode_must_be_json() {
        let attributes = || {
            [("id", "1"), ("source", "s"), ("type", "a.b")]
                .map(|(name, value)| (name.to_owned(), AttributeValue::Text(value.to_owned())))
        };
        let read = |content_type, body| Event::from_attributes(attributes(), content_type, body);
        assert!(matches!(
            read(Some("application/json"), Bytes::from_static(b"{")),
            Err(EventError::Syntax(_))
        ));
        assert_eq!(
            read(Some("text/plain"), Bytes::from_static(b"{")).unwrap().data,
            Data::Binary(Bytes::from_static(b"{"))
        );
        assert_eq!(read(None, Bytes::new()).unwrap().data, Data::Absent);
    }
}
