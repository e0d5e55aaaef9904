//! What bad input gets: a sentence, and never a halt.

use cuewire_tests::amqp::Raw;
use cuewire_tests::event::id;
use cuewire_tests::system::test;
use cuewire_tests::{Receiver, Service, Setup, until};
use lapin::types::AMQPValue;
use reqwest::Method;
use serde_json::{Value, json};

use crate::headers::{table, text};

#[test]
fn a_message_that_is_not_understood_is_kept_whole_with_what_is_wrong_and_the_queue_moves_on() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        let without = |name: &str| {
            let mut event = organization.event("a.b");
            event.as_object_mut().unwrap().remove(name);
            Raw::body("a.b", event.to_string())
        };
        let with = |name: &str, value: Value| {
            let mut event = organization.event("a.b");
            event[name] = value;
            Raw::body("a.b", event.to_string())
        };
        let binary = |headers: &[(&str, AMQPValue)]| {
            let all = [&[("ce-id", text("1")), ("ce-source", text("/s")), ("ce-type", text("a.b"))], headers];
            let table = table(&all.concat());
            Raw::body("a.b", "{}").properties(|properties| {
                properties.with_content_type("application/json".into()).with_headers(table)
            })
        };
        let bad = [
            ("JSON", Raw::body("a.b", "not JSON")),
            ("JSON", Raw::body("a.b", "")),
            ("JSON", Raw::body("a.b", "[]")),
            ("`id` is missing", without("id")),
            ("`source` is missing", without("source")),
            ("`type` is missing", without("type")),
            ("`type`", with("type", "nocategory".into())),
            ("`type`", with("type", "a..b".into())),
            ("`time`", with("time", "yesterday".into())),
            ("`specversion`", with("specversion", "2.0".into())),
            ("262144", with("data", "x".repeat(256 * 1024).into())),
            (
                "content type",
                Raw::body("a.b", "x").properties(|it| it.with_content_type("text/plain".into())),
            ),
            ("ce-n", binary(&[("ce-n", AMQPValue::Double(1.5))])),
            ("ce-time", binary(&[("ce-time", AMQPValue::Timestamp(1))])),
        ];
        let amqp = system.amqp().await;
        for (_, message) in &bad {
            amqp.publish_raw(message).await.unwrap();
        }
        let good = organization.event("a.b");
        amqp.publish(&good).await;
        assert_eq!(receiver.wait_for(1).await[0].event_id(), id(&good));

        // Where the organization can still be read, it is told; else the operator is.
        let operator = system.operator();
        let letters = until("every one of them is a dead letter", async || {
            let mut all = Vec::new();
            for (api, count) in [(&operator, 6), (&organization.admin, 8)] {
                let letters = api.get("/v1/dead-letters?limit=100").await.expect(200);
                let letters = letters["data"].as_array().filter(|letters| letters.len() == count)?;
                all.extend(letters.clone());
            }
            Some(all)
        })
        .await;
        let database = system.database().await;
        let rows =
            database.query("SELECT payload, detail, routing_key FROM dead_letters", &[]).await.unwrap();
        for (sentence, message) in &bad {
            let fits = rows.iter().any(|row| {
                row.get::<_, Vec<u8>>(0) == message.body
                    && row.get::<_, String>(1).contains(sentence)
                    && row.get::<_, String>(2) == message.routing_key
            });
            let details: Vec<String> = rows.iter().map(|row| row.get(1)).collect();
            assert!(fits, "no dead letter has this whole and says {sentence}: {details:#?}");
        }
        assert!(letters.iter().all(|letter| letter["reason"] == "poison" && letter["category"] == "unknown"));
        system.stop_all().await;
        assert_eq!(receiver.count(), 1);
    });
}

#[test]
fn an_event_that_its_publisher_lets_expire_in_the_queue_is_a_dead_letter_that_is_sent_again_by_itself() {
    let setup = Setup::default().variable("CUEWIRE_REDRIVE_AFTER", "1s");
    setup.run(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        system.stop(Service::Router).await;
        let event = organization.event("a.b");
        let short_lived = Raw::event(&event).properties(|properties| properties.with_expiration("1".into()));
        let amqp = system.amqp().await;
        amqp.publish_raw(&short_lived).await.unwrap();
        let letter = organization.dead_letters(1).await.remove(0);
        let path = format!("/v1/dead-letters/{}", letter["id"].as_str().unwrap());
        let letter = organization.admin.get(&path).await.expect(200);
        assert_eq!(letter["event"]["id"], event["id"]);
        assert!(letter["detail"].as_str().unwrap().contains("expire"), "{letter}");

        until("it is sent again", async || {
            (amqp.depth("router.events.v1").await.unwrap() == 1).then_some(())
        })
        .await;
        // Nothing that was asked for the first time is asked for again: it waits as long as it must.
        let again = amqp.give_back("router.events.v1").await.expect("it is there");
        assert_eq!(again.properties.expiration(), &None);
        system.start(Service::Router).await;
        assert_eq!(receiver.wait_for(1).await[0].event_id(), id(&event));
        system.stop_all().await;
        assert_eq!(receiver.count(), 1);
    });
}

#[test]
fn an_event_over_http_that_is_not_right_is_refused_with_the_field_and_the_reason() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        let api = &organization.admin;
        let event = |change: Value| {
            let mut event = json!({"id": "1", "source": "/s", "type": "a.b"});
            for (name, value) in change.as_object().unwrap() {
                event[name] = value.clone();
            }
            event.to_string()
        };
        let json_type = "application/json";
        let large = event(json!({"data": "x".repeat(256 * 1024)}));
        let many: Value =
            (0..1_001).map(|id| json!({"id": id.to_string(), "source": "/s", "type": "a.b"})).collect();
        for (status, content_type, body, part) in [
            (400, json_type, "not JSON".to_owned(), "JSON"),
            (400, json_type, String::new(), "JSON"),
            (422, json_type, event(json!({"type": "nocategory"})), "type"),
            (422, json_type, event(json!({"source": null})), "source"),
            (422, json_type, event(json!({"source": 7})), "source"),
            (422, json_type, event(json!({"time": "yesterday"})), "time"),
            (422, json_type, event(json!({"NOT-A-NAME": "x"})), "NOT-A-NAME"),
            (403, json_type, event(json!({"organization": "somebody-else"})), "organization"),
            (413, json_type, large, "262144"),
            (413, json_type, many.to_string(), "1000"),
            (415, "text/plain", "hello".to_owned(), "application/cloudevents+json"),
        ] {
            let detail = api.body(Method::POST, "/v1/events", content_type, body).await.problem(status);
            let plain = detail.replace(',', "").to_lowercase();
            assert!(plain.contains(&part.to_lowercase()), "{status} {part}: {detail}");
        }
        // One bad event in a batch: nothing is accepted, and the bad one is named.
        let batch = json!([
            {"id": "0", "source": "/s", "type": "a.b"},
            {"id": "1", "source": "/s", "type": "a.b"},
            {"id": "2", "source": "/s", "type": "bad"},
        ]);
        let reply = api.post("/v1/events", &batch).await;
        assert!(reply.text.contains('2') && reply.text.contains("type"), "{}", reply.text);
        let _ = reply.problem(422);
        system.stop_all().await;
        assert_eq!(receiver.count(), 0);
    });
}

#[test]
fn a_webhook_that_is_not_right_is_refused_with_the_field_and_the_reason() {
    test(async |system| {
        let organization = system.organization().await;
        let api = &organization.admin;
        let url = "http://127.0.0.1:9/";
        for (webhook, field) in [
            (json!({}), "url"),
            (json!({"url": 7}), "url"),
            (json!({"url": url, "event_types": ["recordings"]}), "event_types"),
            (json!({"url": url, "event_types": "recordings.*"}), "event_types"),
            (json!({"url": url, "format": "carrier-pigeon"}), "format"),
            (json!({"url": url, "retry_schedule": ["soon"]}), "retry_schedule"),
            (json!({"url": url, "retry_schedule": ["100h"]}), "retry_schedule"),
            (json!({"url": url, "max_in_flight": 0}), "max_in_flight"),
            (json!({"url": url, "timeout_ms": 60_000}), "timeout_ms"),
            (json!({"url": url, "rate_limit_per_second": 0}), "rate_limit_per_second"),
            (json!({"url": url, "secret": "hunter2"}), "secret"),
            (json!({"url": url, "signature": "v9"}), "signature"),
            (json!({"url": url, "urll": "x"}), "urll"),
            (json!({"url": url, "headers": {"bad name": "x"}}), "headers"),
            (json!({"url": url, "headers": {"x-a": "line\nbreak"}}), "headers"),
        ] {
            let reply = api.post("/v1/webhooks", &webhook).await;
            let detail = reply.problem(422);
            assert!(detail.contains(field), "{webhook}: {detail}");
        }
        let reply = api.body(Method::POST, "/v1/webhooks", "application/json", "{").await;
        let _ = reply.problem(400);
        let list = api.get("/v1/webhooks").await.expect(200);
        assert_eq!(list["data"], json!([]));
    });
}

#[test]
fn nothing_that_a_client_sends_is_our_error() {
    test(async |system| {
        let organization = system.organization().await;
        let api = &organization.admin;
        for path in [
            "/v1/webhooks/not-a-uuid",
            "/v1/webhooks/%00",
            "/v1/events/%ff%fe",
            "/v1/events/%00",
            "/v1/events?from=yesterday",
            "/v1/events?limit=0",
            "/v1/events?limit=999999999999999999999",
            "/v1/events?cursor=%00%ff",
            "/v1/webhooks?cursor=bm90IGEgY3Vyc29y",
            "/v1/dead-letters?reason=because",
            "/v1/deliveries/1",
            "/v1/nothing",
        ] {
            let reply = api.get(path).await;
            assert!(reply.status.is_client_error(), "{path}: {} {}", reply.status, reply.text);
            let status = reply.status.as_u16();
            let _ = reply.problem(status);
        }
        for key in [None, Some("wrong"), Some("")] {
            let _ = api.with_key(key).get("/v1/webhooks").await.problem(401);
        }
        let viewer = organization.with_role("viewer").await;
        let _ = viewer.post("/v1/webhooks", &json!({"url": "http://127.0.0.1:9/"})).await.problem(403);
        let _ = viewer.get("/v1/webhooks").await.expect(200);
        let _ = api.post("/v1/organizations", &json!({"name": "mine"})).await.problem(403);
    });
}

#[test]
fn an_event_that_the_database_refuses_to_log_is_a_dead_letter_and_holds_nobody_up() {
    test(async |system| {
        let refuse = "ALTER TABLE events ADD CONSTRAINT refusal CHECK (id <> 'refused')";
        system.database().await.batch_execute(refuse).await.unwrap();
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).create().await;
        let mut events = cuewire_tests::event::events(3, "a.b", &organization.id);
        events[1]["id"] = "refused".into();
        system.amqp().await.publish_all(&events).await;
        // It is delivered, and so are those that came in one batch with it.
        receiver.wait_for(3).await;
        let letter = organization.dead_letters(1).await.remove(0);
        assert_eq!((&letter["reason"], &letter["event_id"]), (&json!("poison"), &json!("refused")));
        let detail = letter["detail"].as_str().unwrap();
        assert!(detail.contains("could not be logged") && detail.contains("refusal"), "{detail}");
        system.stop_all().await;
        let logged = system.database().await.query_one("SELECT count(*) FROM events", &[]).await.unwrap();
        assert_eq!(logged.get::<_, i64>(0), 2);
    });
}

#[test]
fn a_webhook_that_cannot_be_read_costs_its_own_deliveries_alone() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let newer = organization.webhook(receiver.url("/newer")).create().await;
        let endless = organization.webhook(receiver.url("/endless")).create().await;
        organization.webhook(receiver.url("/")).create().await;
        // What a newer version might leave, and what is no time of ours.
        let spoil = "UPDATE webhooks SET format = 'unheard_of' WHERE url LIKE '%/newer';
                     UPDATE webhooks SET created_at = 'infinity' WHERE url LIKE '%/endless'";
        system.database().await.batch_execute(spoil).await.unwrap();
        let events = cuewire_tests::event::events(3, "a.b", &organization.id);
        system.amqp().await.publish_all(&events).await;
        let requests = receiver.wait_for(3).await;
        assert!(requests.iter().all(|request| request.path == "/"), "{requests:?}");
        let letters = organization.dead_letters(6).await;
        for (webhook, what) in [(newer, "format"), (endless, "created_at")] {
            let its = letters.iter().filter(|letter| letter["webhook_id"] == json!(webhook.id));
            let expected = format!(
                "its webhook cannot be read: the database holds what cannot be read: a webhook's {what}"
            );
            let told = its.filter(|letter| {
                letter["reason"] == "poison" && letter["detail"].as_str().unwrap().contains(&expected)
            });
            assert_eq!(told.count(), 3, "{letters:?}");
        }
        system.stop_all().await;
    });
}
