//! Acknowledging on real queues.

use std::time::{Duration, Instant};

use cuewire::amqp::topology::ROUTER_EVENTS;
use cuewire_tests::event::events;
use cuewire_tests::{Parts, Service, Setup, until};

#[test]
fn whatever_was_acknowledged_when_a_consumer_closes_is_not_delivered_again() {
    const EVENTS: usize = 2_000;
    // The test is the router.
    Setup::default().replicas(Service::Router, 0).run(async |system| {
        let organization = system.organization().await;
        system.amqp().await.publish_all(&events(EVENTS, "a.b", &organization.id)).await;
        let router = Parts::on(system.amqp_url());
        let mut consumer = router.consumer(ROUTER_EVENTS, EVENTS as u16);
        let mut messages = Vec::new();
        while messages.len() < EVENTS {
            messages.extend(consumer.next().await);
        }
        router.shutdown.stop();
        // The first one is never done, and so each of the others is acknowledged by a frame of its own: more of
        // them than a quorum queue takes at a time.
        let unfinished = messages.remove(0);
        for message in messages {
            message.ack();
            tokio::task::yield_now().await;
        }
        drop(unfinished);
        consumer.close().await;
        let returned = system.amqp().await;
        until("the one that was not done is back", async || {
            (returned.depth(ROUTER_EVENTS).await.unwrap() > 0).then_some(())
        })
        .await;
        let deadline = Instant::now() + Duration::from_millis(500);
        while Instant::now() < deadline {
            assert_eq!(
                returned.depth(ROUTER_EVENTS).await.unwrap(),
                1,
                "of {EVENTS} one was not acknowledged"
            );
        }
        // The router takes it.
        system.start(Service::Router).await;
    });
}
