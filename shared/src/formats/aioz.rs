//! `aioz`: as AIOZ Stream sends its webhooks.
//!
//! From the platform's documentation: one flat object, and when it is not taken, three retries three seconds
//! apart. Ours: `emitted_at` is the event's `time` (that of the sending, where it has none), the headers of
//! Standard Webhooks besides, since the platform has no signature, and that 410 disables the webhook.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::parts::{json_data, signed_json_request};
use super::{Outgoing, Request, Retries, Rules, Signing, Unsendable};
use crate::delivery::{Verdict, rfc3339};

pub(super) const RULES: Rules = Rules {
    name: "aioz",
    retries: Retries::Fixed(&[Duration::from_secs(3); 3]),
    signing: Signing::StandardWebhooks,
    rate_limit: None,
    prepare,
    judge: Verdict::by_status_alone,
};

#[derive(Serialize)]
struct Flat<'a> {
    r#type: &'a str,
    emitted_at: &'a str,
    media_id: &'a RawValue,
    media_type: &'a RawValue,
    qualities: &'a RawValue,
    title: &'a RawValue,
    status: &'a RawValue,
    user_id: &'a RawValue,
}

fn prepare(outgoing: &Outgoing<'_>) -> Result<Request, Unsendable> {
    let event = outgoing.event;
    let not_an_object = |_| Unsendable::IsNot { attribute: "data", needed: "an object" };
    let data: HashMap<String, &RawValue> =
        serde_json::from_str(json_data(event)?.get()).map_err(not_an_object)?;
    let now = rfc3339(outgoing.now);
    let flat = Flat {
        r#type: event.event_type.as_str(),
        emitted_at: event.time.as_deref().unwrap_or(&now),
        media_id: text(&data, "data.media_id")?,
        media_type: text(&data, "data.media_type")?,
        qualities: text(&data, "data.qualities")?,
        title: text(&data, "data.title")?,
        status: text(&data, "data.status")?,
        user_id: text(&data, "data.user_id")?,
    };
    Ok(signed_json_request(outgoing, &flat))
}

/// A member of the data that is text, as it was written.
fn text<'a>(data: &HashMap<String, &'a RawValue>, path: &'static str) -> Result<&'a RawValue, Unsendable> {
    let name = path.trim_start_matches("data.");
    match data.get(name) {
        Some(value) if value.get().starts_with('"') => Ok(value),
        Some(value) if value.get() != "null" => Err(Unsendable::IsNot { attribute: path, needed: "text" }),
        Some(_) | None => Err(Unsendable::Lacks(path)),
    }
}
