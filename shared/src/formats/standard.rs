//! `standard`: the event in a plain envelope, signed by Standard Webhooks.
//!
//! Body: `id` (the event's), `type`, `timestamp`, `source`, `subject`, `organization`, `data`, and every other
//! attribute that is set. An event whose data is binary is sent as those bytes with its own content type.

use serde::ser::{Error, SerializeMap};
use serde::{Serialize, Serializer};

use super::parts::{JSON, standard_webhooks_headers, to_json};
use super::{Outgoing, Request, Retries, Rules, Signing, Unsendable};
use crate::delivery::{Verdict, rfc3339};
use crate::event::{Data, raw_json};

const BINARY: &str = "application/octet-stream";

pub(super) const RULES: Rules = Rules {
    name: "standard",
    retries: Retries::AsTheWebhookSays,
    signing: Signing::StandardWebhooks,
    rate_limit: None,
    prepare,
    judge: Verdict::by_status,
};

fn prepare(outgoing: &Outgoing<'_>) -> Result<Request, Unsendable> {
    let (content_type, body) = match &outgoing.event.data {
        Data::Binary(bytes) => (outgoing.event.datacontenttype.as_deref().unwrap_or(BINARY), bytes.clone()),
        Data::Json(_) | Data::Absent => (JSON, to_json(&Envelope(outgoing))),
    };
    let mut headers = vec![("content-type", content_type.to_owned())];
    headers.extend(standard_webhooks_headers(outgoing, &body));
    Ok(Request { headers, event_headers: Vec::new(), body })
}

struct Envelope<'a>(&'a Outgoing<'a>);

impl Serialize for Envelope<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Outgoing { event, owner, now, .. } = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &event.id)?;
        map.serialize_entry("type", event.event_type.as_str())?;
        match &event.time {
            Some(time) => map.serialize_entry("timestamp", time)?,
            None => map.serialize_entry("timestamp", &rfc3339(*now))?,
        }
        map.serialize_entry("source", &event.source)?;
        map.serialize_entry("subject", &event.subject)?;
        map.serialize_entry("organization", &owner.id)?;
        let optional = [("datacontenttype", &event.datacontenttype), ("dataschema", &event.dataschema)];
        for (name, value) in optional {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        for (name, value) in &event.extensions {
            // An extension cannot take the place of a member of the envelope.
            if !matches!(name.as_str(), "organization" | "timestamp" | "data") {
                map.serialize_entry(name, value)?;
            }
        }
        match &event.data {
            Data::Json(bytes) => map.serialize_entry("data", raw_json(bytes).map_err(S::Error::custom)?)?,
            Data::Absent | Data::Binary(_) => map.serialize_entry("data", &())?,
        }
        map.end()
    }
}
