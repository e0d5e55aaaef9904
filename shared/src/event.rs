//! An event: a CloudEvent 1.0 and its limits, read from the forms in which publishers send it.
//!
//! Events enter as structured JSON ([`Event::from_json`]) or in binary mode, attributes apart from the
//! data ([`Event::from_attributes`]). Inside Cuewire they travel as structured JSON
//! ([`Event::to_json`]); `data` keeps its exact bytes all the way, since signatures cover them.
//! Which organization an event belongs to, and who may publish it, is not judged here.

mod draft;
mod fields;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use draft::Draft;
pub use fields::Fields;

/// The whole event in structured JSON, with binary data decoded, in bytes; `specversion`, `organization` and
/// `time`, which Cuewire adds on the way, do not count, so that what was accepted stays so. Keeps a
/// full prefetch of 512 under 128 MiB.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;
/// Events in one batch over HTTP.
pub const MAX_BATCH_EVENTS: usize = 1_000;
/// A batch over HTTP, in bytes.
pub const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The source of Cuewire's own events. Receivers rely on it: neither an organization's key nor an upstream with an
/// exchange of its own may name it.
pub const OWN_SOURCE: &str = "/cuewire";

const MAX_TYPE_BYTES: usize = 128;

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

/// Whether a media type is JSON's: `application/json`, `text/json`, or any `…+json`.
#[must_use]
pub fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

/// Whether a media type says that the event is all in the body: `application/cloudevents+json` and the like.
/// It wins over attributes in headers, as CloudEvents' bindings say.
#[must_use]
pub fn is_structured(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.starts_with("application/cloudevents")
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
    fn what_was_accepted_at_the_limit_is_accepted_again_with_its_organization_and_time() {
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
            event.time = Some("2026-01-31T09:30:00.123Z".to_owned());
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
