//! Test calls of Dolby.io Streaming (Millicast): a sample of a type to every webhook that takes it.

use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use cuewire::catalogue;
use cuewire::event::{Data, Event, EventType};
use cuewire::formats::Format;
use cuewire::webhook::Webhook;
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::selection::{Choice, Selection};
use super::webhook::{FEEDS, MEDIA, RECORDINGS, THUMBNAILS, TRANSCODERS, VIEWERS};
use super::{Success, name_filter, success};
use crate::Api;
use crate::auth::Editor;
use crate::call::MAX_OWN;
use crate::checks::Checks;
use crate::error::Problem;
use crate::extract::{OptionalJson, Path};
use crate::samples::{listed_sample, takes};

/// How long all of them may take: within the time of a request.
const TESTS_TIMEOUT: Duration = Duration::from_secs(35);
/// Of a stream's or a transcoder's name: with the account before it, it is an event's subject still.
const MAX_NAME_BYTES: usize = 512;
/// The types that a test can be of, as the platform names them.
const TYPES: [(&str, Choice); 6] = [
    ("Recordings", RECORDINGS),
    ("Thumbnail", THUMBNAILS),
    ("Transcoder", TRANSCODERS),
    ("Media", MEDIA),
    ("Feeds", FEEDS),
    ("ViewerConnection", VIEWERS),
];

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, rename_all = "camelCase")]
#[schema(as = MillicastTest, example = json!({"webhookType": "Feeds", "streamName": "sample_stream"}))]
pub(super) struct TestCall {
    /// The type in the path once more.
    webhook_type: Option<String>,
    /// The sample's stream.
    stream_name: Option<String>,
    /// The sample's transcoder.
    transcoder_name: Option<String>,
}

/// Send a sample of a type to every enabled webhook that takes it
///
/// The name of a stream or a transcoder becomes the sample's, and is held against the webhooks' filters. The answer is
/// the same whatever the receivers say; their answers are on record. Of more than 32 webhooks some get none, where the
/// others' receivers hang.
#[utoipa::path(post, path = "/api/webhooks/test/{type}", tag = "Platform: Millicast", operation_id = "millicast_test",
    params(("type" = String, Path, example = "Feeds")),
    request_body(content = TestCall, description = "May be left out, and so may all that is in it"),
    responses((status = 200, body = Success<bool>)))]
pub(super) async fn test(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(kind): Path<String>,
    OptionalJson(call): OptionalJson<TestCall>,
) -> Result<Answer<Success<bool>>, Problem> {
    let Some((_, choice)) = TYPES.iter().find(|(name, _)| *name == kind) else {
        let known = TYPES.map(|(name, _)| name).join(", ");
        return Err(Problem::invalid_field("type", format!("is {kind:?}, and must be one of {known}")));
    };
    call.check(&kind)?;
    // What the type's events are named by.
    let name = if *choice == TRANSCODERS { &call.transcoder_name } else { &call.stream_name };
    let webhooks = api.database.webhooks_in(caller.organization, &[Format::Millicast]).await?;
    let calls = webhooks.into_iter().filter(|webhook| webhook.enabled).filter_map(|webhook| {
        let (api, sample) = (api.clone(), sample_of(choice, &webhook, name.as_deref())?);
        Some(async move { api.send_sample(&webhook, sample).await })
    });
    let sending = stream::iter(calls).buffer_unordered(MAX_OWN).collect::<Vec<_>>();
    // Receivers that hang are not waited for: their attempts are on record when they end.
    let Ok(answers) = tokio::time::timeout(TESTS_TIMEOUT, sending).await else { return Ok(success(true)) };
    // One that was sent shows that the broker and a sender are there.
    match answers.into_iter().reduce(Result::or) {
        Some(Err(problem)) => Err(problem),
        Some(Ok(_)) | None => Ok(success(true)),
    }
}

impl TestCall {
    /// Whether it is of this type as well, and its names can become part of an event.
    fn check(&self, kind: &str) -> Result<(), Problem> {
        let mut checks = Checks::default();
        if let Some(other) = self.webhook_type.as_ref().filter(|it| !it.eq_ignore_ascii_case(kind)) {
            checks.refuse("webhookType", format!("is {other:?}, and the path says {kind}"));
        }
        for (field, name) in [("streamName", &self.stream_name), ("transcoderName", &self.transcoder_name)] {
            if let Some(name) = name {
                checks.line(field, name.clone(), MAX_NAME_BYTES);
            }
        }
        checks.finish()
    }
}

/// A sample of the first type of the choice that the webhook takes, with the name that the call gives.
fn sample_of(choice: Choice, webhook: &Webhook, name: Option<&str>) -> Option<Event> {
    let selection = Selection::of(webhook);
    if selection.takes_none() {
        return None;
    }
    let (entry, event_type) = types_of(choice).into_iter().find(|(_, name)| takes(webhook, name))?;
    let sample = Event { event_type: EventType::parse(&event_type).ok()?, ..listed_sample(entry)? };
    match name {
        Some(name) => named(sample, name).filter(|sample| name_filter::take(&selection.terms, sample)),
        None => Some(sample),
    }
}

/// The types of the choice, each with the entry whose sample it has: where the choice has several words for the same,
/// and the catalogue one of them, the catalogue's types and then those with another word.
fn types_of(choice: Choice) -> Vec<(&'static catalogue::EventType, String)> {
    let mut types = Vec::new();
    for pattern in choice {
        for entry in catalogue::all() {
            let operation =
                choice.iter().find_map(|word| entry.name.strip_prefix(word.trim_end_matches('*')));
            types.extend(operation.map(|operation| (entry, pattern.replace('*', operation))));
        }
    }
    types
}

/// The sample as one of a stream or transcoder of this name.
fn named(mut sample: Event, name: &str) -> Option<Event> {
    sample.subject = sample.subject.map(|id| renamed(&id, name));
    let Data::Json(bytes) = &sample.data else { return Some(sample) };
    let mut data: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
    for key in ["name", "streamName", "transcoderName"] {
        if let Some(slot) = data.get_mut(key) {
            *slot = name.into();
        }
    }
    if let Some(Value::String(id)) = data.get_mut("streamId") {
        *id = renamed(id, name);
    }
    sample.data = Data::Json(Value::Object(data).to_string().into());
    Some(sample)
}

/// The id of a stream of the same account with another name.
fn renamed(id: &str, name: &str) -> String {
    let account = id.split('/').next().unwrap_or_default();
    format!("{account}/{name}")
}
