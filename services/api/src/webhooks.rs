//! Webhooks, whoever asks: found, made, changed, deleted and given new secrets by the same rules, for the
//! native API and for every dialect.

mod fields;
mod rules;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use cuewire::db::DbError;
use cuewire::db::api_keys::{KeyHolder, Role};
use cuewire::db::webhooks::RotatedSecret;
use cuewire::formats::Format;
use cuewire::ids::WebhookId;
use cuewire::signature::Secret;
use cuewire::vault::DoesNotOpen;
use cuewire::webhook::Webhook;
use time::OffsetDateTime;

pub(crate) use self::fields::WebhookFields;
pub(crate) use self::rules::{Destinations, read_secret};
use crate::Api;
use crate::error::Problem;

/// A change that others keep overtaking is given up: something changes the webhook in a loop.
const MAX_TRIES: usize = 5;
/// Each adds a signature to every delivery.
const MAX_VALID_SECRETS: usize = 5;

/// In the place of a header's value that the caller may not see.
const HIDDEN: &str = "***";

/// A secret that signs, opened.
#[derive(Debug)]
pub(crate) struct ValidSecret {
    /// The secret itself.
    pub(crate) secret: Secret,
    /// When it was made.
    pub(crate) created_at: OffsetDateTime,
    /// When it signs no more, if it was replaced.
    pub(crate) expires_at: Option<OffsetDateTime>,
}

impl Api {
    /// The caller's webhook of this id.
    pub(crate) async fn webhook(&self, caller: &KeyHolder, id: WebhookId) -> Result<Webhook, Problem> {
        let webhook = self.database.webhook_of(caller.organization, id).await?;
        webhook.ok_or_else(none)
    }

    /// The caller's webhook of this id, if it is of one of these formats.
    pub(crate) async fn webhook_in(
        &self,
        caller: &KeyHolder,
        id: WebhookId,
        formats: &[Format],
    ) -> Result<Webhook, Problem> {
        let webhook = self.webhook(caller, id).await?;
        if formats.contains(&webhook.format) { Ok(webhook) } else { Err(none()) }
    }

    /// The webhook's own headers, as the caller may see them: viewers see their names alone.
    pub(crate) fn shown_headers(&self, webhook: &Webhook, caller: &KeyHolder) -> BTreeMap<String, String> {
        let opened = self.vault.open_headers(webhook.id, &webhook.sealed_headers);
        let mut headers = opened.unwrap_or_else(|error| {
            tracing::error!(webhook = %webhook.id, %error, "a webhook is shown without its headers");
            BTreeMap::new()
        });
        if caller.role < Role::Editor {
            headers.values_mut().for_each(|value| HIDDEN.clone_into(value));
        }
        headers
    }

    /// Makes a webhook, and answers with its secret too.
    pub(crate) async fn make_webhook(
        &self,
        caller: &KeyHolder,
        fields: WebhookFields,
    ) -> Result<(Webhook, Secret), Problem> {
        let (webhook, secret) = fields.read_new(&self.destinations, &self.vault, caller.organization).await?;
        let sealed = self.vault.seal(webhook.id, &secret.to_string());
        let made = self.database.create_webhook(&webhook, &sealed).await.map_err(|error| match error {
            DbError::Conflict(_) => Problem::no_such("organization"),
            other => other.into(),
        })?;
        tracing::info!(webhook = %made.id, by = %caller.key, "a webhook was made");
        Ok((made, secret))
    }

    /// Changes a webhook. What is to be changed may depend on what it is: `edit` is asked again when somebody
    /// else has changed it in between.
    pub(crate) async fn change_webhook(
        &self,
        caller: &KeyHolder,
        id: WebhookId,
        edit: impl Fn(&Webhook) -> Result<WebhookFields, Problem>,
    ) -> Result<Webhook, Problem> {
        for _ in 0..MAX_TRIES {
            let mut webhook = self.webhook(caller, id).await?;
            let change = edit(&webhook)?.read_change(&self.destinations).await?;
            let failing = change.failing(&webhook);
            change.apply_to(&mut webhook, &self.vault)?;
            if let Some(webhook) = self.database.save_webhook(&webhook, failing).await? {
                tracing::info!(webhook = %webhook.id, by = %caller.key, "a webhook was changed");
                return Ok(webhook);
            }
        }
        Err(Problem::conflict("others keep changing this webhook; try again"))
    }

    /// Deletes a webhook.
    pub(crate) async fn delete_webhook(&self, caller: &KeyHolder, id: WebhookId) -> Result<(), Problem> {
        if !self.database.delete_webhook(caller.organization, id).await? {
            return Err(none());
        }
        tracing::info!(webhook = %id, by = %caller.key, "a webhook was deleted");
        Ok(())
    }

    /// Deletes all of the caller's webhooks of these formats.
    pub(crate) async fn delete_webhooks(
        &self,
        caller: &KeyHolder,
        formats: &[Format],
    ) -> Result<(), Problem> {
        for webhook in self.database.delete_webhooks_in(caller.organization, formats).await? {
            tracing::info!(%webhook, by = %caller.key, "a webhook was deleted");
        }
        Ok(())
    }

    /// Gives a webhook a new secret, beside which the earlier ones sign for the time of `overlap`.
    pub(crate) async fn rotate_secret(
        &self,
        caller: &KeyHolder,
        webhook: WebhookId,
        secret: &Secret,
        overlap: Duration,
    ) -> Result<(), Problem> {
        let sealed = self.vault.seal(webhook, &secret.to_string());
        match self.database.rotate_secret(webhook, &sealed, overlap, MAX_VALID_SECRETS).await? {
            RotatedSecret::Done => {
                tracing::info!(%webhook, by = %caller.key, "a webhook's secret was replaced");
                Ok(())
            }
            RotatedSecret::TooMany => Err(Problem::conflict(format!(
                "{MAX_VALID_SECRETS} secrets are valid, and no more are accepted; wait until one expires, or end \
                 them all with an overlap of 0s"
            ))),
        }
    }

    /// The secrets by which a webhook's deliveries are signed now, the newest first; at least one.
    pub(crate) async fn valid_secrets(&self, webhook: WebhookId) -> Result<Vec<ValidSecret>, Problem> {
        let target = self.database.target(webhook).await?.ok_or_else(none)?;
        let secrets = target.secrets.iter().map(|stored| {
            let secret = self.open(webhook, &stored.sealed)?;
            Ok(ValidSecret { secret, created_at: stored.created_at, expires_at: stored.expires_at })
        });
        let secrets = secrets.collect::<Result<Vec<_>, Problem>>()?;
        if secrets.is_empty() { Err(Problem::no_such("secret")) } else { Ok(secrets) }
    }

    /// The newest secret of each of these webhooks.
    pub(crate) async fn newest_secrets(
        &self,
        webhooks: &[Webhook],
    ) -> Result<HashMap<WebhookId, Secret>, Problem> {
        let ids: Vec<_> = webhooks.iter().map(|webhook| webhook.id).collect();
        let sealed = self.database.newest_secrets(&ids).await?;
        sealed.into_iter().map(|(webhook, sealed)| Ok((webhook, self.open(webhook, &sealed)?))).collect()
    }

    fn open(&self, webhook: WebhookId, sealed: &[u8]) -> Result<Secret, Problem> {
        let secret = self.vault.open(webhook, sealed).ok().and_then(|text| text.parse().ok());
        secret.ok_or_else(|| {
            tracing::error!(%webhook, error = %DoesNotOpen, "a secret cannot be shown");
            Problem::internal()
        })
    }
}

/// Also for those of others.
pub(crate) fn none() -> Problem {
    Problem::no_such("webhook")
}
