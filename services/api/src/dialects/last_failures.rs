//! How webhooks last failed, for dialects that show it: the error, and what was sent in vain, rendered again by
//! the webhook's format from the event log.

use std::collections::HashMap;

use cuewire::db::api_keys::KeyHolder;
use cuewire::db::attempts::FailedAttempt;
use cuewire::event::Event;
use cuewire::formats::{Outgoing, Owner};
use cuewire::ids::WebhookId;
use cuewire::webhook::Webhook;

use crate::Api;
use crate::error::Problem;

/// Each is an event of up to 256 KiB.
const MAX_PAYLOADS: usize = 64;

/// How a webhook last failed.
#[derive(Debug)]
pub(super) struct LastFailure {
    /// What went wrong, in a sentence.
    pub(super) error: String,
    /// The body that was sent, as long as the event is in the log.
    pub(super) payload: Option<String>,
}

/// How those of the caller's webhooks last failed that have failed; the payloads of the first 64 alone.
pub(super) async fn last_failures(
    api: &Api,
    caller: &KeyHolder,
    webhooks: &[Webhook],
) -> Result<HashMap<WebhookId, LastFailure>, Problem> {
    let ids: Vec<_> = webhooks.iter().map(|webhook| webhook.id).collect();
    let mut failed: HashMap<_, _> = api
        .database
        .last_failures(&ids)
        .await?
        .into_iter()
        .map(|failure| (failure.webhook, failure))
        .collect();
    let mut failures = HashMap::with_capacity(failed.len());
    let mut owner = None;
    for webhook in webhooks {
        let Some(failure) = failed.remove(&webhook.id) else { continue };
        if owner.is_none() {
            owner = owner_of(api, caller).await?;
        }
        let payload = match (&failure.attempt, &owner) {
            (Some(attempt), Some(owner)) if failures.len() < MAX_PAYLOADS => {
                payload(api, owner, webhook, attempt).await?
            }
            _ => None,
        };
        failures.insert(webhook.id, LastFailure { error: failure.error, payload });
    }
    Ok(failures)
}

async fn owner_of(api: &Api, caller: &KeyHolder) -> Result<Option<Owner>, Problem> {
    let organization = api.database.organization(caller.organization).await?;
    Ok(organization.map(|it| Owner { id: it.id, name: it.name, external_id: it.external_id }))
}

/// The body of a delivery; none where its event is not in the log (a test call's never is).
async fn payload(
    api: &Api,
    owner: &Owner,
    webhook: &Webhook,
    attempt: &FailedAttempt,
) -> Result<Option<String>, Problem> {
    let FailedAttempt { delivery, event_source, event_id, started_at } = attempt;
    let stored = api.database.event(owner.id, event_id, Some(event_source)).await?;
    let event = stored.and_then(|stored| Event::from_json(&stored.payload.into()).ok());
    let request = event.and_then(|event| {
        let outgoing = Outgoing {
            event: &event,
            owner,
            webhook: webhook.id,
            delivery: *delivery,
            // The signature is not shown.
            secrets: &[],
            now: *started_at,
        };
        webhook.format.prepare(&outgoing).ok()
    });
    Ok(request.map(|request| String::from_utf8_lossy(&request.body).into_owned()))
}
