//! `quortex`: as Quortex I/O sends its webhooks of the type `raw`.
//!
//! From the platform's documentation: the flat envelope below, all text, `pool_uuid` for events of Play and Link,
//! `metadata` where the event has any. Ours: `organization_uuid` is the organization's name upstream, else its id,
//! `category` and `operation` are the halves of the event's type, `resource_uuid` is its `subject`, `application`,
//! `message` and `pool_uuid` are its extensions of those names (`pooluuid`), `metadata` is its data; the retry
//! schedule, and the headers of Standard Webhooks besides, since the platform has no signature. The platform's types
//! `slack`, `gchat` and `teams` are the chat formats.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::parts::{extension, json_data, signed_json_request, subject};
use super::{Outgoing, Request, Retries, Rules, Signing, Unsendable};
use crate::delivery::Verdict;
use crate::event::Data;

/// The applications whose events happen in a pool.
const WITH_POOL: [&str; 2] = ["play", "link"];

pub(super) const RULES: Rules = Rules {
    name: "quortex",
    retries: Retries::AsTheWebhookSays,
    signing: Signing::StandardWebhooks,
    rate_limit: None,
    prepare,
    judge: Verdict::by_status,
};

#[derive(Serialize)]
struct Raw<'a> {
    application: &'a str,
    category: &'a str,
    operation: &'a str,
    resource_uuid: &'a str,
    organization_uuid: String,
    organization: &'a str,
    message: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_uuid: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
}

fn prepare(outgoing: &Outgoing<'_>) -> Result<Request, Unsendable> {
    let event = outgoing.event;
    let application = extension(event, "application")?;
    let raw = Raw {
        application: &application,
        category: event.event_type.category(),
        operation: event.event_type.operation(),
        resource_uuid: subject(event)?,
        organization_uuid: outgoing.owner.upstream_id(),
        organization: &outgoing.owner.name,
        message: extension(event, "message")?,
        pool_uuid: WITH_POOL
            .contains(&application.as_ref())
            .then(|| extension(event, "pooluuid"))
            .transpose()?,
        metadata: match &event.data {
            Data::Absent => None,
            Data::Json(_) | Data::Binary(_) => Some(json_data(event)?),
        },
    };
    Ok(signed_json_request(outgoing, &raw))
}
