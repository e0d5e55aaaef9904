//! The webhook of iconik: what its clients write of one, and what they are shown.
//!
//! `event_type` and `operation` are types of the webhook where types can say them ([`Kinds`]); `realm`, `object_id`
//! and the `query` are terms of its filter.

use std::collections::BTreeMap;

use cuewire::filter::{Filter, Term};
use cuewire::webhook::{Status, Webhook};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::kinds::{self, Kinds};
use super::super::last_failures::LastFailure;
use super::super::selection::{Place, Selection, value_in};
use crate::checks::Checks;
use crate::error::Problem;
use crate::extract::given;
use crate::webhooks::WebhookFields;

const REALM: Place = &["realm"];
const OBJECT: Place = &["subject", "object_id"];
/// Stands for every type of event.
const ANY: &str = "*";

/// What a client writes of a webhook.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = IconikWebhookFields, example = json!({
    "name": "Archive", "event_type": "assets", "operation": "update", "realm": "metadata",
    "url": "https://example.com/webhook_handler", "query": "data.is_archived=false AND data.size>0"
}))]
pub(super) struct Fields {
    name: Option<String>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    description: Option<Option<String>>,
    /// Required in a new webhook: `assets`, `collections`, … as events have it, case included.
    event_type: Option<String>,
    /// Null: any object.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    object_id: Option<Option<String>>,
    /// In any case; null: any operation.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    operation: Option<Option<String>>,
    /// Null: any realm.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    realm: Option<Option<String>>,
    /// Required in a new webhook.
    url: Option<String>,
    /// `ENABLED` or `DISABLED`.
    status: Option<String>,
    /// An expression over the event.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    query: Option<Option<String>>,
    /// Sent with every call.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    headers: Option<Option<BTreeMap<String, String>>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IconikWebhook)]
pub(super) struct View {
    id: Uuid,
    name: String,
    description: Option<String>,
    event_type: String,
    object_id: Option<String>,
    operation: Option<String>,
    realm: Option<String>,
    url: String,
    /// `ENABLED`, `DISABLED`, or `FAILING`: enabled, and its last delivery that ended failed for good, or its
    /// circuit breaker is open.
    status: &'static str,
    query: Option<String>,
    headers: BTreeMap<String, String>,
    date_created: String,
    date_modified: String,
    /// Always null: a deleted webhook is not found.
    deleted_at: Option<String>,
    /// Since when it is failing.
    first_failed_at: Option<String>,
    /// Why the last call failed that did.
    last_error: Option<String>,
    /// What that call sent.
    last_payload: Option<String>,
}

impl Fields {
    /// Whether a new webhook has what it needs.
    pub(super) fn check_new(&self) -> Result<(), Problem> {
        let mut checks = Checks::default();
        checks.require("event_type", self.event_type.as_ref());
        // What is shown of a webhook that takes nothing, as a new one does so far: `over` would leave it so.
        if self.event_type.as_deref() == Some("") {
            checks.refuse("event_type", "is empty");
        }
        checks.require("url", self.url.as_ref());
        checks.finish()
    }

    /// Whether a new webhook is enabled.
    pub(super) fn enables_new(&self) -> Result<bool, Problem> {
        match self.status.as_deref() {
            None | Some("ENABLED") => Ok(true),
            Some("DISABLED") => Ok(false),
            Some(other) => Err(refused_status(other)),
        }
    }

    /// Whether a webhook is to be enabled or disabled; none: it stays as it is.
    pub(super) fn enables(&self, webhook: &Webhook) -> Result<Option<bool>, Problem> {
        match self.status.as_deref() {
            None => Ok(None),
            Some(same) if same == shown_status(webhook.status()) => Ok(None),
            // What is enabled and fails goes on failing until it succeeds.
            Some("ENABLED") if webhook.enabled => Ok(None),
            Some("ENABLED") => Ok(Some(true)),
            Some("DISABLED") => Ok(Some(false)),
            // It was failing when it was read, whatever has become of it since.
            Some("FAILING") => Ok(None),
            Some(other) => Err(refused_status(other)),
        }
    }

    /// As changes of a webhook that selects these events so far.
    pub(super) fn over(&self, mut selection: Selection) -> Result<WebhookFields, Problem> {
        let mut kinds = Kinds::of(&selection);
        if self.event_type.as_deref().is_some_and(|text| text != shown_types(&kinds)) {
            kinds.categories = read_types(self.event_type.as_deref().unwrap_or_default())?;
        }
        let shown = shown_operation(&kinds);
        if let Some(operation) = self.operation.as_ref().filter(|operation| **operation != shown) {
            let operation = set(operation.as_deref()).map(str::to_lowercase);
            // In any case: a native `Update` stays so.
            if operation != shown {
                kinds.operation = operation;
            }
        }
        kinds.write_to(&mut selection);
        for (place, value) in [(REALM, &self.realm), (OBJECT, &self.object_id)] {
            let shown = selection.value(place);
            if let Some(value) = value.as_ref().filter(|value| **value != shown) {
                selection.set_value(place, set(value.as_deref()));
            }
        }
        if let Some(query) = &self.query {
            set_query(&mut selection, set(query.as_deref()))?;
        }
        let text = |value: &Option<Option<String>>| Some(set(value.as_ref()?.as_deref()).map(str::to_owned));
        let mut fields = WebhookFields {
            name: self.name.as_ref().map(|name| set(Some(name)).map(str::to_owned)),
            description: text(&self.description),
            url: self.url.clone().map(Some),
            headers: self.headers.clone(),
            ..WebhookFields::default()
        };
        selection.write_to(&mut fields);
        Ok(fields)
    }
}

/// The text, unless it is empty.
fn set(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.trim().is_empty())
}

/// The types that a client names; none: any.
fn read_types(text: &str) -> Result<Option<Vec<String>>, Problem> {
    if text.trim().is_empty() {
        return Err(Problem::invalid_field("event_type", "is empty"));
    }
    let several: Vec<String> = text.split(',').map(str::to_owned).collect();
    let one = || vec![text.to_owned()];
    let types = if several.iter().all(|text| kinds::is_category(text)) { several } else { one() };
    Ok(Some(types).filter(|_| text != ANY))
}

fn shown_types(kinds: &Kinds) -> String {
    kinds.categories.as_ref().map_or_else(|| ANY.to_owned(), |categories| categories.join(","))
}

fn shown_operation(kinds: &Kinds) -> Option<String> {
    kinds.operation.as_ref().map(|operation| operation.to_lowercase())
}

/// The terms that the other fields are shown from, and those of which the query is made.
fn parted(selection: &Selection) -> (Vec<Term>, Vec<Term>) {
    let (mut others, mut of_query) = (Vec::new(), selection.terms.clone());
    for place in Kinds::PLACES.into_iter().chain([REALM, OBJECT]) {
        if let Some(at) = of_query.iter().position(|term| value_in(term, place).is_some()) {
            others.push(of_query.remove(at));
        }
    }
    (others, of_query)
}

fn query(selection: &Selection) -> Option<String> {
    match parted(selection).1.as_slice() {
        [one] if one.as_nested().is_some() => one.as_nested().map(str::to_owned),
        terms => Term::join(terms),
    }
}

/// Asks for a query from now on. It is read by itself first, so that an error's position is one in it.
fn set_query(selection: &mut Selection, text: Option<&str>) -> Result<(), Problem> {
    if query(selection).as_deref() == text {
        return Ok(());
    }
    selection.terms = parted(selection).0;
    if let Some(text) = text {
        Filter::parse(text)
            .map_err(|error| Problem::invalid_field("query", format!("cannot be read {error}")))?;
        selection.terms.push(Term::nested(text));
    }
    Ok(())
}

fn shown_status(status: Status) -> &'static str {
    match status {
        Status::Enabled => "ENABLED",
        Status::Disabled => "DISABLED",
        Status::Failing => "FAILING",
    }
}

fn refused_status(status: &str) -> Problem {
    let known = "can be set to ENABLED or DISABLED; how deliveries fare makes it FAILING, and DELETE deletes";
    Problem::invalid_field("status", format!("is {status:?}, and {known}"))
}

impl View {
    /// The webhook with its headers, as its owner sees them, and how it last failed.
    pub(super) fn of(
        webhook: Webhook,
        headers: BTreeMap<String, String>,
        failure: Option<LastFailure>,
    ) -> Self {
        let selection = Selection::of(&webhook);
        let kinds = Kinds::of(&selection);
        let (last_error, last_payload) =
            failure.map_or((None, None), |failure| (Some(failure.error), failure.payload));
        Self {
            id: webhook.id.0,
            status: shown_status(webhook.status()),
            name: webhook.name,
            description: webhook.description,
            event_type: shown_types(&kinds),
            object_id: selection.value(OBJECT),
            operation: shown_operation(&kinds),
            realm: selection.value(REALM),
            url: webhook.url,
            query: query(&selection),
            headers,
            date_created: time_of(webhook.created_at),
            date_modified: time_of(webhook.updated_at),
            deleted_at: None,
            first_failed_at: webhook.first_failed_at.map(time_of),
            last_error,
            last_payload,
        }
    }
}

/// As the platform writes times in its events.
fn time_of(at: OffsetDateTime) -> String {
    const FORMAT: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]+00:00"
    );
    at.to_offset(time::UtcOffset::UTC).format(FORMAT).unwrap_or_default()
}
