//! Dolby.io Streaming (Millicast).

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Client, Receiver, Reply, Request, until, verify};
use serde_json::{Value, json};

/// The platform's way to say that a request failed, whose message is a sentence.
#[track_caller]
fn fail(reply: Reply, status: u16) -> Value {
    let body = reply.expect(status);
    assert_eq!(body["status"], "fail", "{body}");
    assert!(body["data"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
    body["data"].clone()
}

#[track_caller]
fn success(reply: Reply) -> Value {
    let body = reply.expect(200);
    assert_eq!(body["status"], "success", "{body}");
    body["data"].clone()
}

/// A request as the platform's SDKs send it, with a body of JSON unless that is empty.
async fn call(client: &Client, line: &str, body: &str) -> Reply {
    let key = client.key().unwrap_or("none");
    let content_type = if body.is_empty() { "" } else { "\nContent-Type: application/json" };
    client.raw(&format!("{line} HTTP/1.1\nAuthorization: Bearer {key}{content_type}\n\n{body}")).await
}

async fn add(client: &Client, body: &Value) -> Value {
    success(call(client, "POST /platforms/millicast/api/webhooks", &body.to_string()).await)
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
        let api = &organization.admin;
        let url = receiver.url("/millicast");
        let made = add(api, &json!({"url": url, "isFeedHooks": true})).await;
        let id = made["id"].as_i64().unwrap();
        let expected = json!({
            "id": id, "url": url, "secret": made["secret"], "isFeedHooks": true, "isMediaHooks": false,
            "isRecordingHooks": false, "isThumbnailHooks": false, "isTranscoderHooks": false,
            "isViewerConnectionHooks": false, "isClipHooks": false, "disabled": null, "filter": null,
        });
        assert_eq!(made, expected);
        assert!(BASE64.decode(made["secret"].as_str().unwrap()).unwrap().len() >= 24);

        let at = at(&made);
        assert_eq!(success(call(api, &format!("GET {at}"), "").await), expected);

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

        let renewed = success(call(api, &format!("PUT {at}"), r#"{"refreshSecret":true}"#).await);
        assert_ne!(renewed["secret"], made["secret"]);
        organization.in_effect().await;
        assert_eq!(success(call(api, "POST /platforms/millicast/api/webhooks/test/Feeds", "").await), true);
        let sample = receiver.wait_for(2).await.remove(1);
        assert_eq!(sample.json()["type"], "feeds");
        assert!(verified(&sample, &renewed["secret"]) && !verified(&sample, &made["secret"]));

        assert_eq!(success(call(api, &format!("DELETE {at}"), "").await), true);
        fail(call(api, &format!("GET {at}"), "").await, 404);
        fail(call(api, &format!("DELETE {at}"), "").await, 404);
    });
}

#[test]
fn a_millicast_list_has_pages_in_both_directions() {
    test(async |system| {
        let organization = system.organization().await;
        let api = &organization.admin;
        let mut ids = Vec::new();
        for n in 0..12 {
            let made =
                add(api, &json!({"url": format!("http://127.0.0.1:9/{n}"), "isFeedHooks": false})).await;
            ids.push(made["id"].as_i64().unwrap());
        }
        let listed = async |query: &str| -> Vec<i64> {
            let line = format!("GET /platforms/millicast/api/webhooks/list{query}");
            let list = success(call(api, &line, "").await);
            list.as_array().unwrap().iter().map(|webhook| webhook["id"].as_i64().unwrap()).collect()
        };
        assert_eq!(listed("").await, ids[..10]);
        assert_eq!(listed("/?startingId=null&itemCount=3&isDescending=False&colour=red").await, ids[..3]);
        assert_eq!(listed(&format!("?startingId={}&item_count=3", ids[4])).await, ids[4..7]);
        let newest_first: Vec<_> = ids.iter().rev().copied().collect();
        assert_eq!(listed("?startingId=0&itemCount=12&isDescending=True").await, newest_first);
        assert_eq!(listed(&format!("?startingId={}&isDescending=true", ids[1])).await, [ids[1], ids[0]]);
        for wrong in ["?itemCount=0", "?itemCount=-1", "?startingId=first", "?isDescending=perhaps"] {
            fail(call(api, &format!("GET /platforms/millicast/api/webhooks/list{wrong}"), "").await, 400);
        }
    });
}

#[test]
fn millicast_flags_choose_the_types_and_the_filter_the_streams() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let api = &organization.admin;
        let nothing = add(api, &json!({"url": receiver.url("/nothing"), "isFeedHooks": false})).await;
        let made = add(api, &json!({
            "url": receiver.url("/some"), "isFeedHooks": false, "isRecordingHooks": true, "isTranscoderHooks": true,
            "isThumbnailHooks": true, "filter": "^live/",
        })).await;
        assert_eq!(made["filter"], "^live/");
        organization.in_effect().await;
        let amqp = system.amqp().await;
        let event = |event_type: &str, data: Value| {
            let mut event = organization.event(event_type);
            event["data"] = data;
            event
        };
        let thumbnail = |stream: &str| {
            let mut event = organization.event("thumbnail.captured");
            event.as_object_mut().unwrap().remove("data");
            let jpeg = BASE64.encode([0xFF, 0xD8, 0xFF, 0xE0, 0x00]);
            let members = json!({
                "subject": stream, "feedid": "f", "tokenid": "1", "datacontenttype": "image/jpeg", "data_base64": jpeg,
            });
            event.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            event
        };
        for (event, wanted) in [
            (event("recordings.started", json!({"streamName": "live/one"})), true),
            (event("recording.started", json!({"streamName": "live/two"})), true),
            (event("recordings.started", json!({"streamName": "not/live/"})), false),
            (event("transcoder.ACTIVE", json!({"transcoderName": "live/three"})), true),
            (event("transcoder.ACTIVE", json!({"transcoderName": "other"})), false),
            (event("feeds.started", json!({"name": "live/four"})), false),
            (thumbnail("account/live/five"), true),
            (thumbnail("live/six"), false),
        ] {
            amqp.publish(&event).await;
            assert_eq!(organization.deliveries(&event).await.len(), usize::from(wanted), "{event}");
        }
        let changed = success(
            call(api, &format!("PUT {}", at(&made)), r#"{"filter":"a/b|c\\/d","isMediaHooks":true}"#).await,
        );
        assert_eq!((&changed["filter"], &changed["isMediaHooks"]), (&json!("a/b|c/d"), &json!(true)));
        let cleared = success(
            call(api, &format!("PUT {}", at(&made)), r#"{"filter":null,"isRecordingHooks":null}"#).await,
        );
        assert_eq!((&cleared["filter"], &cleared["isRecordingHooks"]), (&Value::Null, &json!(true)));
        let refused = call(api, &format!("PUT {}", at(&made)), r#"{"filter":"(unclosed"}"#).await;
        assert!(fail(refused, 400)["errors"]["filter"].is_array());
        assert_eq!(success(call(api, &format!("GET {}", at(&nothing)), "").await), nothing);
    });
}

#[test]
fn a_disabled_millicast_webhook_is_enabled_again_by_hand_or_by_another_url() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(410)]).await;
        let organization = system.organization().await;
        let api = &organization.admin;
        let made = add(api, &json!({"url": receiver.url("/"), "isFeedHooks": true})).await;
        let another = json!({"url": receiver.url("/another")}).to_string();
        for change in [r#"{"reEnable":true}"#, another.as_str()] {
            organization.in_effect().await;
            system.amqp().await.publish(&organization.event("feeds.started")).await;
            let gone = until("the webhook is disabled", async || {
                let shown = success(call(api, &format!("GET {}", at(&made)), "").await);
                shown["disabled"].is_object().then(|| shown["disabled"].clone())
            })
            .await;
            assert_eq!(gone["until"], Value::Null);
            assert!(gone["reason"].as_str().unwrap().contains("410"), "{gone}");
            let same = success(call(api, &format!("PUT {}", at(&made)), r#"{"isClipHooks":false}"#).await);
            assert_eq!(same["disabled"], gone, "nothing else enables it");
            let again = success(call(api, &format!("PUT {}", at(&made)), change).await);
            assert_eq!(again["disabled"], Value::Null);
        }
    });
}

#[test]
fn a_native_webhook_keeps_what_millicast_has_no_word_for() {
    test(async |system| {
        let organization = system.organization().await;
        let api = &organization.admin;
        let native = organization
            .webhook("http://127.0.0.1:9/")
            .types(&["feeds.started", "*.deleted"])
            .with("format", "millicast")
            .with("filter", "data.size > 0 OR subject = \"x\"")
            .create()
            .await;
        let path = format!("/platforms/millicast/api/webhooks/{}", native.json["number"]);
        let shown = success(call(api, &format!("GET {path}"), "").await);
        assert_eq!((&shown["isFeedHooks"], &shown["filter"]), (&json!(true), &Value::Null));

        let shown_back = json!({
            "url": shown["url"], "isFeedHooks": shown["isFeedHooks"], "isMediaHooks": shown["isMediaHooks"],
            "isClipHooks": shown["isClipHooks"],
        });
        success(call(api, &format!("PUT {path}"), &shown_back.to_string()).await);
        let read = async || api.get(&format!("/v1/webhooks/{}", native.id)).await.expect(200);
        let unchanged = read().await;
        for member in ["event_types", "filter", "url", "name"] {
            assert_eq!(unchanged[member], native.json[member], "{member}");
        }

        success(call(api, &format!("PUT {path}"), r#"{"filter":"live","isMediaHooks":true}"#).await);
        let changed = read().await;
        assert_eq!(changed["event_types"], json!(["feeds.started", "*.deleted", "media.*"]));
        let filter = changed["filter"].as_str().unwrap();
        assert!(filter.starts_with("(data.size > 0 OR subject = \"x\") AND ("), "{filter}");
        success(call(api, &format!("PUT {path}"), r#"{"filter":null}"#).await);
        assert_eq!(read().await["filter"], "(data.size > 0 OR subject = \"x\")");
    });
}

#[test]
fn what_is_wrong_is_told_in_millicasts_words() {
    test(async |system| {
        let organization = system.organization().await;
        let api = &organization.admin;
        let nobody = api.with_key(Some("cw_wrong"));
        let viewer = organization.with_role("viewer").await;
        let made = add(api, &json!({"url": "http://127.0.0.1:9/", "isFeedHooks": true})).await;
        let line = "POST /platforms/millicast/api/webhooks";
        let good = json!({"url": "http://127.0.0.1:9/", "isFeedHooks": true}).to_string();
        fail(call(&nobody, line, &good).await, 401);
        fail(api.raw("GET /platforms/millicast/api/webhooks/list HTTP/1.1\n\n").await, 401);
        fail(call(&viewer, line, &good).await, 403);
        fail(call(api, "GET /platforms/millicast/api/nothing", "").await, 404);
        fail(call(api, "GET /platforms/millicast", "").await, 404);
        fail(call(api, "GET /platforms/millicast/api/webhooks/abc", "").await, 404);
        fail(call(api, "PATCH /platforms/millicast/api/webhooks/list", "").await, 405);
        fail(call(api, line, &"x".repeat(300 * 1024)).await, 413);
        fail(call(api, line, "{").await, 400);
        fail(call(api, line, "").await, 415);
        for (body, field) in [
            (json!({"isFeedHooks": true}), "url"),
            (json!({"url": "http://127.0.0.1:9/"}), "isFeedHooks"),
            (json!({"url": "nowhere", "isFeedHooks": true}), "url"),
            (json!({"url": "http://10.0.0.1/", "isFeedHooks": true}), "url"),
            (json!({"url": "http://127.0.0.1:9/", "isFeedHooks": "yes"}), "isFeedHooks"),
        ] {
            let data = fail(call(api, line, &body.to_string()).await, 400);
            assert!(data["errors"][field][0].is_string(), "{body}: {data}");
        }
        let types = fail(call(api, "POST /platforms/millicast/api/webhooks/test/Everything", "").await, 400);
        assert!(types["message"].as_str().unwrap().contains("ViewerConnection"), "{types}");

        assert_eq!(success(call(&viewer, &format!("GET {}", at(&made)), "").await)["secret"], "");
        let editor = organization.with_role("editor").await;
        assert_eq!(success(call(&editor, &format!("GET {}", at(&made)), "").await)["secret"], made["secret"]);
        for line in ["PUT", "DELETE"] {
            fail(call(&viewer, &format!("{line} {}", at(&made)), "{}").await, 403);
        }
        fail(call(&viewer, "POST /platforms/millicast/api/webhooks/test/Feeds", "").await, 403);
        let other = system.organization().await;
        fail(call(&other.admin, &format!("GET {}", at(&made)), "").await, 404);
        fail(call(&other.admin, &format!("DELETE {}", at(&made)), "").await, 404);
        let standard = organization.webhook("http://127.0.0.1:9/").create().await;
        fail(call(api, &format!("GET {}", at(&json!({"id": standard.json["number"]}))), "").await, 404);
    });
}

#[test]
fn a_millicast_body_may_come_in_chunks() {
    test(async |system| {
        let organization = system.organization().await;
        let key = organization.admin.key().unwrap();
        let request = format!(
            "POST /platforms/millicast/api/webhooks/ HTTP/1.1\nAuthorization: Bearer {key}\nContent-Type: application/json\nTransfer-Encoding: chunked\n\n{}",
            json!({"url": "http://127.0.0.1:9/", "isFeedHooks": true, "unknown": 1}),
        );
        let made = success(organization.admin.raw(&request).await);
        assert_eq!(made["isFeedHooks"], true);
    });
}
