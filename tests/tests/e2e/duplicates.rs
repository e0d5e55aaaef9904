//! An event that is published twice is delivered once; what only looks like it, twice.

use cuewire_tests::amqp::Raw;
use cuewire_tests::event::id;
use cuewire_tests::system::test;
use cuewire_tests::{Receiver, Service, Setup, until};
use lapin::types::{AMQPValue, FieldTable};

#[test]
fn a_repeated_event_is_delivered_once() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        let amqp = system.amqp().await;
        let event = organization.event("a.b");
        // Within one batch, later over AMQP, and later over HTTP.
        amqp.publish_all(&[event.clone(), event.clone(), event.clone()]).await;
        receiver.wait_for(1).await;
        amqp.publish(&event).await;
        let _ = organization.admin.post("/v1/events", &event).await.expect(202);
        system.stop_all().await;
        assert_eq!(receiver.count(), 1);
    });
}

#[test]
fn repeats_that_reach_two_routers_keep_one_delivery_id() {
    Setup::default().replicas(Service::Router, 2).run(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        let events = cuewire_tests::event::events(100, "a.b", &organization.id);
        let twice: Vec<_> = events.iter().flat_map(|event| [event.clone(), event.clone()]).collect();
        system.amqp().await.publish_all(&twice).await;
        receiver.wait_for(100).await;
        system.stop_all().await;
        let ids: std::collections::BTreeSet<_> =
            receiver.requests().iter().map(|request| (request.event_id(), request.id().to_owned())).collect();
        assert_eq!(ids.len(), 100, "one webhook-id for each event");
    });
}

#[test]
fn another_source_or_another_organization_makes_another_event() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let (one, other) = (system.organization().await, system.organization().await);
        one.webhook(receiver.url("/one")).create().await;
        other.webhook(receiver.url("/other")).create().await;
        let event = one.event("a.b");
        let mut elsewhere = event.clone();
        elsewhere["source"] = "/elsewhere".into();
        let mut others = event.clone();
        others["organization"] = other.id.clone().into();
        system.amqp().await.publish_all(&[event.clone(), elsewhere, others]).await;
        let requests = receiver.wait_for(3).await;
        let mut seen: Vec<_> = requests
            .iter()
            .map(|request| (request.path.as_str(), request.json()["source"].as_str().unwrap().to_owned()))
            .collect();
        seen.sort();
        let expected = [("/one", "/elsewhere"), ("/one", "/tests"), ("/other", "/tests")];
        assert_eq!(seen, expected.map(|(path, source)| (path, source.to_owned())));
        assert!(requests.iter().all(|request| request.event_id() == id(&event)));
        system.stop_all().await;
        assert_eq!(receiver.count(), 3);
    });
}

#[test]
fn a_publisher_with_an_exchange_of_its_own_cannot_ask_for_a_repeat() {
    Setup::default().variable("CUEWIRE_PUBLISHERS", "encoder=a").run(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        let event = organization.event("a.b");
        let amqp = system.amqp().await;
        amqp.publish(&event).await;
        receiver.wait_for(1).await;
        let mut headers = FieldTable::default();
        headers.insert("cuewire-again".into(), AMQPValue::LongString("true".into()));
        let again = Raw::event(&event).to("events.in.encoder").properties(|it| it.with_headers(headers));
        amqp.publish_raw(&again).await.unwrap();
        system.stop_all().await;
        assert_eq!(receiver.count(), 1);
    });
}

#[test]
fn an_event_that_is_routed_again_after_midnight_keeps_the_day_of_its_attempts() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).create().await;
        let (amqp, database) = (system.amqp().await, system.database().await);
        // What a router leaves that breaks off a moment before midnight: the event on record, and its message
        // in the queue, delivered once.
        system.stop(Service::Router).await;
        let event = organization.event("a.b");
        amqp.publish(&event).await;
        let insert = format!(
            "INSERT INTO events
             SELECT day, '{}', '/tests', '{}', 'a.b', 'a', NULL, (day + 1)::timestamp AT TIME ZONE 'utc' - interval '1 ms',
                    convert_to('{event}', 'utf8'), '{{{}}}'
             FROM (SELECT (now() AT TIME ZONE 'utc')::date - 1) AS yesterday (day)",
            organization.id,
            id(&event),
            webhook.id,
        );
        database.batch_execute(&insert).await.unwrap();
        until("the message has been delivered once", async || amqp.give_back("router.events.v1").await).await;
        system.start(Service::Router).await;
        organization.delivery(id(&event), &webhook, "delivered").await;
        let days = "SELECT attempts.day = events.day AND events.day < (now() AT TIME ZONE 'utc')::date
                    FROM events, attempts";
        let days: bool = database.query_one(days, &[]).await.unwrap().get(0);
        assert!(days, "one record of the event, and its attempt on the same day");
        system.stop_all().await;
        assert_eq!(receiver.count(), 1);
    });
}
