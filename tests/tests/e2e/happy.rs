//! The happy path: over AMQP and HTTP, in every form an event may come in.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cuewire_tests::amqp::Raw;
use cuewire_tests::event::id;
use cuewire_tests::system::test;
use cuewire_tests::{Receiver, verify};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use reqwest::Method;
use serde_json::json;

/// Every byte value, so that nothing that treats it as text can leave it as it is.
fn image() -> Vec<u8> {
    (0..=255).cycle().take(4_096).collect()
}

#[test]
fn an_event_over_amqp_reaches_the_webhook_as_the_design_says() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/hook?x=1")).create().await;
        let mut event = organization.event("recordings.completed");
        event["subject"] = "recording-7".into();
        event["realm"] = "metadata".into();
        event["data"] = json!({"z": 1, "a": [true, null], "text": "ü"});
        system.amqp().await.publish(&event).await;

        let request = receiver.wait_for(1).await.remove(0);
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hook?x=1"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("transfer-encoding"), None);
        assert_eq!(request.header("content-length"), Some(request.body.len().to_string().as_str()));
        let agent = request.header("user-agent").unwrap();
        assert!(agent.starts_with("Cuewire/"), "{agent}");
        let body = request.json();
        assert_eq!(body["id"], event["id"]);
        assert_eq!(body["type"], "recordings.completed");
        assert_eq!(body["timestamp"], event["time"]);
        assert_eq!(body["source"], "/tests");
        assert_eq!(body["subject"], "recording-7");
        assert_eq!(body["organization"], organization.id.as_str());
        assert_eq!(body["realm"], "metadata");
        assert!(
            String::from_utf8_lossy(&request.body).contains(r#""data":{"a":[true,null],"text":"ü","z":1}"#),
            "the data's bytes are kept: {}",
            String::from_utf8_lossy(&request.body)
        );
        verify::v1(&webhook.secret, &request).unwrap();

        system.stop_all().await;
        assert_eq!(receiver.count(), 1);
    });
}

#[test]
fn the_data_keeps_its_bytes_whatever_their_order_and_spaces() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/standard")).create().await;
        organization.webhook(receiver.url("/cloudevents")).with("format", "cloudevents").create().await;
        let data = r#"{"b" : 1.0, "a":1e2,  "b":"twice"}"#;
        let body = format!(
            r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a.b","organization":"{}","data":{data}}}"#,
            organization.id
        );
        system.amqp().await.publish_raw(&Raw::body("a.b", body)).await.unwrap();
        for request in receiver.wait_for(2).await {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            assert!(body.contains(&format!(r#""data":{data}"#)), "{}: {body}", request.path);
        }
    });
}

#[test]
fn an_event_is_known_by_its_organizations_external_id_too() {
    test(async |system| {
        for external_id in ["acme-42", "57016980-6e13-11e8-ab5a-0a580a3c0f5c"] {
            let receiver = Receiver::healthy().await;
            let organization = system.organization_named(external_id).await;
            organization.webhook(receiver.url("/")).create().await;
            let event = cuewire_tests::event("streams.started", external_id);
            system.amqp().await.publish(&event).await;
            assert_eq!(receiver.wait_for(1).await[0].event_id(), id(&event));
        }
    });
}

#[test]
fn no_organization_is_named_like_another_ones_id() {
    test(async |system| {
        let (one, other) = (system.organization().await, system.organization().await);
        let body = json!({"name": "Impostor", "external_id": one.id});
        let _ = system.operator().post("/v1/organizations", &body).await.problem(409);
        let rename = async |organization: &str| {
            let path = format!("/v1/organizations/{organization}");
            system.operator().patch(&path, &json!({"external_id": one.id})).await
        };
        let _ = rename(&other.id).await.problem(409);
        assert_eq!(rename(&one.id).await.expect(200)["external_id"], one.id);
    });
}

#[test]
fn an_event_over_http_reaches_the_webhook_in_each_form_it_may_come_in() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).create().await;
        let api = &organization.admin;

        let structured = json!({
            "specversion": "1.0", "id": "structured", "source": "/s", "type": "a.structured", "data": {"n": 1},
        });
        let content_type = "application/cloudevents+json";
        let reply = api.body(Method::POST, "/v1/events", content_type, structured.to_string()).await;
        assert_eq!(reply.expect(202), json!({"accepted": 1, "ids": ["structured"]}));

        let convenient = json!({"source": "/s", "type": "a.convenient", "data": {"n": 2}});
        let accepted = api.post("/v1/events", &convenient).await.expect(202);
        let made_id = accepted["ids"][0].as_str().unwrap().to_owned();
        assert_eq!(uuid::Uuid::parse_str(&made_id).unwrap().get_version_num(), 7);

        let binary = api
            .request(Method::POST, "/v1/events")
            .header("ce-specversion", "1.0")
            .header("ce-id", "binary")
            .header("ce-source", "/s")
            .header("ce-type", "a.binary")
            .header("content-type", "application/json")
            .body(r#"{"n":3}"#);
        assert_eq!(api.send(binary).await.expect(202)["ids"], json!(["binary"]));

        let batch = json!([
            {"specversion": "1.0", "id": "batch-1", "source": "/s", "type": "a.batch", "data": {"n": 4}},
            {"specversion": "1.0", "id": "batch-2", "source": "/s", "type": "a.batch", "data": {"n": 5}},
        ]);
        let content_type = "application/cloudevents-batch+json";
        let reply = api.body(Method::POST, "/v1/events", content_type, batch.to_string()).await;
        assert_eq!(reply.expect(202), json!({"accepted": 2, "ids": ["batch-1", "batch-2"]}));

        let requests = receiver.wait_for(5).await;
        let mut arrived: Vec<_> =
            requests.iter().map(|request| (request.event_id(), request.json())).collect();
        arrived.sort_by_key(|(_, body)| body["data"]["n"].as_u64());
        let ids: Vec<_> = arrived.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["structured", &made_id, "binary", "batch-1", "batch-2"]);
        for request in &requests {
            assert_eq!(request.json()["organization"], organization.id.as_str());
            verify::v1(&webhook.secret, request).unwrap();
        }
    });
}

#[test]
fn an_image_survives_byte_for_byte() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        organization.webhook(receiver.url("/standard")).create().await;
        organization.webhook(receiver.url("/cloudevents")).with("format", "cloudevents").create().await;
        let text = |text: &str| AMQPValue::LongString(text.into());
        let mut headers = FieldTable::default();
        headers.insert("ce-specversion".into(), text("1.0"));
        headers.insert("ce-id".into(), text("over-amqp"));
        headers.insert("ce-source".into(), text("/s"));
        headers.insert("cloudEvents:type".into(), text("thumbnail.captured"));
        headers.insert("cloudEvents_organization".into(), text(&organization.id));
        let properties =
            BasicProperties::default().with_content_type("image/jpeg".into()).with_headers(headers);
        let message = Raw::body("thumbnail.captured", image()).properties(|_| properties);
        system.amqp().await.publish_raw(&message).await.unwrap();
        let over_http = organization
            .admin
            .request(Method::POST, "/v1/events")
            .header("ce-specversion", "1.0")
            .header("ce-id", "over-http")
            .header("ce-source", "/s")
            .header("ce-type", "thumbnail.captured")
            .header("content-type", "image/jpeg")
            .body(image());
        let _ = organization.admin.send(over_http).await.expect(202);
        let structured = json!({
            "specversion": "1.0", "id": "structured", "source": "/s", "type": "thumbnail.captured",
            "datacontenttype": "image/jpeg", "organization": organization.id, "data_base64": BASE64.encode(image()),
        });
        system.amqp().await.publish(&structured).await;

        let requests = receiver.wait_for(6).await;
        for request in &requests {
            assert_eq!(request.header("content-type"), Some("image/jpeg"), "{}", request.path);
            assert_eq!(request.body, image(), "{}", request.path);
        }
        let mut ids: Vec<_> = requests.iter().filter_map(|request| request.header("ce-id")).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["over-amqp", "over-http", "structured"], "binary mode, as CloudEvents has it");
    });
}

#[test]
fn a_cloudevents_webhook_gets_the_event_as_it_was_published() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).with("format", "cloudevents").create().await;
        let mut event = organization.event("assets.update");
        event["traceparent"] = "00-1-1-01".into();
        event["priority"] = 7.into();
        event["urgent"] = true.into();
        system.amqp().await.publish(&event).await;
        let request = receiver.wait_for(1).await.remove(0);
        let content_type = request.header("content-type").unwrap();
        assert!(content_type.starts_with("application/cloudevents+json"), "{content_type}");
        assert_eq!(request.json(), event);
        verify::v1(&webhook.secret, &request).unwrap();
    });
}

#[test]
fn every_attempt_is_on_record_and_seen_from_the_event_the_delivery_and_the_webhook() {
    test(async |system| {
        let answer = cuewire_tests::Answer::status(201).header("x-receipt", "77").body("thank you");
        let receiver = Receiver::answering([answer]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).create().await;
        let event = organization.event("encodes.finished");
        system.amqp().await.publish(&event).await;
        let request = receiver.wait_for(1).await.remove(0);

        let delivery = organization.delivery(id(&event), &webhook, "delivered").await;
        assert_eq!(delivery["id"], request.id());
        assert_eq!(delivery["next_attempt_at"], json!(null));
        let path = format!("/v1/deliveries/{}", request.id());
        let delivery = organization.admin.get(&path).await.expect(200);
        assert_eq!(delivery["event_id"], event["id"]);
        let attempt = &delivery["attempts"][0];
        assert_eq!(attempt["number"], 1);
        assert_eq!(attempt["status"], 201);
        assert_eq!(attempt["response_body"], "thank you");
        let headers = attempt["response_headers"].as_array().unwrap();
        assert!(headers.contains(&json!(["x-receipt", "77"])), "{headers:?}");
        let path = format!("/v1/webhooks/{}/attempts", webhook.id);
        let attempts = organization.admin.get(&path).await.expect(200);
        assert_eq!(attempts["data"][0]["delivery_id"], request.id());
        assert_eq!(attempts["next_cursor"], json!(null));
        let listed = organization.admin.get("/v1/events").await.expect(200);
        assert_eq!(listed["data"][0]["id"], event["id"]);
    });
}

#[test]
fn many_replicas_deliver_each_event_to_each_webhook_once() {
    use cuewire_tests::{Service, Setup};
    let setup = Setup::default().replicas(Service::Router, 2).replicas(Service::Sender, 3);
    setup.run(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        for path in ["/a", "/b", "/c"] {
            organization.webhook(receiver.url(path)).create().await;
        }
        let events = cuewire_tests::event::events(300, "feeds.started", &organization.id);
        system.amqp().await.publish_all(&events).await;
        receiver.wait_for(900).await;
        system.stop_all().await;
        let mut arrived: Vec<_> =
            receiver.requests().iter().map(|request| (request.path.clone(), request.event_id())).collect();
        arrived.sort();
        let mut expected: Vec<_> = ["/a", "/b", "/c"]
            .iter()
            .flat_map(|path| events.iter().map(|event| ((*path).to_owned(), id(event).to_owned())))
            .collect();
        expected.sort();
        assert_eq!(arrived, expected);
    });
}
