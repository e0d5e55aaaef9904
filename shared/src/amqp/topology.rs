//! The topology: every exchange, queue and binding, as data, and the one loop that declares them.
//!
//! Every service declares all of it at start and at every reconnect, so that no order of starting and no
//! lost queue can leave work without a place. A queue cannot be declared again with other arguments: a
//! change of arguments needs a new version in the name.

use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, ExchangeKind};

use super::grants::{PUBLISHER_PREFIX, PublisherGrant};
use crate::delivery::Reason;
use crate::retry::{TIERS, Tier};

/// Every event that was accepted, by `<category>.<operation>`.
pub const EVENTS: &str = "events";
/// Every delivery to be made, by `<category>.<lane>.<shard>`. Target of all delayed queues.
pub const DELIVERIES: &str = "deliveries";
/// What failed for good or was not understood, by `<category>.<reason>`.
pub const DEAD: &str = "dead";
/// What matched no binding: a bug alarm, kept.
pub const UNROUTED: &str = "unrouted";
/// What even the reaper could not take.
pub const PARKING: &str = "parking";

/// The router's queue.
pub const ROUTER_EVENTS: &str = "router.events.v1";
/// The first of the senders' queues, which there always is.
pub const FIRST_SENDER_QUEUE: &str = "sender.fresh.0.v1";
/// The reaper's queue of dead letters.
pub const REAPER_DEAD: &str = "dlq-reaper.dead.v1";
/// The reaper's queue of what matched no binding.
pub const REAPER_UNROUTED: &str = "dlq-reaper.unrouted.v1";
/// For an operator to look at; nobody consumes it.
pub const PARKING_QUEUE: &str = "parking.v1";

/// A webhook's deliveries go to one of as many shards, which are spread over the senders' queues.
pub const SHARDS: u32 = 64;
/// A crash counts as one delivery for all that was prefetched; a lower limit would bury the innocent.
const DELIVERY_LIMIT: i64 = 50;
/// Without a limit RabbitMQ 4 takes 20 and drops the message. It reads -1 as no limit; 3.10 takes -1 too, and
/// drops at the first return. This is more than anybody looks at a message.
const NO_DELIVERY_LIMIT: i64 = i32::MAX as i64;
/// One queue is carried by one core of the broker, and there is more than one.
pub const DEFAULT_SENDER_QUEUES: u32 = 2;

/// Which line a delivery waits in, so that retries and floods cannot delay fresh ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// First attempts.
    Fresh,
    /// Retries, parked and redriven deliveries.
    Due,
    /// Replays, and what exceeds an organization's share.
    Bulk,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Self; 3] = [Self::Fresh, Self::Due, Self::Bulk];

    /// As it stands in routing keys and queue names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Due => "due",
            Self::Bulk => "bulk",
        }
    }
}

/// All that is declared on the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// How many queues each lane has (M): `CUEWIRE_SENDER_QUEUES`.
    pub sender_queues: u32,
    /// The most that it has ever had. What is left in those above M is consumed, and nothing comes to them.
    pub most_sender_queues: u32,
    /// The upstreams with exchanges of their own: `CUEWIRE_PUBLISHERS`.
    pub publishers: Vec<PublisherGrant>,
}

impl Default for Topology {
    fn default() -> Self {
        Self::new(DEFAULT_SENDER_QUEUES, Vec::new())
    }
}

impl Topology {
    /// With as many queues in each lane, now and ever.
    #[must_use]
    pub fn new(sender_queues: u32, publishers: Vec<PublisherGrant>) -> Self {
        Self { sender_queues, most_sender_queues: sender_queues, publishers }
    }

    /// The grant of the publisher whose exchange this is.
    #[must_use]
    pub fn grant_of(&self, exchange: &str) -> Option<&PublisherGrant> {
        let name = exchange.strip_prefix(PUBLISHER_PREFIX)?;
        self.publishers.iter().find(|grant| grant.name == name)
    }

    /// Every exchange.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        let exchange = |name: &str, kind, alternate| Exchange { name: name.to_owned(), kind, alternate };
        let mut exchanges = vec![
            exchange(UNROUTED, ExchangeKind::Fanout, None),
            exchange(PARKING, ExchangeKind::Fanout, None),
            exchange(EVENTS, ExchangeKind::Topic, Some(UNROUTED)),
            exchange(DELIVERIES, ExchangeKind::Topic, Some(UNROUTED)),
            exchange(DEAD, ExchangeKind::Topic, Some(UNROUTED)),
        ];
        // A fanout, so that the routing key survives the wait.
        exchanges
            .extend(TIERS.iter().map(|tier| exchange(&retry_exchange(*tier), ExchangeKind::Fanout, None)));
        exchanges.extend(
            self.publishers
                .iter()
                .map(|grant| exchange(&grant.exchange(), ExchangeKind::Topic, Some(UNROUTED))),
        );
        exchanges
    }

    /// Every queue.
    #[must_use]
    pub fn queues(&self) -> Vec<Queue> {
        let guarded = |name: String| Queue { name, arguments: Arguments::Guarded };
        let reaped = |name: &str| Queue { name: name.to_owned(), arguments: Arguments::Reaped };
        let mut queues = vec![
            guarded(ROUTER_EVENTS.to_owned()),
            reaped(REAPER_DEAD),
            reaped(REAPER_UNROUTED),
            Queue { name: PARKING_QUEUE.to_owned(), arguments: Arguments::Kept },
        ];
        queues.extend(self.lane_queues().map(|(_, _, name)| guarded(name)));
        queues.extend(TIERS.iter().map(|tier| Queue {
            name: format!("{}.v1", retry_exchange(*tier)),
            arguments: Arguments::Delayed(tier.delay),
        }));
        queues
    }

    /// Every queue that senders consume, with its lane. Another number of them changes only the end.
    pub fn lane_queues(&self) -> impl Iterator<Item = (Lane, u32, String)> + use<> {
        let most = self.most_sender_queues.max(self.sender_queues);
        (0..most).flat_map(|m| Lane::ALL.map(|lane| (lane, m, sender_queue(lane, m))))
    }

    /// Every binding of an exchange to another.
    #[must_use]
    pub fn exchange_bindings(&self) -> Vec<Binding> {
        let bind = |grant: &PublisherGrant, category: &String| Binding {
            source: grant.exchange(),
            routing_key: format!("{category}.#"),
            destination: EVENTS.to_owned(),
        };
        self.publishers
            .iter()
            .flat_map(|grant| grant.categories.iter().map(move |category| bind(grant, category)))
            .collect()
    }

    /// Every binding of a queue to an exchange.
    #[must_use]
    pub fn queue_bindings(&self) -> Vec<Binding> {
        let bind = |source: &str, routing_key: &str, queue: &str| Binding {
            source: source.to_owned(),
            routing_key: routing_key.to_owned(),
            destination: queue.to_owned(),
        };
        let mut bindings = vec![
            bind(EVENTS, "#", ROUTER_EVENTS),
            bind(DEAD, "#", REAPER_DEAD),
            bind(UNROUTED, "", REAPER_UNROUTED),
            bind(PARKING, "", PARKING_QUEUE),
        ];
        for tier in TIERS {
            let exchange = retry_exchange(tier);
            bindings.push(bind(&exchange, "", &format!("{exchange}.v1")));
        }
        for (lane, m, queue) in self.lane_queues() {
            let shards = (0..SHARDS).filter(|shard| shard % self.sender_queues == m);
            bindings.extend(shards.map(|shard| bind(DELIVERIES, &shard_pattern(lane, shard), &queue)));
        }
        bindings
    }

    /// The bindings that must not be there: shards at queues that they do not belong to, left by another
    /// number of queues. They would double deliveries.
    #[must_use]
    pub fn stale_bindings(&self) -> Vec<Binding> {
        let mut bindings = Vec::new();
        for (lane, m, queue) in self.lane_queues() {
            for shard in (0..SHARDS).filter(|shard| shard % self.sender_queues != m) {
                bindings.push(Binding {
                    source: DELIVERIES.to_owned(),
                    routing_key: shard_pattern(lane, shard),
                    destination: queue.clone(),
                });
            }
        }
        bindings
    }

    /// Declares everything, and takes stale bindings away.
    pub async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        for exchange in self.exchanges() {
            exchange.declare(channel).await?;
        }
        try_join_all(self.queues().iter().map(|queue| queue.declare(channel))).await?;
        let table = FieldTable::default();
        try_join_all(self.exchange_bindings().iter().map(|binding| {
            let Binding { source, routing_key, destination } = binding;
            channel.exchange_bind(
                short(destination),
                short(source),
                short(routing_key),
                Default::default(),
                table.clone(),
            )
        }))
        .await?;
        try_join_all(self.queue_bindings().iter().map(|binding| {
            let Binding { source, routing_key, destination } = binding;
            channel.queue_bind(
                short(destination),
                short(source),
                short(routing_key),
                QueueBindOptions::default(),
                table.clone(),
            )
        }))
        .await?;
        unbind(channel, &self.stale_bindings()).await
    }

    /// Looks whether everything is there, for broker users who may not declare. Bindings cannot be looked
    /// at over AMQP.
    pub async fn check(&self, channel: &Channel) -> lapin::Result<()> {
        for Exchange { name, kind, .. } in self.exchanges() {
            let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
            channel.exchange_declare(short(&name), kind, options, FieldTable::default()).await?;
        }
        for Queue { name, .. } in self.queues() {
            let options = QueueDeclareOptions { passive: true, ..Default::default() };
            channel.queue_declare(short(&name), options, FieldTable::default()).await?;
        }
        Ok(())
    }
}

async fn unbind(channel: &Channel, bindings: &[Binding]) -> lapin::Result<()> {
    try_join_all(bindings.iter().map(|Binding { source, routing_key, destination }| {
        channel.queue_unbind(short(destination), short(source), short(routing_key), FieldTable::default())
    }))
    .await?;
    Ok(())
}

/// An exchange, durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Where messages go that match no binding.
    pub alternate: Option<&'static str>,
}

impl Exchange {
    async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        let mut arguments = FieldTable::default();
        if let Some(alternate) = self.alternate {
            arguments.insert("alternate-exchange".into(), text(alternate));
        }
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel.exchange_declare(short(&self.name), self.kind.clone(), options, arguments).await
    }
}

/// A durable quorum queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// What it is declared with.
    pub arguments: Arguments,
}

/// What a queue is declared with, besides its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arguments {
    /// Kept, however often somebody looks at it.
    Kept,
    /// What is delivered too often goes to `dead` as poison; nothing is dropped.
    Guarded,
    /// The same for the reaper's own queues, which cannot bury what they cannot take.
    Reaped,
    /// Messages wait this long and then go to `deliveries` with the routing key they came with.
    Delayed(Duration),
}

impl Arguments {
    /// The exchange that messages leave to when the queue gives them up.
    #[must_use]
    pub fn dead_letter_exchange(self) -> Option<&'static str> {
        match self {
            Self::Kept => None,
            Self::Guarded => Some(DEAD),
            Self::Reaped => Some(PARKING),
            Self::Delayed(_) => Some(DELIVERIES),
        }
    }

    /// The arguments as they are declared.
    #[must_use]
    pub fn table(self) -> Vec<(&'static str, AMQPValue)> {
        let mut table = vec![("x-queue-type", text("quorum"))];
        if let Some(exchange) = self.dead_letter_exchange() {
            // At least once, or the broker would drop what it cannot pass on; it demands reject-publish.
            table.push(("x-dead-letter-exchange", text(exchange)));
            table.push(("x-dead-letter-strategy", text("at-least-once")));
            table.push(("x-overflow", text("reject-publish")));
        }
        let limit = |limit| ("x-delivery-limit", AMQPValue::LongLongInt(limit));
        match self {
            Self::Delayed(delay) => {
                let ttl_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
                table.push(("x-message-ttl", AMQPValue::LongLongInt(ttl_ms)));
            }
            Self::Guarded => {
                let key = format!("unknown.{}", Reason::Poison.as_str());
                table.push(("x-dead-letter-routing-key", text(&key)));
                table.push(limit(DELIVERY_LIMIT));
            }
            Self::Reaped => table.push(limit(DELIVERY_LIMIT)),
            Self::Kept => table.push(limit(NO_DELIVERY_LIMIT)),
        }
        table
    }
}

impl Queue {
    async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        let mut arguments = FieldTable::default();
        for (name, value) in self.arguments.table() {
            arguments.insert(name.into(), value);
        }
        channel.queue_declare(short(&self.name), QueueDeclareOptions::durable(), arguments).await?;
        Ok(())
    }
}

/// A binding of a queue or an exchange to an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The exchange that messages come from.
    pub source: String,
    /// Which of them.
    pub routing_key: String,
    /// Where they go.
    pub destination: String,
}

/// The exchange of a delayed queue.
#[must_use]
pub fn retry_exchange(tier: Tier) -> String {
    format!("retry.{}", tier.name)
}

/// The queue `m` of a lane.
#[must_use]
pub fn sender_queue(lane: Lane, m: u32) -> String {
    format!("sender.{}.{m}.v1", lane.as_str())
}

/// The routing key of a delivery.
#[must_use]
pub fn delivery_key(category: &str, lane: Lane, shard: u32) -> String {
    format!("{category}.{}.{shard:02}", lane.as_str())
}

fn shard_pattern(lane: Lane, shard: u32) -> String {
    delivery_key("*", lane, shard)
}

fn short(text: &str) -> ShortString {
    text.into()
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn topology() -> Topology {
        Topology::new(3, PublisherGrant::parse_all("dolby=feeds,media@acme; other = encoding").unwrap())
    }

    #[test]
    fn every_exchange_that_is_named_is_declared() {
        let topology = topology();
        let names: BTreeSet<String> =
            topology.exchanges().into_iter().map(|exchange| exchange.name).collect();
        let queues: BTreeSet<String> = topology.queues().into_iter().map(|queue| queue.name).collect();
        for exchange in topology.exchanges() {
            assert!(exchange.alternate.is_none_or(|name| names.contains(name)), "{exchange:?}");
        }
        for queue in topology.queues() {
            assert!(
                queue.arguments.dead_letter_exchange().is_none_or(|name| names.contains(name)),
                "{queue:?}"
            );
        }
        for binding in topology.queue_bindings().into_iter().chain(topology.stale_bindings()) {
            assert!(names.contains(&binding.source) && queues.contains(&binding.destination), "{binding:?}");
        }
        for binding in topology.exchange_bindings() {
            assert!(names.contains(&binding.source) && names.contains(&binding.destination), "{binding:?}");
        }
    }

    #[test]
    fn every_shard_of_every_lane_is_bound_to_one_queue_and_unbound_from_the_others() {
        for (sender_queues, most_sender_queues) in [(1, 1), (2, 2), (3, 3), (64, 64), (2, 5), (1, 64)] {
            let topology = Topology { most_sender_queues, ..Topology::new(sender_queues, Vec::new()) };
            for lane in Lane::ALL {
                for shard in 0..SHARDS {
                    let key = shard_pattern(lane, shard);
                    let of = |bindings: Vec<Binding>| {
                        bindings.into_iter().filter(|binding| binding.routing_key == key).count()
                    };
                    assert_eq!(of(topology.queue_bindings()), 1);
                    assert_eq!(of(topology.stale_bindings()), most_sender_queues as usize - 1);
                }
            }
        }
    }

    #[test]
    fn the_topology_changes_only_on_purpose() {
        let topology = Topology::default();
        let exchanges = topology.exchanges().into_iter().map(|Exchange { name, kind, alternate }| {
            format!("exchange {name} {kind:?} {}\n", alternate.unwrap_or("-"))
        });
        let queues = topology.queues().into_iter().map(|Queue { name, arguments }| {
            let arguments = arguments.table().into_iter().map(|(name, value)| match value {
                AMQPValue::LongString(text) => format!(" {name}={text}"),
                other => format!(" {name}={other:?}"),
            });
            format!("queue {name}{}\n", arguments.collect::<String>())
        });
        insta::assert_snapshot!(exchanges.chain(queues).collect::<String>());
    }
}
