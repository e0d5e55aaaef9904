//! The database is away: what needs it waits where nothing can happen to it, health and readiness say so, and
//! a service that is told to stop does not wait for it.

use std::time::{Duration, Instant};

use cuewire_tests::amqp::Raw;
use cuewire_tests::{Answer, Receiver, Service, Setup, System, until};
use serde_json::Value;
use tokio::sync::watch;

use crate::load::Load;

/// What is under way may take 5 s; the rest is for machines that are busy with other tests.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Messages that the reaper has at a time.
const REAPER_PREFETCH: usize = 256;
const EVENTS: &str = "router.events.v1";
const DEAD: &str = "dlq-reaper.dead.v1";

/// Publishes what nobody understands: the router makes dead letters of it, for which it needs no database.
async fn publish_rubbish(system: &System, count: usize) {
    for number in 0..count {
        let rubbish = Raw::body("a.b", format!("rubbish {number}"));
        system.amqp().await.publish_raw(&rubbish).await.unwrap();
    }
}

/// Waits until as many different dead letters are on record, each once.
async fn until_on_record(system: &System, rubbish: usize) {
    let database = system.fresh_database().await;
    let count = "SELECT count(DISTINCT payload), count(*) FROM dead_letters WHERE reason = 'poison'";
    until(&format!("{rubbish} dead letters are on record"), async || {
        let row = database.query_one(count, &[]).await.unwrap();
        let (different, all): (i64, i64) = (row.get(0), row.get(1));
        assert_eq!(different, all, "a dead letter is on record twice");
        (usize::try_from(all) == Ok(rubbish)).then_some(())
    })
    .await;
}

/// Waits until so many events are in the log.
async fn until_logged(system: &System, events: usize) {
    until(&format!("{events} events are logged"), async || {
        let logged = system.database().await.query_one("SELECT count(*) FROM events", &[]).await.unwrap();
        (usize::try_from(logged.get::<_, i64>(0)) == Ok(events)).then_some(())
    })
    .await;
}

/// Waits until exactly so many messages wait in a queue: what a service gives back shows there a moment later.
async fn until_in_queue(system: &System, queue: &str, count: usize) {
    until(&format!("{count} messages wait in {queue}"), async || {
        let depth = system.amqp().await.depth(queue).await.unwrap();
        (usize::try_from(depth) == Ok(count)).then_some(())
    })
    .await;
}

#[test]
fn while_the_database_is_away_dead_letters_wait_in_their_queue_and_readiness_names_it() {
    const RUBBISH: usize = REAPER_PREFETCH + 44;
    Setup::processes().own_servers().run(async |system| {
        system.servers().command(&["kill", "postgres"]).await;
        publish_rubbish(system, RUBBISH).await;
        for service in Service::ALL {
            until(&format!("the {} says that it lacks the database alone", service.name()), async || {
                let (status, text) = system.health(service, "/readyz").await;
                let missing: Value = serde_json::from_str(&text).unwrap();
                let missing = missing["missing"].as_object().unwrap();
                (status == 503 && missing.keys().eq(["database"])).then_some(())
            })
            .await;
            assert_eq!(
                system.health(service, "/healthz").await,
                (200.try_into().unwrap(), "ok\n".to_owned())
            );
        }
        system.until_said(Service::DlqReaper, "dead letters wait for the database").await;
        // The others are with the reaper.
        until_in_queue(system, DEAD, RUBBISH - REAPER_PREFETCH).await;
        system.servers().command(&["start", "postgres"]).await;
        until_on_record(system, RUBBISH).await;
        system.ready().await;
        assert_eq!(system.health(Service::DlqReaper, "/readyz").await.0, 200);
    });
}

#[test]
fn services_that_stop_while_the_database_is_away_end_soon_in_good_order_and_lose_nothing() {
    /// As many as a webhook that has never answered is sent at a time.
    const IN_FLIGHT: usize = 4;
    const RUBBISH: usize = 20;
    Setup::processes().own_servers().run(async |system| {
        let told = watch::Sender::new(false);
        let answer = Answer::status(200).when(&told);
        let load = Load::to(system, 30, Receiver::answering([answer]).await).await;
        let (in_flight, behind) = load.events.split_at(IN_FLIGHT);
        system.amqp().await.publish_all(in_flight).await;
        load.receiver.wait_for(IN_FLIGHT).await;
        // The router has done with them only then: it logs while it publishes.
        until_logged(system, IN_FLIGHT).await;
        system.servers().command(&["kill", "postgres"]).await;
        told.send_replace(true);
        system.amqp().await.publish_all(behind).await;
        publish_rubbish(system, RUBBISH).await;
        system.until_said(Service::Router, "events wait for the database").await;
        system.until_said(Service::Sender, "deliveries wait for the database").await;
        system.until_said(Service::DlqReaper, "dead letters wait for the database").await;
        // The router has made dead letters of all the rubbish: what the reaper has in hand counts here too.
        until("all the rubbish is with the reaper", async || {
            let queues = system.servers().rabbitmqctl(&["list_queues", "name", "messages"]).await;
            let dead = queues.iter().find(|queue| queue["name"] == DEAD)?;
            (dead["messages"] == RUBBISH).then_some(())
        })
        .await;

        let asked = Instant::now();
        for service in Service::ALL {
            system.signal(service, "TERM").await;
        }
        for service in Service::ALL {
            let ended = system.ended(service).await;
            assert_eq!(ended.code, Some(0), "the {}: {}", service.name(), ended.said);
            let took = asked.elapsed();
            assert!(took < ENDS_WITHIN, "the {} took {took:?}: {}", service.name(), ended.said);
        }
        until_in_queue(system, EVENTS, behind.len()).await;
        until_in_queue(system, DEAD, RUBBISH).await;

        system.servers().command(&["start", "postgres"]).await;
        for service in Service::ALL {
            system.start_unready(service).await;
        }
        system.ready().await;
        load.arrives().await;
        until_on_record(system, RUBBISH).await;
        system.stop_all().await;
        // Of what was in flight nobody knew that it had arrived.
        assert_eq!(load.duplicates(), IN_FLIGHT);
    });
}
