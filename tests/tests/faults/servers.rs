//! The servers go away under load, in good order and by a crash, and come back.

use std::time::{Duration, Instant};

use cuewire::amqp::topology::retry_exchange;
use cuewire::retry::TIERS;
use cuewire_tests::amqp::publish_through_faults;
use cuewire_tests::event::id;
use cuewire_tests::{Answer, Receiver, Service, Setup, System, until};
use serde_json::json;

use crate::load::Load;

/// The api waits 5 s for the broker's word, and then says so.
const ANSWERS_WITHIN: Duration = Duration::from_secs(8);

/// Publishes a load while `break_it` is done to the servers, and reckons up.
async fn survives(system: &System, load: &Load<'_>, break_it: impl AsyncFnOnce()) {
    let publish = async {
        // In parts, so that the load lasts as long as the trouble.
        for (number, some) in load.events.chunks(50).enumerate() {
            publish_through_faults(system.amqp_url(), some).await;
            let arrived = (number * 50).saturating_sub(150);
            load.receiver.wait_within(crate::load::ARRIVES_WITHIN, arrived).await;
        }
    };
    tokio::join!(publish, break_it());
    load.arrives().await;
    system.ready().await;
    system.stop_all().await;
    load.duplicates();
}

#[test]
fn a_restart_and_a_crash_of_rabbitmq_under_load_lose_nothing() {
    Setup::processes().own_servers().run(async |system| {
        let load = Load::new(system, 2_000).await;
        let api = &load.organization.admin;
        survives(system, &load, async || {
            load.receiver.wait_for(200).await;
            system.servers().command(&["restart", "rabbitmq"]).await;
            system.ready().await;
            load.receiver.wait_within(Duration::from_secs(60), 700).await;
            system.servers().command(&["kill", "rabbitmq"]).await;
            // While it is away events cannot be accepted, and the client is told when to come again.
            let refused = until("the api knows that the broker is away", async || {
                let reply = api.post("/v1/events", &json!({"source": "/s", "type": "a.none"})).await;
                (reply.status == 503).then_some(reply)
            })
            .await;
            let wait = refused.headers.get("retry-after").and_then(|value| value.to_str().ok());
            assert!(wait.is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{wait:?}");
            let _ = refused.problem(503);
            // What does not need it works on.
            let _ = api.get("/v1/webhooks").await.expect(200);
            for service in Service::ALL {
                until(&format!("the {} says that it lacks the broker", service.name()), async || {
                    system.missing(service).await.map(drop)
                })
                .await;
            }
            system.servers().command(&["start", "rabbitmq"]).await;
            system.ready().await;
        })
        .await;
    });
}

#[test]
fn a_restart_and_a_crash_of_postgres_under_load_lose_nothing() {
    Setup::processes().own_servers().run(async |system| {
        let load = Load::new(system, 2_000).await;
        let api = &load.organization.admin;
        survives(system, &load, async || {
            load.receiver.wait_for(200).await;
            system.servers().command(&["restart", "postgres"]).await;
            system.ready().await;
            load.receiver.wait_within(Duration::from_secs(60), 700).await;
            let unwanted = |id: &str| json!({"id": id, "source": "/s", "type": "unwanted.type"});
            let _ = api.post("/v1/events", &unwanted("before")).await.expect(202);
            system.servers().command(&["kill", "postgres"]).await;
            for service in Service::ALL {
                until(&format!("the {} says that it lacks the database", service.name()), async || {
                    system.missing(service).await.map(drop)
                })
                .await;
            }
            // Ingest does not need the database: the keys are known.
            let _ = api.post("/v1/events", &unwanted("while-away")).await.expect(202);
            system.servers().command(&["start", "postgres"]).await;
            system.ready().await;
        })
        .await;
    });
}

#[test]
fn queues_that_are_deleted_under_running_services_are_declared_again() {
    Setup::processes().run(async |system| {
        let load = Load::new(system, 300).await;
        system.amqp().await.publish_all(&load.events[..100]).await;
        load.receiver.wait_for(100).await;
        for queue in ["router.events.v1", "sender.fresh.0.v1", "sender.fresh.1.v1", "sender.due.0.v1"] {
            system.amqp().await.delete_queue(queue).await;
        }
        // A queue that is gone takes nothing with it that was confirmed only after it came back.
        until("the queues are back", async || {
            let amqp = system.amqp().await;
            for queue in ["router.events.v1", "sender.fresh.0.v1", "sender.fresh.1.v1", "sender.due.0.v1"] {
                amqp.depth(queue).await.ok()?;
            }
            Some(())
        })
        .await;
        system.ready().await;
        publish_through_faults(system.amqp_url(), &load.events[100..]).await;
        load.arrives().await;
        system.stop_all().await;
        assert_eq!(load.duplicates(), 0);
    });
}

#[test]
fn delayed_queues_that_are_deleted_are_declared_again_when_a_delivery_has_to_wait() {
    Setup::processes().run(async |system| {
        let organization = system.organization().await;
        let receiver = Receiver::answering([Answer::status(500), Answer::status(200)]).await;
        organization.webhook(receiver.url("/")).schedule(&["5s"]).create().await;
        let amqp = system.amqp().await;
        for tier in TIERS {
            amqp.delete_queue(&format!("{}.v1", retry_exchange(tier))).await;
        }
        amqp.publish(&organization.event("feeds.started")).await;
        receiver.wait_for(2).await;
        system.stop_all().await;
    });
}

#[test]
fn while_the_broker_is_short_of_memory_everything_waits_and_then_goes_on() {
    Setup::processes().own_servers().run(async |system| {
        let load = Load::new(system, 60).await;
        let (before, during) = load.events.split_at(50);
        let api = &load.organization.admin;
        let watermark = async |share: &str| {
            system.servers().command(&["rabbitmqctl", "set_vm_memory_high_watermark", share]).await;
        };
        system.stop(Service::Router).await;
        system.amqp().await.publish_all(before).await;
        watermark("0.00001").await;

        // The router has work, and takes it; its deliveries wait.
        system.start_unready(Service::Router).await;
        // So does what a client sends: it is told when to come again, and comes.
        let refused = async |event| {
            let asked = Instant::now();
            let reply = api.post("/v1/events", event).await;
            assert!(asked.elapsed() < ANSWERS_WITHIN, "{:?}", asked.elapsed());
            let wait = reply.headers.get("retry-after").and_then(|value| value.to_str().ok());
            assert!(wait.is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{wait:?}");
            let _ = reply.problem(503);
        };
        for event in [&during[0], &during[1], &during[0]] {
            refused(event).await;
        }
        for service in [Service::Api, Service::Router] {
            until(&format!("the {} says that it waits for the broker", service.name()), async || {
                system.missing(service).await?.contains("takes no messages").then_some(())
            })
            .await;
        }
        assert_eq!(load.receiver.count(), 0);
        // An upstream waits by itself.
        let upstream = async {
            for event in &during[2..] {
                system.amqp().await.publish(event).await;
            }
        };
        let relief = async {
            watermark("0.4").await;
            system.ready().await;
            for event in &during[..2] {
                let _ = api.post("/v1/events", event).await.expect(202);
            }
        };
        tokio::join!(upstream, relief);
        load.arrives().await;
        system.stop_all().await;
        assert_eq!(load.duplicates(), 0);
    });
}

#[test]
fn a_request_that_outlives_its_connection_is_followed_by_its_retry() {
    Setup::processes().proxies().run(async |system| {
        let receiver = Receiver::answering([Answer::never(), Answer::status(200)]).await;
        let organization = system.organization().await;
        let webhook =
            organization.webhook(receiver.url("/")).with("max_in_flight", 1).with("timeout_ms", 4_000);
        let webhook = webhook.schedule(&["1s"]).create().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        receiver.wait_for(1).await;
        // The broker delivers the message again. It finds the slot taken, and waits in the delayed queues until the
        // request has failed, whose sender may not follow it up any more.
        system.broker_proxy().cut();
        let requests = receiver.wait_for(2).await;
        assert_eq!(requests[0].id(), requests[1].id());
        organization.delivery(id(&event), &webhook, "delivered").await;
    });
}
