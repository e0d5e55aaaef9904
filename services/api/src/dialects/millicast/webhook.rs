//! The webhook of Dolby.io Streaming (Millicast): what its clients write of one, and what they are shown.

use cuewire::delivery::rfc3339;
use cuewire::webhook::Webhook;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::selection::{Choice, Selection};
use super::name_filter;
use crate::checks::Checks;
use crate::error::Problem;
use crate::extract::given;
use crate::webhooks::WebhookFields;

pub(super) const FEEDS: Choice = &["feeds.*"];
pub(super) const MEDIA: Choice = &["media.*"];
/// The platform's pages use both words.
pub(super) const RECORDINGS: Choice = &["recordings.*", "recording.*"];
pub(super) const THUMBNAILS: Choice = &["thumbnail.*"];
pub(super) const TRANSCODERS: Choice = &["transcoder.*"];
pub(super) const VIEWERS: Choice = &["viewerConnection.*"];
const CLIPS: Choice = &["clip.*"];

/// What a client writes of a webhook; null is as good as nothing, but for the filter.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default, rename_all = "camelCase")]
#[schema(as = MillicastWebhookFields, example = json!({"url": "https://example.com/hooks", "isFeedHooks": true}))]
pub(super) struct Fields {
    url: Option<String>,
    is_feed_hooks: Option<bool>,
    is_media_hooks: Option<bool>,
    is_recording_hooks: Option<bool>,
    is_thumbnail_hooks: Option<bool>,
    is_transcoder_hooks: Option<bool>,
    is_viewer_connection_hooks: Option<bool>,
    is_clip_hooks: Option<bool>,
    /// A regular expression over the name of the stream or the transcoder; null clears it.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    filter: Option<Option<String>>,
    /// Only in a change: makes a new secret; the old one ends at once.
    refresh_secret: Option<bool>,
    /// Only in a change: takes events again.
    re_enable: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MillicastWebhook)]
pub(super) struct View {
    id: i64,
    url: String,
    /// Base64 of the key; empty unless this very call made it, or an admin asks.
    secret: String,
    is_feed_hooks: bool,
    is_media_hooks: bool,
    is_recording_hooks: bool,
    is_thumbnail_hooks: bool,
    is_transcoder_hooks: bool,
    is_viewer_connection_hooks: bool,
    is_clip_hooks: bool,
    disabled: Option<Disabled>,
    filter: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MillicastDisabled)]
struct Disabled {
    until: Option<String>,
    reason: Option<String>,
}

impl Fields {
    /// Whether a new webhook has what it needs.
    pub(super) fn check_new(&self) -> Result<(), Problem> {
        let mut checks = Checks::default();
        checks.require("url", self.url.as_ref());
        checks.require("isFeedHooks", self.is_feed_hooks.as_ref());
        checks.finish()
    }

    /// Whether a disabled webhook takes events again: by its own word, or since it has another receiver.
    pub(super) fn enables(&self, webhook: &Webhook) -> bool {
        let moves = self.url.as_ref().is_some_and(|url| *url != webhook.url);
        moves || self.re_enable == Some(true)
    }

    /// Whether the secret is to be replaced.
    pub(super) fn renews_secret(&self) -> bool {
        self.refresh_secret == Some(true)
    }

    fn flags(&self) -> [(Choice, Option<bool>); 7] {
        [
            (FEEDS, self.is_feed_hooks),
            (MEDIA, self.is_media_hooks),
            (RECORDINGS, self.is_recording_hooks),
            (THUMBNAILS, self.is_thumbnail_hooks),
            (TRANSCODERS, self.is_transcoder_hooks),
            (VIEWERS, self.is_viewer_connection_hooks),
            (CLIPS, self.is_clip_hooks),
        ]
    }

    /// As changes of a webhook that selects these events so far.
    pub(super) fn over(&self, mut selection: Selection) -> Result<WebhookFields, Problem> {
        selection.choose(&self.flags());
        if let Some(regex) = self.filter.as_ref().filter(|regex| **regex != shown_filter(&selection)) {
            // An empty one, as clients write who have none, would drop every event without a name.
            let regex = regex.as_deref().filter(|regex| !regex.is_empty());
            let term = regex.map(name_filter::read).transpose()?;
            selection.replace(|term| name_filter::shown(term).is_some(), term);
        }
        let mut fields = WebhookFields { url: self.url.clone().map(Some), ..WebhookFields::default() };
        selection.write_to(&mut fields);
        Ok(fields)
    }
}

fn shown_filter(selection: &Selection) -> Option<String> {
    selection.terms.iter().find_map(name_filter::shown)
}

impl View {
    /// The webhook with its secret in the platform's form, or without one.
    pub(super) fn of(webhook: &Webhook, secret: String) -> Self {
        let selection = Selection::of(webhook);
        let disabled = match &webhook.breaker {
            _ if !webhook.enabled => Some(Disabled { until: None, reason: webhook.disabled_reason.clone() }),
            Some(breaker) => Some(Disabled {
                until: Some(rfc3339(breaker.next_probe_at)),
                reason: Some("too many attempts failed".to_owned()),
            }),
            None => None,
        };
        Self {
            id: webhook.number,
            url: webhook.url.clone(),
            secret,
            is_feed_hooks: selection.has(FEEDS),
            is_media_hooks: selection.has(MEDIA),
            is_recording_hooks: selection.has(RECORDINGS),
            is_thumbnail_hooks: selection.has(THUMBNAILS),
            is_transcoder_hooks: selection.has(TRANSCODERS),
            is_viewer_connection_hooks: selection.has(VIEWERS),
            is_clip_hooks: selection.has(CLIPS),
            disabled,
            filter: shown_filter(&selection),
        }
    }
}
