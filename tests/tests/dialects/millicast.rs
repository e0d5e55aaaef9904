//! Dolby.io Streaming (Millicast).

mod selection;
mod test_calls;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Receiver, Reply, Request, until, verify};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::platform::{Caller, Platform};

#[track_caller]
fn success(reply: Reply) -> Value {
    let body = reply.expect(200);
    assert_eq!(body["status"], "success", "{body}");
    body["data"].clone()
}

async fn add(millicast: &Caller, body: &Value) -> Value {
    success(millicast.call("POST /platforms/millicast/api/webhooks", &body.to_string()).await)
}

async fn read(millicast: &Caller, webhook: &Value) -> Value {
    success(millicast.call(&format!("GET {}", at(webhook)), "").await)
}

async fn update(millicast: &Caller, webhook: &Value, body: &str) -> Value {
    success(millicast.call(&format!("PUT {}", at(webhook)), body).await)
}

fn at(webhook: &Value) -> String {
    format!("/platforms/millicast/api/webhooks/{}", webhook["id"])
}

/// As its receiver verifies it.
fn verified(request: &Request, secret: &Value) -> bool {
    verify::millicast(secret.as_str().unwrap(), request).is_ok()
}

#[test]
fn a_millicast_webhook_lives_as_the_platforms_documentation_tells() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let millicast = Platform::Millicast.by(&organization.admin).await;
        let (key, url) = (organization.admin.key().unwrap(), receiver.url("/millicast"));
        let made = organization
            .admin
            .raw(&format!(
                "POST /platforms/millicast/api/webhooks HTTP/1.1\n\
                 Authorization: Bearer {key}\nContent-Type: application/json\n\n\
                 {{\"url\":\"{url}\",\"isFeedHooks\":true}}"
            ))
            .await;
        let made = success(made);
        let id = made["id"].as_i64().unwrap();
        let expected = json!({
            "id": id, "url": url, "secret": made["secret"], "isFeedHooks": true, "isMediaHooks": false,
            "isRecordingHooks": false, "isThumbnailHooks": false, "isTranscoderHooks": false,
            "isViewerConnectionHooks": false, "isClipHooks": false, "disabled": null, "filter": null,
        });
        assert_eq!(made, expected);
        assert!(BASE64.decode(made["secret"].as_str().unwrap()).unwrap().len() >= 24);
        assert_eq!(read(&millicast, &made).await, expected);

        organization.in_effect().await;
        let event = organization.event("feeds.started");
        system.amqp().await.publish(&event).await;
        let delivery = receiver.wait_for(1).await.remove(0);
        assert_eq!(delivery.path, "/millicast");
        let body = delivery.json();
        assert_eq!(
            (&body["type"], &body["event"], &body["data"]),
            (&json!("feeds"), &json!("started"), &event["data"])
        );
        assert!(verified(&delivery, &made["secret"]));

        let renewed = update(&millicast, &made, r#"{"refreshSecret":true}"#).await;
        assert_ne!(renewed["secret"], made["secret"]);
        let expected = json!({"secret": renewed["secret"], "isMediaHooks": true, "isFeedHooks": true});
        let changed =
            update(&millicast, &made, r#"{"isMediaHooks":true,"isFeedHooks":null,"url":null}"#).await;
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(changed[field], *value, "{field}");
        }
        organization.in_effect().await;
        system.amqp().await.publish(&organization.event("feeds.ended")).await;
        let delivery = receiver.wait_for(2).await.remove(1);
        assert!(verified(&delivery, &renewed["secret"]) && !verified(&delivery, &made["secret"]));

        assert_eq!(success(millicast.call(&format!("DELETE {}", at(&made)), "").await), true);
        millicast.failed(millicast.call(&format!("GET {}", at(&made)), "").await, 404);
        millicast.failed(millicast.call(&format!("DELETE {}", at(&made)), "").await, 404);
    });
}

#[test]
fn a_millicast_list_has_pages_in_both_directions() {
    test(async |system| {
        let millicast = Platform::Millicast.by(&system.organization().await.admin).await;
        let mut ids = Vec::new();
        for n in 0..12 {
            let made =
                add(&millicast, &json!({"url": format!("http://127.0.0.1:9/{n}"), "isFeedHooks": false}))
                    .await;
            ids.push(made["id"].as_i64().unwrap());
        }
        let listed = async |query: &str| -> Vec<i64> {
            let line = format!("GET /platforms/millicast/api/webhooks/list{query}");
            let list = success(millicast.call(&line, "").await);
            list.as_array().unwrap().iter().map(|webhook| webhook["id"].as_i64().unwrap()).collect()
        };
        assert_eq!(listed("").await, ids[..10]);
        assert_eq!(listed("/?startingId=null&itemCount=3&isDescending=False&colour=red").await, ids[..3]);
        assert_eq!(listed(&format!("?startingId={}&item_count=3", ids[4])).await, ids[4..7]);
        assert_eq!(listed("?item_count=7&itemCount=3&item_count=8").await, ids[..3]);
        let newest_first: Vec<_> = ids.iter().rev().copied().collect();
        assert_eq!(listed("?startingId=0&itemCount=12&isDescending=True").await, newest_first);
        assert_eq!(listed(&format!("?startingId={}&isDescending=true", ids[1])).await, [ids[1], ids[0]]);
        for (field, value) in
            [("itemCount", "0"), ("itemCount", "-1"), ("startingId", "first"), ("isDescending", "perhaps")]
        {
            let line = format!("GET /platforms/millicast/api/webhooks/list?{field}={value}");
            let reply = millicast.call(&line, "").await;
            assert!(reply.json["data"]["errors"][field][0].is_string(), "{}", reply.text);
            millicast.failed(reply, 400);
        }
    });
}

#[test]
fn a_disabled_millicast_webhook_is_enabled_again_by_hand_or_by_another_url() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(410)]).await;
        let organization = system.organization().await;
        let millicast = Platform::Millicast.by(&organization.admin).await;
        let made = add(&millicast, &json!({"url": receiver.url("/"), "isFeedHooks": true})).await;
        let another = json!({"url": receiver.url("/another")}).to_string();
        for change in [r#"{"reEnable":true}"#, another.as_str()] {
            organization.in_effect().await;
            system.amqp().await.publish(&organization.event("feeds.started")).await;
            let gone = until("the webhook is disabled", async || {
                let shown = read(&millicast, &made).await;
                shown["disabled"].is_object().then(|| shown["disabled"].clone())
            })
            .await;
            assert_eq!(gone["until"], Value::Null);
            assert!(gone["reason"].as_str().unwrap().contains("410"), "{gone}");
            let same = update(&millicast, &made, r#"{"isClipHooks":false}"#).await;
            assert_eq!(same["disabled"], gone, "nothing else enables it");
            let again = update(&millicast, &made, change).await;
            assert_eq!(again["disabled"], Value::Null);
        }
        let native = organization.admin.get("/v1/webhooks").await.expect(200);
        let mut all = native["data"].as_array().unwrap().iter();
        let by_hand = all.find(|it| it["number"] == made["id"]).unwrap();
        let path = format!("/v1/webhooks/{}", by_hand["id"].as_str().unwrap());
        let _ = organization.admin.patch(&path, &json!({"enabled": false})).await.expect(200);
        assert_eq!(read(&millicast, &made).await["disabled"], json!({"until": null, "reason": null}));
        assert_eq!(update(&millicast, &made, r#"{"reEnable":true}"#).await["disabled"], Value::Null);
        assert_eq!(organization.admin.get(&path).await.expect(200)["enabled"], true);
    });
}

#[test]
fn a_native_webhook_keeps_what_millicast_has_no_word_for() {
    test(async |system| {
        let organization = system.organization().await;
        let millicast = Platform::Millicast.by(&organization.admin).await;
        let native = organization
            .webhook("http://127.0.0.1:9/")
            .types(&["feeds.started", "*.deleted"])
            .with("format", "millicast")
            .with("filter", "data.size > 0 OR subject = \"x\"")
            .create()
            .await;
        let path = format!("/platforms/millicast/api/webhooks/{}", native.json["number"]);
        let shown = success(millicast.call(&format!("GET {path}"), "").await);
        assert_eq!((&shown["isFeedHooks"], &shown["filter"]), (&json!(true), &Value::Null));
        // Of these two the platform has types that are deleted.
        for (flag, expected) in [
            ("isMediaHooks", true),
            ("isRecordingHooks", true),
            ("isThumbnailHooks", false),
            ("isTranscoderHooks", false),
            ("isViewerConnectionHooks", false),
            ("isClipHooks", false),
        ] {
            assert_eq!(shown[flag], expected, "{flag}");
        }

        let shown_back = json!({
            "url": shown["url"], "isFeedHooks": shown["isFeedHooks"], "isMediaHooks": shown["isMediaHooks"],
            "isClipHooks": shown["isClipHooks"],
        });
        success(millicast.call(&format!("PUT {path}"), &shown_back.to_string()).await);
        let read = async || organization.admin.get(&format!("/v1/webhooks/{}", native.id)).await.expect(200);
        let unchanged = read().await;
        for member in ["event_types", "filter", "url", "name"] {
            assert_eq!(unchanged[member], native.json[member], "{member}");
        }

        success(millicast.call(&format!("PUT {path}"), r#"{"filter":"live","isThumbnailHooks":true}"#).await);
        let changed = read().await;
        assert_eq!(changed["event_types"], json!(["feeds.started", "*.deleted", "thumbnail.*"]));
        let filter = changed["filter"].as_str().unwrap();
        assert!(filter.starts_with("(data.size > 0 OR subject = \"x\") AND ("), "{filter}");
        success(millicast.call(&format!("PUT {path}"), r#"{"filter":null}"#).await);
        assert_eq!(read().await["filter"], "(data.size > 0 OR subject = \"x\")");
        let fewer = success(millicast.call(&format!("PUT {path}"), r#"{"isMediaHooks":false}"#).await);
        assert_eq!((&fewer["isMediaHooks"], &fewer["isRecordingHooks"]), (&json!(false), &json!(true)));
    });
}

#[test]
fn what_is_wrong_with_a_millicast_webhook_is_told_field_by_field() {
    test(async |system| {
        let millicast = Platform::Millicast.by(&system.organization().await.admin).await;
        for (body, field) in [
            (json!({}), "url"),
            (json!({}), "isFeedHooks"),
            (json!({"isFeedHooks": true}), "url"),
            (json!({"url": "http://127.0.0.1:9/"}), "isFeedHooks"),
            (json!({"url": "http://127.0.0.1:9/", "isFeedHooks": null}), "isFeedHooks"),
            (json!({"url": null, "isFeedHooks": true}), "url"),
            (json!({"url": "nowhere", "isFeedHooks": true}), "url"),
            (json!({"url": "http://10.0.0.1/", "isFeedHooks": true}), "url"),
            (json!({"url": "http://127.0.0.1:9/", "isFeedHooks": "yes"}), "isFeedHooks"),
            (json!({"url": "http://127.0.0.1:9/", "isFeedHooks": true, "filter": "["}), "filter"),
        ] {
            let reply = millicast.call("POST /platforms/millicast/api/webhooks", &body.to_string()).await;
            let errors = reply.json["data"]["errors"].clone();
            millicast.failed(reply, 400);
            assert!(errors[field][0].is_string(), "{body}: {errors}");
        }
        let line = "POST /platforms/millicast/api/webhooks/test/Feeds";
        for (field, name) in [
            ("streamName", "a\0b".to_owned()),
            ("streamName", "x".repeat(513)),
            ("streamName", "x".repeat(200_000)),
            ("transcoderName", "a\nb".to_owned()),
            ("transcoderName", String::new()),
        ] {
            let reply = millicast.call(line, &json!({field: name}).to_string()).await;
            let errors = reply.json["data"]["errors"].clone();
            millicast.failed(reply, 400);
            assert!(errors[field][0].is_string(), "{field}: {errors}");
        }
        let line = "POST /platforms/millicast/api/webhooks/test/Everything";
        let said = millicast.failed(millicast.call(line, "").await, 400);
        assert!(said.contains("Recordings, Thumbnail, Transcoder, Media, Feeds, ViewerConnection"), "{said}");
    });
}

#[test]
fn a_millicast_secret_is_shown_to_admins_and_to_whoever_has_just_made_it() {
    test(async |system| {
        let organization = system.organization().await;
        let millicast = Platform::Millicast.by(&organization.admin).await;
        let made = add(&millicast, &json!({"url": "http://127.0.0.1:9/", "isFeedHooks": true})).await;
        for (role, secret) in
            [("admin", made["secret"].clone()), ("editor", json!("")), ("viewer", json!(""))]
        {
            let by = Platform::Millicast.by(&organization.with_role(role).await).await;
            assert_eq!(read(&by, &made).await["secret"], secret, "{role}");
            let list = success(by.call("GET /platforms/millicast/api/webhooks/list", "").await);
            assert_eq!(list[0]["secret"], secret, "{role}");
        }
        let editor = Platform::Millicast.by(&organization.with_role("editor").await).await;
        assert_eq!(update(&editor, &made, r#"{"isMediaHooks":true}"#).await["secret"], "");
        let own = add(&editor, &json!({"url": "http://127.0.0.1:9/", "isFeedHooks": true})).await;
        let renewed = update(&editor, &made, r#"{"refreshSecret":true}"#).await;
        for webhook in [own, renewed] {
            assert_ne!(webhook["secret"], "");
            assert_eq!(read(&millicast, &webhook).await["secret"], webhook["secret"]);
        }
    });
}

#[test]
fn a_millicast_webhook_that_answers_nobody_is_disabled_until_the_next_probe() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::break_off()]).await;
        let organization = system.organization().await;
        let millicast = Platform::Millicast.by(&organization.admin).await;
        let made = add(&millicast, &json!({"url": receiver.url("/"), "isFeedHooks": true})).await;
        organization.in_effect().await;
        for _ in 0..5 {
            system.amqp().await.publish(&organization.event("feeds.started")).await;
        }
        let disabled = until("its breaker is open", async || {
            let shown = read(&millicast, &made).await;
            shown["disabled"].is_object().then(|| shown["disabled"].clone())
        })
        .await;
        let until = OffsetDateTime::parse(disabled["until"].as_str().unwrap(), &Rfc3339).unwrap();
        let wait = (until - OffsetDateTime::now_utc()).as_seconds_f64();
        assert!((0.0..=30.0).contains(&wait), "{disabled}");
        let again = update(&millicast, &made, r#"{"reEnable":true}"#).await;
        assert_eq!(again["disabled"], Value::Null);
    });
}
