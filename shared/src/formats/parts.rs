//! What several formats are made of: an event's required parts, a JSON body, the signature's headers.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Outgoing, Request, Unsendable};
use crate::event::{AttributeValue, Data, Event, raw_json};
use crate::signature;

pub(super) const JSON: &str = "application/json";

/// The event's data as the JSON that was received.
pub(super) fn json_data(event: &Event) -> Result<&RawValue, Unsendable> {
    let not_json = Unsendable::IsNot { attribute: "data", needed: "JSON" };
    match &event.data {
        Data::Json(bytes) => raw_json(bytes).map_err(|_| not_json),
        Data::Absent => Err(Unsendable::Lacks("data")),
        Data::Binary(_) => Err(not_json),
    }
}

/// An extension attribute that the format needs, as text.
pub(super) fn extension<'a>(event: &'a Event, name: &'static str) -> Result<Cow<'a, str>, Unsendable> {
    let value = event.extensions.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    match value {
        Some(AttributeValue::Text(text)) if !text.is_empty() => Ok(text.into()),
        Some(AttributeValue::Integer(number)) => Ok(number.to_string().into()),
        Some(AttributeValue::Boolean(_)) => Err(Unsendable::IsNot { attribute: name, needed: "text" }),
        Some(AttributeValue::Text(_)) | None => Err(Unsendable::Lacks(name)),
    }
}

/// What the event happened to, where the format needs it.
pub(super) fn subject(event: &Event) -> Result<&str, Unsendable> {
    event.subject.as_deref().ok_or(Unsendable::Lacks("subject"))
}

/// A JSON body without further headers.
pub(super) fn json_request(body: &impl Serialize) -> Request {
    let body = to_json(body);
    Request { headers: vec![("content-type", JSON.to_owned())], event_headers: Vec::new(), body }
}

/// A JSON body with the headers of Standard Webhooks, as for platforms that have no signature of their own.
pub(super) fn signed_json_request(outgoing: &Outgoing<'_>, body: &impl Serialize) -> Request {
    let mut request = json_request(body);
    request.headers.extend(standard_webhooks_headers(outgoing, &request.body));
    request
}

/// A body as JSON.
pub(super) fn to_json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("a body has text keys, and JSON that was checked").into()
}

/// The three headers of Standard Webhooks over this body.
pub(super) fn standard_webhooks_headers(outgoing: &Outgoing<'_>, body: &[u8]) -> [(&'static str, String); 3] {
    let id = outgoing.delivery.to_string();
    let timestamp = outgoing.now.unix_timestamp();
    let signature = signature::sign(outgoing.secrets, &id, timestamp, body);
    [("webhook-id", id), ("webhook-timestamp", timestamp.to_string()), ("webhook-signature", signature)]
}
