//! The webhook of AIOZ Stream: what its clients write of one, and what they are shown.

use cuewire::db::api_keys::KeyHolder;
use cuewire::ids::WebhookId;
use cuewire::webhook::Webhook;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::super::selection::{Choice, Selection};
use super::super::{flag, micros, tenant};
use crate::error::Problem;
use crate::webhooks::WebhookFields;

pub(super) const FILE_RECEIVED: Choice = &["file.received"];
pub(super) const ENCODING_STARTED: Choice = &["encoding.started"];
const PARTIAL_FINISHED: Choice = &["partial.finished"];
pub(super) const ENCODING_FINISHED: Choice = &["encoding.finished"];
const ENCODING_FAILED: Choice = &["encoding.failed"];
/// Every event that the platform knows.
pub(super) const CHOICES: [Choice; 5] =
    [FILE_RECEIVED, ENCODING_STARTED, PARTIAL_FINISHED, ENCODING_FINISHED, ENCODING_FAILED];

/// What a client writes of a webhook; null is as good as nothing.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = AiozWebhookFields,
    example = json!({"url": "https://example.com/hooks", "encoding_finished": true}))]
pub(super) struct Fields {
    pub(super) name: Option<String>,
    /// Required, in a change too.
    pub(super) url: Option<String>,
    #[serde(deserialize_with = "flag")]
    file_received: Option<bool>,
    #[serde(deserialize_with = "flag")]
    encoding_started: Option<bool>,
    #[serde(deserialize_with = "flag")]
    partial_finished: Option<bool>,
    #[serde(deserialize_with = "flag")]
    encoding_finished: Option<bool>,
    #[serde(deserialize_with = "flag")]
    encoding_failed: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AiozWebhook)]
pub(super) struct View {
    #[schema(value_type = uuid::Uuid)]
    id: WebhookId,
    user_id: String,
    name: String,
    url: String,
    file_received: bool,
    encoding_started: bool,
    partial_finished: bool,
    encoding_finished: bool,
    encoding_failed: bool,
    #[schema(example = "2023-06-11T11:11:11.111111Z")]
    created_at: String,
    updated_at: String,
    last_triggered_at: Option<String>,
}

impl Fields {
    /// Whether an event is enabled.
    pub(super) fn enable_any(&self) -> bool {
        self.flags().iter().any(|(_, flag)| *flag == Some(true))
    }

    fn flags(&self) -> [(Choice, Option<bool>); 5] {
        [
            (FILE_RECEIVED, self.file_received),
            (ENCODING_STARTED, self.encoding_started),
            (PARTIAL_FINISHED, self.partial_finished),
            (ENCODING_FINISHED, self.encoding_finished),
            (ENCODING_FAILED, self.encoding_failed),
        ]
    }

    /// As changes of a webhook that selects these events so far.
    pub(super) fn over(&self, mut selection: Selection) -> Result<WebhookFields, Problem> {
        let Some(url) = self.url.clone() else {
            return Err(Problem::invalid_field("url", "is missing"));
        };
        selection.choose(&self.flags());
        let name = self.name.clone().map(Some);
        let mut fields = WebhookFields { url: Some(Some(url)), name, ..WebhookFields::default() };
        selection.write_to(&mut fields);
        Ok(fields)
    }
}

impl View {
    /// The webhook, as its owner sees it.
    pub(super) fn of(
        webhook: &Webhook,
        caller: &KeyHolder,
        last_triggered_at: Option<OffsetDateTime>,
    ) -> Self {
        let selection = Selection::of(webhook);
        Self {
            id: webhook.id,
            user_id: tenant(caller),
            name: webhook.name.clone(),
            url: webhook.url.clone(),
            file_received: selection.has(FILE_RECEIVED),
            encoding_started: selection.has(ENCODING_STARTED),
            partial_finished: selection.has(PARTIAL_FINISHED),
            encoding_finished: selection.has(ENCODING_FINISHED),
            encoding_failed: selection.has(ENCODING_FAILED),
            created_at: micros(webhook.created_at),
            updated_at: micros(webhook.updated_at),
            last_triggered_at: last_triggered_at.map(micros),
        }
    }
}
