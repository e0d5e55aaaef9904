//! The webhook of Quortex I/O: what its clients write of one, and what they are shown.
//!
//! `category` and `operation` are types of the webhook where types can say them ([`Kinds`]); the other filters are
//! terms of its filter.

use cuewire::filter::Term;
use cuewire::formats::Format;
use cuewire::webhook::Webhook;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::kinds::{Kinds, is_written_as_operation};
use super::super::selection::{Place, Selection};
use super::category::{self, Category};
use crate::checks::Checks;
use crate::error::Problem;
use crate::extract::given;
use crate::webhooks::WebhookFields;

/// The platform's types of webhooks.
const TYPES: [(&str, Format); 4] = [
    ("raw", Format::Quortex),
    ("gchat", Format::GoogleChat),
    ("slack", Format::Slack),
    ("teams", Format::Teams),
];
/// Their formats.
pub(super) const FORMATS: [Format; 4] = [TYPES[0].1, TYPES[1].1, TYPES[2].1, TYPES[3].1];

const APPLICATION: Place = &["application"];
const POOL: Place = &["pooluuid"];
const RESOURCE: Place = &["subject", "object_id"];

const MAX_NAME_CHARS: usize = 100;
const MAX_URL_CHARS: usize = 1_024;
pub(super) const MAX_FILTER_CHARS: usize = 128;

/// What a client writes of a webhook.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = QuortexWebhookFields, example = json!({
    "name": "Alerts", "type": "raw", "url": "https://example.com/hooks", "application": "link",
    "category": "input", "operation": "status_change"
}))]
pub(super) struct Fields {
    /// 1 to 100 characters.
    name: Option<String>,
    /// `raw`, `gchat`, `slack` or `teams`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// 1 to 1,024 characters.
    url: Option<String>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    application: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<Category>)]
    category: Option<Option<Category>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    operation: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pool_uuid: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    resource_uuid: Option<Option<String>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuortexWebhook)]
pub(super) struct View {
    uuid: Uuid,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    application: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<Category>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_uuid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_uuid: Option<String>,
}

impl Fields {
    /// What is not as it is shown. What a client has read and sends back is no change, and is not held against the
    /// rules: the native API's are wider.
    pub(super) fn unlike(&self, shown: &View) -> Self {
        fn unlike<T: Clone + PartialEq>(field: &Option<T>, shown: &T) -> Option<T> {
            field.as_ref().filter(|value| *value != shown).cloned()
        }
        Self {
            name: unlike(&self.name, &shown.name),
            kind: unlike(&self.kind, &shown.kind.to_owned()),
            url: unlike(&self.url, &shown.url),
            application: unlike(&self.application, &shown.application),
            category: unlike(&self.category, &shown.category),
            operation: unlike(&self.operation, &shown.operation),
            pool_uuid: unlike(&self.pool_uuid, &shown.pool_uuid),
            resource_uuid: unlike(&self.resource_uuid, &shown.resource_uuid),
        }
    }

    /// As a webhook that has these fields and no others: what is required must be there, and the rest is unset.
    pub(super) fn whole(self) -> Self {
        Self {
            name: Some(self.name.unwrap_or_default()),
            kind: Some(self.kind.unwrap_or_default()),
            url: Some(self.url.unwrap_or_default()),
            application: Some(self.application.flatten()),
            category: Some(self.category.flatten()),
            operation: Some(self.operation.flatten()),
            pool_uuid: Some(self.pool_uuid.flatten()),
            resource_uuid: Some(self.resource_uuid.flatten()),
        }
    }

    /// As changes of a webhook that selects these events so far.
    pub(super) fn over(&self, mut selection: Selection) -> Result<WebhookFields, Problem> {
        let mut checks = Checks::default();
        let mut required = |field, text: &Option<String>, max| {
            checks.take(field, bounded(text.as_deref()?, max)).map(|text| Some(text.to_owned()))
        };
        let mut fields = WebhookFields {
            name: required("name", &self.name, MAX_NAME_CHARS),
            url: required("url", &self.url, MAX_URL_CHARS),
            ..WebhookFields::default()
        };
        let format = self.kind.as_deref().and_then(|kind| checks.take("type", read_type(kind)));
        fields.format = format.map(|format| Some(format.as_str().to_owned()));
        self.select(&mut selection, &mut checks);
        checks.finish()?;
        selection.write_to(&mut fields);
        Ok(fields)
    }

    fn select(&self, selection: &mut Selection, checks: &mut Checks) {
        if let Some(application) = filter(checks, "application", &self.application) {
            set_application(selection, application);
        }
        for (field, text, place) in
            [("pool_uuid", &self.pool_uuid, POOL), ("resource_uuid", &self.resource_uuid, RESOURCE)]
        {
            if let Some(text) = filter(checks, field, text) {
                selection.set_value(place, text);
            }
        }
        let mut kinds = Kinds::of(selection);
        if let Some(operation) = filter(checks, "operation", &self.operation) {
            let known = operation.is_none_or(is_written_as_operation);
            let read = known.then_some(operation).ok_or_else(|| "is no operation of any event".to_owned());
            kinds.operation = checks.take("operation", read).flatten().map(str::to_owned);
        }
        if let Some(category) = &self.category {
            let categories = category.as_ref().map_or(Ok(None), Category::read);
            kinds.categories = checks.take("category", categories).flatten();
            let term = category.as_ref().and_then(Category::term);
            selection.replace(|term| category::listed(term).is_some(), term);
        }
        kinds.write_to(selection);
    }
}

/// A filter that a client names; none in some: it is to be unset.
fn filter<'a>(checks: &mut Checks, field: &str, text: &'a Option<Option<String>>) -> Option<Option<&'a str>> {
    let text = text.as_ref()?.as_deref().filter(|text| !text.is_empty());
    text.map_or(Some(None), |text| checks.take(field, bounded(text, MAX_FILTER_CHARS)).map(Some))
}

/// Text of 1 to `max` characters.
pub(super) fn bounded(text: &str, max: usize) -> Result<&str, String> {
    match text.chars().count() {
        0 => Err("is missing".to_owned()),
        chars if chars > max => Err(format!("has {chars} characters, and at most {max} are accepted")),
        _ => Ok(text),
    }
}

fn read_type(text: &str) -> Result<Format, String> {
    let format = TYPES.iter().find(|(name, _)| *name == text).map(|(_, format)| *format);
    format.ok_or_else(|| match text {
        "" => "is missing".to_owned(),
        _ => format!("is {text:?}, and must be raw, gchat, slack or teams"),
    })
}

/// What a webhook takes that has no filters: every event that is one of the platform's.
pub(super) fn unfiltered() -> Selection {
    let mut selection = Selection::nothing();
    selection.set_types(None);
    selection.terms.push(any_application());
    selection
}

/// Without a filter, what takes every event that is one of the platform's.
fn any_application() -> Term {
    Term::is_not_null(APPLICATION[0])
}

fn set_application(selection: &mut Selection, application: Option<&str>) {
    if selection.value(APPLICATION).as_deref() == application {
        return;
    }
    match application {
        Some(_) => selection.terms.retain(|term| *term != any_application()),
        None => selection.terms.push(any_application()),
    }
    selection.set_value(APPLICATION, application);
}

impl View {
    /// The webhook as the platform shows it.
    pub(super) fn of(webhook: &Webhook) -> Self {
        let selection = Selection::of(webhook);
        let Kinds { categories, operation } = Kinds::of(&selection);
        let kind = TYPES.iter().find(|(_, format)| *format == webhook.format);
        Self {
            uuid: webhook.id.0,
            name: webhook.name.clone(),
            kind: kind.map_or("raw", |(name, _)| name),
            url: webhook.url.clone(),
            application: selection.value(APPLICATION),
            category: Category::of(categories, &selection.terms),
            operation,
            pool_uuid: selection.value(POOL),
            resource_uuid: selection.value(RESOURCE),
        }
    }
}
