//! `kill -9` in the middle of the work.

use cuewire_tests::event::events;
use cuewire_tests::{Receiver, Service, Setup, until};

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
        let events = events(500, "feeds.started", "nobody");
        let letters = async || -> i64 {
            let count = "SELECT count(DISTINCT event_id) FROM dead_letters";
            system.database().await.query_one(count, &[]).await.unwrap().get(0)
        };
        let there_are = async |count: i64| {
            until(&format!("there are {count} dead letters"), async || {
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

#[test]
fn an_event_that_is_rejected_again_after_kill_9_of_the_router_is_one_dead_letter() {
    const REJECTED: i64 = 100;
    Setup::processes().run(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        let routed = events(REJECTED as usize, "a.b", &organization.id);
        let rejected = events(REJECTED as usize, "a.b", "nobody");
        let mixed: Vec<_> = routed.into_iter().zip(rejected).flat_map(|(one, other)| [one, other]).collect();
        system.stop(Service::Router).await;
        system.amqp().await.publish_all(&mixed).await;

        // What is to be logged holds up the batches, and what is rejected with it is published meanwhile.
        let database = system.database().await;
        database.batch_execute("BEGIN; LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE").await.unwrap();
        system.start(Service::Router).await;
        let letters = "SELECT count(*), count(DISTINCT event_id) FROM dead_letters";
        let letters = async || {
            let row = database.query_one(letters, &[]).await.unwrap();
            (row.get::<_, i64>(0), row.get::<_, i64>(1))
        };
        until("there are dead letters whose events are not acknowledged", async || {
            (letters().await.0 > REJECTED / 2).then_some(())
        })
        .await;
        system.kill(Service::Router).await;
        database.batch_execute("ROLLBACK").await.unwrap();
        system.start(Service::Router).await;
        receiver.wait_for(REJECTED as usize).await;
        system.stop_all().await;
        assert_eq!(letters().await, (REJECTED, REJECTED));
    });
}
