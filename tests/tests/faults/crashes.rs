//! `kill -9` in the middle of the work.

use std::collections::HashSet;

use cuewire_tests::event::events;
use cuewire_tests::{Answer, Receiver, Service, Setup, until};

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

/// Lets whoever records a dead letter wait, in the midst of it, until a lock is free, which this takes.
const HOLD_UP_RECORDS: &str = "
    SELECT pg_advisory_lock(1);
    CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
    CREATE TRIGGER held_up BEFORE INSERT ON dead_letters FOR EACH ROW EXECUTE FUNCTION hold_up()";

/// Fewer than open a webhook's breaker.
const FAILED_OF_EACH: usize = 16;
const FAILING_WEBHOOKS: usize = 25;

#[test]
fn kill_9_of_the_reaper_among_failed_deliveries_loses_none_and_records_and_tells_each_once() {
    const LETTERS: i64 = (FAILED_OF_EACH * FAILING_WEBHOOKS) as i64;
    Setup::processes().run(async |system| {
        let (receiver, ears) = (Receiver::answering([Answer::status(500)]).await, Receiver::healthy().await);
        let organization = system.organization().await;
        organization.webhook(ears.url("/")).types(&["webhook.delivery_failed"]).create().await;
        for _ in 0..FAILING_WEBHOOKS {
            organization.webhook(receiver.url("/")).types(&["feeds.*"]).schedule(&[]).create().await;
        }
        organization.in_effect().await;
        let events = events(FAILED_OF_EACH, "feeds.started", &organization.id);
        let (database, amqp) = (system.database().await, system.amqp().await);
        let letters = async || -> i64 {
            database.query_one("SELECT count(*) FROM dead_letters", &[]).await.unwrap().get(0)
        };
        let there_are = async |count: i64| {
            until(&format!("there are {count} dead letters"), async || {
                (letters().await >= count).then_some(())
            })
            .await;
        };

        // What a reaper has asked to be recorded is committed when it is dead already, and not acknowledged.
        database.batch_execute(HOLD_UP_RECORDS).await.unwrap();
        amqp.publish_all(&events[..FAILED_OF_EACH / 2]).await;
        until("a batch waits to be recorded", async || {
            let waits = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND
                         database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            database.query(waits, &[]).await.unwrap().pop().map(drop)
        })
        .await;
        system.kill(Service::DlqReaper).await;
        database.execute("SELECT pg_advisory_unlock(1)", &[]).await.unwrap();
        there_are(1).await;
        let of_the_dead = letters().await;
        database.batch_execute("DROP TRIGGER held_up ON dead_letters").await.unwrap();
        system.start(Service::DlqReaper).await;

        let kill = async {
            for buried in [of_the_dead + 50, LETTERS / 2 + 50] {
                there_are(buried).await;
                system.kill(Service::DlqReaper).await;
                system.start(Service::DlqReaper).await;
            }
        };
        tokio::join!(amqp.publish_all(&events[FAILED_OF_EACH / 2..]), kill);
        there_are(LETTERS).await;
        system.stop_all().await;
        let count =
            "SELECT count(*), count(DISTINCT delivery_id), count(*) FILTER (WHERE reason = 'exhausted')
                     FROM dead_letters";
        let row = database.query_one(count, &[]).await.unwrap();
        assert_eq!([0, 1, 2].map(|at| row.get::<_, i64>(at)), [LETTERS; 3]);
        let told: HashSet<_> =
            ears.requests().iter().map(|it| it.json()["data"]["delivery_id"].to_string()).collect();
        assert_eq!((told.len() as i64, ears.count() as i64), (LETTERS, LETTERS));
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
        // How many there are by now depends on how large the batches are that wait.
        until("there are dead letters whose events are not acknowledged", async || {
            (letters().await.0 > 0).then_some(())
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
