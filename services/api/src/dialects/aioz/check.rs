//! The check of a webhook of AIOZ Stream: a sample of an enabled event, sent now.

use axum::Json as Answer;
use axum::extract::State;
use cuewire::catalogue;
use cuewire::ids::WebhookId;
use serde::Deserialize;

use super::super::selection::Selection;
use super::webhook::CHOICES;
use super::{Done, FORMAT, done};
use crate::Api;
use crate::auth::Editor;
use crate::error::Problem;
use crate::extract::Path;
use crate::samples::listed_sample;

/// What a check needs to know of its attempt.
#[derive(Debug, Deserialize)]
struct Attempted {
    error: Option<String>,
}

/// Send a sample of an enabled event to a webhook now
///
/// Whatever the receiver says, the answer is a success, and its message tells what the receiver said.
#[utoipa::path(post, path = "/api/webhooks/check/{id}", tag = "Platform: AIOZ", operation_id = "aioz_check",
    params(("id" = Uuid, Path)), responses((status = 200, body = Done)))]
pub(super) async fn check(
    Editor(caller): Editor,
    State(api): State<Api>,
    Path(id): Path<WebhookId>,
) -> Result<Answer<Done>, Problem> {
    let webhook = api.webhook_in(&caller, id, &[FORMAT]).await?;
    let selection = Selection::of(&webhook);
    let enabled = CHOICES.iter().find(|choice| selection.has(choice));
    let [event_type, ..] = enabled.copied().unwrap_or_default() else {
        return Err(Problem::unreadable("no event is enabled, so there is no sample to send"));
    };
    let sample = catalogue::find(event_type).and_then(listed_sample).ok_or_else(Problem::internal)?;
    let attempt = api.send_sample(&webhook, sample).await?;
    let attempted: Attempted = serde_json::from_slice(&attempt).map_err(|error| {
        tracing::error!(%error, "a sender answered with no attempt");
        Problem::internal()
    })?;
    Ok(done(match attempted.error {
        None => format!("a sample of {event_type} was sent, and taken"),
        Some(error) => format!("a sample of {event_type} was sent in vain: {error}"),
    }))
}
