//! Delivering: the way of one delivery through a sender.
//!
//! early? → whose webhook? → done before? → the gate → request → verdict → record → next step → acknowledge.
//! The record is written before the step that follows from it, and the step is with the broker before the
//! message is acknowledged; so after a crash the next sender finds what was done, and goes on from there.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cuewire::amqp::Publisher;
use cuewire::amqp::consumer::Settlement;
use cuewire::db::Database;
use cuewire::db::attempts::RecordedAttempt;
use cuewire::delivery::{Attempt, Reason, State};
use cuewire::message::{DeadMessage, DeliveryMessage};
use cuewire::shutdown::Shutdown;
use time::OffsetDateTime;
use tracing::Instrument;

use crate::attempt_log::{AttemptLog, Recorded};
use crate::batch::Ended;
use crate::breaker::{Probe, Sent, ending, until_probe};
use crate::client::Receivers;
use crate::gate::{Admission, Asking, Cause, Gate, Permit, Seat};
use crate::metrics::Metrics;
use crate::parkings::Parkings;
use crate::targets::{Target, Targets};
use crate::waiting::Early;

/// What is to be sent within this time keeps it, whatever changes.
const SOON: Duration = Duration::from_secs(10);
/// So long it is asked for a webhook that a delivery waits for anyway.
const LOOK_UP_WITHIN: Duration = Duration::from_secs(1);

/// What delivering needs.
#[derive(Debug)]
pub struct Sender {
    /// Where webhooks are disabled, and their health is noted.
    pub database: Database,
    /// Where retries, dead letters and answers to test calls go.
    pub publisher: Publisher,
    /// The webhooks.
    pub targets: Targets,
    /// Who may be sent to now.
    pub gate: Arc<Gate>,
    /// The HTTP client.
    pub receivers: Receivers,
    /// The account of attempts.
    pub log: AttemptLog,
    /// The account of what had to stay away.
    pub parkings: Parkings,
    /// What is counted.
    pub metrics: Metrics,
    /// What waits here goes back to its queue when the sender stops.
    pub shutdown: Shutdown,
}

/// What becomes of a message.
#[derive(Debug)]
enum Step {
    /// It is done.
    Done,
    /// It waits in the delayed queues until this time.
    Wait(Box<DeliveryMessage>, OffsetDateTime, &'static str),
    /// It is a dead letter.
    Bury(Box<DeadMessage>),
}

/// Why a delivery has to stay away, and for how long.
#[derive(Debug, Clone, Copy)]
struct Away {
    wait: Duration,
    cause: Cause,
    /// The rate limit that has given it a place, or let it through: it does not stand behind all who wait for that limit
    /// again.
    place_by: Option<u32>,
}

/// Permission to send.
enum Pass {
    /// Nobody was asked.
    Free,
    /// One of the webhook's slots.
    Permitted(Permit),
    /// The same, for a probe while its breaker is open.
    AsProbe(Permit, Probe),
}

impl Pass {
    /// The request has ended. Answers what it was, besides an attempt.
    fn ended(self, attempt: &Attempt) -> Sent {
        let ending = ending(attempt);
        match self {
            Self::Free => Sent::Ordinarily,
            Self::Permitted(permit) => permit.ended(ending).map_or(Sent::Ordinarily, Sent::AsTheLastStraw),
            Self::AsProbe(permit, probe) => {
                let _ = permit.ended(ending);
                Sent::AsProbe(probe)
            }
        }
    }
}

/// Where deliveries came from, and what settles their message.
#[derive(Debug)]
pub(crate) struct Origin {
    /// Whether it was delivered before.
    pub(crate) redelivered: bool,
    /// Which of the consumer's sources.
    pub(crate) source: usize,
    /// What they take up at the gate.
    pub(crate) seat: Seat,
    pub(crate) settlement: Settlement,
}

/// The work on a message ends without settling it: the broker delivers it again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Abandoned;

impl From<Ended> for Abandoned {
    fn from(_: Ended) -> Self {
        Self
    }
}

impl Sender {
    /// Delivers one delivery: whatever follows is with the broker when this returns.
    pub(crate) async fn deliver(
        &self,
        mut delivery: DeliveryMessage,
        origin: &Origin,
    ) -> Result<(), Abandoned> {
        // Also when it comes back from a wait: whoever had it before may make its record meanwhile.
        delivery.may_be_on_record |= origin.redelivered;
        let span = tracing::info_span!(
            "delivery",
            id = %delivery.delivery,
            organization = %delivery.organization,
            webhook = %delivery.webhook,
            number = delivery.number,
        );
        let work = async {
            let step = self.work(delivery, origin).await?;
            self.take(step, origin).await
        };
        work.instrument(span).await
    }

    async fn work(&self, delivery: DeliveryMessage, origin: &Origin) -> Result<Step, Abandoned> {
        if let Some(at) = delivery.not_before
            && let Early::Until(at) = self.hold(at, origin).await?
            && !self.waits_for_nothing(&delivery, at, origin).await?
        {
            return Ok(Step::Wait(Box::new(delivery), at, "early"));
        }
        let target = match self.until_told(origin, self.find_target(&delivery)).await?? {
            Ok(target) => target,
            Err(step) => return Ok(*step),
        };
        if delivery.reply.is_some() && OffsetDateTime::now_utc() > delivery.deadline {
            tracing::info!("a test call that nobody waits for any more is dropped");
            return Ok(Step::Done);
        }
        if !delivery.comes_straight_from_the_router()
            && let Some(recorded) = self.until_told(origin, self.log.look_up(delivery.key())).await??
        {
            return Ok(Box::pin(self.after_a_copy(delivery, &target, &recorded)).await);
        }
        if let Some(reason) = reason_to_bury(&delivery, &target) {
            return Ok(self.bury(&delivery, reason, describe(reason).to_owned(), None));
        }
        let pass = match self.until_told(origin, self.pass_gate(&delivery, &target, origin)).await? {
            Ok(pass) => pass,
            Err(away) => return Ok(self.stay_away(delivery, &target, away)),
        };
        let attempt = match self.attempt(&delivery, &target).await {
            Ok(attempt) => attempt,
            Err(detail) => return Ok(self.bury(&delivery, Reason::Poison, detail, None)),
        };
        let sent = pass.ended(&attempt);
        // Pinned here: moved into what waits for it, it would have room twice in every delivery that waits.
        let conclude = pin!(self.conclude(delivery, &target, attempt, sent));
        self.shutdown.finish(conclude).await.ok_or(Abandoned)?
    }

    /// Whether a change of its webhook has ended what the delivery was put off for long before its time: its breaker is
    /// closed, or its rate limit is higher or gone. It is asked of each that comes by on its way through the delayed
    /// queues. Where a probe alone has closed the breaker they keep their places: so many at once would be a wave.
    async fn waits_for_nothing(
        &self,
        delivery: &DeliveryMessage,
        at: OffsetDateTime,
        origin: &Origin,
    ) -> Result<bool, Abandoned> {
        let was_put_off = delivery.behind_breaker_of.is_some() || delivery.place_by.is_some();
        if !was_put_off || at - OffsetDateTime::now_utc() < SOON {
            return Ok(false);
        }
        // Without the database it waits on.
        let look_up = tokio::time::timeout(LOOK_UP_WITHIN, self.targets.get(delivery.webhook));
        let Ok(Ok(Some(target))) = self.until_told(origin, look_up).await?.unwrap_or(Ok(Ok(None))) else {
            return Ok(false);
        };
        let webhook = &target.webhook;
        let (limit, given) = (webhook.rate_limit(), delivery.place_by);
        Ok(webhook.enabled
            && match delivery.behind_breaker_of {
                Some(changed) => webhook.breaker.is_none() && webhook.updated_at > changed,
                None => limit.is_none_or(|limit| Some(limit) > given),
            })
    }

    /// Permission to send now. A test call, for which somebody waits, needs none.
    async fn pass_gate(
        &self,
        delivery: &DeliveryMessage,
        target: &Target,
        origin: &Origin,
    ) -> Result<Pass, Away> {
        if delivery.reply.is_some() {
            return Ok(Pass::Free);
        }
        let webhook = &target.webhook;
        let asking = Asking {
            webhook: webhook.id,
            organization: webhook.organization,
            source: origin.source,
            seat: &origin.seat,
            slots: webhook.max_in_flight,
            rate_limit: webhook.rate_limit(),
            has_place: delivery.place_by.is_some(),
        };
        if let Some(wait) = webhook.breaker.as_ref().and_then(until_probe) {
            let wait = self.gate.take_place_behind_probe(&asking, wait);
            return Err(Away { wait, cause: Cause::Open, place_by: delivery.place_by });
        }
        let place_by = asking.rate_limit;
        let permit = match self.gate.admit(asking).await {
            Admission::Go(permit) => permit,
            Admission::Park(wait, cause) => return Err(Away { wait, cause, place_by }),
        };
        match &webhook.breaker {
            None => Ok(Pass::Permitted(permit)),
            Some(breaker) => match Box::pin(self.claim_probe(target, breaker)).await {
                Ok(probe) => Ok(Pass::AsProbe(permit, probe)),
                Err(wait) => Err(Away { wait, cause: Cause::Open, place_by }),
            },
        }
    }

    /// The delivery comes back later, without having been attempted.
    fn stay_away(&self, delivery: DeliveryMessage, target: &Target, away: Away) -> Step {
        let Away { wait, cause, place_by } = away;
        self.parkings.note(delivery.webhook, cause);
        let at = OffsetDateTime::now_utc() + wait;
        let behind_breaker_of = (cause == Cause::Open).then_some(target.webhook.updated_at);
        let delivery = DeliveryMessage { place_by, behind_breaker_of, ..delivery.parked(at) };
        Step::Wait(Box::new(delivery), at, cause.as_str())
    }

    /// Puts the attempt on record, and says what follows from it. Where the sender stops while the database is
    /// away, the message goes back to its queue instead, and whoever takes it finds what there is on record.
    async fn conclude(
        &self,
        delivery: DeliveryMessage,
        target: &Target,
        attempt: Attempt,
        sent: Sent,
    ) -> Result<Step, Abandoned> {
        match self.log.record(attempt.clone()).await? {
            Ok(Recorded::New) => {}
            // The owner of the record takes the step. If it died before, this one comes again.
            Ok(Recorded::Before) => {
                if let Some(recorded) = self.log.look_up(delivery.key()).await? {
                    return Ok(Box::pin(self.after_a_copy(delivery, target, &recorded)).await);
                }
                // It cannot be read, and may be this one's own: rather two steps than none.
            }
            Err(error) => {
                let detail = format!("its attempt could not be recorded: {error}");
                return Ok(self.bury(&delivery, Reason::Poison, detail, Some(attempt.summary())));
            }
        }
        if let Some(reply) = &delivery.reply {
            self.answer(reply, &attempt).await;
            return Ok(Step::Done);
        }
        self.note_health(&delivery, target, &attempt, sent).await;
        Ok(match attempt.state {
            State::Delivered => Step::Done,
            State::Retrying(at) => Step::Wait(Box::new(delivery.next(at)), at, "retry"),
            State::Dead(reason) => {
                let detail = attempt.error().unwrap_or_default();
                self.bury(&delivery, reason, detail, Some(attempt.summary()))
            }
        })
    }

    /// The attempt of this message is on record: another copy of the message made it.
    async fn after_a_copy(
        &self,
        delivery: DeliveryMessage,
        target: &Target,
        recorded: &RecordedAttempt,
    ) -> Step {
        let action = if delivery.may_be_on_record { "continued" } else { "left" };
        self.metrics.copies.with_label_values(&[action]).inc();
        if !delivery.may_be_on_record || delivery.reply.is_some() {
            // That copy lives, and takes the step itself.
            return Step::Done;
        }
        match recorded.state {
            State::Delivered => Step::Done,
            State::Retrying(at) => Step::Wait(Box::new(delivery.next(at)), at, "retry"),
            State::Dead(reason) => {
                // The copy may have died before it came to this.
                if reason == Reason::Gone
                    && let Err(error) = self.note_gone(&delivery, target).await
                {
                    tracing::warn!(%error, "a webhook whose receiver is gone could not be disabled");
                }
                let detail = recorded.error.clone().unwrap_or_default();
                self.bury(&delivery, reason, detail, Some(recorded.summary()))
            }
        }
    }

    /// Takes the step: whatever follows is with the broker when this returns.
    async fn take(&self, step: Step, origin: &Origin) -> Result<(), Abandoned> {
        match step {
            Step::Done => Ok(()),
            Step::Bury(dead) => {
                self.metrics.dead.with_label_values(&[dead.reason.as_str()]).inc();
                let publication = dead.publication();
                let publish = pin!(self.publisher.publish_until_confirmed(&publication));
                unless_lost(&origin.settlement, publish).await
            }
            Step::Wait(delivery, at, cause) => {
                self.metrics.parked.with_label_values(&[cause]).inc();
                unless_lost(&origin.settlement, pin!(self.park(&delivery, at))).await
            }
        }
    }

    async fn find_target(&self, delivery: &DeliveryMessage) -> Result<Result<Arc<Target>, Box<Step>>, Ended> {
        let (reason, detail) = match self.targets.get(delivery.webhook).await? {
            Ok(Some(target)) => return Ok(Ok(target)),
            Ok(None) => (Reason::Deleted, describe(Reason::Deleted).to_owned()),
            Err(error) => (Reason::Poison, format!("its webhook cannot be read: {error}")),
        };
        Ok(Err(Box::new(self.bury(delivery, reason, detail, None))))
    }

    fn bury(
        &self,
        delivery: &DeliveryMessage,
        reason: Reason,
        detail: String,
        last_attempt: Option<String>,
    ) -> Step {
        Step::Bury(Box::new(DeadMessage::of_delivery(delivery, reason, detail, last_attempt)))
    }

    /// Waits for what may be given up at any time without harm: the message goes back to its queue when
    /// the sender stops, or was delivered again when its connection was lost.
    pub(crate) async fn until_told<F: Future>(
        &self,
        origin: &Origin,
        wait: F,
    ) -> Result<F::Output, Abandoned> {
        tokio::select! {
            biased;
            output = wait => Ok(output),
            () = self.shutdown.stopped() => Err(Abandoned),
            () = origin.settlement.lost() => Err(Abandoned),
        }
    }
}

/// Publishes what follows from a message, unless the broker delivers it again to another, who does so.
pub(crate) async fn unless_lost(
    settlement: &Settlement,
    publish: impl Future<Output = ()>,
) -> Result<(), Abandoned> {
    tokio::select! {
        biased;
        () = settlement.lost() => Err(Abandoned),
        () = publish => Ok(()),
    }
}

/// Why a delivery is not even tried; a test call always is.
fn reason_to_bury(delivery: &DeliveryMessage, target: &Target) -> Option<Reason> {
    if delivery.reply.is_some() {
        return None;
    }
    if !target.webhook.enabled {
        return Some(Reason::Disabled);
    }
    (OffsetDateTime::now_utc() > delivery.deadline).then_some(Reason::Expired)
}

fn describe(reason: Reason) -> &'static str {
    match reason {
        Reason::Deleted => "the webhook was deleted while the delivery waited",
        Reason::Disabled => "the webhook was disabled while the delivery waited",
        Reason::Expired => "the deadline of 72 hours passed",
        _ => "",
    }
}
