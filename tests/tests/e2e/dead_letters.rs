//! Dead letters: kept with all that is needed to understand them, and sent again one by one.

use std::time::Duration;

use cuewire::message::DeliveryMessage;
use cuewire::retry::TIERS;
use cuewire_tests::amqp::Raw;
use cuewire_tests::event::{first_delivery, id};
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Client, Receiver, Service, Webhook, until, verify};
use futures_util::future::join_all;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

#[test]
fn a_dead_letter_that_is_redriven_goes_out_again_under_its_old_id() {
    test(async |system| {
        let receiver =
            Receiver::answering([Answer::status(500), Answer::status(500), Answer::status(200)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&["1s"]).create().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let letter = organization.dead_letters(1).await.remove(0);
        let path = format!("/v1/dead-letters/{}", letter["id"].as_str().unwrap());
        let redriven = organization.admin.request(reqwest::Method::POST, &format!("{path}/redrive"));
        assert_eq!(organization.admin.send(redriven).await.status, 202);

        let requests = receiver.wait_for(3).await;
        assert!(requests.iter().all(|request| request.id() == letter["delivery_id"]));
        verify::v1(&webhook.secret, &requests[2]).unwrap();
        organization.delivery(id(&event), &webhook, "delivered").await;
        let letter = organization.admin.get(&path).await.expect(200);
        assert!(letter["redriven_at"].is_string(), "{letter}");
        system.stop_all().await;
        assert_eq!(receiver.count(), 3);
    });
}

#[test]
fn a_dead_letter_that_several_people_redrive_at_once_goes_out_once() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(500), Answer::status(200)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&[]).create().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let letter = organization.dead_letters(1).await.remove(0);
        let redrive = format!("/v1/dead-letters/{}/redrive", letter["id"].as_str().unwrap());
        let retry = format!("/v1/deliveries/{}/retry", letter["delivery_id"].as_str().unwrap());
        let body = json!({});
        // Else it could have arrived by the time of the last click, and be retried once more.
        system.stop(Service::Sender).await;
        let clicks = (0..10)
            .map(|number| organization.admin.post(if number % 2 == 0 { &redrive } else { &retry }, &body));
        let statuses: Vec<u16> = join_all(clicks).await.iter().map(|reply| reply.status.as_u16()).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 9, "{statuses:?}");
        system.start(Service::Sender).await;
        organization.delivery(id(&event), &webhook, "delivered").await;
        system.stop_all().await;
        assert_eq!(receiver.count(), 2);
    });
}

#[test]
fn a_redrive_whose_record_was_lost_with_the_api_is_repeated_as_the_same_work() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(500), Answer::status(200)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&[]).create().await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let letter = organization.dead_letters(1).await.remove(0);
        let path = format!("/v1/dead-letters/{}/redrive", letter["id"].as_str().unwrap());
        let first = organization.admin.post(&path, &json!({})).await.expect(202);
        organization.delivery(id(&event), &webhook, "delivered").await;

        // As a crash leaves it that comes between publishing and marking: claimed, and first for a while.
        let crash = async |lease: &str| {
            let sql =
                format!("UPDATE dead_letters SET redriven_at = NULL, claimed_until = now() + '{lease}'");
            system.database().await.batch_execute(&sql).await.unwrap();
        };
        crash("1 minute").await;
        let _ = organization.admin.post(&path, &json!({})).await.problem(409);
        crash("0").await;
        let again = organization.admin.post(&path, &json!({})).await.expect(202);
        assert_eq!(again, first);
        system.stop_all().await;
        assert_eq!(receiver.count(), 2, "the attempt of that round is on record");
    });
}

#[test]
fn a_redriven_delivery_that_fails_again_is_a_dead_letter_again() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(500)]).await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).schedule(&[]).create().await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        let first = organization.dead_letters(1).await.remove(0);
        let path = format!("/v1/dead-letters/{}/redrive", first["id"].as_str().unwrap());
        let _ = organization.admin.post(&path, &json!({})).await.expect(202);
        let letters = organization.dead_letters(2).await;
        assert!(letters.iter().all(|letter| letter["delivery_id"] == first["delivery_id"]));
        system.stop_all().await;
        assert_eq!(receiver.count(), 2);
    });
}

#[test]
fn an_event_that_was_rejected_can_be_redriven_once_its_organization_exists() {
    test(async |system| {
        let event = cuewire_tests::event("a.b", "to-be-made");
        system.amqp().await.publish(&event).await;
        let operator = system.operator();
        let letter = until("the operator sees the dead letter", async || {
            let letters = operator.get("/v1/dead-letters").await.expect(200);
            letters["data"].as_array().unwrap().first().cloned()
        })
        .await;
        assert_eq!((&letter["reason"], &letter["organization"]), (&json!("rejected"), &json!(null)));
        let detail = letter["detail"].as_str().unwrap();
        assert!(detail.contains("to-be-made"), "{detail}");

        let receiver = Receiver::healthy().await;
        let organization = system.organization_named("to-be-made").await;
        organization.webhook(receiver.url("/")).create().await;
        let path = format!("/v1/dead-letters/{}/redrive", letter["id"].as_str().unwrap());
        let _ = operator.post(&path, &json!({})).await.expect(202);
        assert_eq!(receiver.wait_for(1).await[0].event_id(), id(&event));
    });
}

/// A delivery's message as it is after nearly 72 hours of retries, with this much time left.
fn nearly_expired(event: &Value, webhook: &Webhook, left: Duration) -> DeliveryMessage {
    DeliveryMessage { deadline: OffsetDateTime::now_utc() + left, ..first_delivery(event, webhook) }
}

#[test]
fn a_delivery_whose_deadline_passes_while_it_waits_is_dead_and_a_redrive_gives_it_a_new_one() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).create().await;
        let event = organization.event("a.b");
        let late = nearly_expired(&event, &webhook, Duration::from_millis(500));
        system.amqp().await.publish_raw(&late.publication_after(TIERS[0]).into()).await.unwrap();
        let letter = organization.dead_letters(1).await.remove(0);
        assert_eq!((&letter["reason"], &letter["last_attempt"]), (&json!("expired"), &json!(null)));
        assert_eq!(letter["delivery_id"], late.delivery.to_string());
        assert!(letter["detail"].as_str().unwrap().contains("72 hours"), "{letter}");
        assert_eq!(receiver.count(), 0);
        let path = format!("/v1/dead-letters/{}/redrive", letter["id"].as_str().unwrap());
        let _ = organization.admin.post(&path, &json!({})).await.expect(202);
        assert_eq!(receiver.wait_for(1).await[0].id(), letter["delivery_id"]);
    });
}

#[test]
fn a_delivery_whose_next_attempt_would_be_after_its_deadline_is_dead_at_once() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(503)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).schedule(&["2s", "1h"]).create().await;
        let event = organization.event("a.b");
        let late = nearly_expired(&event, &webhook, Duration::from_secs(60));
        system.amqp().await.publish_raw(&late.publication().into()).await.unwrap();
        let letter = organization.dead_letters(1).await.remove(0);
        assert_eq!(letter["reason"], "expired");
        let last = &letter["last_attempt"];
        assert_eq!((&last["number"], &last["status"]), (&json!(2), &json!(503)), "the first was in time");
        system.stop_all().await;
        assert_eq!(receiver.count(), 2);
    });
}

#[test]
fn a_message_that_is_not_understood_twice_is_one_dead_letter_and_another_like_it_one_more() {
    test(async |system| {
        let amqp = system.amqp().await;
        let garbage = |message_id: Option<&str>| {
            Raw::body("a.b", "not JSON").properties(|properties| match message_id {
                Some(id) => properties.with_message_id(id.into()),
                None => properties,
            })
        };
        for message_id in [Some("1"), Some("2"), None, Some("1"), None] {
            amqp.publish_raw(&garbage(message_id)).await.unwrap();
        }
        // What comes behind them.
        amqp.publish_raw(&Raw::body("a.b", "the last")).await.unwrap();
        let count = "SELECT count(*), count(*) FILTER (WHERE payload = 'the last') FROM dead_letters";
        until("the last is on record", async || {
            let row = system.database().await.query_one(count, &[]).await.unwrap();
            (row.get::<_, i64>(1) == 1).then_some(())
        })
        .await;
        system.stop_all().await;
        let letters: i64 = system.database().await.query_one(count, &[]).await.unwrap().get(0);
        assert_eq!(letters, 4);
    });
}

#[test]
fn dead_letters_are_found_by_webhook_and_reason_and_what_is_nobodys_by_the_operator() {
    test(async |system| {
        let receiver =
            Receiver::start(|request, _| Answer::status(if request.path == "/gone" { 410 } else { 500 }))
                .await;
        let (organization, stranger) = (system.organization().await, system.organization().await);
        let broken =
            organization.webhook(receiver.url("/broken")).types(&["a.*"]).schedule(&[]).create().await;
        let gone = organization.webhook(receiver.url("/gone")).types(&["b.*"]).create().await;
        let amqp = system.amqp().await;
        for event_type in ["a.b", "b.c", "a.d"] {
            amqp.publish(&organization.event(event_type)).await;
        }
        let mut no_type = organization.event("a.b");
        no_type["type"] = "none".into();
        amqp.publish_raw(&Raw::body("a.b", no_type.to_string())).await.unwrap();
        amqp.publish_raw(&Raw::body("a.b", "not an event")).await.unwrap();
        amqp.publish(&cuewire_tests::event("a.b", "nobody-at-all")).await;
        organization.dead_letters(4).await;
        let operator = system.operator();
        let found = async |api: &Client, query: &str| {
            let letters = api.get(&format!("/v1/dead-letters?{query}")).await.expect(200);
            let letters = letters["data"].as_array().unwrap().iter();
            letters.map(|it| it["reason"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        until("the operator has two", async || (found(&operator, "").await.len() == 2).then_some(())).await;

        let (broken, gone) = (&broken.id, &gone.id);
        let admin = &organization.admin;
        for (api, query, reasons) in [
            (admin, format!("webhook_id={broken}"), &["exhausted", "exhausted"][..]),
            (admin, format!("webhook_id={gone}"), &["gone"]),
            (admin, format!("webhook_id={broken}&reason=exhausted"), &["exhausted", "exhausted"]),
            (admin, format!("webhook_id={broken}&reason=gone"), &[]),
            (admin, "reason=poison".to_owned(), &["poison"]),
            (admin, "reason=expired".to_owned(), &[]),
            (admin, format!("webhook_id={}", Uuid::nil()), &[]),
            (&stranger.admin, format!("webhook_id={broken}"), &[]),
            (&stranger.admin, String::new(), &[]),
            (&operator, "reason=poison".to_owned(), &["poison"]),
            (&operator, "reason=rejected".to_owned(), &["rejected"]),
            (&operator, "reason=exhausted".to_owned(), &[]),
            (&operator, format!("webhook_id={broken}"), &[]),
        ] {
            assert_eq!(found(api, &query).await, reasons, "{query}");
        }
        for (query, field) in [
            ("webhook_id=7", "webhook_id"),
            ("webhook_id=", "webhook_id"),
            ("reason=because", "reason"),
            ("reason=", "reason"),
            ("reason=GONE", "reason"),
        ] {
            let reply = admin.get(&format!("/v1/dead-letters?{query}")).await;
            assert_eq!(reply.json["field"], field, "{}", reply.text);
            let _ = reply.problem(422);
        }
        let problem = admin.get("/v1/dead-letters?colour=red").await.problem(400);
        assert!(problem.contains("colour"), "{problem}");
    });
}
