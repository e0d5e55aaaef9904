//! `iconik`: as iconik sends its webhooks.
//!
//! From the platform's documentation (<https://app.iconik.io/help/pages/entities/webhooks>): the envelope below,
//! with the webhook's own headers on every call. Ours: `request_id` is the delivery's id where the event has
//! none that is 32 hex digits, `system_domain_id` is the organization's name upstream, else its id, `event_type` and
//! `operation` are the halves of the event's type, `object_id` is its `subject`, `user_id` and `realm` are its
//! extensions `userid` and `realm`, and the headers of Standard Webhooks besides, since the platform has no signature.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::parts::{extension, json_data, signed_json_request, subject};
use super::{Outgoing, Request, Retries, Rules, Signing, Unsendable};
use crate::delivery::Verdict;

pub(super) const RULES: Rules = Rules {
    name: "iconik",
    retries: Retries::AsTheWebhookSays,
    signing: Signing::StandardWebhooks,
    rate_limit: None,
    prepare,
    judge: Verdict::by_status,
};

#[derive(Serialize)]
struct Envelope<'a> {
    system_domain_id: String,
    event_type: &'a str,
    object_id: &'a str,
    user_id: Cow<'a, str>,
    realm: Cow<'a, str>,
    operation: &'a str,
    data: &'a RawValue,
    request_id: String,
}

fn prepare(outgoing: &Outgoing<'_>) -> Result<Request, Unsendable> {
    let event = outgoing.event;
    let envelope = Envelope {
        system_domain_id: outgoing.owner.upstream_id(),
        event_type: event.event_type.category(),
        object_id: subject(event)?,
        user_id: extension(event, "userid")?,
        realm: extension(event, "realm")?,
        operation: event.event_type.operation(),
        data: json_data(event)?,
        request_id: request_id(outgoing),
    };
    Ok(signed_json_request(outgoing, &envelope))
}

/// 32 hex digits; a UUID in any of its forms is such.
fn request_id(outgoing: &Outgoing<'_>) -> String {
    let own = outgoing.event.extension("requestid").and_then(|text| Uuid::try_parse(text).ok());
    own.unwrap_or(outgoing.delivery.0).simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{outgoing, sample};
    use crate::event::AttributeValue;

    #[test]
    fn a_request_id_is_32_hex_digits_and_the_deliverys_where_the_event_has_none() {
        let request_id = |own: Option<&str>| {
            let mut event = sample("assets.update");
            event.extensions.retain(|(name, _)| name != "requestid");
            if let Some(own) = own {
                event.set_extension("requestid", AttributeValue::Text(own.to_owned()));
            }
            super::request_id(&outgoing(&event))
        };
        let own = "eaf4c20c4095f007a059b77c640dbbf9";
        assert_eq!(request_id(Some(own)), own);
        assert_eq!(request_id(Some("eaf4c20c-4095-f007-a059-b77c640dbbf9")), own);
        let deliverys = outgoing(&sample("assets.update")).delivery.0.simple().to_string();
        assert_eq!(request_id(None), deliverys);
        assert_eq!(request_id(Some("request 7")), deliverys);
    }
}
