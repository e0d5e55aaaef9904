//! SIGTERM, as every rollout sends it.

use cuewire_tests::{Service, Setup};

use crate::load::Load;

#[test]
fn sigterm_under_load_loses_nothing_and_sends_nothing_twice() {
    Setup::processes().run(async |system| {
        let load = Load::new(system, 2_000).await;
        let publish = async {
            for (number, some) in load.events.chunks(100).enumerate() {
                system.amqp().await.publish_all(some).await;
                load.receiver.wait_for((number * 100).saturating_sub(300)).await;
            }
        };
        let roll = async {
            for (arrived, service) in [
                (100, Service::Sender),
                (400, Service::Router),
                (700, Service::Sender),
                (1_000, Service::DlqReaper),
                (1_300, Service::Api),
            ] {
                load.receiver.wait_for(arrived).await;
                // The new one first, as rollouts do; `stop` takes the oldest, and wants exit code 0.
                system.start(service).await;
                system.stop(service).await;
            }
        };
        tokio::join!(publish, roll);
        load.arrives().await;
        system.stop_all().await;
        assert_eq!(load.duplicates(), 0);
    });
}

#[test]
fn events_over_http_are_accepted_without_a_gap_while_the_api_stops() {
    Setup::processes().run(async |system| {
        let load = Load::new(system, 300).await;
        let api = &load.organization.admin;
        let accept = async {
            for event in &load.events[..200] {
                let _ = api.post("/v1/events", event).await.expect(202);
            }
        };
        accept.await;
        // What was accepted is with the broker, and not in the process that ends.
        system.stop(Service::Api).await;
        system.start(Service::Api).await;
        system.amqp().await.publish_all(&load.events[200..]).await;
        load.arrives().await;
        system.stop_all().await;
        assert_eq!(load.duplicates(), 0);
    });
}
