//! What is taken up until it is dropped: by a delivery a place in the line, a slot, room to be held in; by those of one
//! message a seat.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use cuewire::amqp::topology::Lane;
use cuewire::ids::{OrganizationId, WebhookId};
use tokio::sync::Notify;

use super::room::{Places, Speed};
use super::streak::Ending;
use super::{Gate, Parts, Refusal};

/// Whose a delivery is, and where it came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) webhook: WebhookId,
    pub(super) organization: OrganizationId,
    pub(super) source: usize,
    pub(super) lane: Lane,
}

/// A delivery that waits for its turn. Dropped, it leaves the line.
pub(super) struct Queued {
    pub(super) gate: Arc<Gate>,
    pub(super) place: Place,
    /// What it waits for first: others came before.
    pub(super) behind: Option<Arc<Notify>>,
    pub(super) seated: Arc<Seated>,
    pub(super) is_waiting: bool,
}

impl Queued {
    /// Waits for the turn, and starts the request.
    pub(super) async fn turn(&mut self) -> Permit {
        if let Some(freed) = self.behind.take() {
            freed.notified().await;
        }
        loop {
            match self.start() {
                Ok(permit) => return permit,
                Err(freed) => freed.notified().await,
            }
        }
    }

    /// Starts the request, if it may be started now; else answers what tells it to look again.
    fn start(&mut self) -> Result<Permit, Arc<Notify>> {
        let started = Instant::now();
        let started_s = self.gate.seconds(started);
        let mut lines = self.gate.lines();
        let mut parts = lines.at(self.place);
        if let Some(refusal) = parts.refusal(self.place.lane, started, started_s) {
            return Err(match refusal {
                Refusal::Webhook => {
                    // It may have been told of room that it cannot use: another may.
                    parts.share.freed.notify_one();
                    Arc::clone(parts.line.freed(self.place.lane))
                }
                Refusal::Organization => Arc::clone(&parts.share.freed),
            });
        }
        self.is_waiting = false;
        let speed = parts.line.speed(started_s);
        parts.room.slow += usize::from(speed == Speed::Slow);
        parts.places(self.place.lane).into_iter().for_each(Places::start);
        parts.line.pace.has_begun(started_s);
        parts.share.pace.has_begun(started_s);
        // There may be room for the next one as well.
        parts.line.tell_of_a_slot();
        if parts.share.places.waiting > 0 {
            parts.share.freed.notify_one();
        }
        self.gate.metrics.waiting.dec();
        self.gate.metrics.in_flight.inc();
        let (gate, seated) = (Arc::clone(&self.gate), Arc::clone(&self.seated));
        Ok(Permit { gate, place: self.place, _seated: seated, started, speed, is_telling: false })
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if !self.is_waiting {
            return;
        }
        let mut lines = self.gate.lines();
        let mut parts = lines.at(self.place);
        parts.places(self.place.lane).into_iter().for_each(Places::give_up);
        // It may have been told of a slot just now; the next one may use it.
        parts.line.freed(self.place.lane).notify_one();
        parts.share.freed.notify_one();
        self.gate.metrics.waiting.dec();
    }
}

/// A slot of a webhook. Dropping it ends the request's time.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    place: Place,
    _seated: Arc<Seated>,
    started: Instant,
    /// What was known when it began, and what its room was taken by.
    speed: Speed,
    /// Whether how long it took tells of the receiver.
    is_telling: bool,
}

impl Permit {
    /// The request has ended. Answers how many of the webhook's requests failed of late, when its breaker is to
    /// open.
    #[must_use]
    pub fn ended(mut self, ending: Ending) -> Option<u32> {
        self.is_telling = ending != Ending::Untold;
        let mut lines = self.gate.lines();
        lines.at(self.place).line.note(ending, Instant::now())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let (started_s, duration_s) = (self.gate.seconds(self.started), self.started.elapsed().as_secs_f64());
        let mut lines = self.gate.lines();
        let mut parts = lines.at(self.place);
        parts.places(self.place.lane).into_iter().for_each(Places::end);
        parts.room.slow -= usize::from(self.speed == Speed::Slow);
        for pace in [&mut parts.line.pace, &mut parts.share.pace] {
            pace.has_ended(started_s);
            if self.is_telling {
                pace.learn(duration_s);
            }
        }
        parts.line.tell_of_a_slot();
        parts.share.freed.notify_one();
        self.gate.metrics.in_flight.dec();
    }
}

/// What the deliveries that came by one message take up together: one of their queue's prefetch, as long as any of them
/// waits for its turn or is in flight.
#[derive(Debug, Default)]
pub struct Seat(Mutex<Weak<Seated>>);

impl Seat {
    /// Keeps it, or takes it, for one more of the message's deliveries.
    pub(super) fn keep(&self, gate: &Arc<Gate>, place: Place, parts: &mut Parts<'_>) -> Arc<Seated> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.upgrade().unwrap_or_else(|| {
            parts.share.messages += 1;
            parts.room.messages += 1;
            let seated = Arc::new(Seated { gate: Arc::clone(gate), place });
            *kept = Arc::downgrade(&seated);
            seated
        })
    }
}

/// A seat that is taken.
#[derive(Debug)]
pub(super) struct Seated {
    gate: Arc<Gate>,
    /// Of the first of the deliveries.
    place: Place,
}

impl Drop for Seated {
    fn drop(&mut self) {
        let mut lines = self.gate.lines();
        let parts = lines.at(self.place);
        parts.share.messages -= 1;
        parts.room.messages -= 1;
    }
}

/// Room for a delivery that is held, until this is dropped.
#[derive(Debug)]
pub struct Held {
    pub(super) gate: Arc<Gate>,
    pub(super) source: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(room) = self.gate.lines().rooms.get_mut(self.source) {
            room.held -= 1;
        }
        self.gate.metrics.held.dec();
    }
}
