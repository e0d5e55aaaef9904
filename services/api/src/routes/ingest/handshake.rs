//! The handshake by which other senders of CloudEvents ask whether they may send here (CloudEvents 1.0, HTTP webhooks,
//! section 4): without a key, since a sender asks before it has anything to show, and the answer grants nothing that a
//! key does not.

use axum::extract::State;
use axum::http::header::ALLOW;
use axum::http::{HeaderMap, HeaderValue};

use super::limit::Limits;
use crate::Api;

const REQUEST_ORIGIN: &str = "webhook-request-origin";
const REQUEST_RATE: &str = "webhook-request-rate";
const ALLOWED_ORIGIN: &str = "webhook-allowed-origin";
const ALLOWED_RATE: &str = "webhook-allowed-rate";
const METHODS: &str = "GET, HEAD, POST, OPTIONS";
/// Where events have no limit.
const ANY_RATE: &str = "*";

/// Ask whether events may be sent here
///
/// For senders of CloudEvents that ask before they send. All may, by a key of an organization: the answer names the
/// sender's origin, and how many requests of one event an organization may make a minute if a rate was asked for. It
/// comes at once, and so a callback is never called.
#[utoipa::path(options, path = "/v1/events", tag = "Events", operation_id = "ask", security(()),
    params(
        ("webhook-request-origin" = Option<String>, Header, description = "Who asks"),
        ("webhook-request-rate" = Option<u32>, Header, description = "Requests a minute"),
    ),
    responses((status = 200, description = "They may", headers(
        ("allow" = String, description = "The methods of this path"),
        ("webhook-allowed-origin" = String, description = "Who asked"),
        ("webhook-allowed-rate" = String, description = "Requests a minute, or `*`; if a rate was asked for"),
    ))))]
pub(super) async fn ask(State(api): State<Api>, asked: HeaderMap) -> HeaderMap {
    let mut answer = HeaderMap::from_iter([(ALLOW, HeaderValue::from_static(METHODS))]);
    if let Some(origin) = asked.get(REQUEST_ORIGIN) {
        answer.insert(ALLOWED_ORIGIN, origin.clone());
        if asked.contains_key(REQUEST_RATE) {
            answer.insert(ALLOWED_RATE, rate(&api.ingest_limits));
        }
    }
    answer
}

/// Requests a minute, of one event each.
fn rate(limits: &Limits) -> HeaderValue {
    limits.events_a_minute().map_or_else(|| HeaderValue::from_static(ANY_RATE), HeaderValue::from)
}
