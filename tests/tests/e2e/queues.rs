//! The number of the senders' queues, changed while everything runs.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use cuewire::amqp::topology::Topology;
use cuewire::config::{Common, Environment};
use cuewire::service::Context;
use cuewire::shutdown::Shutdown;
use cuewire_tests::system::test;
use cuewire_tests::{Receiver, Service, System, until};
use serde_json::Value;

async fn apply(system: &System, sender_queues: u32) {
    apply_as(system, system.amqp_url(), sender_queues).await;
}

/// `api topology apply` with this number, by this broker user.
pub(crate) async fn apply_as(system: &System, amqp_url: &str, sender_queues: u32) {
    let variables = system.environment().into_iter();
    let set = [("CUEWIRE_SENDER_QUEUES", &*sender_queues.to_string()), ("AMQP_URL", amqp_url)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let common = Common::read(&Environment::of(variables.chain(set)), 0).unwrap();
    let context = Context::new("api", common, Shutdown::new()).unwrap();
    cuewire_api::commands::apply_topology(context).await.unwrap();
}

/// What the exchange `deliveries` must lead to.
fn shards(sender_queues: u32) -> BTreeSet<(String, String)> {
    let bindings = Topology::new(sender_queues, Vec::new()).queue_bindings().into_iter();
    bindings
        .filter(|binding| binding.source == "deliveries")
        .map(|binding| (binding.routing_key, binding.destination))
        .collect()
}

async fn are_bound(system: &System, sender_queues: u32) -> bool {
    system.management().bindings("deliveries").await == shards(sender_queues)
}

/// Makes every service connect to the broker anew, and declare: a queue that is gone ends its consumers'
/// connection.
async fn reconnect_all(system: &System) {
    for queue in ["router.events.v1", "sender.bulk.0.v1", "dlq-reaper.unrouted.v1"] {
        system.amqp().await.delete_queue(queue).await;
        until(&format!("{queue} is back"), async || system.amqp().await.depth(queue).await.ok()).await;
    }
    system.ready().await;
}

/// Publishes an event that many webhooks want, over all shards, and sees each delivery arrive.
async fn deliver(system: &System, receiver: &Receiver, event: &Value, expected: usize) {
    system.amqp().await.publish(event).await;
    receiver.wait_for(expected).await;
    system.ready().await;
}

#[test]
fn a_changed_number_of_queues_is_followed_by_running_services_and_doubles_nothing() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        for _ in 0..40 {
            organization.webhook(receiver.url("/")).create().await;
        }
        assert!(are_bound(system, 2).await);
        let mut expected = 0;
        for sender_queues in [3, 5, 2] {
            apply(system, sender_queues).await;
            assert!(are_bound(system, sender_queues).await, "right after the command");
            expected += 40;
            deliver(system, &receiver, &organization.event("a.b"), expected).await;
            // What was started with another number does not bring the old bindings back.
            reconnect_all(system).await;
            assert!(are_bound(system, sender_queues).await, "after every service has declared again");
            expected += 40;
            deliver(system, &receiver, &organization.event("a.b"), expected).await;
        }
        system.stop_all().await;
        assert_eq!(receiver.count(), expected);
    });
}

#[test]
fn what_is_left_in_a_queue_that_is_no_more_is_delivered_by_senders_that_start_later() {
    const WEBHOOKS: usize = 20;
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        for _ in 0..WEBHOOKS {
            organization.webhook(receiver.url("/")).create().await;
        }
        apply(system, 4).await;
        system.stop(Service::Sender).await;
        let amqp = system.amqp().await;
        // Until the router has heard of the fourth queue, an event's deliveries go together as to two.
        let events = Cell::new(0);
        until("something waits in the last queue", async || {
            amqp.publish(&organization.event("a.b")).await;
            events.set(events.get() + 1);
            // As many as it takes, but not as many as one can: the slower the router hears, the more there would be
            // to do.
            tokio::time::sleep(Duration::from_millis(250)).await;
            (amqp.depth("sender.fresh.3.v1").await.unwrap() > 0).then_some(())
        })
        .await;
        let deliveries = WEBHOOKS * events.get();
        apply(system, 2).await;
        assert!(are_bound(system, 2).await);
        system.start(Service::Sender).await;
        receiver.wait_for(deliveries).await;
        system.stop_all().await;
        assert_eq!(receiver.count(), deliveries);
        assert_eq!(amqp.depth("sender.fresh.3.v1").await.unwrap(), 0);
    });
}
