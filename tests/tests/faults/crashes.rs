//! `kill -9` in the middle of the work.

use cuewire_tests::{Service, Setup};

use crate::load::Load;

const EVENTS: usize = 2_000;
/// Requests in flight to one webhook.
const IN_FLIGHT: usize = 16;
/// Answered within 100 ms, as long as a commit may take on a busy machine: 800 requests a second.
const NOT_YET_ON_RECORD: usize = 80;

/// Events under way in the router, of which any may have been published when it is killed.
const IN_ROUTER: usize = 64;

#[test]
fn kill_9_of_the_router_in_the_middle_of_2000_events_loses_nothing() {
    let setup = Setup::processes().variable("CUEWIRE_ROUTER_PREFETCH", &IN_ROUTER.to_string());
    setup.run(async |system| {
        let load = Load::new(system, EVENTS).await;
        let kill = async {
            for arrived in [100, 400, 700] {
                load.receiver.wait_for(arrived).await;
                system.kill(Service::Router).await;
                system.start(Service::Router).await;
            }
        };
        let publish = async {
            // Side by side with the work, so that there always is something to be routed.
            for some in load.events.chunks(100) {
                system.amqp().await.publish_all(some).await;
                let published = load.events.iter().position(|event| *event == some[0]).unwrap();
                load.receiver.wait_for(published.saturating_sub(200)).await;
            }
        };
        tokio::join!(kill, publish);
        load.arrives().await;
        system.stop_all().await;
        // What was under way is routed again, and its deliveries may be in the senders' queues twice.
        let duplicates = load.duplicates();
        assert!(duplicates <= 3 * IN_ROUTER, "{duplicates} duplicates of 3 crashes");
    });
}

#[test]
fn kill_9_of_the_sender_in_the_middle_of_2000_events_loses_nothing() {
    Setup::processes().run(async |system| {
        let load = Load::new(system, EVENTS).await;
        system.amqp().await.publish_all(&load.events).await;
        for arrived in [100, 600, 1_100] {
            load.receiver.wait_for(arrived).await;
            system.kill(Service::Sender).await;
            system.start(Service::Sender).await;
        }
        load.arrives().await;
        system.stop_all().await;
        let duplicates = load.duplicates();
        let possible = 3 * (IN_FLIGHT + NOT_YET_ON_RECORD);
        assert!((1..=possible).contains(&duplicates), "{duplicates} duplicates of 3 crashes");
    });
}

#[test]
fn kill_9_of_the_reaper_loses_no_dead_letter() {
    Setup::processes().run(async |system| {
        let events = cuewire_tests::event::events(500, "feeds.started", "nobody");
        let letters = async || -> i64 {
            let count = "SELECT count(DISTINCT event_id) FROM dead_letters";
            system.database().await.query_one(count, &[]).await.unwrap().get(0)
        };
        let there_are = async |count: i64| {
            cuewire_tests::until(&format!("there are {count} dead letters"), async || {
                (letters().await >= count).then_some(())
            })
            .await;
        };
        let publish = async {
            for some in events.chunks(50) {
                system.amqp().await.publish_all(some).await;
            }
        };
        let kill = async {
            for buried in [50, 200] {
                there_are(buried).await;
                system.kill(Service::DlqReaper).await;
                system.start(Service::DlqReaper).await;
            }
        };
        tokio::join!(publish, kill);
        there_are(events.len() as i64).await;
        system.stop_all().await;
        let count = "SELECT count(*), count(DISTINCT event_id) FROM dead_letters";
        let row = system.database().await.query_one(count, &[]).await.unwrap();
        assert_eq!((row.get(0), row.get(1)), (events.len() as i64, events.len() as i64));
    });
}
