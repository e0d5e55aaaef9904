//! Omegastream.

use cuewire_tests::system::test;
use cuewire_tests::{Answer, Client, Receiver, Reply, until};
use serde_json::{Value, json};

const AT: &str = "/platforms/omegastream/company/client/webhooks";
/// The same, as the platform's pages have it elsewhere.
const ALIKE: [&str; 2] =
    ["/platforms/omegastream/company/company/webhooks", "/platforms/omegastream/company/webhooks"];

/// The platform's way to say that a request failed, whose message is a sentence.
#[track_caller]
fn fail(reply: Reply, status: u16) -> String {
    let body = reply.expect(status);
    let message = body["message"].as_str().unwrap_or_default().to_owned();
    assert_eq!(body, json!({"message": message}));
    assert!(!message.is_empty());
    message
}

/// A request with a body of JSON unless that is empty.
async fn call(client: &Client, line: &str, body: &str) -> Reply {
    let key = client.key().unwrap_or("none");
    let content_type = if body.is_empty() { "" } else { "\nContent-Type: application/json" };
    client.raw(&format!("{line} HTTP/1.1\nAuthorization: Bearer {key}{content_type}\n\n{body}")).await
}

async fn create(client: &Client, body: &Value) -> Value {
    call(client, &format!("POST {AT}"), &body.to_string()).await.expect(200)
}

fn id(object: &Value) -> &str {
    let id = object["id"].as_str().unwrap();
    assert!(id.len() == 24 && id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
    id
}

/// The endpoint as it is listed.
async fn listed(client: &Client, endpoint: &Value) -> Option<Value> {
    let all = call(client, &format!("GET {AT}/all"), "").await.expect(200);
    all.as_array().unwrap().iter().find(|it| it["id"] == endpoint["id"]).cloned()
}

/// An endpoint's event of this type, when it is listed.
async fn sent(client: &Client, endpoint: &Value, event_type: &str) -> Value {
    until(&format!("{event_type} is listed"), async || {
        let events = call(client, &format!("GET {AT}/{}", id(endpoint)), "").await.expect(200);
        events.as_array().unwrap().iter().find(|event| event["type"] == event_type).cloned()
    })
    .await
}

#[test]
fn an_omegastream_endpoint_lives_as_the_platforms_pages_tell() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(200).body("webhook received\n")]).await;
        let organization = system.organization_named("omega-cop-OyJrgi5-fx").await;
        let api = &organization.admin;
        let key = api.key().unwrap();
        let url = receiver.url("/webhook");
        let made = api
            .raw(&format!(
                "GET /platforms/omegastream/company/client/webhooks HTTP/1.1\n\
                 Authorization: Bearer {key}\nContent-Type: application/json\n\n\
                 {{\"url\":\"{url}\",\"events\":[\"video.process_failed\"]}}"
            ))
            .await
            .expect(200);
        let expected = json!({
            "id": id(&made), "created_at": made["created_at"], "updated_at": made["updated_at"],
            "coid": "omega-cop-OyJrgi5-fx", "url": url, "description": null, "events": ["video.process_failed"],
            "active": true,
        });
        assert_eq!(made, expected);
        assert_eq!(made["created_at"].as_str().unwrap().len(), "2022-09-15T21:07:22.823797Z".len(), "{made}");
        assert_eq!(call(api, &format!("GET {AT}/all"), "").await.expect(200), json!([expected]));
        assert_eq!(call(api, &format!("GET {AT}/{}", id(&made)), "").await.expect(200), json!([]));

        organization.in_effect().await;
        let mut event = organization.event("video.process_failed");
        event["data"] = json!({"video": {"b": 1.50, "a": null}});
        system.amqp().await.publish(&event).await;
        let delivery = receiver.wait_for(1).await.remove(0);
        let delivered = delivery.json();
        assert_eq!(delivered["id"], delivery.id().replace('-', "")[..24]);
        assert_eq!((&delivered["endpoint_id"], &delivered["data"]), (&made["id"], &event["data"]));
        let mut shown = sent(api, &made, "video.process_failed").await;
        let mut without_data = delivered.clone();
        without_data["data"] = Value::Null;
        assert_eq!(shown, without_data, "as it was delivered, with `data` and `response` null");
        shown["data"] = event["data"].clone();
        shown["response"] = json!({
            "status_code": 200, "status": "200 OK", "body": "webhook received\n",
            "message": "webhook event with type video.process_failed succeeded",
        });
        let detail =
            call(api, &format!("GET {AT}/{}/events/{}", id(&made), id(&shown)), "").await.expect(200);
        assert_eq!(detail, shown);

        let change = json!({"description": "Videos", "events": ["video.deleted", "video.process_failed"]});
        let path = format!("/platforms/omegastream/company/webhooks/{}", id(&made));
        let changed = call(api, &format!("PUT {path}"), &change.to_string()).await.expect(200);
        assert_eq!(
            (&changed["description"], &changed["events"]),
            (&change["description"], &change["events"])
        );
        assert_eq!((&changed["url"], &changed["created_at"]), (&made["url"], &made["created_at"]));
        let off = call(api, &format!("POST {path}/status"), r#"{"active":false}"#).await.expect(200);
        assert_eq!(off["active"], false);
        organization.in_effect().await;
        let event = organization.event("video.deleted");
        system.amqp().await.publish(&event).await;
        assert_eq!(organization.deliveries(&event).await, [] as [Value; 0]);
        let on = call(api, &format!("POST {path}/status"), r#"{"active":true}"#).await.expect(200);
        assert_eq!((&on["active"], &on["events"]), (&json!(true), &change["events"]));

        let deleted = call(api, &format!("DELETE {path}"), "").await.expect(200);
        assert_eq!(deleted, json!({"message": "webhook endpoint deleted"}));
        assert_eq!(listed(api, &made).await, None);
        fail(call(api, &format!("GET {AT}/{}", id(&made)), "").await, 404);
        fail(call(api, &format!("DELETE {path}"), "").await, 404);
    });
}

#[test]
fn omegastreams_three_paths_lead_to_the_same() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let api = &organization.admin;
        let key = api.key().unwrap();
        let new =
            json!({"url": receiver.url("/"), "events": ["video.uploaded"], "unknown": {"a": 1}}).to_string();
        for at in ALIKE.into_iter().chain([AT]) {
            let made = call(api, &format!("POST {at}/"), &new).await.expect(200);
            assert_eq!(made["coid"], organization.id, "an organization without another name");
            let by_get = api
                .raw(&format!(
                    "GET {at} HTTP/1.1\nAuthorization: Bearer {key}\nContent-Type: application/json\n\
                     Transfer-Encoding: chunked\n\n{new}"
                ))
                .await
                .expect(200);
            let all = call(api, &format!("GET {at}/all/?unknown=1"), "").await.expect(200);
            assert_eq!(all, json!([made, by_get]));
            let native =
                api.get("/v1/webhooks").await.expect(200)["data"][1]["id"].as_str().unwrap().to_owned();
            assert_eq!(native.replace('-', "")[..24], *id(&made));
            let tried = api.post(&format!("/v1/webhooks/{native}/test"), &json!({})).await.expect(200);
            let event = sent(api, &made, "video.uploaded").await;
            assert_eq!(tried["delivery_id"].as_str().unwrap().replace('-', "")[..24], *id(&event));
            let detail =
                call(api, &format!("GET {at}/{}/events/{}/", id(&made), id(&event)), "").await.expect(200);
            assert_eq!(
                (&detail["data"], &detail["response"]["status"]),
                (&json!({"video": {}}), &json!("200 OK"))
            );
            for endpoint in [&made, &by_get] {
                let status =
                    call(api, &format!("POST {at}/{}/status/", id(endpoint)), r#"{"active":true}"#).await;
                assert_eq!(status.expect(200)["id"], endpoint["id"]);
                let updated = call(api, &format!("PUT {at}/{}/", id(endpoint)), "{}").await.expect(200);
                assert_eq!(updated["events"], endpoint["events"]);
                let _ =
                    call(api, &format!("DELETE {at}/{}/", id(endpoint).to_uppercase()), "").await.expect(200);
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
        let made =
            create(api, &json!({"url": receiver.url("/"), "events": ["my.own", "video.deleted"]})).await;
        let native = api.get("/v1/webhooks").await.expect(200)["data"][0]["id"].as_str().unwrap().to_owned();
        for (event_type, status_code, status, body) in
            [("my.own", 500, "500 Internal Server Error", "f\u{fffd}"), ("video.deleted", 0, "", "")]
        {
            let path = format!("/v1/webhooks/{native}/test");
            let _ = api.post(&path, &json!({"type": event_type})).await.expect(200);
            let event = sent(api, &made, event_type).await;
            assert_eq!((&event["data"], &event["response"]), (&Value::Null, &Value::Null));
            let detail =
                call(api, &format!("GET {AT}/{}/events/{}", id(&made), id(&event)), "").await.expect(200);
            let message = format!("webhook event with type {event_type} failed");
            assert_eq!(
                detail["response"],
                json!({
                    "status_code": status_code, "status": status, "body": body, "message": message,
                })
            );
        }
        let events = call(api, &format!("GET {AT}/{}", id(&made)), "").await.expect(200);
        let types: Vec<_> = events.as_array().unwrap().iter().map(|event| &event["type"]).collect();
        assert_eq!(types, ["video.deleted", "my.own"], "the last that was sent first");
    });
}

#[test]
fn an_event_that_was_tried_often_is_listed_once_with_its_last_answer() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(500), Answer::status(200)]).await;
        let organization = system.organization().await;
        let api = &organization.admin;
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
        let events = call(api, &format!("GET {AT}/{}", id(&endpoint)), "").await.expect(200);
        assert_eq!(events.as_array().unwrap().len(), 1);
        assert_eq!(events[0]["created"], 1_769_851_800, "the event's own time");
        let path = format!("{AT}/{}/events/{}", id(&endpoint), id(&events[0]));
        assert_eq!(call(api, &format!("GET {path}"), "").await.expect(200)["response"]["status_code"], 200);
    });
}

#[test]
fn an_endpoint_lists_the_last_hundred_events() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let api = &organization.admin;
        let made =
            create(api, &json!({"url": receiver.url("/"), "events": ["video.deleted", "video.uploaded"]}))
                .await;
        organization.in_effect().await;
        let amqp = system.amqp().await;
        for _ in 0..100 {
            amqp.publish(&organization.event("video.deleted")).await;
        }
        let _ = receiver.wait_for(100).await;
        amqp.publish(&organization.event("video.uploaded")).await;
        let _ = sent(api, &made, "video.uploaded").await;
        let events = until("as many are listed as there may be", async || {
            let events = call(api, &format!("GET {AT}/{}", id(&made)), "").await.expect(200);
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
        let api = &organization.admin;
        let none = create(api, &json!({"url": receiver.url("/"), "events": []})).await;
        assert_eq!(none["events"], json!([]));
        let some = create(api, &json!({"url": receiver.url("/"), "events": ["video.uploaded"]})).await;
        organization.in_effect().await;
        for (event_type, count) in [("video.uploaded", 1), ("video.deleted", 0), ("feeds.started", 0)] {
            let event = organization.event(event_type);
            system.amqp().await.publish(&event).await;
            assert_eq!(organization.deliveries(&event).await.len(), count, "{event_type}");
        }
        let line = format!("PUT {AT}/{}", id(&some));
        assert_eq!(call(api, &line, r#"{"events":[]}"#).await.expect(200)["events"], json!([]));
        assert_eq!(call(api, &line, r#"{"url":null,"events":null}"#).await.expect(200)["events"], json!([]));
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
            call(api, &format!("PUT {AT}/{}", id(&short)), &body.to_string()).await.expect(200)["events"]
                .clone()
        };
        let shown = listed(api, &short).await.unwrap();
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
        let shown = listed(api, &short).await.unwrap();
        assert_eq!(shown["events"].as_array().unwrap().len(), 10);
        let line = format!("PUT {AT}/{}", id(&short));
        assert_eq!(call(api, &line, &shown.to_string()).await.expect(200)["events"], shown["events"]);
        assert_eq!(api.get(&format!("/v1/webhooks/{}", all.id)).await.expect(200)["event_types"], json!([]));
    });
}

#[test]
fn what_is_wrong_is_told_in_omegastreams_words() {
    test(async |system| {
        let organization = system.organization().await;
        let api = &organization.admin;
        let viewer = organization.with_role("viewer").await;
        let (post, all) = (format!("POST {AT}"), format!("GET {AT}/all"));
        let good = json!({"url": "http://127.0.0.1:9/", "events": ["video.deleted"]});
        let made = create(api, &good).await;
        let good = good.to_string();
        fail(call(&api.with_key(Some("cw_wrong")), &post, &good).await, 401);
        fail(api.raw(&format!("{all} HTTP/1.1\n\n")).await, 401);
        fail(call(&viewer, &post, &good).await, 403);
        fail(call(&viewer, &format!("GET {AT}"), &good).await, 403);
        fail(call(&viewer, &format!("POST {AT}/{}/status", id(&made)), r#"{"active":false}"#).await, 403);
        assert_eq!(call(&viewer, &all, "").await.expect(200), json!([made]));
        assert_eq!(call(&viewer, &format!("GET {AT}/{}", id(&made)), "").await.expect(200), json!([]));
        for path in ["", "/company", "/company/client", "/company/client/nothing", "/client/webhooks/all"] {
            fail(call(api, &format!("GET /platforms/omegastream{path}"), "").await, 404);
        }
        fail(call(api, &format!("PATCH {AT}"), &good).await, 405);
        fail(call(api, &post, &"x".repeat(300 * 1024)).await, 413);
        let key = api.key().unwrap();
        for head in
            ["Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded", "Accept: */*"]
        {
            fail(
                api.raw(&format!("{post} HTTP/1.1\nAuthorization: Bearer {key}\n{head}\n\n{good}")).await,
                415,
            );
        }
        for (body, named) in [
            ("", "events"),
            ("{", "JSON"),
            ("[]", "object"),
            (r#"{"url":"http://127.0.0.1:9/"}"#, "events"),
            (r#"{"events":["video.deleted"]}"#, "url"),
            (r#"{"url":"nowhere","events":["video.deleted"]}"#, "url"),
            (r#"{"url":"http://10.0.0.1/","events":["video.deleted"]}"#, "url"),
            (r#"{"url":"http://127.0.0.1:9/","events":"video.deleted"}"#, "events"),
            (r#"{"url":"http://127.0.0.1:9/","events":["video.deleted","video"]}"#, "events[1]"),
            (r#"{"url":"http://127.0.0.1:9/","events":["video.*"]}"#, "events[0]"),
            (r#"{"url":"http://127.0.0.1:9/","events":[],"description":7}"#, "description"),
        ] {
            for line in [&post, &format!("GET {AT}")] {
                let message = fail(call(api, line, body).await, 400);
                assert!(message.contains(named), "{body}: {message}");
            }
        }
        let many: Vec<_> = (0..201).map(|n| format!("video.n{n}")).collect();
        let refused = fail(
            call(api, &format!("PUT {AT}/{}", id(&made)), &json!({"events": many}).to_string()).await,
            400,
        );
        assert!(refused.contains("201") && refused.contains("events"), "{refused}");
        let refused = fail(call(api, &format!("POST {AT}/{}/status", id(&made)), "{}").await, 400);
        assert!(refused.contains("active"), "{refused}");

        let other = system.organization().await;
        let standard = organization.webhook("http://127.0.0.1:9/").create().await;
        let standard = standard.id.replace('-', "")[..24].to_owned();
        for (client, id) in [
            (api, "invalid"),
            (api, "+323940afc8e1c02d9f3b155"),
            (api, "6323940afc8e1c02d9f3b155"),
            (api, standard.as_str()),
            (&other.admin, id(&made)),
        ] {
            fail(call(client, &format!("GET {AT}/{id}"), "").await, 404);
            fail(call(client, &format!("GET {AT}/{id}/events/630fac88bd5bb64cf8b24b99"), "").await, 404);
            fail(call(client, &format!("PUT {AT}/{id}"), &good).await, 404);
            fail(call(client, &format!("POST {AT}/{id}/status"), r#"{"active":false}"#).await, 404);
            fail(call(client, &format!("DELETE {AT}/{id}"), "").await, 404);
        }
        for event in ["invalid", "630fac88bd5bb64cf8b24b99"] {
            fail(call(api, &format!("GET {AT}/{}/events/{event}", id(&made)), "").await, 404);
        }
        assert_eq!(listed(api, &made).await, Some(made));
    });
}
