//! Fanning out: a batch of events becomes one delivery for each webhook that wants one of them.
//!
//! Judge (whose is it, may its publisher send it, does it fit its schema) → drop the repeats → match → log the batch
//! and publish the deliveries side by side → acknowledge when both are done. A crash on the way delivers the batch
//! again, and the deliveries get the same ids.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cuewire::amqp::grants::PUBLISHER_PREFIX;
use cuewire::amqp::publisher::MAX_UNCONFIRMED;
use cuewire::amqp::topology::{Lane, Topology};
use cuewire::amqp::{Agreed, Message, Publication, Publisher};
use cuewire::catalogue::category_label;
use cuewire::db::events::{EventKey, LoggedEvent};
use cuewire::db::{Database, DbError, until_it_answers};
use cuewire::delivery::Reason;
use cuewire::event::OWN_SOURCE;
use cuewire::ids::{Round, WebhookId};
use cuewire::message::delivery::NewDelivery;
use cuewire::message::{Deliveries, DeliveryMessage, EventMessage};
use cuewire::shutdown::Shutdown;
use futures_util::stream::{FuturesUnordered, StreamExt};
use time::OffsetDateTime;

use crate::directory::{Directory, Found};
use crate::matching::Index;
use crate::metrics::Metrics;
use crate::shares::Shares;

/// What fanning out needs.
#[derive(Debug)]
pub struct FanOut {
    /// The event log.
    pub database: Database,
    /// Who wants what.
    pub directory: Directory,
    /// Where deliveries go, and dead letters.
    pub publisher: Publisher,
    /// Where the deliveries of the bulk lane go: thousands that wait for their confirms must not stand before those of
    /// other batches.
    pub bulk_publisher: Publisher,
    /// Which publishers may send what, and which deliveries go by the same queue.
    pub topology: Agreed,
    /// What is counted.
    pub metrics: Metrics,
    /// Who has used up its share of the fresh lane.
    pub shares: Shares,
    /// The events under way, so that a repeat that comes a moment later is dropped too.
    pub under_way: Mutex<HashSet<EventKey>>,
    /// A database that is away is not waited for when the router stops.
    pub shutdown: Shutdown,
}

/// The work on a batch ends without settling it: the broker delivers it again.
#[derive(Debug, Clone, Copy)]
struct Abandoned;

/// An event to be routed, and whose it is.
struct Routed<'a> {
    message: Cow<'a, EventMessage>,
    key: EventKey,
    index: Arc<Index>,
    /// When it was taken; of the rest of work that broke off, when that work began.
    taken_at: OffsetDateTime,
    repeat: Repeat,
}

/// What a repeat of an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// Dropped.
    Unwanted,
    /// The broker delivers it again: it may be the rest of work that broke off.
    Rest,
    /// Sent on purpose.
    Wanted,
}

impl Routed<'_> {
    /// Gives an event that its publisher did not date the time at which it was taken.
    fn date(&mut self) {
        if let Cow::Borrowed(message) = self.message {
            self.message = message.dated(self.taken_at);
        }
    }
}

impl FanOut {
    /// Routes a batch to its end. Gives up, leaving it to be delivered again, when the connection that it
    /// came by is lost, or when the router stops while the database is away.
    pub async fn fan_out(self: Arc<Self>, batch: Vec<Message<EventMessage>>) {
        let Some(first) = batch.first() else { return };
        let timer = self.metrics.duration.start_timer();
        self.metrics.batch.observe(batch.len() as f64);
        let routed = tokio::select! {
            routed = self.route(&batch) => routed,
            () = first.lost() => Err(Abandoned),
        };
        timer.observe_duration();
        if routed.is_err() {
            return;
        }
        for message in batch {
            message.ack();
        }
    }

    async fn route(&self, batch: &[Message<EventMessage>]) -> Result<(), Abandoned> {
        let topology = self.topology.known();
        let organizations = self.finish(self.find_organizations(batch)).await?;
        let mut routed = Vec::with_capacity(batch.len());
        let mut rejected = Vec::new();
        for message in batch {
            match self.judge(message, &organizations, &topology) {
                Ok(event) => routed.push(event),
                Err(detail) => rejected.push(message.content.buried(Reason::Rejected, detail)),
            }
        }
        self.count("rejected", rejected.len());
        let judged = routed.len();
        let claim = self.finish(self.drop_repeats(&mut routed)).await?;
        self.count("repeated", judged - routed.len());
        self.count("routed", routed.len());
        for event in &mut routed {
            event.date();
            let category = category_label(event.message.event.event_type.category());
            self.metrics.categories.with_label_values(&[category]).inc();
        }
        let matched: Vec<Vec<WebhookId>> =
            routed.iter().map(|event| event.index.matches(&event.message.event)).collect();
        let deliveries = routed.iter().zip(&matched).flat_map(|(event, webhooks)| {
            let together = Deliveries::together(webhooks, topology.sender_queues);
            together.into_iter().filter_map(move |webhooks| self.deliveries(event, &webhooks))
        });
        let log = self.finish(self.log(&routed, &matched));
        let rejected = rejected.into_iter().map(|publication| (Lane::Fresh, publication));
        let (logged, ()) = tokio::join!(log, self.publish_all(deliveries.chain(rejected)));
        drop(claim);
        logged
    }

    /// Waits for the database, but not for long when the router stops.
    async fn finish<F: Future>(&self, wait: F) -> Result<F::Output, Abandoned> {
        self.shutdown.finish(wait).await.ok_or(Abandoned)
    }

    /// The organizations that the batch names, by name. What is not known is looked up once.
    async fn find_organizations<'a>(&self, batch: &'a [Message<EventMessage>]) -> HashMap<&'a str, Found> {
        let names: HashSet<&str> =
            batch.iter().filter_map(|message| message.content.event.extension("organization")).collect();
        let look_up = until_it_answers("events", || self.directory.find_all(&names)).await;
        let Err(error) = look_up.as_ref() else { return look_up.unwrap_or_default() };
        tracing::error!(%error, "a batch's organizations cannot be looked up; looking them up one by one");
        let mut found = HashMap::new();
        for name in names {
            let alone = HashSet::from([name]);
            found.extend(
                until_it_answers("events", || self.directory.find_all(&alone)).await.unwrap_or_default(),
            );
        }
        found
    }

    /// Whose event it is; the error is a sentence.
    fn judge<'a>(
        &self,
        message: &'a Message<EventMessage>,
        organizations: &HashMap<&str, Found>,
        topology: &Topology,
    ) -> Result<Routed<'a>, String> {
        let EventMessage { event, exchange, again, .. } = &message.content;
        let name = event.extension("organization").ok_or("the event has no `organization`")?;
        let Found { id: organization, index, schemas } =
            organizations.get(name).ok_or_else(|| format!("there is no organization {name:?}"))?;
        if let Some(grant) = topology.grant_of(exchange) {
            let category = event.event_type.category();
            if !grant.categories.contains(category) {
                return Err(format!(
                    "the publisher {:?} may not publish the category {category:?}",
                    grant.name
                ));
            }
            let named = |name: &str| grant.organizations.contains(name);
            let external_id = self.directory.external_id(*organization);
            if !grant.organizations.is_empty()
                && !named(&organization.to_string())
                && !external_id.as_deref().is_some_and(named)
            {
                return Err(format!("the publisher {:?} may not publish for {name:?}", grant.name));
            }
            if event.source == OWN_SOURCE {
                return Err(format!("the publisher {:?} may not name Cuewire as the source", grant.name));
            }
        } else if exchange.starts_with(PUBLISHER_PREFIX) {
            return Err(format!("nobody may publish to the exchange {exchange:?}"));
        }
        if let Some(schemas) = schemas {
            let misfit = |misfit| format!("the event does not fit its type's schema: {misfit}");
            schemas.check(event).map_err(misfit)?;
        }
        Ok(Routed {
            message: Cow::Borrowed(&message.content),
            key: EventKey { organization: *organization, source: event.source.clone(), id: event.id.clone() },
            index: Arc::clone(index),
            taken_at: OffsetDateTime::now_utc(),
            repeat: match (*again, message.redelivered) {
                (true, _) => Repeat::Wanted,
                (false, true) => Repeat::Rest,
                (false, false) => Repeat::Unwanted,
            },
        })
    }

    /// Drops the events that were routed before: those on record, those under way, and the second of two in
    /// the batch. (A message dropped for one under way may be acknowledged: that one is not yet.) The rest of
    /// work that broke off keeps its time, and with it the day in the key of its attempts.
    async fn drop_repeats<'a>(&'a self, routed: &mut Vec<Routed<'_>>) -> Claim<'a> {
        let claim = self.claim(routed);
        let keys: Vec<&EventKey> =
            routed.iter().filter(|event| event.repeat != Repeat::Wanted).map(|event| &event.key).collect();
        if keys.is_empty() {
            return claim;
        }
        let today = OffsetDateTime::now_utc().date();
        let logged = until_it_answers("events", || self.database.logged_events(&keys, today)).await;
        let logged = logged.unwrap_or_else(|error| {
            // Rather routed again than lost.
            tracing::error!(%error, "repeats cannot be looked up");
            Vec::new()
        });
        let mut logged: HashMap<usize, OffsetDateTime> = logged.into_iter().collect();
        let mut at = 0..;
        routed.retain_mut(|event| {
            let logged_at = match event.repeat {
                Repeat::Wanted => None,
                Repeat::Rest | Repeat::Unwanted => at.next().and_then(|at| logged.remove(&at)),
            };
            event.taken_at = logged_at.unwrap_or(event.taken_at);
            logged_at.is_none() || event.repeat == Repeat::Rest
        });
        claim
    }

    /// Takes the events that nobody else has under way; the others leave the batch.
    fn claim(&self, routed: &mut Vec<Routed<'_>>) -> Claim<'_> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let mut claimed = Vec::with_capacity(routed.len());
        routed.retain(|event| {
            let new = under_way.insert(event.key.clone());
            if new {
                claimed.push(event.key.clone());
            }
            new || event.repeat != Repeat::Unwanted
        });
        Claim { under_way: &self.under_way, claimed }
    }

    /// Publishes these. Each is made when its turn comes: an event that ten thousand webhooks want must not be there
    /// ten thousand times.
    async fn publish_all(&self, publications: impl Iterator<Item = (Lane, Publication)>) {
        let mut under_way = FuturesUnordered::new();
        for (lane, publication) in publications {
            if under_way.len() == MAX_UNCONFIRMED {
                under_way.next().await;
            }
            under_way.push(self.publish(lane, publication));
        }
        while under_way.next().await.is_some() {}
    }

    /// The message that takes an event to these webhooks, and its lane.
    fn deliveries(&self, event: &Routed<'_>, webhooks: &[WebhookId]) -> Option<(Lane, Publication)> {
        let lane = self.shares.lane(event.key.organization, webhooks.len(), Instant::now());
        self.metrics.deliveries.with_label_values(&[lane.as_str()]).inc_by(webhooks.len() as u64);
        let first = |webhook: &WebhookId| {
            let new = NewDelivery {
                organization: event.key.organization,
                webhook: *webhook,
                source: &event.key.source,
                event_id: &event.key.id,
                category: event.message.event.event_type.category(),
                event: event.message.json.clone(),
            };
            DeliveryMessage::first(new, Round::FIRST, lane, event.taken_at)
        };
        Some((lane, Deliveries::publication(&webhooks.iter().map(first).collect::<Vec<_>>())?))
    }

    async fn publish(&self, lane: Lane, publication: Publication) {
        let publisher = if lane == Lane::Bulk { &self.bulk_publisher } else { &self.publisher };
        publisher.publish_until_confirmed(&publication).await;
    }

    /// Puts the batch into the event log. An event that the database refuses for good must not hold up the
    /// others: it becomes a dead letter, and has its deliveries all the same.
    async fn log(&self, routed: &[Routed<'_>], matched: &[Vec<WebhookId>]) {
        if routed.is_empty() {
            return;
        }
        let batch: Vec<LoggedEvent<'_>> = routed
            .iter()
            .zip(matched)
            .map(|(event, webhooks)| LoggedEvent {
                day: event.taken_at.date(),
                organization: event.key.organization,
                event: &event.message.event,
                payload: &event.message.json,
                received_at: event.taken_at,
                webhooks,
            })
            .collect();
        let Err(error) = self.log_together(&batch).await else { return };
        tracing::error!(%error, "a batch of events was refused; logging them one by one");
        for (event, logged) in routed.iter().zip(&batch) {
            if let Err(error) = self.log_together(std::slice::from_ref(logged)).await {
                let detail = format!("the event was delivered and could not be logged: {error}");
                self.publish(Lane::Fresh, event.message.buried(Reason::Poison, detail)).await;
                self.count("unlogged", 1);
            }
        }
    }

    async fn log_together(&self, batch: &[LoggedEvent<'_>]) -> Result<(), DbError> {
        until_it_answers("events", || self.database.log_events(batch)).await
    }

    fn count(&self, outcome: &str, events: usize) {
        self.metrics.events.with_label_values(&[outcome]).inc_by(events as u64);
    }
}

/// Events that are under way, until this is dropped.
struct Claim<'a> {
    under_way: &'a Mutex<HashSet<EventKey>>,
    claimed: Vec<EventKey>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.claimed {
            under_way.remove(key);
        }
    }
}
