//! `cloudevents`: the event as it is, by the HTTP protocol binding of CloudEvents 1.0.
//!
//! Structured JSON (`application/cloudevents+json`); an event whose data is binary goes in binary mode,
//! its attributes as percent-encoded `ce-` headers. Signed by Standard Webhooks besides.
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::parts::standard_webhooks_headers;
use super::{Outgoing, Request, Retries, Rules, Signing, Unsendable};
use crate::delivery::Verdict;
use crate::event::{AttributeValue, Data, Event};

/// Section 3.1.3.2 of the binding: space, the quote and the percent sign, and all that is not ASCII.
const HEADER_VALUE: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

pub(super) const RULES: Rules = Rules {
    name: "cloudevents",
    retries: Retries::AsTheWebhookSays,
    signing: Signing::StandardWebhooks,
    rate_limit: None,
    prepare,
    judge: Verdict::by_status,
};

fn prepare(outgoing: &Outgoing<'_>) -> Result<Request, Unsendable> {
    let event = outgoing.event;
    let (content_type, event_headers, body) = match &event.data {
        Data::Binary(bytes) => (event.datacontenttype.clone(), attribute_headers(event), bytes.clone()),
        Data::Json(_) | Data::Absent => {
            (Some("application/cloudevents+json; charset=utf-8".to_owned()), Vec::new(), event.to_json())
        }
    };
    let mut headers: Vec<_> = content_type.map(|value| ("content-type", value)).into_iter().collect();
    headers.extend(standard_webhooks_headers(outgoing, &body));
    Ok(Request { headers, event_headers, body })
}

fn attribute_headers(event: &Event) -> Vec<(String, String)> {
    let named = [
        ("specversion", Some("1.0")),
        ("id", Some(event.id.as_str())),
        ("source", Some(event.source.as_str())),
        ("type", Some(event.event_type.as_str())),
        ("subject", event.subject.as_deref()),
        ("time", event.time.as_deref()),
        ("dataschema", event.dataschema.as_deref()),
    ];
    let named = named.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned())));
    let extensions = event.extensions.iter().map(|(name, value)| {
        let text = match value {
            AttributeValue::Text(text) => text.clone(),
            AttributeValue::Integer(number) => number.to_string(),
            AttributeValue::Boolean(truth) => truth.to_string(),
        };
        (name.as_str(), text)
    });
    named
        .chain(extensions)
        .map(|(name, value)| (format!("ce-{name}"), utf8_percent_encode(&value, HEADER_VALUE).to_string()))
        .collect()
}
