//! What a queue or the reaper itself gives up: it is sent again once, or kept where a person finds it.

use cuewire_tests::amqp::Amqp;
use cuewire_tests::event::id;
use cuewire_tests::system::test;
use cuewire_tests::{Client, Receiver, Service, Setup, System, until};
use serde_json::{Value, json};

const ROUTER: &str = "router.events.v1";
/// The queues' limit, and the delivery that is one too many.
const TOO_OFTEN: usize = 51;

/// Gives the message that is in one of the queues back until its queue gives it up.
async fn give_back_too_often(amqp: &Amqp, queues: &[&str]) {
    let mut times = 0;
    until(&format!("{queues:?} deliver {TOO_OFTEN} times"), async || {
        for queue in queues {
            times += usize::from(amqp.give_back(queue).await.is_some());
        }
        (times == TOO_OFTEN).then_some(())
    })
    .await;
}

/// Every dead letter in the reach of a key, oldest first, when there are as many.
async fn letters(system: &System, api: &Client, count: usize) -> Vec<Value> {
    let sql = "SELECT id::text FROM dead_letters ORDER BY created_at, id";
    let ids = until(&format!("there are {count} dead letters"), async || {
        let rows = system.database().await.query(sql, &[]).await.unwrap();
        (rows.len() == count).then(|| rows.iter().map(|row| row.get(0)).collect::<Vec<String>>())
    })
    .await;
    let mut letters = Vec::new();
    for id in ids {
        letters.push(api.get(&format!("/v1/dead-letters/{id}")).await.expect(200));
    }
    letters
}

fn detail(letter: &Value) -> &str {
    letter["detail"].as_str().unwrap()
}

/// Whether nothing is due to be sent again by itself.
async fn nothing_is_due(system: &System) -> bool {
    let sql = "SELECT count(*) FROM dead_letters WHERE redrive_at IS NOT NULL";
    system.database().await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
}

#[test]
fn an_event_that_was_delivered_too_often_is_sent_again_once_by_itself_and_arrives() {
    let setup = Setup::default().variable("CUEWIRE_REDRIVE_AFTER", "2s");
    setup.run(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        let api = &organization.admin;
        system.stop(Service::Router).await;
        let (amqp, event) = (system.amqp().await, organization.event("a.b"));
        amqp.publish(&event).await;
        give_back_too_often(amqp, &[ROUTER]).await;

        let letter = letters(system, api, 1).await.remove(0);
        assert_eq!((&letter["reason"], &letter["event"]["id"]), (&json!("poison"), &event["id"]));
        assert!(detail(&letter).contains("delivered too often"), "{letter}");
        assert_eq!(receiver.count(), 0);
        system.start(Service::Router).await;
        assert_eq!(receiver.wait_for(1).await[0].event_id(), id(&event));
        until("it is on record as sent again", async || {
            letters(system, api, 1).await[0]["redriven_at"].is_string().then_some(())
        })
        .await;
        system.stop_all().await;
        assert_eq!(receiver.count(), 1);
    });
}

#[test]
fn a_message_that_was_delivered_too_often_a_second_time_stays_dead_until_somebody_redrives_it() {
    let setup = Setup::default().variable("CUEWIRE_REDRIVE_AFTER", "2s");
    setup.run(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        let api = &organization.admin;
        let mut arrived = 0;
        for (service, queues) in [
            (Service::Router, vec![ROUTER]),
            (
                Service::Sender,
                vec!["sender.fresh.0.v1", "sender.fresh.1.v1", "sender.due.0.v1", "sender.due.1.v1"],
            ),
        ] {
            let known = system.database().await.query("SELECT FROM dead_letters", &[]).await.unwrap().len();
            system.stop(service).await;
            let amqp = system.amqp().await;
            amqp.publish(&organization.event("a.b")).await;
            give_back_too_often(amqp, &queues).await;
            give_back_too_often(amqp, &queues).await;
            let second = letters(system, api, known + 2).await.pop().unwrap();
            assert!(detail(&second).contains("as when it was first sent"), "{second}");
            assert!(nothing_is_due(system).await);
            system.start(service).await;
            let path = format!("/v1/dead-letters/{}/redrive", second["id"].as_str().unwrap());
            let _ = api.post(&path, &json!({})).await.expect(202);
            arrived += 1;
            receiver.wait_for(arrived).await;
        }
        system.stop_all().await;
        assert_eq!(receiver.count(), arrived);
    });
}

#[test]
fn what_even_the_database_cannot_hold_is_parked_whole_and_the_queue_moves_on() {
    test(async |system| {
        let database = system.database().await;
        let refuse = "ALTER TABLE dead_letters ADD CONSTRAINT refused CHECK (event_id <> 'refused')";
        database.batch_execute(refuse).await.unwrap();
        // Nobody's events, each of which becomes a dead letter; they are put on record together.
        let mut events = cuewire_tests::event::events(20, "a.b", "nobody");
        events[7]["id"] = "refused".into();
        let amqp = system.amqp().await;
        amqp.publish_all(&events).await;
        let recorded = letters(system, &system.operator(), 19).await;
        assert!(recorded.iter().all(|letter| letter["reason"] == "rejected"));

        let parked = until("one message is parked", async || amqp.take("parking.v1").await).await;
        let body: Value = serde_json::from_slice(&parked.body).unwrap();
        assert_eq!(body, events[7]);
        assert_eq!(parked.routing_key, "a.rejected");

        // An operator who has mended the database moves it back, and it is on record like the others.
        database.batch_execute("ALTER TABLE dead_letters DROP CONSTRAINT refused").await.unwrap();
        amqp.publish_raw(&parked.to("dead")).await.unwrap();
        let recorded = letters(system, &system.operator(), 20).await.pop().unwrap();
        assert_eq!((&recorded["event"]["id"], &recorded["reason"]), (&json!("refused"), &json!("rejected")));
        assert!(detail(&recorded).contains("nobody"), "{recorded}");
    });
}

#[test]
fn a_parked_message_is_kept_however_often_somebody_looks_at_it() {
    test(async |system| {
        let amqp = system.amqp().await;
        let raw = cuewire_tests::amqp::Raw::body("a.b", "x").to("parking");
        amqp.publish_raw(&raw).await.unwrap();
        let mut looked = 0;
        until("it has been looked at a hundred times", async || {
            looked += usize::from(amqp.give_back("parking.v1").await.is_some());
            (looked == 100).then_some(())
        })
        .await;
        let kept = until("it is still there", async || amqp.take("parking.v1").await).await;
        assert_eq!(kept.body, b"x");
    });
}
