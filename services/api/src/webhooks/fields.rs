//! A webhook's fields as clients write them: a new webhook, and a change of one.

use std::collections::BTreeMap;
use std::time::Duration;

use cuewire::db::webhooks::Failing;
use cuewire::formats::Format;
use cuewire::ids::{OrganizationId, WebhookId};
use cuewire::retry::Schedule;
use cuewire::signature::{Scheme, Secret};
use cuewire::vault::Vault;
use cuewire::webhook::{DEFAULT_MAX_IN_FLIGHT, DEFAULT_TIMEOUT, Pattern, Webhook};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::{Object, ObjectBuilder};

use super::rules::{self, Destinations};
use crate::checks::{Checks, MAX_NAME_BYTES, line, lines};
use crate::error::Problem;
use crate::extract::given;

/// A webhook's fields, of which a new one needs `url` alone. In a change what is left out stays; null puts a
/// field's default back.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({
    "url": "https://example.com/hooks", "name": "Archive", "event_types": ["recordings.*"],
    "filter": "data.size > 0", "headers": {"authorization": "Bearer of the receiver"}
}))]
pub(crate) struct WebhookFields {
    /// Where deliveries go: `http` or `https`, and not into a private network. Required in a new webhook.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub(crate) url: Option<Option<String>>,
    /// A name; need not be unique. By default the URL's host.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub(crate) name: Option<Option<String>>,
    /// What it is for.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub(crate) description: Option<Option<String>>,
    /// Whether it takes events; true unless given.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<bool>)]
    pub(crate) enabled: Option<Option<bool>>,
    /// How its deliveries look.
    #[serde(deserialize_with = "given")]
    #[schema(schema_with = format_schema)]
    pub(crate) format: Option<Option<String>>,
    /// Exact types or patterns, where `*` stands for any number of words; none: every type but Cuewire's own.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    pub(crate) event_types: Option<Option<Vec<String>>>,
    /// An expression over the event, such as `pooluuid = "p1" AND data.size > 0`.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub(crate) filter: Option<Option<String>>,
    /// Headers of its own, sent with every delivery. Their values are shown to admins and editors alone.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub(crate) headers: Option<Option<BTreeMap<String, String>>>,
    /// Attempts a second, by all senders together: 1 to 10,000. Null: the format's, where its service has one.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<u32>)]
    pub(crate) rate_limit_per_second: Option<Option<i64>>,
    /// Requests in flight at a time: 1 to 256, 16 unless given.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<u32>)]
    pub(crate) max_in_flight: Option<Option<i64>>,
    /// The whole request with its answer: 100 to 30,000, 15,000 unless given.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<u32>)]
    pub(crate) timeout_ms: Option<Option<i64>>,
    /// The delays between attempts; empty: never retried; null: the format's own. Where a platform fixes how
    /// often its deliveries are retried, its format takes null alone.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>, example = json!(["5s", "5m", "30m"]))]
    pub(crate) retry_schedule: Option<Option<Vec<String>>>,
    /// Only in a new webhook: `v1` (HMAC-SHA256, the default) or `v1a` (Ed25519).
    pub(crate) signature: Option<String>,
    /// Only in a new webhook: a secret of one's own, `whsec_…` for `v1` and `whsk_…` for `v1a`.
    pub(crate) secret: Option<String>,
}

/// What changes of a webhook: none of a field leaves it as it is.
#[derive(Debug, Default)]
pub(super) struct WebhookChange {
    url: Option<String>,
    name: Option<String>,
    description: Option<Option<String>>,
    enabled: Option<bool>,
    format: Option<Format>,
    event_types: Option<Vec<Pattern>>,
    filter: Option<Option<String>>,
    headers: Option<BTreeMap<String, String>>,
    rate_limit: Option<Option<u32>>,
    max_in_flight: Option<u32>,
    timeout: Option<Duration>,
    retry_schedule: Option<Option<Schedule>>,
}

impl WebhookFields {
    /// A new webhook, with its secret.
    pub(super) async fn read_new(
        self,
        destinations: &Destinations,
        vault: &Vault,
        organization: OrganizationId,
    ) -> Result<(Webhook, Secret), Problem> {
        let mut checks = Checks::default();
        let scheme = match self.signature.as_deref() {
            None | Some("v1") => Scheme::V1,
            Some("v1a") => Scheme::V1a,
            Some(other) => {
                checks.refuse("signature", format!("is {other:?}, and must be v1 or v1a"));
                Scheme::V1
            }
        };
        let secret =
            self.secret.as_deref().map(|text| checks.take("secret", rules::read_secret(text, scheme)));
        if self.url.is_none() {
            checks.refuse("url", "is missing");
        }
        let change = self.read(destinations, checks).await?;
        let now = OffsetDateTime::now_utc();
        let url = change.url.clone().unwrap_or_default();
        let mut webhook = Webhook {
            id: WebhookId::new(),
            number: 0,
            organization,
            name: rules::default_name(&url),
            description: None,
            url,
            enabled: true,
            disabled_reason: None,
            first_failed_at: None,
            breaker: None,
            format: Format::default(),
            event_types: Vec::new(),
            filter: None,
            sealed_headers: Vec::new(),
            signature: scheme,
            own_rate_limit: None,
            max_in_flight: DEFAULT_MAX_IN_FLIGHT,
            timeout: DEFAULT_TIMEOUT,
            retry_schedule: None,
            created_at: now,
            updated_at: now,
        };
        change.apply_to(&mut webhook, vault)?;
        Ok((webhook, secret.flatten().unwrap_or_else(|| Secret::generate(scheme))))
    }

    /// A change of a webhook.
    pub(super) async fn read_change(self, destinations: &Destinations) -> Result<WebhookChange, Problem> {
        let mut checks = Checks::default();
        if self.signature.is_some() {
            checks.refuse("signature", "cannot be changed; make another webhook");
        }
        if self.secret.is_some() {
            checks.refuse("secret", "is replaced by POST /v1/webhooks/{id}/secret/rotate");
        }
        self.read(destinations, checks).await
    }

    async fn read(self, destinations: &Destinations, mut checks: Checks) -> Result<WebhookChange, Problem> {
        let change = WebhookChange {
            name: self.name.and_then(|name| match name {
                Some(name) => checks.take("name", line(name, MAX_NAME_BYTES)),
                // Recognized when the change is applied, where the URL is known.
                None => Some(String::new()),
            }),
            description: checks
                .optional("description", self.description, |text| lines(text, rules::MAX_DESCRIPTION_BYTES)),
            enabled: self.enabled.and_then(|enabled| {
                checks.take("enabled", enabled.ok_or_else(|| "must be true or false".to_owned()))
            }),
            format: checks
                .optional("format", self.format, |name| rules::read_format(&name))
                .map(Option::unwrap_or_default),
            event_types: checks
                .optional("event_types", self.event_types, |types| rules::read_patterns(&types))
                .map(Option::unwrap_or_default),
            filter: checks.optional("filter", self.filter, rules::read_filter),
            headers: checks
                .optional("headers", self.headers, rules::read_headers)
                .map(Option::unwrap_or_default),
            rate_limit: checks.optional(
                "rate_limit_per_second",
                self.rate_limit_per_second,
                rules::read_rate_limit,
            ),
            max_in_flight: checks
                .optional("max_in_flight", self.max_in_flight, rules::read_max_in_flight)
                .map(|number| number.unwrap_or(DEFAULT_MAX_IN_FLIGHT)),
            timeout: checks
                .optional("timeout_ms", self.timeout_ms, rules::read_timeout)
                .map(|timeout| timeout.unwrap_or(DEFAULT_TIMEOUT)),
            retry_schedule: checks
                .optional("retry_schedule", self.retry_schedule, |delays| rules::read_schedule(&delays)),
            // Last, and only when all else is well: it asks the resolver.
            url: match self.url {
                Some(Some(text)) => checks.take("url", rules::read_url(text, destinations).await),
                Some(None) => {
                    checks.refuse("url", "must not be null");
                    None
                }
                None => None,
            },
        };
        checks.finish()?;
        Ok(change)
    }
}

impl WebhookChange {
    /// What becomes of the webhook's failing: it ends where somebody says that the receiver is well, or names another.
    pub(super) fn failing(&self, before: &Webhook) -> Failing {
        let is_elsewhere = self.url.as_ref().is_some_and(|url| *url != before.url);
        if is_elsewhere || self.enabled == Some(true) { Failing::Ends } else { Failing::GoesOn }
    }

    /// Makes the change, unless what comes of it does not fit the format.
    pub(super) fn apply_to(&self, webhook: &mut Webhook, vault: &Vault) -> Result<(), Problem> {
        fn set<T: Clone>(field: &mut T, change: Option<&T>) {
            if let Some(value) = change {
                field.clone_from(value);
            }
        }
        set(&mut webhook.url, self.url.as_ref());
        set(&mut webhook.name, self.name.as_ref());
        if webhook.name.is_empty() {
            webhook.name = rules::default_name(&webhook.url);
        }
        set(&mut webhook.description, self.description.as_ref());
        set(&mut webhook.format, self.format.as_ref());
        set(&mut webhook.event_types, self.event_types.as_ref());
        set(&mut webhook.filter, self.filter.as_ref());
        set(&mut webhook.own_rate_limit, self.rate_limit.as_ref());
        set(&mut webhook.max_in_flight, self.max_in_flight.as_ref());
        set(&mut webhook.timeout, self.timeout.as_ref());
        set(&mut webhook.retry_schedule, self.retry_schedule.as_ref());
        if let Some(headers) = &self.headers {
            webhook.sealed_headers = vault.seal_headers(webhook.id, headers);
        }
        if let Some(enabled) = self.enabled {
            webhook.enabled = enabled;
            // By hand now, either way.
            webhook.disabled_reason = None;
        }
        let mut checks = Checks::default();
        rules::check_against_format(webhook, &mut checks);
        checks.finish()
    }
}

/// The formats, for the OpenAPI document.
fn format_schema() -> Object {
    let names = Format::ALL.iter().map(|format| Value::from(format.as_str()));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .enum_values(Some(names.chain([Value::Null])))
        .description(Some(
            "How its deliveries look; `standard` unless given. A platform's format sends the fields that the \
             platform documents, and records an event that lacks one of them as a failure.",
        ))
        .build()
}

#[cfg(test)]
mod tests {
    use cuewire::guard::Guard;
    use serde_json::json;

    use super::*;
    use crate::extract::read_json;

    fn destinations() -> Destinations {
        Destinations::guarded_by(Guard::default()).unwrap()
    }

    fn vault() -> Vault {
        Vault::from_base64("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap()
    }

    async fn new(json: &str) -> Result<(Webhook, Secret), String> {
        let fields = read_json::<WebhookFields>(json.as_bytes()).map_err(|problem| format!("{problem:?}"))?;
        let read = fields.read_new(&destinations(), &vault(), OrganizationId::default()).await;
        read.map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn the_openapi_document_lists_every_format_and_null() {
        let schema = serde_json::to_value(format_schema()).unwrap();
        let mut expected: Vec<_> = Format::ALL.iter().map(|format| Value::from(format.as_str())).collect();
        expected.push(Value::Null);
        assert_eq!(schema["enum"], Value::from(expected));
        assert_eq!(schema["type"], Value::from(vec!["string", "null"]));
    }

    #[tokio::test]
    async fn only_the_url_is_required() {
        let (webhook, secret) = new(r#"{"url":"https://93.184.216.34/hook"}"#).await.unwrap();
        assert_eq!(webhook.name, "93.184.216.34");
        assert!(webhook.enabled && webhook.event_types.is_empty() && webhook.filter.is_none());
        assert_eq!((webhook.max_in_flight, webhook.timeout.as_secs()), (16, 15));
        assert_eq!(secret.scheme(), Scheme::V1);
    }

    #[tokio::test]
    async fn what_is_wrong_is_named_field_by_field() {
        let with = |member: &str| format!(r#"{{"url":"https://93.184.216.34/",{member}}}"#);
        let header = |name: &str| with(&format!(r#""headers":{{"{name}":"x"}}"#));
        let url = |url: &str| json!({"url": url}).to_string();
        for (json, field, detail) in [
            ("{}".to_owned(), "url", "is missing"),
            (r#"{"url":"ftp://example.com/"}"#.to_owned(), "url", "must be http or https"),
            (r#"{"url":"http://127.0.0.1/"}"#.to_owned(), "url", "private or reserved"),
            (url("http://LocalHost./"), "url", "private or reserved"),
            (url("http://hooks.localhost/"), "url", "private or reserved"),
            (url("http://93.184.216.34:0/"), "url", "has the port 0"),
            (url("http://93.184.216.34/#top"), "url", "has a fragment"),
            (url("http://93.184.216.34/#"), "url", "has a fragment"),
            (url("http://93.184.216.34/a b"), "url", "contains a blank"),
            (url(" http://93.184.216.34/"), "url", "contains a blank"),
            (url("http://93.184.216.34/\u{3000}"), "url", "contains a blank"),
            (url("http://93.184.216.34/\n"), "url", "contains a control character"),
            (url("http://93.184.216.34/\u{7f}"), "url", "contains a control character"),
            (url("http://93.184.\t216.34/"), "url", "contains a control character"),
            (with(r#""colour":"red""#), "colour", "is not known here"),
            (with(r#""name":"a\u0000b""#), "name", "contains a control character"),
            (with(r#""name":"""#), "name", "is empty"),
            (with(r#""description":"a\u0000""#), "description", "contains a control character"),
            (with(r#""format":"fax""#), "format", "must be one of standard, cloudevents, slack"),
            (
                with(r#""format":"aioz","retry_schedule":["1s"]"#),
                "retry_schedule",
                "the platform's own in the format aioz",
            ),
            (with(r#""format":"millicast","retry_schedule":[]"#), "retry_schedule", "set it to null"),
            (with(r#""format":"millicast","signature":"v1a""#), "format", "signs by HMAC"),
            (with(r#""event_types":["recordings"]"#), "event_types", "did you mean"),
            (with(r#""filter":"data.size >""#), "filter", "at position"),
            (header("Host"), "headers", "belongs to the connection or to Cuewire"),
            (header("content-type"), "headers", "belongs to"),
            (header("Webhook-Id"), "headers", "belongs to"),
            (header("a b"), "headers", "no name for a header"),
            (with(r#""headers":{"X-A":"1","x-a":"2"}"#), "headers", "twice"),
            (with(r#""headers":{"x-a":"1\n2"}"#), "headers", "no header may have"),
            (with(r#""headers":{"x-a":"***"}"#), "headers", "a hidden value"),
            (with(r#""rate_limit_per_second":0"#), "rate_limit_per_second", "must be 1 to 10000"),
            (with(r#""max_in_flight":0"#), "max_in_flight", "must be 1 to 256"),
            (with(r#""timeout_ms":30001"#), "timeout_ms", "must be 100 to 30000"),
            (with(r#""retry_schedule":["1y"]"#), "retry_schedule", "a duration is"),
            (with(r#""signature":"v2""#), "signature", "must be v1 or v1a"),
            (with(r#""secret":"whsk_AAAA""#), "secret", "an Ed25519 key has 32"),
            (with(r#""secret":"hunter2""#), "secret", "must begin with"),
        ] {
            let error = new(&json).await.map(drop).unwrap_err();
            assert!(
                error.contains(&format!("field: \"{field}\"")) && error.contains(detail),
                "{json}: {error}"
            );
        }
    }

    #[tokio::test]
    async fn a_change_leaves_what_it_does_not_name_and_null_puts_the_default_back() {
        let (mut webhook, _) = new(
            r#"{"url":"https://93.184.216.34/","name":"n","filter":"id=1","timeout_ms":500,"retry_schedule":[]}"#,
        )
        .await
        .unwrap();
        webhook.disabled_reason = Some("gone".to_owned());
        let change = |json: &'static str| async move {
            let fields = read_json::<WebhookFields>(json.as_bytes()).unwrap();
            fields.read_change(&destinations()).await
        };
        change(r#"{"enabled":true,"filter":null,"timeout_ms":null}"#)
            .await
            .unwrap()
            .apply_to(&mut webhook, &vault())
            .unwrap();
        assert_eq!((webhook.name.as_str(), webhook.filter.as_deref()), ("n", None));
        assert_eq!(webhook.timeout, DEFAULT_TIMEOUT);
        assert_eq!(webhook.retry_schedule, Some(Schedule::new(Vec::new()).unwrap()));
        assert_eq!(webhook.disabled_reason, None);
        change(r#"{"name":null,"retry_schedule":null}"#)
            .await
            .unwrap()
            .apply_to(&mut webhook, &vault())
            .unwrap();
        assert_eq!((webhook.name.as_str(), webhook.retry_schedule.clone()), ("93.184.216.34", None));
        let error = change(r#"{"format":"millicast"}"#).await.unwrap().apply_to(&mut webhook, &vault());
        assert_eq!(webhook.retry_schedule, None);
        assert!(error.is_ok());
        let error = change(r#"{"retry_schedule":["1s"]}"#).await.unwrap().apply_to(&mut webhook, &vault());
        assert!(format!("{error:?}").contains("the platform's own"), "{error:?}");
        let refused =
            [r#"{"signature":"v1a"}"#, r#"{"secret":"whsec_x"}"#, r#"{"url":null}"#, r#"{"enabled":null}"#];
        for json in refused {
            assert!(change(json).await.is_err());
        }
    }
}
