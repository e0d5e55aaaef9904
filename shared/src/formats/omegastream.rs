//! `omegastream`: as Omegastream sends its webhooks.
//!
//! From the platform's documentation: the event object below, `response` null, since it is what the endpoint
//! is about to answer. Ours: the 24 hex digits of the ids are the first of the delivery's and the webhook's
//! UUIDs, `created` is the event's `time` (that of the sending, where it has none), the retry schedule, and the
//! headers of Standard Webhooks besides, since the platform has no signature.

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::parts::{json_data, signed_json_request};
use super::{Outgoing, Request, Retries, Rules, Signing, Unsendable};
use crate::delivery::Verdict;

const API_VERSION: &str = "v1";
const ID_DIGITS: usize = 24;

pub(super) const RULES: Rules = Rules {
    name: "omegastream",
    retries: Retries::AsTheWebhookSays,
    signing: Signing::StandardWebhooks,
    rate_limit: None,
    prepare,
    judge: Verdict::by_status,
};

#[derive(Serialize)]
struct Envelope<'a> {
    id: String,
    coid: String,
    api_version: &'static str,
    created: i64,
    r#type: &'a str,
    data: &'a RawValue,
    endpoint_id: String,
    response: (),
}

fn prepare(outgoing: &Outgoing<'_>) -> Result<Request, Unsendable> {
    let event = outgoing.event;
    let envelope = Envelope {
        id: short_id(outgoing.delivery.0),
        coid: outgoing.owner.upstream_id(),
        api_version: API_VERSION,
        created: event.timestamp().unwrap_or(outgoing.now).unix_timestamp(),
        r#type: event.event_type.as_str(),
        data: json_data(event)?,
        endpoint_id: short_id(outgoing.webhook.0),
        response: (),
    };
    Ok(signed_json_request(outgoing, &envelope))
}

fn short_id(uuid: Uuid) -> String {
    let mut digits = uuid.simple().to_string();
    digits.truncate(ID_DIGITS);
    digits
}
