//! The rules for a webhook's fields: each reads one, or says in a sentence what is wrong with it, to be read
//! after the field's name.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use cuewire::filter::Filter;
use cuewire::formats::{Format, Signing};
use cuewire::guard::{FORBIDDEN, Guard};
use cuewire::names::Names;
use cuewire::retry::{Schedule, parse_duration};
use cuewire::signature::{Scheme, Secret};
use cuewire::webhook::{MAX_EVENT_TYPES, MAX_MAX_IN_FLIGHT, MAX_RATE_LIMIT, MAX_TIMEOUT, Pattern, Webhook};
use url::{Host, Url};

use crate::checks::{Checks, MAX_NAME_BYTES, line};

pub(super) const MAX_DESCRIPTION_BYTES: usize = 2_000;
/// Receivers need one or two; common servers take 8 KiB in all.
const MAX_HEADERS: usize = 20;
const MAX_HEADERS_BYTES: usize = 4_096;
/// Less than any request over the internet takes.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
/// A name that resolves more slowly is judged when it is sent to.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Headers that belong to the connection or to Cuewire, by name and by prefix.
const RESERVED_HEADERS: [&str; 9] =
    ["host", "connection", "transfer-encoding", "keep-alive", "te", "trailer", "upgrade", "expect", "date"];
const RESERVED_PREFIXES: [&str; 3] = ["content-", "webhook-", "proxy-"];

/// The URL's host, cut to the length of a name.
pub(super) fn default_name(url: &str) -> String {
    let host = url.parse::<Url>().ok().and_then(|url| url.host_str().map(str::to_owned));
    let mut name = host.unwrap_or_else(|| "webhook".to_owned());
    name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
    name
}

/// Tells where a webhook's URL leads, and whether deliveries may go there.
#[derive(Debug)]
pub(crate) struct Destinations {
    guard: Guard,
    names: Names,
}

impl Destinations {
    /// Those that the guard permits, by the names that this machine knows.
    pub(crate) fn guarded_by(guard: Guard) -> anyhow::Result<Self> {
        Ok(Self { guard, names: Names::of_this_machine()? })
    }
}

/// Judges a URL by its text and by what its name resolves to now, if it does.
pub(super) async fn read_url(text: String, destinations: &Destinations) -> Result<String, String> {
    let Destinations { guard, names } = destinations;
    let text = line(text, usize::MAX)?;
    let url = guard.check_url(&text)?;
    check_form(&text, &url)?;
    if let Some(Host::Domain(name)) = url.host() {
        if is_this_machine(name) && !guard.permits(Ipv4Addr::LOCALHOST.into()) {
            return Err(format!("leads to {FORBIDDEN}"));
        }
        let resolved = tokio::time::timeout(RESOLVE_TIMEOUT, names.addresses(name)).await;
        if let Ok(Ok(addresses)) = resolved
            && let Some(address) = guard.first_forbidden(addresses)
        {
            tracing::info!(name, %address, "a webhook's URL is refused");
            return Err(format!("leads to {FORBIDDEN}"));
        }
    }
    // As it was written: the client knows it again, and the sender reads it the same way.
    Ok(text)
}

/// Refuses what readers of URLs pass over in silence: it would go elsewhere than the text says, or nowhere.
fn check_form(text: &str, url: &Url) -> Result<(), String> {
    if text.contains(char::is_whitespace) {
        return Err("contains a blank; write it as %20, or leave it out".to_owned());
    }
    if url.fragment().is_some() {
        return Err(
            "has a fragment (`#…`), which no request carries; write # as %23, or leave it out".to_owned()
        );
    }
    if url.port() == Some(0) {
        return Err("has the port 0, where nothing listens".to_owned());
    }
    Ok(())
}

/// Names that stand for the machine itself wherever they are asked for (RFC 6761), though not every resolver
/// knows all of them.
fn is_this_machine(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

/// A secret of the client's own, which must fit the scheme.
pub(crate) fn read_secret(text: &str, scheme: Scheme) -> Result<Secret, String> {
    let secret: Secret = text.parse()?;
    if secret.scheme() == scheme {
        Ok(secret)
    } else {
        let prefix = match scheme {
            Scheme::V1 => "whsec_",
            Scheme::V1a => "whsk_",
        };
        Err(format!("must begin with {prefix} for the signature {}", scheme.as_str()))
    }
}

pub(super) fn read_format(name: &str) -> Result<Format, String> {
    Format::parse(name).ok_or_else(|| {
        let names: Vec<_> = Format::ALL.iter().map(|format| format.as_str()).collect();
        format!("is {name:?}, and must be one of {}", names.join(", "))
    })
}

/// What a webhook's format does not leave to the webhook.
pub(super) fn check_against_format(webhook: &Webhook, checks: &mut Checks) {
    let name = webhook.format.as_str();
    if webhook.retry_schedule.is_some() && webhook.format.fixed_schedule().is_some() {
        let detail = format!("is the platform's own in the format {name}; leave it out, or set it to null");
        checks.refuse("retry_schedule", detail);
    }
    if webhook.signature != Scheme::V1 && webhook.format.signing() == Signing::SingleHmac {
        let signature = webhook.signature.as_str();
        let detail = format!("is {name}, which signs by HMAC, and the webhook's signature is {signature}");
        checks.refuse("format", detail);
    }
}

pub(super) fn read_patterns(types: &[String]) -> Result<Vec<Pattern>, String> {
    if types.len() > MAX_EVENT_TYPES {
        return Err(format!("has {} entries, and at most {MAX_EVENT_TYPES} are accepted", types.len()));
    }
    let mut patterns: Vec<Pattern> = Vec::with_capacity(types.len());
    for text in types {
        let pattern = Pattern::parse(text)?;
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }
    Ok(patterns)
}

pub(super) fn read_filter(text: String) -> Result<String, String> {
    Filter::parse(&text).map_err(|error| format!("cannot be read {error}"))?;
    if text.contains('\0') {
        return Err("contains a control character".to_owned());
    }
    Ok(text)
}

pub(super) fn read_headers(headers: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    if headers.len() > MAX_HEADERS {
        return Err(format!("has {} entries, and at most {MAX_HEADERS} are accepted", headers.len()));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_HEADERS_BYTES {
        return Err(format!("has {bytes} bytes, and at most {MAX_HEADERS_BYTES} are accepted"));
    }
    let mut seen = Vec::with_capacity(headers.len());
    for (name, value) in &headers {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("has {name:?}, which is no name for a header"))?;
        let lower = parsed.as_str();
        if RESERVED_HEADERS.contains(&lower)
            || RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
        {
            return Err(format!("has {name:?}, which belongs to the connection or to Cuewire"));
        }
        if HeaderValue::from_str(value).is_err() {
            return Err(format!("has a value of {name:?} with characters that no header may have"));
        }
        // What a viewer has read, sent back, would put an end to a token that nobody can read again.
        if value == super::HIDDEN {
            return Err(format!("has {name:?} with what stands for a hidden value; give the value itself"));
        }
        if seen.contains(&parsed) {
            return Err(format!("has {name:?} twice"));
        }
        seen.push(parsed);
    }
    Ok(headers)
}

pub(super) fn read_max_in_flight(number: i64) -> Result<u32, String> {
    let number = u32::try_from(number).ok().filter(|number| (1..=MAX_MAX_IN_FLIGHT).contains(number));
    number.ok_or_else(|| format!("must be 1 to {MAX_MAX_IN_FLIGHT}"))
}

pub(super) fn read_rate_limit(per_second: i64) -> Result<u32, String> {
    let limit = u32::try_from(per_second).ok().filter(|limit| (1..=MAX_RATE_LIMIT).contains(limit));
    limit.ok_or_else(|| format!("must be 1 to {MAX_RATE_LIMIT}"))
}

pub(super) fn read_timeout(ms: i64) -> Result<Duration, String> {
    let timeout = u64::try_from(ms).map(Duration::from_millis).ok();
    timeout.filter(|timeout| (MIN_TIMEOUT..=MAX_TIMEOUT).contains(timeout)).ok_or_else(|| {
        format!("must be {} to {} milliseconds", MIN_TIMEOUT.as_millis(), MAX_TIMEOUT.as_millis())
    })
}

pub(super) fn read_schedule(delays: &[String]) -> Result<Schedule, String> {
    Schedule::new(delays.iter().map(|delay| parse_duration(delay)).collect::<Result<_, _>>()?)
}
