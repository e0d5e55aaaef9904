//! Rate limits of webhooks, and shares of organizations.

use std::time::Duration;

use cuewire_tests::event::id;
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Receiver, Request, Service, Setup, until};
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};
use tokio::sync::watch;

#[test]
fn a_rate_limit_is_kept_and_used_by_two_senders_and_nothing_is_lost() {
    Setup::default().replicas(Service::Sender, 2).run(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).with("rate_limit_per_second", 10);
        let webhook = webhook.create().await;
        assert_eq!(webhook.json["rate_limit_per_second"], 10);
        organization.in_effect().await;
        until("both senders know of each other", async || {
            (system.sum(Service::Sender, "cuewire_sender_peers").await == 4.0).then_some(())
        })
        .await;

        let events: Vec<Value> = (0..200).map(|_| organization.event("feeds.started")).collect();
        let limited_webhooks = async |expected: f64| {
            until(&format!("a sender tells that it limits {expected} webhooks"), async || {
                let cause = [("cause", "limited")];
                let told = system.metric(Service::Sender, "cuewire_sender_webhooks_put_off", &cause).await?;
                (told == expected).then_some(())
            })
            .await;
        };
        system.amqp().await.publish_all(&events).await;
        limited_webhooks(1.0).await;
        let requests = receiver.wait_within(Duration::from_secs(40), 200).await;
        for (at, request) in requests.iter().enumerate() {
            let within = |other: &&Request| other.at - request.at < Duration::from_secs(1);
            let second = requests[at..].iter().take_while(within).count();
            // Ten, and what two senders let through at the edges.
            assert!(second <= 12, "{second} within a second from the request {at} on");
        }
        let took = requests[199].at - requests[0].at;
        assert!((18..23).contains(&took.as_secs()), "200 at 10 a second took {took:?}");
        limited_webhooks(0.0).await;
        let stats = format!("/v1/webhooks/{}/stats", webhook.id);
        until("its statistics tell that most of them had to wait for the limit", async || {
            let stats = organization.admin.get(&stats).await.expect(200);
            let limited = stats["data"].as_array()?.iter().filter_map(|minute| minute["limited"].as_u64());
            (limited.sum::<u64>() >= 150).then_some(())
        })
        .await;
        system.stop_all().await;
        assert_eq!(receiver.count(), 200);
    });
}

#[test]
fn what_waits_for_a_limit_that_is_raised_or_removed_comes_before_its_place() {
    test(async |system| {
        let organization = system.organization().await;
        let (raised, removed) = (Receiver::healthy().await, Receiver::healthy().await);
        let limited = async |receiver: &Receiver| {
            organization.webhook(receiver.url("/")).with("rate_limit_per_second", 1).create().await
        };
        let webhooks = [limited(&raised).await, limited(&removed).await];
        organization.in_effect().await;
        let events: Vec<Value> = (0..100).map(|_| organization.event("feeds.started")).collect();
        system.amqp().await.publish_all(&events).await;
        // Most of the deliveries to both webhooks.
        system.wait_until_parked("limited", 181).await;
        for (webhook, limit) in webhooks.iter().zip([json!(1_000), Value::Null]) {
            organization.change(webhook, &json!({ "rate_limit_per_second": limit })).await;
        }
        // At 1 a second the last would come after 100 s.
        for receiver in [raised, removed] {
            receiver.wait_within(Duration::from_secs(60), 100).await;
        }
    });
}

#[test]
fn what_the_limit_let_through_to_a_busy_receiver_does_not_stand_in_line_again() {
    test(async |system| {
        let (answering, _) = watch::channel(false);
        let told = answering.clone();
        let receiver = Receiver::start(move |_, before| match before {
            [] => Answer::status(204).when(&told),
            _ => Answer::status(204),
        })
        .await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).with("rate_limit_per_second", 10);
        webhook.with("max_in_flight", 1).create().await;
        organization.in_effect().await;
        let amqp = system.amqp().await;

        amqp.publish(&organization.event("feeds.started")).await;
        receiver.wait_for(1).await;
        let event = organization.event("feeds.started");
        amqp.publish(&event).await;
        system.wait_until_parked("busy", 1).await;
        // A line of ten seconds.
        let later: Vec<Value> = (0..100).map(|_| organization.event("feeds.started")).collect();
        amqp.publish_all(&later).await;
        system.wait_until_parked("limited", 1).await;
        answering.send_replace(true);
        let requests = receiver.wait_within(Duration::from_secs(30), 102).await;
        let before_it = requests.iter().take_while(|request| request.event_id() != id(&event)).count();
        assert!(before_it < 60, "{before_it} were sent before it, and all but one came after it");
    });
}

#[test]
fn a_chat_webhook_keeps_to_what_its_service_takes_unless_it_has_a_limit_of_its_own() {
    test(async |system| {
        let organization = system.organization().await;
        let limit = async |format: &str, own: Value| {
            let webhook = organization.webhook("http://1.1.1.1/").with("format", format);
            webhook.with("rate_limit_per_second", own).create().await.json["rate_limit_per_second"].clone()
        };
        assert_eq!(limit("slack", Value::Null).await, 1);
        assert_eq!(limit("google_chat", Value::Null).await, 1);
        assert_eq!(limit("teams", Value::Null).await, 2);
        assert_eq!(limit("standard", Value::Null).await, Value::Null);
        assert_eq!(limit("slack", json!(5)).await, 5);
    });
}

#[test]
fn what_exceeds_an_organizations_share_goes_by_the_bulk_lane_and_arrives() {
    Setup::default().variable("CUEWIRE_FRESH_SHARE_PER_SECOND", "5").run(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        organization.in_effect().await;
        // An operator's own queue for a category's bulk deliveries.
        let channel = system.amqp().await.channel().await;
        channel
            .queue_declare("operators.own".into(), QueueDeclareOptions::durable(), FieldTable::default())
            .await
            .unwrap();
        let (queue, key) = ("operators.own", "feeds.bulk.*");
        channel
            .queue_bind(
                queue.into(),
                "deliveries".into(),
                key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();

        let events: Vec<Value> = (0..50).map(|_| organization.event("feeds.started")).collect();
        system.amqp().await.publish_all(&events).await;
        receiver.wait_for(50).await;
        let copied = until("the bulk lane has most of them", async || {
            system.amqp().await.depth("operators.own").await.ok().filter(|depth| *depth >= 40)
        })
        .await;
        assert!(copied <= 45, "{copied} of 50 exceed a share of five a second");
    });
}
