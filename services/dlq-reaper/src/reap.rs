//! Reaping: takes dead letters in batches and puts them on record. A message is acknowledged when it is on
//! record, or in the parking queue because the database cannot hold it; while the database is away, the
//! messages wait.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use cuewire::amqp::consumer::Limits;
use cuewire::amqp::topology::Topology;
use cuewire::amqp::{Consumer, Message, Publisher};
use cuewire::db::dead_letters::Burial;
use cuewire::db::{Database, until_it_answers};
use cuewire::delivery::Reason;
use cuewire::event::Event;
use cuewire::ids::DeadLetterId;
use cuewire::message::DeadMessage;
use cuewire::metrics::Counted;
use cuewire::shutdown::Shutdown;
use time::OffsetDateTime;

use crate::metrics::Metrics;

/// A commit costs a few milliseconds, however many rows it has.
const BATCH: Limits = Limits { messages: 128, wait: Duration::from_millis(5) };
/// One statement's share of bodies. Postgres takes no message over 1 GiB and builds the rows in memory; the
/// broker may accept messages of 128 MiB, each of which then goes by itself.
const MAX_STATEMENT_BYTES: usize = 16 * 1024 * 1024;

/// Puts dead letters on record.
pub(crate) struct Reaper {
    pub(crate) database: Database,
    pub(crate) publisher: Publisher,
    /// Which publisher may speak for which organizations.
    pub(crate) topology: Topology,
    /// After which time a message is sent again that the broker gave up.
    pub(crate) redrive_after: Duration,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: Shutdown,
}

/// Why dead letters are not on record.
enum Setback {
    /// The database cannot hold one of them.
    Unfit(String),
    /// The service stops while the database is away.
    Stopping,
}

impl Reaper {
    /// Reaps until the service stops.
    pub(crate) async fn reap(&self, consumer: &mut Consumer<DeadMessage>) {
        while let Some(batch) = consumer.next_batch(BATCH).await {
            self.bury(batch).await;
        }
    }

    async fn bury(&self, batch: Vec<Message<DeadMessage>>) {
        self.metrics.batch_size.observe(batch.len() as f64);
        let _in_flight = Counted::new(&self.metrics.in_flight, batch.len());
        let now = OffsetDateTime::now_utc();
        let letters: Vec<_> = batch.iter().map(|message| self.letter(&message.content, now)).collect();
        let all_lost = async {
            for message in &batch {
                message.lost().await;
            }
        };
        let settled = tokio::select! {
            settled = self.settle(&letters) => settled,
            // Someone else gets them, and finds on record what got there.
            () = all_lost => Err(Setback::Stopping),
        };
        drop(letters);
        if settled.is_ok() {
            batch.into_iter().for_each(Message::ack);
        }
    }

    fn letter<'a>(&self, message: &'a DeadMessage, now: OffsetDateTime) -> Burial<'a> {
        let event = Event::from_json(&message.body).ok();
        Burial {
            message,
            claim: message.claim(event.as_ref(), &self.topology),
            event,
            redrive_at: message.redrive_unasked.then(|| now + self.redrive_after),
        }
    }

    /// Gets every letter on record, or to the parking queue.
    async fn settle(&self, letters: &[Burial<'_>]) -> Result<(), Setback> {
        for together in by_bytes(letters) {
            match self.record(together).await {
                Err(Setback::Unfit(_)) => self.settle_one_by_one(together).await?,
                recorded => recorded?,
            }
        }
        Ok(())
    }

    /// Finds the letters that the database cannot hold; they must not keep the others from it.
    async fn settle_one_by_one(&self, letters: &[Burial<'_>]) -> Result<(), Setback> {
        for letter in letters {
            match self.record(std::slice::from_ref(letter)).await {
                Err(Setback::Unfit(reason)) => self.park(letter.message, &reason).await?,
                recorded => recorded?,
            }
        }
        Ok(())
    }

    /// Records letters in one statement, when the database is there.
    async fn record(&self, letters: &[Burial<'_>]) -> Result<(), Setback> {
        let started = Instant::now();
        let bury = until_it_answers("dead letters", || self.database.bury(letters));
        let buried = self.shutdown.finish(bury).await.ok_or(Setback::Stopping)?;
        let new = buried.map_err(|error| Setback::Unfit(error.to_string()))?;
        self.metrics.record_seconds.observe(started.elapsed().as_secs_f64());
        self.tell_of(letters, new);
        Ok(())
    }

    async fn park(&self, message: &DeadMessage, reason: &str) -> Result<(), Setback> {
        let publication = message.clone().parked();
        let published = self.publisher.publish_until_confirmed(&publication);
        self.shutdown.run_until_stopped(published).await.ok_or(Setback::Stopping)?;
        self.metrics.parked.inc();
        tracing::error!(dead_letter = %message.id, reason, "a dead letter is left in the parking queue");
        Ok(())
    }

    /// Counts and logs what was not on record before.
    fn tell_of(&self, letters: &[Burial<'_>], new: Vec<DeadLetterId>) {
        let mut new: HashSet<_> = new.into_iter().collect();
        for letter in letters.iter().filter(|letter| new.remove(&letter.message.id)) {
            let reason = letter.message.reason.as_str();
            self.metrics.dead_letters.with_label_values(&[reason]).inc();
            if let Some(died_at) = letter.message.died_at {
                let age = OffsetDateTime::now_utc() - died_at;
                self.metrics.age_seconds.observe(age.as_seconds_f64().max(0.0));
            }
            log(letter);
        }
    }
}

/// One line a dead letter; what was not understood or found no queue is a fault of somebody's.
fn log(letter: &Burial<'_>) {
    let DeadMessage { id, reason, detail, delivery, first, .. } = letter.message;
    let (delivery, event) = (delivery.as_ref(), letter.event.as_ref());
    let ids = tracing::error_span!(
        "dead letter",
        %id,
        delivery = delivery.map(|delivery| display(delivery.delivery)),
        webhook = delivery.map(|delivery| display(delivery.webhook)),
        organization = delivery.map(|delivery| display(delivery.organization)),
        event = event.map(|event| event.id.as_str()),
        source = event.map(|event| event.source.as_str()),
        event_type = event.map(|event| event.event_type.as_str()),
    );
    ids.in_scope(|| match reason {
        Reason::Poison | Reason::Unrouted => {
            let (exchange, routing_key) = first;
            tracing::error!(reason = reason.as_str(), detail, exchange, routing_key, "on record");
        }
        _ => tracing::warn!(reason = reason.as_str(), detail, "on record"),
    });
}

/// The letters in runs whose bodies are at most [`MAX_STATEMENT_BYTES`] together, or a single one.
fn by_bytes<'a>(letters: &'a [Burial<'a>]) -> Vec<&'a [Burial<'a>]> {
    let mut runs = Vec::with_capacity(1);
    let (mut start, mut bytes) = (0, 0);
    for (index, letter) in letters.iter().enumerate() {
        let size = letter.message.body.len();
        if index > start && bytes + size > MAX_STATEMENT_BYTES {
            runs.push(&letters[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += size;
    }
    runs.push(&letters[start..]);
    runs
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cuewire::ids::DeadLetterId;

    use super::*;

    fn message(bytes: usize) -> DeadMessage {
        DeadMessage {
            id: DeadLetterId::new(),
            reason: Reason::Poison,
            detail: String::new(),
            category: "unknown".to_owned(),
            delivery: None,
            body: Bytes::from(vec![0; bytes]),
            content_type: None,
            first: (String::new(), String::new()),
            first_headers: None,
            died_at: None,
            redrive_unasked: false,
        }
    }

    #[test]
    fn letters_are_recorded_together_up_to_a_bound_and_larger_ones_alone() {
        const MIB: usize = 1024 * 1024;
        let messages: Vec<_> = [8, 8, 1, 40, 1, 1].into_iter().map(|mib| message(mib * MIB)).collect();
        let letters: Vec<_> = messages
            .iter()
            .map(|message| Burial { message, event: None, claim: None, redrive_at: None })
            .collect();
        let runs: Vec<usize> = by_bytes(&letters).into_iter().map(<[_]>::len).collect();
        assert_eq!(runs, [2, 1, 1, 2]);
    }
}
