//! The endpoint of Omegastream: what its clients write of a webhook, and what they are shown.

use cuewire::catalogue;
use cuewire::db::api_keys::KeyHolder;
use cuewire::event::EventType;
use cuewire::formats::Format;
use cuewire::formats::omegastream::short_id;
use cuewire::webhook::{MAX_EVENT_TYPES, Webhook};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::selection::Selection;
use super::super::{exact_types, micros, tenant};
use crate::checks::Checks;
use crate::error::Problem;
use crate::webhooks::WebhookFields;

/// What a client writes of an endpoint; null is as good as nothing.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = OmegastreamEndpointFields,
    example = json!({"url": "https://example.com/hooks", "events": ["video.process_succeeded"]}))]
pub(super) struct Fields {
    /// Required in a new endpoint.
    url: Option<String>,
    description: Option<String>,
    /// The types it takes, at most 200; required in a new endpoint. None: it takes nothing.
    events: Option<Vec<String>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OmegastreamEndpoint)]
pub(super) struct Endpoint {
    #[schema(example = "6323940afc8e1c02d9f3b155")]
    id: String,
    #[schema(example = "2022-09-15T21:07:22.823797Z")]
    created_at: String,
    updated_at: String,
    coid: String,
    url: String,
    description: Option<String>,
    events: Vec<String>,
    active: bool,
}

impl Fields {
    /// Whether a new endpoint has what it needs.
    pub(super) fn check_new(&self) -> Result<(), Problem> {
        let mut checks = Checks::default();
        checks.require("url", self.url.as_ref());
        checks.require("events", self.events.as_ref());
        checks.finish()
    }

    /// As changes of a webhook that selects these events so far.
    pub(super) fn over(&self, mut selection: Selection) -> Result<WebhookFields, Problem> {
        if let Some(events) = &self.events {
            let known = known();
            let shown = exact_types::shown(&selection, &known);
            if *events != shown {
                check(events, &shown)?;
                exact_types::choose(&mut selection, &known, events);
            }
        }
        let description = self.description.clone().map(|text| Some(text).filter(|text| !text.is_empty()));
        let mut fields =
            WebhookFields { url: self.url.clone().map(Some), description, ..WebhookFields::default() };
        selection.write_to(&mut fields);
        Ok(fields)
    }
}

/// Whether they are types, or what was shown to the client as one.
fn check(events: &[String], shown: &[String]) -> Result<(), Problem> {
    if events.len() > MAX_EVENT_TYPES {
        let detail = format!("has {} entries, and at most {MAX_EVENT_TYPES} are accepted", events.len());
        return Err(Problem::invalid_field("events", detail));
    }
    for (index, event_type) in events.iter().enumerate().filter(|(_, it)| !shown.contains(it)) {
        EventType::parse(event_type)
            .map_err(|detail| Problem::invalid_field(format!("events[{index}]"), detail))?;
    }
    Ok(())
}

/// The platform's types.
fn known() -> Vec<&'static str> {
    let own = catalogue::all().iter().filter(|entry| entry.platform == Format::Omegastream.as_str());
    own.map(|entry| entry.name.as_str()).collect()
}

impl Endpoint {
    /// The webhook, as its owner sees it.
    pub(super) fn of(webhook: &Webhook, caller: &KeyHolder) -> Self {
        Self {
            id: short_id(webhook.id.0),
            created_at: micros(webhook.created_at),
            updated_at: micros(webhook.updated_at),
            coid: tenant(caller),
            url: webhook.url.clone(),
            description: webhook.description.clone(),
            events: exact_types::shown(&Selection::of(webhook), &known()),
            active: webhook.enabled,
        }
    }
}
