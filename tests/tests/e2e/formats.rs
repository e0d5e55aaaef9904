//! The formats of platforms and chat services, end to end: what their receivers see, and how often.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cuewire::catalogue;
use cuewire_tests::event::id;
use cuewire_tests::organization::Organization;
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Receiver, Request, System, verify};
use serde_json::{Value, json};
use uuid::Uuid;

/// A sample of the catalogue as an event of the organization.
fn sample(event_type: &str, organization: &Organization<'_>) -> Value {
    let entry = catalogue::find(event_type).expect("the catalogue has the type");
    let mut event: Value = serde_json::from_str(entry.sample.get()).unwrap();
    event["id"] = Uuid::new_v4().to_string().into();
    event["organization"] = organization.id.as_str().into();
    event
}

fn keys(body: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// What a receiver of the format gets of a sample.
async fn received(system: &System, format: &str, event_type: &str) -> (Request, Value, String) {
    let receiver = Receiver::answering([Answer::status(200).body("ok")]).await;
    let organization = system.organization_named(&format!("upstream-{format}")).await;
    let webhook = organization
        .webhook(receiver.url("/"))
        .with("format", format)
        .with("headers", json!({"auth-token": "XYZ"}))
        .create()
        .await;
    let event = sample(event_type, &organization);
    system.amqp().await.publish(&event).await;
    let request = receiver.wait_for(1).await.remove(0);
    organization.delivery(id(&event), &webhook, "delivered").await;
    assert_eq!(request.method, "POST");
    assert_eq!(request.header("auth-token"), Some("XYZ"), "the webhook's own headers are sent");
    (request, event, webhook.secret)
}

#[test]
fn each_platforms_receiver_gets_what_its_platform_would_send() {
    test(async |system| {
        let platforms: [(&str, &str, &[&str]); 4] = [
            (
                "aioz",
                "encoding.finished",
                &["emitted_at", "media_id", "media_type", "qualities", "status", "title", "type", "user_id"],
            ),
            (
                "iconik",
                "collections.create",
                &[
                    "data",
                    "event_type",
                    "object_id",
                    "operation",
                    "realm",
                    "request_id",
                    "system_domain_id",
                    "user_id",
                ],
            ),
            (
                "quortex",
                "input.status_change",
                &[
                    "application",
                    "category",
                    "message",
                    "metadata",
                    "operation",
                    "organization",
                    "organization_uuid",
                    "pool_uuid",
                    "resource_uuid",
                ],
            ),
            (
                "omegastream",
                "video.process_failed",
                &["api_version", "coid", "created", "data", "endpoint_id", "id", "response", "type"],
            ),
        ];
        for (format, event_type, fields) in platforms {
            let (request, _, secret) = received(system, format, event_type).await;
            let body = request.json();
            assert_eq!(keys(&body), fields);
            assert_eq!(request.header("content-type"), Some("application/json"));
            verify::v1(&secret, &request).unwrap();
            let named: Vec<_> =
                ["coid", "system_domain_id", "organization_uuid"].map(|key| &body[key]).into();
            let upstream = named.into_iter().find(|value| !value.is_null());
            if format != "aioz" {
                assert_eq!(upstream, Some(&Value::from(format!("upstream-{format}"))));
            }
        }
    });
}

#[test]
fn a_single_hmac_signs_json_and_pictures_alike() {
    test(async |system| {
        let (request, event, secret) = received(system, "millicast", "feeds.started").await;
        verify::millicast(&secret, &request).unwrap();
        let body = request.json();
        assert_eq!(keys(&body), ["data", "event", "timestamp", "type"]);
        assert_eq!(
            (&body["type"], &body["event"], &body["data"]),
            (&json!("feeds"), &json!("started"), &event["data"])
        );
        let sent_ms = body["timestamp"].as_i64().unwrap();
        assert!(
            (request.time.unix_timestamp() * 1_000 - sent_ms).abs() < 60_000,
            "epoch milliseconds: {sent_ms}"
        );

        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).with("format", "millicast").create().await;
        let event = sample("thumbnail.captured", &organization);
        system.amqp().await.publish(&event).await;
        let picture = receiver.wait_for(1).await.remove(0);
        assert_eq!(picture.body, BASE64.decode(event["data_base64"].as_str().unwrap()).unwrap());
        assert_eq!(picture.header("content-type"), Some("image/jpeg"));
        verify::millicast(&webhook.secret, &picture).unwrap();
        for (header, attribute) in [
            ("x-millicast-feed-id", "feedid"),
            ("x-millicast-stream-id", "subject"),
            ("x-millicast-token-id", "tokenid"),
        ] {
            assert_eq!(picture.header(header), event[attribute].as_str());
        }
        assert!(picture.header("x-millicast-timestamp").unwrap().parse::<i64>().unwrap() >= sent_ms);
        organization.delivery(id(&event), &webhook, "delivered").await;
    });
}

#[test]
fn a_format_with_a_single_signature_has_no_overlap_of_secrets() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).with("format", "millicast").create().await;
        let path = format!("/v1/webhooks/{}/secret", webhook.id);
        let rotate = format!("{path}/rotate");
        let problem = organization.admin.post(&rotate, &json!({"overlap": "1h"})).await.problem(422);
        assert!(problem.contains("single signature"), "{problem}");
        let rotated = organization.admin.post(&rotate, &json!({})).await.expect(200);
        assert_eq!(rotated["secrets"].as_array().unwrap().len(), 1);
        assert_ne!(rotated["secret"], webhook.secret.as_str());
    });
}

#[test]
fn a_platforms_own_schedule_holds_whatever_the_receiver_asks_for() {
    test(async |system| {
        let refuse = || Answer::status(503).header("Retry-After", "3600");
        let never = Receiver::answering([refuse()]).await;
        let thrice = Receiver::answering([refuse()]).await;
        let organization = system.organization().await;
        let millicast = organization.webhook(never.url("/")).with("format", "millicast").create().await;
        assert_eq!(millicast.json["retry_schedule"], json!([]));
        let aioz = organization.webhook(thrice.url("/")).with("format", "aioz").create().await;
        assert_eq!(aioz.json["retry_schedule"], json!(["3s", "3s", "3s"]));
        let path = format!("/v1/webhooks/{}", aioz.id);
        let problem = organization.admin.patch(&path, &json!({"retry_schedule": ["1s"]})).await.problem(422);
        assert!(problem.contains("`retry_schedule` is the platform's own"), "{problem}");

        system.amqp().await.publish(&sample("encoding.failed", &organization)).await;
        let letters = organization.dead_letters(2).await;
        assert!(letters.iter().all(|letter| letter["reason"] == "exhausted"), "{letters:?}");
        let requests = thrice.requests();
        assert_eq!((never.count(), requests.len()), (1, 4));
        for pair in requests.windows(2) {
            let apart = (pair[1].at - pair[0].at).as_secs_f64();
            assert!((3.0..4.5).contains(&apart), "{apart} s apart");
        }
    });
}

#[test]
fn an_event_that_lacks_a_part_is_a_recorded_failure_that_names_it() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).with("format", "iconik").create().await;
        let mut event = sample("assets.update", &organization);
        event.as_object_mut().unwrap().remove("userid");
        system.amqp().await.publish(&event).await;
        let letter = organization.dead_letters(1).await.remove(0);
        let detail = "the event has no `userid`, which the webhook's format needs";
        assert_eq!((&letter["reason"], &letter["detail"]), (&json!("rejected"), &json!(detail)));
        let path = format!("/v1/webhooks/{}/attempts", webhook.id);
        let attempts = organization.admin.get(&path).await.expect(200);
        assert_eq!(attempts["data"][0]["error"], detail);
        assert_eq!(receiver.count(), 0);
    });
}

#[test]
fn a_new_name_of_an_organization_is_in_its_next_delivery() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/")).with("format", "quortex").create().await;
        system.amqp().await.publish(&sample("payment.creation", &organization)).await;
        let body = receiver.wait_for(1).await[0].json();
        assert_eq!(body["organization_uuid"], organization.id.as_str());
        let path = format!("/v1/organizations/{}", organization.id);
        let change = json!({"name": "Renamed", "external_id": "known-upstream"});
        let _ = system.operator().patch(&path, &change).await.expect(200);
        let body = cuewire_tests::until("a delivery has the new name", async || {
            system.amqp().await.publish(&sample("payment.creation", &organization)).await;
            let count = receiver.count();
            let body = receiver.wait_for(count + 1).await.pop()?.json();
            (body["organization"] == "Renamed").then_some(body)
        })
        .await;
        assert_eq!(body["organization_uuid"], "known-upstream");
    });
}

#[test]
fn a_chat_service_is_understood_when_it_takes_throttles_or_refuses_a_message() {
    test(async |system| {
        let throttled = "Microsoft Teams endpoint returned HTTP error 429 with ContextId x";
        let teams = Receiver::answering([Answer::status(200).body(throttled), Answer::status(202)]).await;
        let slack = Receiver::answering([Answer::status(404).body("no_service")]).await;
        let google = Receiver::healthy().await;
        let organization = system.organization().await;
        let chat = |receiver: &Receiver, format: &str| {
            organization
                .webhook(receiver.url("/"))
                .with("format", format)
                .with("retry_schedule", json!(["1s"]))
                .create()
        };
        let in_teams = chat(&teams, "teams").await;
        let _ = (chat(&slack, "slack").await, chat(&google, "google_chat").await);
        let event = sample("encoding.failed", &organization);
        system.amqp().await.publish(&event).await;

        organization.delivery(id(&event), &in_teams, "delivered").await;
        let path = format!("/v1/webhooks/{}/attempts", in_teams.id);
        let attempts = organization.admin.get(&path).await.expect(200);
        let throttled = attempts["data"].as_array().unwrap().iter().find(|attempt| attempt["status"] == 200);
        assert_eq!(throttled.unwrap()["error"], "the receiver answered 200, but not as one that took it");
        let letter = organization.dead_letters(1).await.remove(0);
        assert_eq!((&letter["reason"], slack.count()), (&json!("refused"), 1));
        let card = &teams.wait_for(2).await[1].json()["attachments"][0]["content"];
        assert_eq!(card["body"][0]["text"], "🔴 Encoding failed");
        let message = slack.wait_for(1).await[0].json();
        assert_eq!(message["blocks"][0]["text"]["text"], "🔴 Encoding failed");
        assert_eq!(message["text"], "🔴 Encoding failed: A file could not be encoded: Opening night");
        let request = google.wait_for(1).await.remove(0);
        assert_eq!(request.json()["text"], "🔴 *Encoding failed*");
        assert_eq!(request.header("webhook-signature"), None);
    });
}

#[test]
fn platforms_without_a_way_to_test_or_to_replace_a_secret_have_the_native_one() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        for (format, count) in ["aioz", "iconik", "quortex", "omegastream"].into_iter().zip(1..) {
            let webhook = organization.webhook(receiver.url("/")).with("format", format).create().await;
            let path = format!("/v1/webhooks/{}", webhook.id);
            let rotation = json!({"overlap": "1h"});
            let rotated =
                organization.admin.post(&format!("{path}/secret/rotate"), &rotation).await.expect(200);
            organization.in_effect().await;
            let attempt = organization.admin.post(&format!("{path}/test"), &json!({})).await.expect(200);
            assert_eq!(attempt["status"], 200, "{attempt}");
            let sample = receiver.wait_for(count).await.remove(count - 1);
            for secret in [webhook.secret.as_str(), rotated["secret"].as_str().unwrap()] {
                verify::v1(secret, &sample).unwrap();
            }
        }
    });
}

#[test]
fn a_test_call_sends_a_sample_of_the_formats_platform_or_says_what_the_chosen_one_lacks() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).with("format", "aioz").create().await;
        let path = format!("/v1/webhooks/{}/test", webhook.id);
        let attempt = organization.admin.post(&path, &json!({})).await.expect(200);
        assert_eq!((&attempt["status"], &attempt["event_type"]), (&json!(200), &json!("file.received")));
        assert_eq!(receiver.wait_for(1).await[0].json()["type"], "file.received");
        let attempt = organization.admin.post(&path, &json!({"type": "feeds.started"})).await.expect(200);
        assert_eq!(attempt["error"], "the event has no `data.media_id`, which the webhook's format needs");
        assert_eq!((&attempt["status"], receiver.count()), (&Value::Null, 1));
    });
}

#[test]
fn the_catalogue_shows_every_type_with_a_schema_and_a_sample() {
    test(async |system| {
        let organization = system.organization().await;
        let types = organization.admin.get("/v1/event-types").await.expect(200);
        let types = types["data"].as_array().unwrap();
        assert_eq!(types.len(), catalogue::all().len());
        for entry in types {
            assert_eq!(entry["schema"]["$schema"], "https://json-schema.org/draft/2020-12/schema");
            assert_eq!(entry["sample"]["type"], entry["type"]);
        }
    });
}
