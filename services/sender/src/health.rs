//! A webhook's health, as far as attempts tell of it: gone, failing, or well again. Dead letters write it, and the
//! success that follows one, so that the hot path has no update.

use cuewire::db::DbError;
use cuewire::delivery::{Attempt, Reason, State};

use crate::deliver::Sender;
use crate::targets::Target;

impl Sender {
    /// Notes what an attempt tells of its webhook: gone, failing, or well again. What cannot be noted now
    /// is noted by the next attempt that tells it.
    pub(crate) async fn note_health(&self, target: &Target, attempt: &Attempt) {
        let webhook = target.webhook.id;
        let result = match attempt.state {
            State::Delivered if target.may_be_failing() => {
                let noted = self.database.webhook_has_recovered(webhook).await;
                noted.inspect(|()| target.note_failing(false))
            }
            State::Dead(reason) => self.note_dead(target, attempt, reason).await,
            State::Delivered | State::Retrying(_) => Ok(()),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "a webhook's health could not be noted");
        }
    }

    async fn note_dead(&self, target: &Target, attempt: &Attempt, reason: Reason) -> Result<(), DbError> {
        if reason == Reason::Gone {
            self.note_gone(target).await?;
        }
        let error = attempt.error().unwrap_or_default();
        let noted = self.database.webhook_is_failing(target.webhook.id, attempt.started_at, &error).await;
        noted.inspect(|()| target.note_failing(true))
    }

    /// Disables a webhook whose receiver is gone.
    pub(crate) async fn note_gone(&self, target: &Target) -> Result<(), DbError> {
        let webhook = &target.webhook;
        self.database.disable_webhook(webhook.id, &webhook.url, "the receiver answered 410 Gone").await?;
        self.targets.forget(webhook.id);
        Ok(())
    }
}
