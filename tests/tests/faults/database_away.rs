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
const REAPER_PREFETCH: u32 = 256;
const DEAD: &str = "dlq-reaper.dead.v1";

/// Publishes what nobody understands: the router makes dead letters of it, for which it needs no database.
async fn publish_rubbish(system: &System, count: u32) {
    for number in 0..count {
        let rubbish = Raw::body("a.b", format!("rubbish {number}"));
        system.amqp().await.publish_raw(&rubbish).await.unwrap();
    }
}

/// The different dead letters on record, and all of them.
async fn rubbish_on_record(system: &System) -> (i64, i64) {
    let count = "SELECT count(DISTINCT payload), count(*) FROM dead_letters WHERE reason = 'poison'";
    let row = system.fresh_database().await.query_one(count, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

async fn until_on_record(system: &System, rubbish: u32) {
    until("every dead letter is on record, once", async || {
        (rubbish_on_record(system).await == (rubbish.into(), rubbish.into())).then_some(())
    })
    .await;
}

/// Waits until a service has said that something waits for the database.
async fn until_it_waits(system: &System, service: Service, what: &str) {
    let line = format!("{what} wait for the database");
    until(&format!("the {} says: {line}", service.name()), async || {
        system.said(service).await.iter().any(|said| said.contains(&line)).then_some(())
    })
    .await;
}

#[test]
fn while_the_database_is_away_dead_letters_wait_in_their_queue_and_readiness_names_it() {
    const RUBBISH: u32 = REAPER_PREFETCH + 44;
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
        until_it_waits(system, Service::DlqReaper, "dead letters").await;
        until("what the reaper has no room for waits in the queue", async || {
            (system.amqp().await.depth(DEAD).await.unwrap() == RUBBISH - REAPER_PREFETCH).then_some(())
        })
        .await;
        system.servers().command(&["start", "postgres"]).await;
        until_on_record(system, RUBBISH).await;
        system.ready().await;
        assert_eq!(system.health(Service::DlqReaper, "/readyz").await.0, 200);
    });
}

#[test]
fn services_that_stop_while_the_database_is_away_end_soon_in_good_order_and_lose_nothing() {
    const IN_FLIGHT: usize = 4;
    const RUBBISH: u32 = 20;
    Setup::processes().own_servers().run(async |system| {
        let told = watch::Sender::new(false);
        let answer = Answer::status(200).when(&told);
        let load = Load::to(system, 30, Receiver::answering([answer]).await).await;
        let (in_flight, behind) = load.events.split_at(IN_FLIGHT);
        system.amqp().await.publish_all(in_flight).await;
        load.receiver.wait_for(IN_FLIGHT).await;
        system.servers().command(&["kill", "postgres"]).await;
        told.send_replace(true);
        system.amqp().await.publish_all(behind).await;
        publish_rubbish(system, RUBBISH).await;
        until_it_waits(system, Service::Router, "events").await;
        until_it_waits(system, Service::Sender, "deliveries").await;
        until_it_waits(system, Service::DlqReaper, "dead letters").await;

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
        let amqp = system.amqp().await;
        assert_eq!(amqp.depth("router.events.v1").await.unwrap() as usize, behind.len());
        assert_eq!(amqp.depth(DEAD).await.unwrap(), RUBBISH);

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
