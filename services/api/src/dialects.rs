//! The management APIs of other platforms, over the ordinary webhooks: a file a platform, with a folder for its parts.
//!
//! A dialect is routes under `/platforms/<name>`, the forms in which its clients show a key ([`keys`]), and the
//! envelope of its errors ([`failure`]); who may do what, what a webhook may be and what is recorded of it are the
//! native API's. Its handlers fail with a [`Problem`] like all others, which is put into the envelope on the way
//! out; so the envelope is also that of an unknown path, a body that is too large or not JSON, and a database that
//! is away.
//!
//! A dialect shows what it has words for, and what is sent back to it as it was shown is no change.
//!
//! The same resource answers with a slash at the end of its path and without one, without a redirect.

mod aioz;
mod exact_types;
mod failure;
mod iconik;
mod keys;
mod kinds;
mod last_failures;
mod millicast;
mod omegastream;
mod quortex;
mod selection;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, Uri, header, uri};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::Response;
use cuewire::db::api_keys::KeyHolder;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;

use self::failure::Failures;
use self::keys::Shown;
use crate::Api;
use crate::auth::Credentials;
use crate::error::Problem;
use crate::{openapi, server, webhooks};

/// Where the dialects are mounted.
const MOUNT: &str = "/platforms/";

/// What a dialect is.
struct Dialect {
    /// The platform's name, in its path.
    name: &'static str,
    /// Its routes, without a slash at the end.
    routes: fn() -> OpenApiRouter<Api>,
    /// How its clients show a key: each of these ways is enough, of which all parts are needed.
    keys: &'static [&'static [Shown]],
    /// The key that a request shows.
    credentials: fn(&Api, &HeaderMap) -> Option<Credentials>,
    /// How it says that a request failed.
    failures: Failures,
}

const ALL: [Dialect; 5] =
    [millicast::DIALECT, aioz::DIALECT, iconik::DIALECT, quortex::DIALECT, omegastream::DIALECT];

/// The dialects' routes, and the document with them.
pub(crate) fn mount(api: &Api, document: Document) -> (Router<Api>, Document) {
    ALL.into_iter().fold((Router::new(), document), |(router, document), dialect| {
        let path = format!("{MOUNT}{}", dialect.name);
        let (routes, described) = (dialect.routes)().split_for_parts();
        let document = document.nest(path.as_str(), dialect.described(described));
        let routes = server::bounded(routes, "the platform has no such route");
        // Outermost, so that what is counted is what the client gets.
        let routes = server::observed(api, dialect.translated(api, routes));
        (router.nest(&path, routes), document)
    })
}

impl Dialect {
    /// Keys are read and errors are told in the platform's form.
    fn translated(self, api: &Api, routes: Router<Api>) -> Router<Api> {
        let Self { credentials, failures, keys, .. } = self;
        let api = api.clone();
        let show = move |mut request: Request, next: Next| {
            let shown = credentials(&api, request.headers());
            request.extensions_mut().insert(shown);
            next.run(request)
        };
        let enclose = move |response: Response| async move {
            let mut response = failures.enclosed(response);
            if !keys::has_bearer(keys) {
                response.headers_mut().remove(header::WWW_AUTHENTICATE);
            }
            response
        };
        routes.layer(from_fn(show)).layer(map_response(enclose))
    }

    /// The document says the same.
    fn described(&self, mut document: Document) -> Document {
        let failure = self.failures.described(&mut document);
        openapi::complete(&mut document, &failure);
        keys::describe(&mut document, self.name, self.keys);
        document
    }
}

/// The request without the slash at the end of its path, where that is a dialect's.
pub(crate) fn without_last_slash(mut request: Request) -> Request {
    let path = request.uri().path();
    if !path.starts_with(MOUNT) || !path.ends_with('/') {
        return request;
    }
    let trimmed = path.trim_end_matches('/');
    let target = match request.uri().query() {
        Some(query) => format!("{trimmed}?{query}"),
        None => trimmed.to_owned(),
    };
    let mut parts = uri::Parts::from(request.uri().clone());
    parts.path_and_query = target.parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

/// The one view of a list of one webhook.
fn only<T>(views: Vec<T>) -> Result<T, Problem> {
    views.into_iter().next().ok_or_else(webhooks::none)
}

/// What platforms call the caller's organization: its name upstream where it has one, else its id.
fn tenant(caller: &KeyHolder) -> String {
    caller.external_id.clone().unwrap_or_else(|| caller.organization.to_string())
}

/// A time as most platforms show it: RFC 3339 in UTC, to the microsecond.
fn micros(at: OffsetDateTime) -> String {
    const FORMAT: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    at.to_offset(UtcOffset::UTC).format(FORMAT).unwrap_or_default()
}

/// Of a query or a form, whose flags are words (`true`, `True`, `1`, and the opposites), or of JSON; none where
/// it is empty or null.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let word = match &value {
        Value::Null => "",
        Value::Bool(flag) => return Ok(Some(*flag)),
        Value::String(word) => word,
        _ => "no word",
    };
    match word.to_ascii_lowercase().as_str() {
        "" => Ok(None),
        "true" | "1" => Ok(Some(true)),
        "false" | "0" => Ok(Some(false)),
        _ => Err(serde::de::Error::custom(format!("is {value}, and must be true or false"))),
    }
}

/// Of a query: a number of entries or of a page, none where it is no such number.
fn count(text: Option<&str>) -> Option<usize> {
    text?.trim().parse().ok().filter(|number| *number > 0)
}

/// Of a query: a whole number; none where it is empty or `null`.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "" | "null" | "None" => Ok(None),
        _ => text
            .parse()
            .map(Some)
            .map_err(|_| serde::de::Error::custom(format!("is {text:?}, and must be a whole number"))),
    }
}
