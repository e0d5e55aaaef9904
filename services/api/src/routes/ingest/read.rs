//! Events as HTTP carries them: CloudEvents' structured, batched and binary mode, and plain JSON.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use cuewire::event::{AttributeValue, Draft, Event, EventError, MAX_BATCH_EVENTS, is_structured};
use percent_encoding::percent_decode;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::faults::{Faults, Refusal};
use crate::error::Problem;
use crate::extract::content_type;

const ATTRIBUTE_PREFIX: &str = "ce-";

/// How the events are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// One JSON object.
    Structured,
    /// A JSON array.
    Batch,
    /// One object or an array: the first byte tells.
    Json,
    /// Attributes in headers, the data as the body.
    Binary,
}

impl Mode {
    /// The mode that the headers tell.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let is_plain = |encoding: &HeaderValue| {
            encoding.is_empty() || encoding.as_bytes().eq_ignore_ascii_case(b"identity")
        };
        if !headers.get_all(header::CONTENT_ENCODING).iter().all(is_plain) {
            return Err(Problem::unsupported("send the body as it is, without a `Content-Encoding`"));
        }
        let media_type = content_type(headers).unwrap_or_default();
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        // The order in which the HTTP binding of CloudEvents tells the modes apart: the content type wins.
        match essence.as_str() {
            "application/cloudevents+json" => Ok(Self::Structured),
            "application/cloudevents-batch+json" => Ok(Self::Batch),
            other if !is_structured(other) && headers.keys().any(is_attribute) => Ok(Self::Binary),
            "application/json" => Ok(Self::Json),
            _ => Err(Problem::unsupported(
                "send an event as application/cloudevents+json or application/json, many as \
                 application/cloudevents-batch+json, or one as ce- headers with its data as the body",
            )),
        }
    }

    /// Reads the body: all of its events, or what is wrong with every one that is none.
    pub(super) fn read(self, headers: &HeaderMap, body: &Bytes) -> Result<Events, Problem> {
        let is_array = || body.trim_ascii_start().first() == Some(&b'[');
        match self {
            Self::Batch => read_batch(body),
            Self::Json if is_array() => read_batch(body),
            Self::Json | Self::Structured => read_one(Draft::from_json(body)),
            Self::Binary => read_one(read_binary(headers, body)),
        }
    }
}

/// The events of a request.
pub(super) struct Events {
    /// The events, in their order.
    pub(super) items: Vec<Event>,
    /// Whether they came as an array, in which one is told by its index.
    is_batch: bool,
}

impl Events {
    /// To be filled with what is wrong with them.
    pub(super) fn faults(&self) -> Faults {
        if self.is_batch { Faults::of_a_batch() } else { Faults::of_one() }
    }
}

fn is_attribute(name: &HeaderName) -> bool {
    name.as_str().starts_with(ATTRIBUTE_PREFIX)
}

fn read_one(draft: Result<Draft, EventError>) -> Result<Events, Problem> {
    let mut faults = Faults::of_one();
    let items = faults.note(0, draft.and_then(complete).map_err(Refusal::NotAnEvent)).into_iter().collect();
    faults.finish()?;
    Ok(Events { items, is_batch: false })
}

fn read_batch(body: &Bytes) -> Result<Events, Problem> {
    let raw: Vec<&RawValue> = serde_json::from_slice(body)
        .map_err(|error| Problem::unreadable(format!("the batch is not a JSON array: {error}")))?;
    if raw.len() > MAX_BATCH_EVENTS {
        return Err(Problem::too_large(format!(
            "the batch has {} events, and at most {MAX_BATCH_EVENTS} are accepted",
            raw.len()
        )));
    }
    let mut faults = Faults::of_a_batch();
    let mut items = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let draft = Draft::from_json(&body.slice_ref(raw.get().as_bytes()));
        items.extend(faults.note(index, draft.and_then(complete).map_err(Refusal::NotAnEvent)));
    }
    faults.finish()?;
    Ok(Events { items, is_batch: true })
}

fn complete(mut draft: Draft) -> Result<Event, EventError> {
    draft.set_default("id", || Uuid::now_v7().to_string());
    draft.into_event()
}

fn read_binary(headers: &HeaderMap, body: &Bytes) -> Result<Draft, EventError> {
    let mut attributes = Vec::new();
    for (header, value) in headers.iter().filter(|(header, _)| is_attribute(header)) {
        let name = header.as_str().trim_start_matches(ATTRIBUTE_PREFIX);
        attributes.push((name.to_owned(), AttributeValue::Text(attribute(name, value)?)));
    }
    Draft::from_attributes(attributes, content_type(headers), body.clone())
}

/// A header's value as CloudEvents' HTTP binding writes it: UTF-8, percent-encoded where it must be.
fn attribute(name: &str, value: &HeaderValue) -> Result<String, EventError> {
    let text = percent_decode(value.as_bytes()).decode_utf8();
    text.map(std::borrow::Cow::into_owned)
        .map_err(|_| EventError::invalid(name, "is not UTF-8 after its percent-encoding was taken off"))
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn a_body_that_would_have_to_be_decoded_is_refused() {
        let mode = |encodings: &[&'static str]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            for encoding in encodings {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
            }
            Mode::of(&headers).map_err(|problem| problem.status)
        };
        for plain in [&[][..], &[""], &["identity"]] {
            assert_eq!(mode(plain), Ok(Mode::Json), "{plain:?}");
        }
        for encoded in [&["gzip"][..], &["identity", "gzip"]] {
            assert_eq!(mode(encoded), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE), "{encoded:?}");
        }
    }
}
