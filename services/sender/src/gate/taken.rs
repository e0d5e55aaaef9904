//! What a delivery takes up, until it is dropped: a place in the line, a slot, room to be held in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cuewire::amqp::topology::Lane;
use cuewire::ids::WebhookId;
use tokio::sync::Notify;

use super::Gate;
use super::line::NEAREST_PLACE;

/// Whose a delivery is, and where it came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) webhook: WebhookId,
    pub(super) source: usize,
    pub(super) lane: Lane,
}

/// A delivery that waits for its turn. Dropped, it leaves the line.
pub(super) struct Queued {
    pub(super) gate: Arc<Gate>,
    pub(super) place: Place,
    /// Tells it to look again.
    pub(super) freed: Arc<Notify>,
    /// Whether others waited already when it came.
    pub(super) is_behind_others: bool,
    pub(super) is_waiting: bool,
}

impl Queued {
    /// Starts the request, if it may be started now.
    pub(super) fn start(&mut self) -> Option<Permit> {
        let started = Instant::now();
        let started_s = self.gate.seconds(started);
        let mut lines = self.gate.lines();
        if !lines.may_start(self.place, started_s) {
            return None;
        }
        self.is_waiting = false;
        let (line, room) = lines.at(self.place)?;
        let is_slow = line.is_slow(started_s);
        room.slow += usize::from(is_slow);
        for places in [line.of_mut(self.place.lane), &mut room.places] {
            places.waiting -= 1;
            places.in_flight += 1;
        }
        line.has_begun(started_s);
        // There may be room for the next one as well.
        if line.waiting() > 0 {
            self.freed.notify_one();
        }
        self.gate.metrics.waiting.dec();
        self.gate.metrics.in_flight.inc();
        Some(Permit { gate: Arc::clone(&self.gate), place: self.place, started, is_slow })
    }

    pub(super) fn take_place(self) -> Duration {
        let now = Instant::now();
        let now_s = self.gate.seconds(now);
        let mut lines = self.gate.lines();
        lines.at(self.place).map_or(NEAREST_PLACE, |(line, _)| line.take_place(now, now_s))
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if !self.is_waiting {
            return;
        }
        if let Some((line, room)) = self.gate.lines().at(self.place) {
            line.of_mut(self.place.lane).waiting -= 1;
            room.places.waiting -= 1;
        }
        self.gate.metrics.waiting.dec();
    }
}

/// A slot of a webhook. Dropping it ends the request's time.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    place: Place,
    started: Instant,
    is_slow: bool,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((line, room)) = self.gate.lines().at(self.place) {
            line.of_mut(self.place.lane).in_flight -= 1;
            room.places.in_flight -= 1;
            room.slow -= usize::from(self.is_slow);
            line.has_ended(self.gate.seconds(self.started), self.started.elapsed().as_secs_f64());
            line.freed.notify_one();
        }
        self.gate.metrics.in_flight.dec();
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
