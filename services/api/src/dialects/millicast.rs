//! The webhooks of Dolby.io Streaming (Millicast), as its API and its SDKs manage them.
//!
//! From the platform's API reference. Ours, where that is silent: an unknown id is 404 and an unknown key 401,
//! `itemCount` is at most 1,000, `startingId` is the first webhook of the list, `isClipHooks` stands for
//! `clip.*`, `until` of `disabled` is null (410 or a person disables), a filter is applied to a thumbnail's
//! stream as [`name_filter`] says, and an empty filter is none. Secrets are shown to editors too, who get to see
//! one whenever they add a webhook or renew its secret; a viewer does not see them.

mod name_filter;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use cuewire::catalogue;
use cuewire::db::api_keys::{KeyHolder, Role};
use cuewire::event::{Data, Event};
use cuewire::formats::Format;
use cuewire::signature::{Scheme, Secret};
use cuewire::webhook::Webhook;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::selection::{Choice, Selection};
use super::{Dialect, flag, whole};
use crate::Api;
use crate::auth::{Credentials, Editor, Viewer};
use crate::error::Problem;
use crate::extract::{Json, OptionalJson, Path, Query, given};
use crate::samples::{listed_sample, takes};
use crate::webhooks::{self, WebhookFields};

pub(super) const DIALECT: Dialect = Dialect {
    name: "millicast",
    routes: || {
        OpenApiRouter::new()
            .routes(routes!(add))
            .routes(routes!(list))
            .routes(routes!(read, update, delete))
            .routes(routes!(test))
    },
    credentials: |_, headers| Credentials::bearer(headers),
    envelope,
};

/// All webhooks of most organizations at once; the api has room for more.
const TESTS_AT_A_TIME: usize = 64;
/// How long all of them may take: within the time of a request.
const TESTS_TIMEOUT: Duration = Duration::from_secs(35);
const DEFAULT_ITEMS: i64 = 10;
const MAX_ITEMS: i64 = 1_000;

const FEEDS: Choice = &["feeds.*"];
const MEDIA: Choice = &["media.*"];
/// The platform's pages use both words.
const RECORDINGS: Choice = &["recordings.*", "recording.*"];
const THUMBNAILS: Choice = &["thumbnail.*"];
const TRANSCODERS: Choice = &["transcoder.*"];
const VIEWERS: Choice = &["viewerConnection.*"];
const CLIPS: Choice = &["clip.*"];
const CHOICES: [Choice; 7] = [FEEDS, MEDIA, RECORDINGS, THUMBNAILS, TRANSCODERS, VIEWERS, CLIPS];

/// What a client writes of a webhook; null is as good as nothing, but for the filter.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default, rename_all = "camelCase")]
#[schema(as = MillicastWebhookFields, example = json!({"url": "https://example.com/hooks", "isFeedHooks": true}))]
struct Fields {
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
struct View {
    id: i64,
    url: String,
    /// Base64 of the key; empty for a key that may only read.
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

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MillicastSuccess)]
struct Success<T> {
    status: &'static str,
    data: T,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// The webhook that the list begins with; 0: the first.
    #[serde(default, deserialize_with = "whole")]
    starting_id: Option<i64>,
    /// How many there may be: 1 to 1,000, 10 unless given.
    #[serde(default, alias = "item_count", deserialize_with = "whole")]
    item_count: Option<i64>,
    /// The newest first.
    #[serde(default, deserialize_with = "flag")]
    is_descending: Option<bool>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, rename_all = "camelCase")]
#[schema(as = MillicastTest, example = json!({"streamName": "sample_stream"}))]
struct TestCall {
    /// The sample's stream.
    stream_name: Option<String>,
    /// The sample's transcoder.
    transcoder_name: Option<String>,
}

/// Add a webhook
#[utoipa::path(post, path = "/api/webhooks", tag = "Platform: Millicast", operation_id = "millicast_add",
    request_body = Fields, responses((status = 200, body = Success<View>)))]
async fn add(
    Editor(caller): Editor,
    State(api): State<Api>,
    Json(new): Json<Fields>,
) -> Result<Answer<Success<View>>, Problem> {
    if new.is_feed_hooks.is_none() {
        return Err(Problem::invalid_field("isFeedHooks", "is missing"));
    }
    let mut fields = new.over(Selection::nothing())?;
    fields.format = Some(Some(Format::Millicast.as_str().to_owned()));
    let (webhook, secret) = api.make_webhook(&caller, fields).await?;
    Ok(success(View::of(&webhook, base64(&secret))))
}

/// Read a webhook
#[utoipa::path(get, path = "/api/webhooks/{id}", tag = "Platform: Millicast", operation_id = "millicast_read",
    params(("id" = i64, Path)), responses((status = 200, body = Success<View>)))]
async fn read(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Path(number): Path<i64>,
) -> Result<Answer<Success<View>>, Problem> {
    let webhook = find(&api, &caller, number).await?;
    Ok(success(view(&api, &caller, &webhook).await?))
}

/// List the webhooks
#[utoipa::path(get, path = "/api/webhooks/list", tag = "Platform: Millicast", operation_id = "millicast_list",
    params(ListQuery), responses((status = 200, body = Success<Vec<View>>)))]
async fn list(
    Viewer(caller): Viewer,
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Success<Vec<View>>>, Problem> {
    let count = query.item_count.unwrap_or(DEFAULT_ITEMS);
    if !(1..=MAX_ITEMS).contains(&count) {
        return Err(Problem::invalid_field("itemCount", format!("must be 1 to {MAX_ITEMS}")));
    }
    let descending = query.is_descending.unwrap_or_default();
    let mut webhooks = api.database.webhooks_in(caller.organization, &[Format::Millicast]).await?;
    if descending {
        webhooks.reverse();
    }
    if let Some(start) = query.starting_id.filter(|start| *start != 0) {
        webhooks.retain(|webhook| if descending { webhook.number <= start } else { webhook.number >= start });
    }
    webhooks.truncate(count as usize);
    Ok(success(views(&api, &caller, &webhooks).await?))
}

/// Change a webhook
///
/// `refreshSecret` makes a new secret; `reEnable` or another `url` lets a disabled webhook take events again.
#[utoipa::path(put, path = "/api/webhooks/{id}", tag = "Platform: Millicast", operation_id = "millicast_update",
    params(("id" = i64, Path)), request_body = Fields, responses((status = 200, body = Success<View>)))]
async fn update(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(number): Path<i64>,
    Json(changed): Json<Fields>,
) -> Result<Answer<Success<View>>, Problem> {
    let id = find(&api, &caller, number).await?.id;
    let edit = |webhook: &Webhook| {
        let mut fields = changed.over(Selection::of(webhook))?;
        let moves = changed.url.as_ref().is_some_and(|url| *url != webhook.url);
        if moves || changed.re_enable == Some(true) {
            fields.enabled = Some(Some(true));
        }
        Ok(fields)
    };
    let webhook = api.change_webhook(&caller, id, edit).await?;
    if changed.refresh_secret == Some(true) {
        let secret = Secret::generate(Scheme::V1);
        api.rotate_secret(&caller, id, &secret, Duration::ZERO).await?;
        return Ok(success(View::of(&webhook, base64(&secret))));
    }
    Ok(success(view(&api, &caller, &webhook).await?))
}

/// Delete a webhook
#[utoipa::path(delete, path = "/api/webhooks/{id}", tag = "Platform: Millicast", operation_id = "millicast_delete",
    params(("id" = i64, Path)), responses((status = 200, body = Success<bool>)))]
async fn delete(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(number): Path<i64>,
) -> Result<Answer<Success<bool>>, Problem> {
    let webhook = find(&api, &caller, number).await?;
    api.delete_webhook(&caller, webhook.id).await?;
    Ok(success(true))
}

/// Send a sample of a type to every enabled webhook that takes it
///
/// The answer is the same whatever the receivers say; their answers are on record.
#[utoipa::path(post, path = "/api/webhooks/test/{type}", tag = "Platform: Millicast", operation_id = "millicast_test",
    params(("type" = String, Path, example = "Feeds")), request_body = TestCall,
    responses((status = 200, body = Success<bool>)))]
async fn test(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(kind): Path<String>,
    OptionalJson(call): OptionalJson<TestCall>,
) -> Result<Answer<Success<bool>>, Problem> {
    let choice = match kind.as_str() {
        "Recordings" => RECORDINGS,
        "Thumbnail" => THUMBNAILS,
        "Transcoder" => TRANSCODERS,
        "Media" => MEDIA,
        "Feeds" => FEEDS,
        "ViewerConnection" => VIEWERS,
        _ => {
            let known = "Recordings, Thumbnail, Transcoder, Media, Feeds, ViewerConnection";
            return Err(Problem::invalid_field("type", format!("is {kind:?}, and must be one of {known}")));
        }
    };
    let webhooks = api.database.webhooks_in(caller.organization, &[Format::Millicast]).await?;
    let calls = webhooks.into_iter().filter(|webhook| webhook.enabled).filter_map(|webhook| {
        let (api, sample) = (api.clone(), sample_of(choice, &webhook, &call)?);
        Some(async move { api.send_sample(&webhook, sample).await })
    });
    let sending = stream::iter(calls).buffer_unordered(TESTS_AT_A_TIME).collect::<Vec<_>>();
    // Receivers that hang are not waited for: their attempts are on record when they end.
    let Ok(answers) = tokio::time::timeout(TESTS_TIMEOUT, sending).await else { return Ok(success(true)) };
    // One that was sent shows that the broker and a sender are there.
    match answers.into_iter().reduce(Result::or) {
        Some(Err(problem)) => Err(problem),
        Some(Ok(_)) | None => Ok(success(true)),
    }
}

/// The caller's webhook of this number and the platform's format.
async fn find(api: &Api, caller: &KeyHolder, number: i64) -> Result<Webhook, Problem> {
    let webhook = api.database.webhook_numbered(caller.organization, number).await?;
    webhook.filter(|webhook| webhook.format == Format::Millicast).ok_or_else(webhooks::none)
}

impl Fields {
    /// As changes of a webhook that selects these events so far.
    fn over(&self, mut selection: Selection) -> Result<WebhookFields, Problem> {
        for (choice, flag) in [
            (FEEDS, self.is_feed_hooks),
            (MEDIA, self.is_media_hooks),
            (RECORDINGS, self.is_recording_hooks),
            (THUMBNAILS, self.is_thumbnail_hooks),
            (TRANSCODERS, self.is_transcoder_hooks),
            (VIEWERS, self.is_viewer_connection_hooks),
            (CLIPS, self.is_clip_hooks),
        ] {
            if let Some(on) = flag {
                selection.choose(&CHOICES, choice, on);
            }
        }
        if let Some(regex) = &self.filter {
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

/// The webhooks as this caller may see them.
async fn views(api: &Api, caller: &KeyHolder, webhooks: &[Webhook]) -> Result<Vec<View>, Problem> {
    if caller.role < Role::Editor {
        return Ok(webhooks.iter().map(|webhook| View::of(webhook, String::new())).collect());
    }
    let secrets = api.newest_secrets(webhooks).await?;
    let secret = |webhook: &Webhook| secrets.get(&webhook.id).map(base64).unwrap_or_default();
    Ok(webhooks.iter().map(|webhook| View::of(webhook, secret(webhook))).collect())
}

async fn view(api: &Api, caller: &KeyHolder, webhook: &Webhook) -> Result<View, Problem> {
    let views = views(api, caller, std::slice::from_ref(webhook)).await?;
    views.into_iter().next().ok_or_else(webhooks::none)
}

impl View {
    fn of(webhook: &Webhook, secret: String) -> Self {
        let selection = Selection::of(webhook);
        let disabled = || Disabled { until: None, reason: webhook.disabled_reason.clone() };
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
            disabled: (!webhook.enabled).then(disabled),
            filter: selection.terms.iter().find_map(name_filter::shown),
        }
    }
}

fn success<T>(data: T) -> Answer<Success<T>> {
    Answer(Success { status: "success", data })
}

/// The platform's form of a secret: base64 without a prefix.
fn base64(secret: &Secret) -> String {
    secret.to_string().strip_prefix("whsec_").unwrap_or_default().to_owned()
}

/// A sample of the first type of the choice that the webhook takes, with the names that the call gives.
fn sample_of(choice: Choice, webhook: &Webhook, call: &TestCall) -> Option<Event> {
    let of_choice = |entry: &&catalogue::EventType| {
        choice.iter().any(|pattern| entry.name.starts_with(pattern.trim_end_matches('*')))
    };
    let mut taken = catalogue::all().iter().filter(of_choice).filter(|entry| takes(webhook, &entry.name));
    let mut event = listed_sample(taken.next()?)?;
    if let Some(name) = &call.stream_name {
        event.subject = event.subject.map(|id| renamed(&id, name));
    }
    let Data::Json(bytes) = &event.data else { return Some(event) };
    let mut data: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
    for (key, name) in [
        ("name", &call.stream_name),
        ("streamName", &call.stream_name),
        ("transcoderName", &call.transcoder_name),
    ] {
        if let (Some(slot), Some(name)) = (data.get_mut(key), name) {
            *slot = name.as_str().into();
        }
    }
    if let (Some(Value::String(id)), Some(name)) = (data.get_mut("streamId"), &call.stream_name) {
        *id = renamed(id, name);
    }
    event.data = Data::Json(Value::Object(data).to_string().into());
    Some(event)
}

/// The id of a stream of the same account with another name.
fn renamed(id: &str, name: &str) -> String {
    let account = id.split('/').next().unwrap_or_default();
    format!("{account}/{name}")
}

fn envelope(problem: &Problem) -> (StatusCode, Value) {
    if problem.status.is_server_error() {
        let code = problem.status.as_u16();
        return (
            problem.status,
            json!({"status": "error", "message": problem.detail, "code": code, "data": {}}),
        );
    }
    let mut data = json!({"message": problem.detail});
    if problem.status != StatusCode::UNPROCESSABLE_ENTITY {
        return (problem.status, json!({"status": "fail", "data": data}));
    }
    let mut errors: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for error in &problem.errors {
        errors.entry(&error.field).or_default().push(&error.detail);
    }
    data["errors"] = json!(errors);
    (StatusCode::BAD_REQUEST, json!({"status": "fail", "data": data}))
}
