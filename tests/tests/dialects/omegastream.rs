//! Omegastream.

use cuewire_tests::system::test;
use cuewire_tests::{Answer, Receiver, until};
use serde_json::{Value, json};

use crate::platform::{Caller, Platform};

const AT: &str = "/platforms/omegastream/company/client/webhooks";
/// The same, as the platform's pages have it elsewhere.
const ALIKE: [&str; 2] =
    ["/platforms/omegastream/company/company/webhooks", "/platforms/omegastream/company/webhooks"];

async fn create(omegastream: &Caller, body: &Value) -> Value {
    omegastream.call(&format!("POST {AT}"), &body.to_string()).await.expect(200)
}

fn id(object: &Value) -> &str {
    let id = object["id"].as_str().unwrap();
    assert!(id.len() == 24 && id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
    id
}

/// The endpoint as it is listed.
async fn listed(omegastream: &Caller, endpoint: &Value) -> Option<Value> {
    let all = omegastream.get(&format!("{AT}/all")).await;
    all.as_array().unwrap().iter().find(|it| it["id"] == endpoint["id"]).cloned()
}

/// An event of the endpoint's, with what was answered.
async fn detail(omegastream: &Caller, endpoint: &Value, event: &Value) -> Value {
    omegastream.get(&format!("{AT}/{}/events/{}", id(endpoint), id(event))).await
}

/// An endpoint's event of this type, when it is listed.
async fn sent(omegastream: &Caller, endpoint: &Value, event_type: &str) -> Value {
    until(&format!("{event_type} is listed"), async || {
        let events = omegastream.get(&format!("{AT}/{}", id(endpoint))).await;
        events.as_array().unwrap().iter().find(|event| event["type"] == event_type).cloned()
    })
    .await
}

#[test]
fn an_omegastream_endpoint_lives_as_the_platforms_pages_tell() {
    test(async |system| {
        let organization = system.organization_named("omega-cop-OyJrgi5-fx").await;
        let omegastream = Platform::Omegastream.by(&organization.admin).await;
        let key = organization.admin.key().unwrap();
        let made = organization
            .admin
            .raw(&format!(
                "GET /platforms/omegastream/company/client/webhooks HTTP/1.1\n\
                 Authorization: Bearer {key}\nContent-Type: application/json\n\n\
                 {{\"url\":\"http://127.0.0.1:9/webhook\",\"events\":[\"video.process_failed\"]}}"
            ))
            .await
            .expect(200);
        let mut expected = json!({
            "id": id(&made), "created_at": made["created_at"], "updated_at": made["updated_at"],
            "coid": "omega-cop-OyJrgi5-fx", "url": "http://127.0.0.1:9/webhook", "description": null,
            "events": ["video.process_failed"], "active": true,
        });
        assert_eq!(made, expected);
        assert_eq!(made["created_at"].as_str().unwrap().len(), "2022-09-15T21:07:22.823797Z".len(), "{made}");
        assert_eq!(omegastream.get(&format!("{AT}/all")).await, json!([expected]));
        assert_eq!(omegastream.get(&format!("{AT}/{}", id(&made))).await, json!([]));

        let path = format!("/platforms/omegastream/company/webhooks/{}", id(&made));
        for (line, change) in [
            ("PUT", json!({"description": "Videos", "events": ["video.deleted", "video.process_failed"]})),
            ("PUT", json!({"url": "http://127.0.0.1:9/other"})),
            ("POST", json!({"active": false})),
            ("POST", json!({"active": true})),
        ] {
            let end = if line == "POST" { "/status" } else { "" };
            let line = format!("{line} {path}{end}");
            let changed = omegastream.call(&line, &change.to_string()).await.expect(200);
            expected.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            assert!(changed["updated_at"].as_str() > expected["updated_at"].as_str(), "{changed}");
            expected["updated_at"] = changed["updated_at"].clone();
            assert_eq!(changed, expected, "{line}");
        }
        assert_eq!(listed(&omegastream, &made).await, Some(expected));

        let deleted = omegastream.call(&format!("DELETE {path}"), "").await.expect(200);
        assert_eq!(deleted, json!({"message": "webhook endpoint deleted"}));
        assert_eq!(listed(&omegastream, &made).await, None);
        omegastream.failed(omegastream.call(&format!("GET {AT}/{}", id(&made)), "").await, 404);
        omegastream.failed(omegastream.call(&format!("DELETE {path}"), "").await, 404);
    });
}

#[test]
fn an_omegastream_endpoint_receives_events_and_lists_them_with_its_answers() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(200).body("webhook received\n")]).await;
        let organization = system.organization_named("omega-cop-OyJrgi5-fx").await;
        let omegastream = Platform::Omegastream.by(&organization.admin).await;
        let made = json!({"url": receiver.url("/webhook"), "events": ["video.process_failed"]});
        let made = create(&omegastream, &made).await;
        organization.in_effect().await;
        let mut event = organization.event("video.process_failed");
        event["data"] = json!({"video": {"b": 1.50, "a": null}});
        system.amqp().await.publish(&event).await;
        let delivery = receiver.wait_for(1).await.remove(0);
        let delivered = json!({
            "id": delivery.id().replace('-', "")[..24], "coid": "omega-cop-OyJrgi5-fx", "api_version": "v1",
            "created": 1_769_851_800, "type": "video.process_failed", "data": event["data"],
            "endpoint_id": made["id"], "response": null,
        });
        assert_eq!(delivery.json(), delivered);
        let mut shown = sent(&omegastream, &made, "video.process_failed").await;
        let mut without_data = delivered.clone();
        without_data["data"] = Value::Null;
        assert_eq!(shown, without_data, "as it was delivered, with `data` and `response` null");
        shown["data"] = event["data"].clone();
        shown["response"] = json!({
            "status_code": 200, "status": "200 OK", "body": "webhook received\n",
            "message": "webhook event with type video.process_failed succeeded",
        });
        assert_eq!(detail(&omegastream, &made, &shown).await, shown);

        let off = format!("POST {AT}/{}/status", id(&made));
        let _ = omegastream.call(&off, r#"{"active":false}"#).await.expect(200);
        organization.in_effect().await;
        let event = organization.event("video.process_failed");
        system.amqp().await.publish(&event).await;
        assert_eq!(organization.deliveries(&event).await, [] as [Value; 0]);
    });
}

#[test]
fn omegastreams_three_paths_lead_to_the_same() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let api = &organization.admin;
        let omegastream = Platform::Omegastream.by(api).await;
        let new =
            json!({"url": receiver.url("/"), "events": ["video.uploaded"], "unknown": {"a": 1}}).to_string();
        for at in ALIKE.into_iter().chain([AT]) {
            let made = omegastream.call(&format!("POST {at}/"), &new).await.expect(200);
            assert_eq!(made["coid"], organization.id, "an organization without another name");
            let chunked = "\nContent-Type: application/json\nTransfer-Encoding: chunked";
            let by_get = omegastream.with_headers(&format!("GET {at}"), chunked, &new).await.expect(200);
            let all = omegastream.get(&format!("{at}/all/?unknown=1")).await;
            assert_eq!(all, json!([made, by_get]));
            let native =
                api.get("/v1/webhooks").await.expect(200)["data"][1]["id"].as_str().unwrap().to_owned();
            assert_eq!(native.replace('-', "")[..24], *id(&made));
            let tried = api.post(&format!("/v1/webhooks/{native}/test"), &json!({})).await.expect(200);
            let event = sent(&omegastream, &made, "video.uploaded").await;
            assert_eq!(tried["delivery_id"].as_str().unwrap().replace('-', "")[..24], *id(&event));
            let detail = omegastream.get(&format!("{at}/{}/events/{}/", id(&made), id(&event))).await;
            assert_eq!(
                (&detail["data"], &detail["response"]["status"]),
                (&json!({"video": {}}), &json!("200 OK"))
            );
            for endpoint in [&made, &by_get] {
                let path = format!("{at}/{}", id(endpoint).to_uppercase());
                let status = omegastream.call(&format!("POST {path}/status/"), r#"{"active":true}"#).await;
                assert_eq!(status.expect(200)["id"], endpoint["id"]);
                let updated = omegastream.call(&format!("PUT {path}/"), "{}").await.expect(200);
                assert_eq!(updated["events"], endpoint["events"]);
                let _ = omegastream.call(&format!("DELETE {path}/"), "").await.expect(200);
            }
        }
    });
}

#[test]
fn an_event_that_an_endpoint_did_not_take_tells_why() {
    test(async |system| {
        let receiver =
            Receiver::answering([Answer::status(500).body(vec![0x66, 0xFF]), Answer::break_off()]).await;
        let organization = system.organization().await;
        let api = &organization.admin;
        let omegastream = Platform::Omegastream.by(api).await;
        let made =
            create(&omegastream, &json!({"url": receiver.url("/"), "events": ["my.own", "video.deleted"]}))
                .await;
        let native = api.get("/v1/webhooks").await.expect(200)["data"][0]["id"].as_str().unwrap().to_owned();
        for (event_type, status_code, status, body) in
            [("my.own", 500, "500 Internal Server Error", "f\u{fffd}"), ("video.deleted", 0, "", "")]
        {
            let path = format!("/v1/webhooks/{native}/test");
            let _ = api.post(&path, &json!({"type": event_type})).await.expect(200);
            let event = sent(&omegastream, &made, event_type).await;
            assert_eq!((&event["data"], &event["response"]), (&Value::Null, &Value::Null));
            let detail = detail(&omegastream, &made, &event).await;
            let message = format!("webhook event with type {event_type} failed");
            assert_eq!(
                detail["response"],
                json!({
                    "status_code": status_code, "status": status, "body": body, "message": message,
                })
            );
        }
        let events = omegastream.get(&format!("{AT}/{}", id(&made))).await;
        let types: Vec<_> = events.as_array().unwrap().iter().map(|event| &event["type"]).collect();
        assert_eq!(types, ["video.deleted", "my.own"], "the last that was sent first");
    });
}

#[test]
fn an_event_that_was_tried_often_is_listed_once_with_its_last_answer() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(500), Answer::status(200)]).await;
        let organization = system.organization().await;
        let omegastream = Platform::Omegastream.by(&organization.admin).await;
        let webhook = organization
            .webhook(receiver.url("/"))
            .types(&["video.deleted"])
            .with("format", "omegastream")
            .schedule(&["1s"])
            .create()
            .await;
        let event = organization.event("video.deleted");
        system.amqp().await.publish(&event).await;
        let _ = organization.delivery(event["id"].as_str().unwrap(), &webhook, "delivered").await;
        let endpoint = json!({"id": webhook.id.replace('-', "")[..24]});
        let events = omegastream.get(&format!("{AT}/{}", id(&endpoint))).await;
        assert_eq!(events.as_array().unwrap().len(), 1);
        assert_eq!(events[0]["created"], 1_769_851_800, "the event's own time");
        let detail = detail(&omegastream, &endpoint, &events[0]).await;
        assert_eq!(detail["response"]["status_code"], 200);
    });
}

#[test]
fn an_endpoint_lists_the_last_hundred_events() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let omegastream = Platform::Omegastream.by(&organization.admin).await;
        let endpoint = json!({"url": receiver.url("/"), "events": ["video.deleted", "video.uploaded"]});
        let made = create(&omegastream, &endpoint).await;
        organization.in_effect().await;
        let amqp = system.amqp().await;
        for _ in 0..100 {
            amqp.publish(&organization.event("video.deleted")).await;
        }
        let _ = receiver.wait_for(100).await;
        amqp.publish(&organization.event("video.uploaded")).await;
        let _ = sent(&omegastream, &made, "video.uploaded").await;
        let events = until("as many are listed as there may be", async || {
            let events = omegastream.get(&format!("{AT}/{}", id(&made))).await;
            let events = events.as_array().unwrap().clone();
            (events.len() == 100).then_some(events)
        })
        .await;
        assert_eq!(events[0]["type"], "video.uploaded");
        assert!(events[1..].iter().all(|event| event["type"] == "video.deleted"));
    });
}

#[test]
fn an_omegastream_endpoint_without_events_receives_nothing() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let omegastream = Platform::Omegastream.by(&organization.admin).await;
        let none = create(&omegastream, &json!({"url": receiver.url("/"), "events": []})).await;
        assert_eq!(none["events"], json!([]));
        let some =
            create(&omegastream, &json!({"url": receiver.url("/"), "events": ["video.uploaded"]})).await;
        organization.in_effect().await;
        for (event_type, count) in [("video.uploaded", 1), ("video.deleted", 0), ("feeds.started", 0)] {
            let event = organization.event(event_type);
            system.amqp().await.publish(&event).await;
            assert_eq!(organization.deliveries(&event).await.len(), count, "{event_type}");
        }
        let line = format!("PUT {AT}/{}", id(&some));
        assert_eq!(omegastream.call(&line, r#"{"events":[]}"#).await.expect(200)["events"], json!([]));
        assert_eq!(
            omegastream.call(&line, r#"{"url":null,"events":null}"#).await.expect(200)["events"],
            json!([])
        );
        organization.in_effect().await;
        let event = organization.event("video.uploaded");
        system.amqp().await.publish(&event).await;
        assert_eq!(organization.deliveries(&event).await, [] as [Value; 0]);
        assert_eq!(receiver.wait_for(1).await.len(), 1);
    });
}

#[test]
fn a_native_webhook_keeps_what_omegastream_has_no_word_for() {
    test(async |system| {
        let organization = system.organization().await;
        let api = &organization.admin;
        let omegastream = Platform::Omegastream.by(api).await;
        let native = organization
            .webhook("http://127.0.0.1:9/")
            .types(&["recordings.*", "*.deleted", "my.own"])
            .with("format", "omegastream")
            .with("filter", "data.size > 0 OR subject = \"x\"")
            .with("name", "mine")
            .create()
            .await;
        let short = json!({"id": native.id.replace('-', "")[..24]});
        let read = async || api.get(&format!("/v1/webhooks/{}", native.id)).await.expect(200);
        let put = async |body: Value| {
            omegastream.call(&format!("PUT {AT}/{}", id(&short)), &body.to_string()).await.expect(200)["events"]
                .clone()
        };
        let shown = listed(&omegastream, &short).await.unwrap();
        assert_eq!(shown["events"], json!(["recordings.*", "video.deleted", "my.own"]));
        assert_eq!(put(shown.clone()).await, shown["events"]);
        let unchanged = read().await;
        for member in ["event_types", "filter", "url", "name", "description", "format"] {
            assert_eq!(unchanged[member], native.json[member], "{member}");
        }
        let events = json!(["video.uploaded", "video.deleted", "recordings.*"]);
        assert_eq!(put(json!({"events": events})).await, events);
        let changed = read().await;
        assert_eq!(changed["event_types"], json!(["video.uploaded", "*.deleted", "recordings.*"]));
        assert_eq!(changed["filter"], native.json["filter"]);
        assert_eq!(put(json!({"events": []})).await, json!([]));
        let changed = read().await;
        assert_eq!(changed["event_types"], json!([]));
        assert!(
            changed["filter"].as_str().unwrap().starts_with("(data.size > 0 OR subject = \"x\") AND "),
            "{changed}"
        );
        assert_eq!(
            put(json!({"events": ["video.uploaded"], "description": "d"})).await,
            json!(["video.uploaded"])
        );
        assert_eq!(read().await["filter"], "(data.size > 0 OR subject = \"x\")");
        let _ = put(json!({"description": ""})).await;
        assert_eq!(read().await["description"], Value::Null);

        let all = organization.webhook("http://127.0.0.1:9/").with("format", "omegastream").create().await;
        let short = json!({"id": all.id.replace('-', "")[..24]});
        let shown = listed(&omegastream, &short).await.unwrap();
        assert_eq!(shown["events"].as_array().unwrap().len(), 10);
        let line = format!("PUT {AT}/{}", id(&short));
        assert_eq!(omegastream.call(&line, &shown.to_string()).await.expect(200)["events"], shown["events"]);
        assert_eq!(api.get(&format!("/v1/webhooks/{}", all.id)).await.expect(200)["event_types"], json!([]));
    });
}

#[test]
fn what_is_wrong_with_an_omegastream_endpoint_is_told_in_a_sentence() {
    test(async |system| {
        let organization = system.organization().await;
        let omegastream = Platform::Omegastream.by(&organization.admin).await;
        let good = json!({"url": "http://127.0.0.1:9/", "events": ["video.deleted"]});
        let made = create(&omegastream, &good).await;
        for (body, named) in [
            ("", "`url` is missing; `events` is missing"),
            (r#"{"url":"http://127.0.0.1:9/"}"#, "events"),
            (r#"{"events":["video.deleted"]}"#, "url"),
            (r#"{"url":"nowhere","events":["video.deleted"]}"#, "url"),
            (r#"{"url":"http://10.0.0.1/","events":["video.deleted"]}"#, "url"),
            (r#"{"url":"http://127.0.0.1:9/","events":"video.deleted"}"#, "events"),
            (r#"{"url":"http://127.0.0.1:9/","events":["video.deleted","video"]}"#, "events[1]"),
            (r#"{"url":"http://127.0.0.1:9/","events":["video.*"]}"#, "events[0]"),
            (r#"{"url":"http://127.0.0.1:9/","events":[],"description":7}"#, "description"),
        ] {
            for line in [format!("POST {AT}"), format!("GET {AT}")] {
                let message = omegastream.failed(omegastream.call(&line, body).await, 400);
                assert!(message.contains(named), "{body}: {message}");
            }
        }
        let many: Vec<_> = (0..201).map(|n| format!("video.n{n}")).collect();
        let refused = format!("PUT {AT}/{}", id(&made));
        let refused = omegastream.call(&refused, &json!({"events": many}).to_string()).await;
        let refused = omegastream.failed(refused, 400);
        assert!(refused.contains("201") && refused.contains("events"), "{refused}");
        let refused = omegastream.call(&format!("POST {AT}/{}/status", id(&made)), "{}").await;
        assert!(omegastream.failed(refused, 400).contains("active"));
        for event in ["invalid", "630fac88bd5bb64cf8b24b99", "+30fac88bd5bb64cf8b24b99"] {
            let line = format!("GET {AT}/{}/events/{event}", id(&made));
            omegastream.failed(omegastream.call(&line, "").await, 404);
        }
        assert_eq!(listed(&omegastream, &made).await, Some(made));
    });
}
