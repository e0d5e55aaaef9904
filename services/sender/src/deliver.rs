//! Delivering: the way of one message through a sender.
//!
//! early? → whose webhook? → done before? → the gate → request → verdict → record → next step → acknowledge.
//! The record is written before the step that follows from it, and the step is with the broker before the
//! message is acknowledged; so after a crash the next sender finds what was done, and goes on from there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cuewire::amqp::connection::Backoff;
use cuewire::amqp::consumer::Settlement;
use cuewire::amqp::publisher::ReplyTo;
use cuewire::amqp::topology::Lane;
use cuewire::amqp::{Message, Publication, PublishError, Publisher};
use cuewire::db::attempts::RecordedAttempt;
use cuewire::db::{Database, DbError};
use cuewire::delivery::{Attempt, Failure, Outcome, Reason, State};
use cuewire::event::Event;
use cuewire::formats::{Outgoing, Request};
use cuewire::message::{DeadMessage, DeliveryMessage};
use cuewire::retry::{self, Schedule, TIERS, Tier, Wait};
use cuewire::shutdown::Shutdown;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::attempt_log::{AttemptLog, Recorded, until_it_answers};
use crate::batch::Ended;
use crate::client::Receivers;
use crate::gate::{Admission, Gate};
use crate::metrics::Metrics;
use crate::targets::{Target, Targets};

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
    /// How many deliveries may be held by lane: fresh, due, bulk.
    pub holds: [Semaphore; 3],
    /// What is counted.
    pub metrics: Metrics,
    /// What waits here goes back to its queue when the sender stops.
    pub shutdown: Shutdown,
}

/// With at least this left, the shortest delayed queue is at most half a second late.
const PARK_FROM: Duration = Duration::from_millis(500);

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

/// The work on a message ends without settling it: the broker delivers it again.
#[derive(Debug, Clone, Copy)]
struct Abandoned;

impl From<Ended> for Abandoned {
    fn from(_: Ended) -> Self {
        Self
    }
}

impl Sender {
    /// Delivers one message, and acknowledges it when whatever follows is with the broker.
    pub async fn deliver(self: Arc<Self>, message: Message<DeliveryMessage>) {
        let redelivered = message.redelivered;
        let (delivery, settlement) = message.into_parts();
        let span = tracing::info_span!(
            "delivery",
            id = %delivery.delivery,
            organization = %delivery.organization,
            webhook = %delivery.webhook,
            number = delivery.number,
        );
        let work = async {
            let step = self.work(delivery, redelivered, &settlement).await?;
            self.take(step, &settlement).await
        };
        if work.instrument(span).await.is_ok() {
            settlement.ack();
        }
    }

    async fn work(
        &self,
        delivery: DeliveryMessage,
        redelivered: bool,
        settlement: &Settlement,
    ) -> Result<Step, Abandoned> {
        if let Some(at) = delivery.not_before
            && !self.hold(&delivery, at, settlement).await?
        {
            return Ok(Step::Wait(Box::new(delivery), at, "early"));
        }
        let target = match self.until_told(settlement, self.find_target(&delivery)).await? {
            Ok(target) => target,
            Err(step) => return Ok(*step),
        };
        let is_test = delivery.reply.is_some();
        if (redelivered || delivery.lane != Lane::Fresh)
            && let Some(recorded) = self.until_told(settlement, self.log.look_up(delivery.key())).await??
        {
            return Ok(self.after_a_copy(delivery, redelivered, &recorded));
        }
        if let Some(reason) = reason_to_bury(&delivery, &target).filter(|_| !is_test) {
            return Ok(self.bury(&delivery, reason, describe(reason).to_owned(), None));
        }
        let permit = if is_test {
            None
        } else {
            let admit = self.gate.admit(delivery.webhook, target.webhook.max_in_flight, delivery.lane);
            match self.until_told(settlement, admit).await? {
                Admission::Go(permit) => Some(permit),
                Admission::Park(wait) => {
                    let at = OffsetDateTime::now_utc() + wait;
                    return Ok(Step::Wait(Box::new(delivery.parked(at)), at, "busy"));
                }
            }
        };
        let attempt = match self.attempt(&delivery, &target).await {
            Ok(attempt) => attempt,
            Err(detail) => return Ok(self.bury(&delivery, Reason::Poison, detail, None)),
        };
        drop(permit);
        self.conclude(delivery, redelivered, &target, attempt).await
    }

    /// Makes the request. The error is a sentence about an event that cannot be read.
    async fn attempt(&self, delivery: &DeliveryMessage, target: &Target) -> Result<Attempt, String> {
        let event = Event::from_json(&delivery.event).map_err(|error| error.to_string())?;
        let format = target.webhook.format;
        let started_at = OffsetDateTime::now_utc();
        let late = (started_at - delivery.not_before.unwrap_or(delivery.due)).as_seconds_f64();
        self.metrics.lateness.with_label_values(&[delivery.lane.as_str()]).observe(late.max(0.0));
        let timer = Instant::now();
        let outcome = match prepare(delivery, target, &event, started_at) {
            Ok(request) => self.receivers.post(target, request).await,
            Err(error) => Outcome::Failed { kind: Failure::Unsendable, error },
        };
        let duration = timer.elapsed();
        let finished_at = OffsetDateTime::now_utc();
        let verdict = format.judge(&outcome, finished_at);
        // Somebody waits for a test call's answer, so it is not tried again.
        let schedule = if delivery.reply.is_some() { &Schedule::none() } else { &target.schedule };
        let state = State::after(verdict, delivery.number, finished_at, schedule, delivery.deadline);
        self.metrics.duration.with_label_values(&[format.as_str()]).observe(duration.as_secs_f64());
        self.metrics.attempts.with_label_values(&[format.as_str(), state.as_str()]).inc();
        self.metrics.outcomes.with_label_values(&[outcome_label(&outcome)]).inc();
        let attempt = Attempt {
            day: delivery.day(),
            delivery: delivery.delivery,
            round: delivery.round,
            number: delivery.number,
            organization: delivery.organization,
            webhook: delivery.webhook,
            event_source: event.source,
            event_id: event.id,
            event_type: event.event_type.to_string(),
            started_at,
            duration,
            outcome,
            state,
        };
        tracing::info!(
            event = %attempt.event_id,
            r#type = %attempt.event_type,
            state = state.as_str(),
            status = attempt.status(),
            error = attempt.error(),
            ?duration,
            "attempt"
        );
        Ok(attempt)
    }

    /// Puts the attempt on record, and says what follows from it.
    async fn conclude(
        &self,
        delivery: DeliveryMessage,
        redelivered: bool,
        target: &Target,
        attempt: Attempt,
    ) -> Result<Step, Abandoned> {
        match self.log.record(attempt.clone()).await? {
            Ok(Recorded::New) => {}
            // The owner of the record takes the step. If it died before, this one was redelivered.
            Ok(Recorded::Before) => {
                let recorded = self.log.look_up(delivery.key()).await?;
                return Ok(recorded.map_or(Step::Done, |it| self.after_a_copy(delivery, redelivered, &it)));
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
        self.note_health(target, &attempt).await;
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
    fn after_a_copy(&self, delivery: DeliveryMessage, redelivered: bool, recorded: &RecordedAttempt) -> Step {
        let action = if redelivered { "continued" } else { "left" };
        self.metrics.copies.with_label_values(&[action]).inc();
        if !redelivered || delivery.reply.is_some() {
            // That copy lives, and takes the step itself.
            return Step::Done;
        }
        match recorded.state {
            State::Delivered => Step::Done,
            State::Retrying(at) => Step::Wait(Box::new(delivery.next(at)), at, "retry"),
            State::Dead(reason) => {
                let detail = recorded.error.clone().unwrap_or_default();
                self.bury(&delivery, reason, detail, Some(recorded.summary()))
            }
        }
    }

    /// Takes the step: whatever follows is with the broker when this returns.
    async fn take(&self, step: Step, settlement: &Settlement) -> Result<(), Abandoned> {
        match step {
            Step::Done => Ok(()),
            Step::Bury(dead) => {
                self.metrics.dead.with_label_values(&[dead.reason.as_str()]).inc();
                let publication = dead.publication();
                unless_lost(settlement, self.publisher.publish_until_confirmed(&publication)).await
            }
            Step::Wait(delivery, at, cause) => {
                self.metrics.parked.with_label_values(&[cause]).inc();
                unless_lost(settlement, self.park(&delivery, at)).await
            }
        }
    }

    /// Puts the delivery into the tier that fits; when that is full, into the next longer one.
    async fn park(&self, delivery: &DeliveryMessage, at: OffsetDateTime) {
        let mut backoff = Backoff::new();
        let mut full: Option<Tier> = None;
        loop {
            let publication = match (full, retry::wait(left_until(at))) {
                (Some(tier), _) => delivery.publication_after(retry::next_longer(tier)),
                (None, Wait::In(tier)) => delivery.publication_after(tier),
                (None, Wait::Hold(left)) if left >= PARK_FROM => delivery.publication_after(TIERS[0]),
                // The sender that takes it next holds it for the rest.
                (None, Wait::Hold(_) | Wait::Over) => delivery.publication(),
            };
            match self.publisher.publish(publication).await {
                Ok(()) => return,
                Err(PublishError::Refused) if let Wait::In(tier) = retry::wait(left_until(at)) => {
                    full = Some(full.map_or(tier, retry::next_longer));
                }
                Err(error) => tracing::debug!(%error, "parking again"),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Waits until the delivery is due, where that is less than a second away and few others are held.
    /// Answers whether it is.
    async fn hold(
        &self,
        delivery: &DeliveryMessage,
        at: OffsetDateTime,
        settlement: &Settlement,
    ) -> Result<bool, Abandoned> {
        match retry::wait(left_until(at)) {
            Wait::Over => Ok(true),
            Wait::In(_) => Ok(false),
            Wait::Hold(left) => {
                let held = self.holds[delivery.lane as usize].try_acquire();
                // Straight back to its lane it would come at once, again and again, until it is due.
                if held.is_err() && left >= PARK_FROM {
                    return Ok(false);
                }
                self.metrics.held.inc();
                // Rounded up to the timer's millisecond: never early.
                let slept = self.until_told(settlement, tokio::time::sleep(left)).await;
                self.metrics.held.dec();
                slept.map(|()| true)
            }
        }
    }

    async fn find_target(&self, delivery: &DeliveryMessage) -> Result<Arc<Target>, Box<Step>> {
        match until_it_answers(|| self.targets.get(delivery.webhook)).await {
            Ok(Some(target)) => Ok(target),
            Ok(None) => {
                let detail = describe(Reason::Deleted).to_owned();
                Err(Box::new(self.bury(delivery, Reason::Deleted, detail, None)))
            }
            Err(error) => {
                let detail = format!("its webhook cannot be read: {error}");
                Err(Box::new(self.bury(delivery, Reason::Poison, detail, None)))
            }
        }
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

    /// Notes what an attempt tells of its webhook: gone, failing, or well again. What cannot be noted now
    /// is noted by the next attempt.
    async fn note_health(&self, target: &Target, attempt: &Attempt) {
        let webhook = target.webhook.id;
        let result = match attempt.state {
            State::Delivered if target.note_failing(false) => {
                self.database.webhook_has_recovered(webhook).await
            }
            State::Dead(reason) => self.note_dead(target, attempt, reason).await,
            State::Delivered | State::Retrying(_) => Ok(()),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "a webhook's health could not be noted");
        }
    }

    async fn note_dead(&self, target: &Target, attempt: &Attempt, reason: Reason) -> Result<(), DbError> {
        let webhook = target.webhook.id;
        if reason == Reason::Gone {
            self.database.disable_webhook(webhook, "the receiver answered 410 Gone").await?;
            self.targets.forget(webhook);
        }
        if target.note_failing(true) {
            let error = attempt.error().unwrap_or_default();
            self.database.webhook_is_failing(webhook, attempt.started_at, &error).await?;
        }
        Ok(())
    }

    /// Answers a test call. Whoever called may have given up, so it is tried once.
    async fn answer(&self, reply: &ReplyTo, attempt: &Attempt) {
        let publication = Publication {
            exchange: String::new(),
            routing_key: reply.queue.clone(),
            message_id: attempt.delivery.to_string(),
            content_type: "application/json".to_owned(),
            headers: Default::default(),
            reply: Some(reply.clone()),
            body: serde_json::to_vec(attempt).unwrap_or_default().into(),
        };
        if let Err(error) = self.publisher.publish(publication).await {
            tracing::debug!(%error, "a test call's answer found nobody");
        }
    }

    /// Waits for what may be given up at any time without harm: the message goes back to its queue when
    /// the sender stops, or was delivered again when its connection was lost.
    async fn until_told<F: Future>(&self, settlement: &Settlement, wait: F) -> Result<F::Output, Abandoned> {
        tokio::select! {
            biased;
            output = wait => Ok(output),
            () = self.shutdown.stopped() => Err(Abandoned),
            () = settlement.lost() => Err(Abandoned),
        }
    }
}

/// Publishes what follows from a message, unless the broker delivers it again to another, who does so.
async fn unless_lost(settlement: &Settlement, publish: impl Future<Output = ()>) -> Result<(), Abandoned> {
    tokio::select! {
        biased;
        () = settlement.lost() => Err(Abandoned),
        () = publish => Ok(()),
    }
}

fn prepare(
    delivery: &DeliveryMessage,
    target: &Target,
    event: &Event,
    now: OffsetDateTime,
) -> Result<Request, String> {
    let outgoing = Outgoing {
        event,
        owner: &target.owner,
        webhook: delivery.webhook,
        delivery: delivery.delivery,
        secrets: &target.secrets(now),
        now,
    };
    target.webhook.format.prepare(&outgoing).map_err(|error| error.to_string())
}

/// Why a delivery is not even tried.
fn reason_to_bury(delivery: &DeliveryMessage, target: &Target) -> Option<Reason> {
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

fn outcome_label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Answered(answer) => match answer.status / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "other",
        },
        Outcome::Failed { kind, .. } => kind.as_str(),
    }
}

fn left_until(at: OffsetDateTime) -> Duration {
    Duration::try_from(at - OffsetDateTime::now_utc()).unwrap_or_default()
}
