//! Loads: events of one organization or of many, published to RabbitMQ as fast as confirms allow, or at a steady rate.

use std::time::{Duration, Instant};

use cuewire::amqp::topology::{EVENTS, Topology};
use cuewire::amqp::{Broker, Publication, Publisher};
use cuewire::health::Health;
use cuewire::message::CLOUDEVENTS_JSON;
use cuewire::shutdown::Shutdown;
use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::types::FieldTable;
use prometheus::Registry;

use crate::receiver::{Receiver, Run};

/// A publisher's unconfirmed events.
const UNCONFIRMED: usize = 500;
const EVENT_BYTES: usize = 1_024;
/// What an organization's events are about; a webhook may want one of them.
pub(crate) const CHANNELS: usize = 100;
/// From one event to the next: a prime, so that all channels of all organizations have their turn before any has
/// another, and those that follow each other are of different organizations.
const STRIDE: usize = 7_919;
/// Nothing arriving for so long means that nothing will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// So many seconds and more: far longer than a webhook takes to be known everywhere.
const WARM_UPS: usize = 30;
/// The timers' own grain: a rate of more than one event in it is published by several at once.
const TICK: Duration = Duration::from_millis(1);

/// An upstream that publishes to RabbitMQ.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) publisher: Publisher,
    shutdown: Shutdown,
}

/// So many events a second, for a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) per_second: u32,
    pub(crate) lasting: Duration,
}

impl Upstream {
    pub(crate) fn start(amqp_url: &str) -> Self {
        let broker = Broker::new(amqp_url.to_owned(), Topology::default(), "bench");
        let (health, shutdown) = (Health::new(&Registry::new()), Shutdown::new());
        let publisher = Publisher::start(broker, health.component("publisher"), shutdown.clone());
        Self { publisher, shutdown }
    }

    pub(crate) fn stop(&self) {
        self.shutdown.stop();
    }

    /// Publishes the events 0 to `events` to these organizations by turns, as fast as confirms allow.
    pub(crate) async fn publish_all(&self, run: Run, organizations: &[String], events: usize) {
        let mut unconfirmed = FuturesUnordered::new();
        for number in 0..events {
            if unconfirmed.len() == UNCONFIRMED {
                unconfirmed.next().await;
            }
            unconfirmed.push(self.publish(run, organizations, number));
        }
        while unconfirmed.next().await.is_some() {}
    }

    /// Publishes to these organizations by turns at a steady rate, and answers when each event was published.
    pub(crate) async fn publish_steadily(
        &self,
        run: Run,
        organizations: &[String],
        rate: Rate,
    ) -> Vec<Instant> {
        let events = (rate.lasting.as_secs_f64() * f64::from(rate.per_second)) as usize;
        let every = Duration::from_secs(1) / rate.per_second;
        let started = Instant::now();
        let mut published = Vec::with_capacity(events);
        let mut ticks = tokio::time::interval(every.max(TICK));
        let mut unconfirmed = FuturesUnordered::new();
        while published.len() < events {
            tokio::select! {
                _ = ticks.tick() => {
                    let due = (started.elapsed().as_secs_f64() / every.as_secs_f64()) as usize + 1;
                    while published.len() < due.min(events) {
                        unconfirmed.push(self.publish(run, organizations, published.len()));
                        published.push(Instant::now());
                    }
                }
                Some(()) = unconfirmed.next(), if !unconfirmed.is_empty() => {}
            }
        }
        while unconfirmed.next().await.is_some() {}
        published
    }

    async fn publish(&self, run: Run, organizations: &[String], number: usize) {
        let organization = &organizations[turn(number, organizations.len()).0];
        let publication = Publication {
            exchange: EVENTS.to_owned(),
            routing_key: "feeds.started".to_owned(),
            message_id: number.to_string(),
            content_type: CLOUDEVENTS_JSON.to_owned(),
            headers: FieldTable::default(),
            reply: None,
            body: event(run, organization, number).into(),
        };
        self.publisher.publish_until_confirmed(&publication).await;
    }

    /// Until the organizations' webhooks, the receiver's hooks, are known everywhere, and connections are open.
    pub(crate) async fn warm_up(
        &self,
        organizations: &[String],
        receiver: &Receiver,
        hooks: std::ops::Range<usize>,
    ) -> anyhow::Result<()> {
        let events = organizations.len() * CHANNELS;
        // Events of one number are alike here, whichever run they are of.
        receiver.note_all();
        for _ in 0..WARM_UPS {
            self.publish_all(Run::new(), organizations, events).await;
            receiver.wait(hooks.clone(), events, Duration::from_secs(2)).await;
            if receiver.reconcile(hooks.clone(), events).missing == 0 {
                return Ok(());
            }
        }
        anyhow::bail!("the receiver does not get {events} events however often they are published")
    }
}

/// Whose turn it is, and what the event is about: the organization among so many, and its channel.
fn turn(number: usize, organizations: usize) -> (usize, usize) {
    let place = number * STRIDE % (organizations * CHANNELS);
    (place / CHANNELS, place % CHANNELS)
}

/// An event's subject.
pub(crate) fn channel(number: usize) -> String {
    format!("channel-{number}")
}

/// An event of 1 KiB.
pub(crate) fn event(run: Run, organization: &str, number: usize) -> String {
    // The same whoever else has turns.
    let subject = channel(turn(number, 1).1);
    let head = format!(
        r#"{{"id":"bench-{run}-{number}","specversion":"1.0","source":"/bench","type":"feeds.started","subject":"{subject}","time":"2026-01-31T09:30:00Z","organization":"{organization}","data":{{"feedId":"369e4a86-f937-4254-bd9f-99dc484d2bd6","padding":""#
    );
    let padding = "x".repeat(EVENT_BYTES.saturating_sub(head.len() + 3));
    format!("{head}{padding}\"}}}}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_channel_of_every_organization_has_one_turn_before_any_has_another() {
        for organizations in [1, 10, 1_000] {
            let turns: BTreeSet<_> =
                (0..organizations * CHANNELS).map(|number| turn(number, organizations)).collect();
            assert_eq!(turns.len(), organizations * CHANNELS);
        }
    }

    #[test]
    fn an_event_is_about_the_channel_whose_turn_it_is_and_has_a_kibibyte() {
        for number in [0, 7, 123_456] {
            let event = event(Run::new(), "organization", number);
            let (_, about) = turn(number, 1_000);
            assert!(event.contains(&format!(r#""subject":"channel-{about}""#)), "{event}");
            assert_eq!(event.len(), EVENT_BYTES);
        }
    }
}
