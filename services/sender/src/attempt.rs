//! One attempt: the format's request, what came of it, and what the delivery is then. Nothing follows from it here.

use std::time::Instant;

use cuewire::catalogue::category_label;
use cuewire::delivery::{Attempt, Failure, Outcome, State};
use cuewire::event::Event;
use cuewire::formats::{Outgoing, Request};
use cuewire::message::DeliveryMessage;
use time::OffsetDateTime;

use crate::deliver::Sender;
use crate::targets::Target;

impl Sender {
    /// Makes the request. The error is a sentence about an event that cannot be read.
    pub(crate) async fn attempt(
        &self,
        delivery: &DeliveryMessage,
        target: &Target,
    ) -> Result<Attempt, String> {
        let event = Event::from_json(&delivery.event).map_err(|error| error.to_string())?;
        let started_at = OffsetDateTime::now_utc();
        let timer = Instant::now();
        let outcome = match prepare(delivery, target, &event, started_at) {
            Ok(request) => self.receivers.post(target, request).await,
            Err(error) => Outcome::Failed { kind: Failure::Unsendable, error },
        };
        let duration = timer.elapsed();
        let finished_at = OffsetDateTime::now_utc();
        let verdict = target.webhook.format.judge(&outcome, finished_at);
        let state = match delivery.reply {
            // Somebody waits for its answer.
            Some(_) => State::after_test(verdict),
            None => State::after(verdict, delivery.number, finished_at, &target.schedule, delivery.deadline),
        };
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
        self.tell_of(delivery, target, &attempt);
        Ok(attempt)
    }

    /// Counts and logs it: one line an attempt, in the delivery's span.
    fn tell_of(&self, delivery: &DeliveryMessage, target: &Target, attempt: &Attempt) {
        let (format, state) = (target.webhook.format.as_str(), attempt.state.as_str());
        let category = category_label(&delivery.category);
        let late = (attempt.started_at - delivery.not_before.unwrap_or(delivery.due)).as_seconds_f64();
        self.metrics.lateness.with_label_values(&[delivery.lane.as_str(), category]).observe(late.max(0.0));
        self.metrics.duration.with_label_values(&[category, format]).observe(attempt.duration.as_secs_f64());
        self.metrics.attempts.with_label_values(&[category, format, state]).inc();
        self.metrics.outcomes.with_label_values(&[outcome_label(&attempt.outcome)]).inc();
        tracing::info!(
            event = %attempt.event_id,
            r#type = %attempt.event_type,
            state,
            status = attempt.status(),
            error = attempt.error(),
            duration = ?attempt.duration,
            "attempt"
        );
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
