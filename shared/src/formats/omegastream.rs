//! `omegastream`: as Omegastream sends its webhooks.
//!
//! From the platform's documentation: the event object below, `response` null, since it is what the endpoint is about
//! to answer. Ours: the 24 hex digits of the ids are the first of the delivery's and the webhook's UUIDs, `coid` is
//! the organization's name upstream, else its id, `created` is the event's `time` (that of the sending, where it has
//! none), the retry schedule, and the headers of Standard Webhooks besides, since the platform has no signature.

use std::ops::RangeInclusive;

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::parts::{json_data, signed_json_request};
use super::{Outgoing, Request, Retries, Rules, Signing, Unsendable};
use crate::delivery::Verdict;

/// Of every event.
pub const API_VERSION: &str = "v1";
const ID_DIGITS: usize = 24;
/// What is left of a UUID behind them, in bits.
const CUT_BITS: u32 = 32;

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

/// The platform's form of an id.
#[must_use]
pub fn short_id(id: Uuid) -> String {
    let mut digits = id.simple().to_string();
    digits.truncate(ID_DIGITS);
    digits
}

/// The ids that have this short form; none if it is none.
#[must_use]
pub fn ids_of(short: &str) -> Option<RangeInclusive<Uuid>> {
    if short.len() != ID_DIGITS || !short.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let first = u128::from_str_radix(short, 16).ok()? << CUT_BITS;
    let last = first | u128::from(u32::MAX);
    Some(Uuid::from_u128(first)..=Uuid::from_u128(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_among_those_of_its_short_form() {
        let id = Uuid::from_u128(0x6323_940a_fc8e_4c02_9d9f_3b15_5123_4567);
        assert_eq!(short_id(id), "6323940afc8e4c029d9f3b15");
        for short in [short_id(id), short_id(id).to_uppercase()] {
            let ids = ids_of(&short).unwrap();
            assert!(ids.contains(&id) && ids.start().as_u128() == id.as_u128() & !0xffff_ffff, "{ids:?}");
            assert_eq!(ids.end().as_u128() - ids.start().as_u128(), 0xffff_ffff);
        }
        for none in ["", "6323940afc8e4c029d9f3b1", "+323940afc8e4c029d9f3b15", "ä323940afc8e4c029d9f3b1"] {
            assert!(ids_of(none).is_none(), "{none}");
        }
    }
}
