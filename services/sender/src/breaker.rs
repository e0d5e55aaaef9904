//! Circuit breakers and what else attempts tell of a webhook: gone, failing, or well again.
//!
//! A webhook's breaker is a row of the database, the same for all senders, who hear of each change. While it is
//! open, deliveries are parked for the next probe, spread out behind it; one that comes when the probe is due
//! claims it, and is sent. Nothing here is written but on transitions; these rare ways are boxed, since every
//! delivery that waits has room for the largest of its ways.

use std::time::Duration;

use cuewire::db::DbError;
use cuewire::db::webhooks::{Opening, Told};
use cuewire::delivery::{Attempt, Failure, Outcome, Reason, State};
use cuewire::message::DeliveryMessage;
use cuewire::webhook::{Breaker, OWN_CATEGORY};
use time::OffsetDateTime;

use crate::deliver::Sender;
use crate::gate::Ending;
use crate::targets::Target;

/// A probe of which nothing is heard for the time of its request and this is repeated.
const PROBE_MARGIN: Duration = Duration::from_secs(5);
/// What others claimed has a result by then, mostly.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a request was, besides an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sent {
    /// Nothing.
    Ordinarily,
    /// The last of so many that failed of late: the breaker is to open.
    AsTheLastStraw(u32),
    /// A probe.
    AsProbe(Probe),
}

/// The right to send a probe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    /// How many have failed before.
    after: u32,
    /// Until when nobody else has it.
    lease: OffsetDateTime,
}

/// How a request ended, as far as it tells of its receiver.
pub(crate) fn ending(attempt: &Attempt) -> Ending {
    match (&attempt.outcome, attempt.state) {
        (Outcome::Failed { kind: Failure::Timeout | Failure::Connection, .. }, _) => Ending::Unanswered,
        (Outcome::Failed { kind: Failure::Blocked | Failure::Unsendable, .. }, _) => Ending::Untold,
        (Outcome::Answered(_), State::Delivered) => Ending::Taken,
        (Outcome::Answered(_), State::Retrying(_) | State::Dead(_)) => Ending::Refused,
    }
}

/// How long until an open breaker's next probe; none: it is due.
pub(crate) fn until_probe(breaker: &Breaker) -> Option<Duration> {
    Duration::try_from(breaker.next_probe_at - OffsetDateTime::now_utc()).ok().filter(|wait| !wait.is_zero())
}

impl Sender {
    /// Takes the right to send this delivery as the probe that is due; else how long it is to stay away.
    pub(crate) async fn claim_probe(&self, target: &Target, breaker: &Breaker) -> Result<Probe, Duration> {
        let webhook = &target.webhook;
        let claim =
            self.database.claim_probe(webhook.id, breaker.probes, webhook.timeout + PROBE_MARGIN).await;
        // What is cached is out of date, whoever has it.
        self.targets.forget(webhook.id);
        match claim {
            Ok(Some(lease)) => {
                tracing::info!(probes = breaker.probes, "sent as a probe");
                Ok(Probe { after: breaker.probes, lease })
            }
            Ok(None) => Err(LOOK_AGAIN),
            Err(error) => {
                tracing::warn!(%error, "a probe could not be claimed");
                Err(LOOK_AGAIN)
            }
        }
    }

    /// Notes what an attempt tells of its webhook. What cannot be noted now is noted by the next attempt that
    /// tells it.
    pub(crate) async fn note_health(
        &self,
        delivery: &DeliveryMessage,
        target: &Target,
        attempt: &Attempt,
        sent: Sent,
    ) {
        let mut result = match sent {
            Sent::AsProbe(probe) => Box::pin(self.note_probe(delivery, target, attempt, probe)).await,
            Sent::AsTheLastStraw(failures) => {
                Box::pin(self.open_breaker(delivery, target, attempt, failures)).await
            }
            Sent::Ordinarily if attempt.state == State::Delivered && target.is_failing() => {
                // Before it is on record: of a failing that is noted after that, this sender hears after this.
                target.note_failing(false);
                let noted = Box::pin(self.database.webhook_has_recovered(target.webhook.id)).await;
                noted.inspect_err(|_| target.note_failing(true))
            }
            Sent::Ordinarily => Ok(()),
        };
        if let (Ok(()), State::Dead(reason)) = (&result, attempt.state) {
            result = Box::pin(self.note_dead(delivery, target, attempt, reason)).await;
        }
        if let Err(error) = result {
            tracing::warn!(%error, "a webhook's health could not be noted");
        }
    }

    async fn note_probe(
        &self,
        delivery: &DeliveryMessage,
        target: &Target,
        attempt: &Attempt,
        probe: Probe,
    ) -> Result<(), DbError> {
        let webhook = target.webhook.id;
        self.metrics.probes.with_label_values(&[attempt.state.as_str()]).inc();
        let noted = match ending(attempt) {
            Ending::Taken => {
                tracing::info!("the breaker closes");
                self.database.close_breaker(webhook, told_of(delivery)).await
            }
            Ending::Untold => self.database.release_probe(webhook, probe.lease).await,
            Ending::Refused | Ending::Unanswered => {
                let error = attempt.error().unwrap_or_default();
                self.database.probe_has_failed(webhook, probe.after, &error).await
            }
        };
        self.targets.forget(webhook);
        noted
    }

    async fn open_breaker(
        &self,
        delivery: &DeliveryMessage,
        target: &Target,
        attempt: &Attempt,
        failures: u32,
    ) -> Result<(), DbError> {
        let error = attempt.error().unwrap_or_default();
        let opening = Opening {
            webhook: target.webhook.id,
            url: &target.webhook.url,
            since: attempt.started_at,
            error: &error,
            failures,
            told: told_of(delivery),
        };
        if self.database.open_breaker(opening).await? {
            tracing::warn!(failures, error, "the breaker opens");
            self.metrics.breakers_opened.inc();
        }
        self.targets.forget(target.webhook.id);
        Ok(())
    }

    async fn note_dead(
        &self,
        delivery: &DeliveryMessage,
        target: &Target,
        attempt: &Attempt,
        reason: Reason,
    ) -> Result<(), DbError> {
        if reason == Reason::Gone {
            self.note_gone(delivery, target).await?;
        }
        if !target.may_be_well() {
            return Ok(());
        }
        let error = attempt.error().unwrap_or_default();
        let noted = self.database.webhook_is_failing(target.webhook.id, attempt.started_at, &error).await;
        noted.inspect(|()| target.note_failing(true))
    }

    /// Disables a webhook whose receiver is gone.
    pub(crate) async fn note_gone(&self, delivery: &DeliveryMessage, target: &Target) -> Result<(), DbError> {
        let (webhook, reason) = (&target.webhook, "the receiver answered 410 Gone");
        self.database.disable_webhook(webhook.id, &webhook.url, reason, told_of(delivery)).await?;
        self.targets.forget(webhook.id);
        Ok(())
    }
}

/// Who is told of what this delivery does to its webhook.
fn told_of(delivery: &DeliveryMessage) -> Told {
    if delivery.category == OWN_CATEGORY { Told::Nobody } else { Told::Organization }
}
