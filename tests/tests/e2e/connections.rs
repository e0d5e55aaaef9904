//! Connections to the broker: made again whenever one is of no use any more.

use std::collections::BTreeMap;
use std::time::Duration;

use cuewire::amqp::topology::ROUTER_EVENTS;
use cuewire_tests::event::{event, events};
use cuewire_tests::wait::output;
use cuewire_tests::{Parts, Proxy, Service, Setup, until};
use futures_util::FutureExt;
use serde_json::Value;

#[test]
fn a_broker_that_takes_connections_and_says_nothing_is_tried_again_until_it_speaks() {
    Setup::default().nothing_running().run(async |system| {
        let proxy = Proxy::before(system.amqp_url()).await;
        proxy.silence();
        let mut parts = Parts::on(proxy.url());
        parts.broker.timeouts.connect = Duration::from_millis(200);
        let publisher = parts.publisher();
        until("it says what is wrong", async || {
            parts.missing("publisher").filter(|reason| reason.contains("did not answer in time"))
        })
        .await;
        until("it has tried again, and again", async || (proxy.connections() >= 4).then_some(())).await;
        until("what was given up is closed", async || (proxy.open() <= 1).then_some(())).await;
        proxy.end_silence();
        until("it is connected", async || parts.missing("publisher").is_none().then_some(())).await;
        drop(publisher);
    });
}

#[test]
fn a_consumer_takes_no_more_than_its_prefetch_at_first_and_after_a_broken_connection() {
    const EVENTS: usize = 10;
    const PREFETCH: usize = 3;
    Setup::default().nothing_running().run(async |system| {
        let proxy = Proxy::before(system.amqp_url()).await;
        let parts = Parts::on(proxy.url());
        let mut consumer = parts.consumer(ROUTER_EVENTS, PREFETCH as u16);
        until("it is connected", async || parts.missing("consumer").is_none().then_some(())).await;
        let amqp = system.amqp().await;
        amqp.publish_all(&events(EVENTS, "a.b", "acme")).await;
        for _ in 0..2 {
            let mut under_way = Vec::new();
            while under_way.len() < PREFETCH {
                under_way.extend(output("a message comes", consumer.next()).await);
            }
            until("the others are left in the queue", async || {
                (amqp.depth(ROUTER_EVENTS).await.unwrap() as usize == EVENTS - PREFETCH).then_some(())
            })
            .await;
            assert!(consumer.next().now_or_never().is_none(), "one more than the prefetch");
            let connections = proxy.connections();
            proxy.cut();
            output("the messages are lost", under_way[0].lost()).await;
            until("it connects again", async || (proxy.connections() > connections).then_some(())).await;
        }
        for _ in 0..EVENTS {
            output("every message comes", consumer.next()).await.unwrap().ack();
        }
        parts.shutdown.stop();
        output("the consumer closes", consumer.close()).await;
    });
}

#[test]
fn a_consumer_whose_queue_is_deleted_connects_anew_and_has_its_queue_again() {
    Setup::default().nothing_running().run(async |system| {
        let proxy = Proxy::before(system.amqp_url()).await;
        let parts = Parts::on(proxy.url());
        let mut consumer = parts.consumer(ROUTER_EVENTS, 10);
        let amqp = system.amqp().await;
        until("it is connected", async || parts.missing("consumer").is_none().then_some(())).await;
        amqp.publish(&event("a.b", "acme")).await;
        let message = output("the first comes", consumer.next()).await.unwrap();

        let connections = proxy.connections();
        amqp.delete_queue(ROUTER_EVENTS).await;
        output("the message is lost with its queue", message.lost()).await;
        drop(message);
        until("it connects anew", async || (proxy.connections() > connections).then_some(())).await;
        until("everything is declared", async || parts.missing("consumer").is_none().then_some(())).await;
        let next = event("a.b", "acme");
        amqp.publish(&next).await;
        let message = output("the next one comes", consumer.next()).await.unwrap();
        assert_eq!(message.content.event.id, next["id"].as_str().unwrap());
        message.ack();
        parts.shutdown.stop();
        output("the consumer closes", consumer.close()).await;
    });
}

/// What a connection is for, by its channels, and after how many seconds without a word it is dead.
#[derive(Debug, PartialEq, Eq)]
struct Use {
    publishes: bool,
    consumes: bool,
    heartbeat_seconds: u64,
}

#[test]
fn each_service_publishes_and_consumes_over_different_connections_with_a_heartbeat_of_10_s() {
    // The api's calls for a test are answered on the channel that they are made by, as RabbitMQ demands, and
    // neither are they confirmed nor does the broker count their consumer.
    const EXPECTED: [(&str, bool, bool); 11] = [
        ("api: caller", false, false),
        ("api: publisher", true, false),
        ("dlq-reaper: consumer", false, true),
        ("dlq-reaper: publisher", true, false),
        ("router: bulk-publisher", true, false),
        ("router: consumer", false, true),
        ("router: peers", false, false),
        ("router: publisher", true, false),
        ("sender: consumer", false, true),
        ("sender: peers", false, false),
        ("sender: publisher", true, false),
    ];
    let expected: BTreeMap<String, Use> = EXPECTED
        .into_iter()
        .map(|(name, publishes, consumes)| {
            (name.to_owned(), Use { publishes, consumes, heartbeat_seconds: 10 })
        })
        .collect();
    Setup::default().own_servers().nothing_running().run(async |system| {
        let servers = system.servers();
        // The broker asks for less by itself, where it is ours; the smaller wish is kept.
        let its_own = "application:set_env(rabbit, heartbeat, 60).";
        servers.command(&["rabbitmqctl", "eval", its_own]).await;
        for service in Service::ALL {
            system.start(service).await;
        }
        let connections = ["list_connections", "pid", "client_properties", "timeout"];
        let channels = ["list_channels", "connection", "confirm", "consumer_count"];
        let uses = async || {
            let connections = servers.rabbitmqctl(&connections).await;
            let channels = servers.rabbitmqctl(&channels).await;
            let used = |connection: &Value| {
                let of_it = || channels.iter().filter(|channel| channel["connection"] == connection["pid"]);
                let properties = connection["client_properties"].to_string();
                let name = EXPECTED.iter().map(|(name, ..)| *name).find(|name| properties.contains(name));
                let used = Use {
                    publishes: of_it().any(|channel| channel["confirm"] == true),
                    consumes: of_it().any(|channel| channel["consumer_count"].as_u64() > Some(0)),
                    heartbeat_seconds: connection["timeout"].as_u64()?,
                };
                Some((name.unwrap_or(&properties).to_owned(), used))
            };
            connections.iter().filter_map(used).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(uses().await, expected);
    });
}
