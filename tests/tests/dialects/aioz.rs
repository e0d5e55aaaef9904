//! AIOZ Stream.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cuewire_tests::system::{System, test};
use cuewire_tests::{Answer, Client, Organization, Receiver, Reply, until, verify};
use serde_json::{Value, json};

use crate::platform::{Caller, Platform};

const AT: &str = "/platforms/aioz/api/webhooks";

#[track_caller]
fn success(reply: Reply, status: u16) -> Value {
    let body = reply.expect(status);
    assert_eq!(body, json!({"data": body["data"], "status": "success"}));
    body["data"].clone()
}

/// Success without data, whose message is a sentence.
#[track_caller]
fn done(reply: Reply) -> String {
    let body = reply.expect(200);
    let message = body["message"].as_str().unwrap_or_default().to_owned();
    assert_eq!(body, json!({"message": message, "status": "success"}));
    assert!(!message.is_empty());
    message
}

async fn create(aioz: &Caller, body: &Value) -> Value {
    let data = success(aioz.call(&format!("POST {AT}"), &body.to_string()).await, 201);
    assert_eq!(data, json!({"webhook": data["webhook"]}));
    data["webhook"].clone()
}

async fn get(aioz: &Caller, webhook: &Value) -> Value {
    success(aioz.call(&format!("GET {}", at(webhook)), "").await, 200)["webhook"].clone()
}

fn id(webhook: &Value) -> &str {
    webhook["id"].as_str().unwrap()
}

fn at(webhook: &Value) -> String {
    format!("{AT}/{}", id(webhook))
}

fn media(organization: &Organization<'_>, event_type: &str) -> Value {
    let mut event = organization.event(event_type);
    event["data"] = json!({
        "media_id": "3d0f6a0e-5b1c-4c57-9d0e-2a4f0c7b8e11", "media_type": "video", "qualities": "720p,1080p",
        "title": "Opening night", "status": "done", "user_id": "8c1b7a52-64de-4f0a-b0a4-6a1f5d3e9c20",
    });
    event
}

/// To how many webhooks the event is fanned out.
async fn takers(system: &System, organization: &Organization<'_>, event_type: &str) -> usize {
    let event = media(organization, event_type);
    system.amqp().await.publish(&event).await;
    organization.deliveries(&event).await.len()
}

#[test]
fn an_aioz_webhook_lives_as_the_platforms_documentation_tells() {
    test(async |system| {
        let organization = system.organization_named("aioz-user").await;
        let aioz = Platform::Aioz.by(&organization.admin).await;
        let key = organization.admin.key().unwrap();
        let made = organization
            .admin
            .raw(&format!(
                "POST /platforms/aioz/api/webhooks HTTP/1.1\n\
                 Accept: application/json\nAuthorization: Bearer {key}\nContent-Type: application/json\n\n\
                 {{\"encoding_finished\":true,\"encoding_started\":true,\"file_received\":true,\
                 \"name\":\"Test Webhook\",\"url\":\"http://127.0.0.1:9/hook\"}}\n"
            ))
            .await;
        let made = success(made, 201)["webhook"].clone();
        let expected = json!({
            "id": made["id"], "user_id": "aioz-user", "name": "Test Webhook", "url": "http://127.0.0.1:9/hook",
            "file_received": true, "encoding_started": true, "partial_finished": false, "encoding_finished": true,
            "encoding_failed": false, "created_at": made["created_at"], "updated_at": made["updated_at"],
            "last_triggered_at": null,
        });
        assert_eq!(made, expected);
        for time in ["created_at", "updated_at"] {
            assert_eq!(made[time].as_str().unwrap().len(), "2023-06-11T11:11:11.111111Z".len(), "{made}");
        }
        assert_eq!(get(&aioz, &made).await, expected);

        let change = r#"{"url":"http://127.0.0.1:9/other","encoding_failed":true,"file_received":false}"#;
        done(aioz.call(&format!("PATCH {}", at(&made)), change).await);
        let mut expected = expected;
        expected["url"] = "http://127.0.0.1:9/other".into();
        expected["encoding_failed"] = true.into();
        expected["file_received"] = false.into();
        let changed = get(&aioz, &made).await;
        assert!(changed["updated_at"].as_str() > made["updated_at"].as_str());
        expected["updated_at"] = changed["updated_at"].clone();
        assert_eq!(changed, expected);
        let change = r#"{"url":"http://127.0.0.1:9/hook","name":"Renamed","encoding_failed":null}"#;
        done(aioz.call(&format!("PUT {}/", at(&made)), change).await);
        let changed = get(&aioz, &made).await;
        assert_eq!((&changed["name"], &changed["encoding_failed"]), (&json!("Renamed"), &json!(true)));

        done(aioz.call(&format!("DELETE {}", at(&made)), "").await);
        for line in ["GET", "DELETE"] {
            aioz.failed(aioz.call(&format!("{line} {}", at(&made)), "").await, 404);
        }
        aioz.failed(aioz.call(&format!("POST {AT}/check/{}", id(&made)), "").await, 404);
    });
}

#[test]
fn an_aioz_webhook_receives_one_flat_object_and_a_sample_when_it_is_checked() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(200), Answer::status(503)]).await;
        let organization = system.organization().await;
        let aioz = Platform::Aioz.by(&organization.admin).await;
        let flags = json!({"url": receiver.url("/"), "file_received": true, "encoding_finished": true});
        let made = create(&aioz, &flags).await;
        assert_eq!(made["user_id"], organization.id.as_str(), "an organization without another name");
        organization.in_effect().await;
        let event = media(&organization, "encoding.finished");
        system.amqp().await.publish(&event).await;
        let delivery = receiver.wait_for(1).await.remove(0);
        let native = format!("/v1/webhooks/{}", id(&made));
        let secret = organization.admin.get(&format!("{native}/secret")).await.expect(200);
        verify::v1(secret["secret"].as_str().unwrap(), &delivery).unwrap();
        let mut flat = event["data"].clone();
        flat["type"] = "encoding.finished".into();
        flat["emitted_at"] = event["time"].clone();
        assert_eq!(delivery.json(), flat);
        let triggered = until("the attempt is on record", async || {
            get(&aioz, &made).await["last_triggered_at"].as_str().map(str::to_owned)
        })
        .await;
        assert!(triggered.as_str() > made["created_at"].as_str().unwrap(), "{triggered}");
        assert_eq!(triggered.len(), "2023-06-11T11:11:11.111111Z".len(), "{triggered}");

        let checked = done(aioz.call(&format!("POST {AT}/check/{}", id(&made)), "").await);
        assert!(checked.contains("file.received") && checked.contains("503"), "{checked}");
        assert_eq!(receiver.wait_for(2).await[1].json()["type"], "file.received");
        let attempts = organization.admin.get(&format!("{native}/attempts")).await.expect(200);
        assert_eq!(attempts["data"].as_array().unwrap().len(), 2);
        assert!(get(&aioz, &made).await["last_triggered_at"].as_str().unwrap() > triggered.as_str());
    });
}

#[test]
fn aioz_clients_may_show_their_key_in_any_of_the_platforms_forms_but_not_two_keys() {
    test(async |system| {
        let organization = system.organization().await;
        let (api, second) = (&organization.admin, &organization.with_role("admin").await);
        let stranger = system.organization().await.admin;
        let shown = |client: &Client| (client.key_id().unwrap().to_owned(), client.key().unwrap().to_owned());
        let ((id, key), (second_id, second_key), (other_id, other_key)) =
            (shown(api), shown(second), shown(&stranger));
        let bearer = |key: &str| format!("Authorization: Bearer {key}");
        let basic = |public: &str, secret: &str| {
            format!("Authorization: Basic {}", BASE64.encode(format!("{public}:{secret}")))
        };
        let headers =
            |public: &str, secret: &str| format!("stream-public-key: {public}\nstream-secret-key: {secret}");
        let both = |one: String, other: String| format!("{one}\n{other}");
        for (shown, status) in [
            (bearer(&key), 200),
            (format!("authorization: bearer {id}:{key}"), 200),
            (basic(&id, &key), 200),
            (headers(&id, &key), 200),
            (both(basic(&id, &key), headers(&id, &key)), 200),
            (both(bearer(&key), headers(&id, &key)), 200),
            (both(bearer(&key), headers("", "")), 200),
            (both("Authorization:".to_owned(), headers(&id, &key)), 200),
            (basic(&other_id, &key), 401),
            (basic(&id, "cw_wrong"), 401),
            (basic("", &key), 401),
            ("Authorization: Basic %%%".to_owned(), 401),
            (bearer(&format!("{other_id}:{key}")), 401),
            (headers(&other_id, &key), 401),
            (headers(&id, "cw_wrong"), 401),
            (format!("stream-secret-key: {key}"), 401),
            (both(basic(&id, &key), headers(&other_id, &other_key)), 401),
            (both(basic(&other_id, &other_key), headers(&id, &key)), 401),
            (both(basic(&id, &key), headers(&second_id, &second_key)), 401),
            (both(bearer(&key), headers(&other_id, &other_key)), 401),
            (both(bearer("none"), headers(&id, &key)), 401),
            (both("Authorization: Basic %%%".to_owned(), headers(&id, &key)), 401),
            (both(basic(&id, &key), headers(&id, "")), 401),
            ("Accept: */*".to_owned(), 401),
        ] {
            let reply = api.raw(&format!("GET {AT} HTTP/1.1\n{shown}\n\n")).await;
            if status == 200 {
                assert_eq!(success(reply, 200), json!({"total": 0, "webhooks": []}), "{shown}");
            } else {
                assert!(Platform::Aioz.failed(reply, status).contains("stream-public-key"), "{shown}");
            }
        }
    });
}

#[test]
fn an_aioz_body_may_be_a_form_and_may_come_in_chunks() {
    test(async |system| {
        let aioz = Platform::Aioz.by(&system.organization().await.admin).await;
        let form = "\nContent-Type: application/x-www-form-urlencoded";
        let body = "name=true&url=http%3A%2F%2F127.0.0.1%3A9%2Fa%3Fb%3Dc%2Bd&encoding_finished=True\
                    &encoding_failed=false&partial_finished=&unknown=1";
        let made = aioz.with_headers(&format!("POST {AT}/"), &format!("{form}; charset=utf-8"), body).await;
        let made = success(made, 201)["webhook"].clone();
        assert_eq!((&made["name"], &made["url"]), (&json!("true"), &json!("http://127.0.0.1:9/a?b=c+d")));
        assert_eq!((&made["encoding_finished"], &made["encoding_failed"]), (&json!(true), &json!(false)));
        let patch = format!("PATCH {}", at(&made));
        let chunked = format!("{form}\nTransfer-Encoding: chunked");
        done(aioz.with_headers(&patch, &chunked, "url=http://127.0.0.1:9/&file_received=1").await);
        let changed = get(&aioz, &made).await;
        assert_eq!((&changed["file_received"], &changed["encoding_finished"]), (&json!(true), &json!(true)));
        let refused = aioz.with_headers(&patch, form, "url=http://127.0.0.1:9/&file_received=perhaps").await;
        let refused = aioz.failed(refused, 400);
        assert!(refused.contains("file_received"), "{refused}");

        let json = "\nContent-Type: application/json; charset=utf-8\nTransfer-Encoding: chunked";
        let body = r#"{"url":"http://127.0.0.1:9/","partial_finished":true,"unknown":{"a":[1]}}"#;
        let made =
            success(aioz.with_headers(&format!("POST {AT}"), json, body).await, 201)["webhook"].clone();
        assert_eq!(
            (&made["partial_finished"], &made["name"]),
            (&json!(true), &json!("default_name_webhook"))
        );
    });
}

#[test]
fn an_aioz_list_is_searched_filtered_sorted_and_cut() {
    test(async |system| {
        let organization = system.organization().await;
        let aioz = Platform::Aioz.by(&organization.admin).await;
        for (name, flag) in
            [("Beta", "file_received"), ("alpha", "encoding_started"), ("Gamma one", "encoding_finished")]
        {
            create(&aioz, &json!({"url": "http://127.0.0.1:9/", "name": name, flag: true})).await;
        }
        organization.webhook("http://127.0.0.1:9/").with("name", "native").create().await;
        let listed = async |query: &str| {
            let data = success(aioz.call(&format!("GET {AT}{query}"), "").await, 200);
            let webhooks = data["webhooks"].as_array().unwrap();
            let names: Vec<_> = webhooks.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect();
            (data["total"].as_u64().unwrap(), names.join(" "))
        };
        for (query, total, names) in [
            ("", 3, "Beta alpha Gamma one"),
            ("/?colour=red&limit=100&offset=0", 3, "Beta alpha Gamma one"),
            ("?search=&sort_by=&order_by=&offset=&limit=", 3, "Beta alpha Gamma one"),
            ("?sort_by=name", 3, "Beta Gamma one alpha"),
            ("?sort_by=name&order_by=desc&limit=2", 3, "alpha Gamma one"),
            ("?sort_by=created_at&order_by=desc", 3, "Gamma one alpha Beta"),
            ("?offset=1&limit=1", 3, "alpha"),
            ("?offset=3", 3, ""),
            ("?search=A%20O", 1, "Gamma one"),
            ("?search=", 3, "Beta alpha Gamma one"),
            ("?encoding_finished=True", 1, "Gamma one"),
            ("?encoding_finished=False&file_received=true", 1, "Beta"),
            ("?encoding_finished=true&encoding_started=false&file_received=true", 0, ""),
            ("?encoding_started=True&search=alp", 1, "alpha"),
        ] {
            assert_eq!(listed(query).await, (total, names.to_owned()), "{query}");
        }
        for wrong in [
            "offset=-1",
            "limit=0",
            "limit=101",
            "limit=many",
            "sort_by=url",
            "order_by=up",
            "file_received=x",
        ] {
            let said = aioz.failed(aioz.call(&format!("GET {AT}?{wrong}"), "").await, 400);
            assert!(said.starts_with(&format!("`{}` ", wrong.split('=').next().unwrap())), "{wrong}: {said}");
        }
        for _ in 3..26 {
            create(&aioz, &json!({"url": "http://127.0.0.1:9/", "name": "more", "file_received": true}))
                .await;
        }
        let (total, names) = listed("").await;
        assert_eq!((total, names.matches("more").count()), (26, 22), "25 unless it is said");
    });
}

#[test]
fn aioz_flags_choose_the_types_and_none_of_them_is_no_event_at_all() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let api = &organization.admin;
        let aioz = Platform::Aioz.by(api).await;
        let url = receiver.url("/");
        let made =
            create(&aioz, &json!({"url": url, "encoding_finished": true, "partial_finished": true})).await;
        organization.in_effect().await;
        for (event_type, count) in
            [("encoding.finished", 1), ("partial.finished", 1), ("encoding.failed", 0), ("file.received", 0)]
        {
            assert_eq!(takers(system, &organization, event_type).await, count, "{event_type}");
        }
        let off = json!({"url": url, "encoding_finished": false, "partial_finished": false});
        done(aioz.call(&format!("PATCH {}", at(&made)), &off.to_string()).await);
        let shown = get(&aioz, &made).await;
        assert!(shown.as_object().unwrap().values().all(|value| *value != true), "{shown}");
        organization.in_effect().await;
        for event_type in ["encoding.finished", "partial.finished", "file.received", "video.deleted"] {
            assert_eq!(takers(system, &organization, event_type).await, 0, "{event_type}");
        }
        let refused = aioz
            .failed(aioz.call(&format!("POST {AT}/check/{}", made["id"].as_str().unwrap()), "").await, 400);
        assert!(refused.contains("no event is enabled"), "{refused}");
        assert_eq!(receiver.wait_for(2).await.len(), 2);
    });
}

#[test]
fn an_aioz_webhook_whose_receiver_is_gone_comes_back_with_another_url() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(410)]).await;
        let organization = system.organization().await;
        let api = &organization.admin;
        let aioz = Platform::Aioz.by(api).await;
        let made = create(&aioz, &json!({"url": receiver.url("/"), "encoding_finished": true})).await;
        let native = format!("/v1/webhooks/{}", made["id"].as_str().unwrap());
        let enabled = async || api.get(&native).await.expect(200)["enabled"].as_bool().unwrap();
        organization.in_effect().await;
        system.amqp().await.publish(&media(&organization, "encoding.finished")).await;
        until("the webhook is disabled", async || (!enabled().await).then_some(())).await;
        let patch = format!("PATCH {}", at(&made));
        done(aioz.call(&patch, &json!({"url": receiver.url("/")}).to_string()).await);
        assert!(!enabled().await, "the same receiver");
        done(aioz.call(&patch, &json!({"url": receiver.url("/moved")}).to_string()).await);
        assert!(enabled().await);
        let _ = api.patch(&native, &json!({"enabled": false})).await.expect(200);
        done(aioz.call(&patch, &json!({"url": receiver.url("/again")}).to_string()).await);
        assert!(!enabled().await, "disabled by hand");
    });
}

#[test]
fn a_native_webhook_keeps_what_aioz_has_no_word_for() {
    test(async |system| {
        let organization = system.organization().await;
        let api = &organization.admin;
        let aioz = Platform::Aioz.by(api).await;
        let native = organization
            .webhook("http://127.0.0.1:9/")
            .types(&["encoding.*", "video.deleted"])
            .with("format", "aioz")
            .with("filter", "data.title = \"a\" OR subject = \"x\"")
            .with("headers", json!({"x-token": "t"}))
            .create()
            .await;
        let id = json!({"id": native.id});
        let shown = get(&aioz, &id).await;
        for (flag, on) in [
            ("file_received", false),
            ("encoding_started", true),
            ("partial_finished", false),
            ("encoding_finished", true),
            ("encoding_failed", true),
        ] {
            assert_eq!(shown[flag], on, "{flag}");
        }
        done(aioz.call(&format!("PUT {}", at(&id)), &shown.to_string()).await);
        let read = async || api.get(&format!("/v1/webhooks/{}", native.id)).await.expect(200);
        let unchanged = read().await;
        for member in ["event_types", "filter", "url", "name", "headers", "format"] {
            assert_eq!(unchanged[member], native.json[member], "{member}");
        }
        let change = json!({"url": "http://127.0.0.1:9/", "encoding_failed": false, "file_received": true});
        done(aioz.call(&format!("PATCH {}", at(&id)), &change.to_string()).await);
        let changed = read().await;
        let mut types: Vec<_> = changed["event_types"].as_array().unwrap().clone();
        types.sort_by_key(ToString::to_string);
        assert_eq!(
            json!(types),
            json!(["encoding.finished", "encoding.started", "file.received", "video.deleted"])
        );
        assert_eq!(changed["filter"], native.json["filter"]);

        let made = create(&aioz, &json!({"url": "http://127.0.0.1:9/", "encoding_failed": true})).await;
        let seen = api.get(&format!("/v1/webhooks/{}", made["id"].as_str().unwrap())).await.expect(200);
        assert_eq!((&seen["format"], &seen["event_types"]), (&json!("aioz"), &json!(["encoding.failed"])));
    });
}

#[test]
fn an_aioz_flag_that_is_switched_off_widens_nothing() {
    test(async |system| {
        let organization = system.organization().await;
        let aioz = Platform::Aioz.by(&organization.admin).await;
        for (types, flag, off, kept) in [
            (&["*.finished"][..], "partial_finished", "partial.finished", "encoding.finished"),
            (&["*.deleted", "encoding.*"], "encoding_failed", "encoding.failed", "encoding.started"),
        ] {
            let receiver = Receiver::healthy().await;
            let native =
                organization.webhook(receiver.url("/")).types(types).with("format", "aioz").create().await;
            let change = json!({"url": receiver.url("/"), flag: false, "file_received": false}).to_string();
            done(aioz.call(&format!("PATCH {}", at(&json!({"id": native.id}))), &change).await);
            organization.in_effect().await;
            for (event_type, count) in [(kept, 1), (off, 0), ("file.received", 0), ("encoding.custom", 0)] {
                let event = media(&organization, event_type);
                system.amqp().await.publish(&event).await;
                let deliveries = organization.deliveries(&event).await;
                let own = deliveries.iter().filter(|it| it["webhook_id"] == native.id.as_str());
                assert_eq!(own.count(), count, "{types:?} without {flag}: {event_type}");
            }
        }
    });
}

#[test]
fn what_is_wrong_with_an_aioz_webhook_is_told_in_a_sentence() {
    test(async |system| {
        let organization = system.organization().await;
        let aioz = Platform::Aioz.by(&organization.admin).await;
        let good = json!({"url": "http://127.0.0.1:9/", "encoding_finished": true});
        let made = create(&aioz, &good).await;
        for (body, named) in [
            ("", "url"),
            ("{}", "url"),
            (r#"{"encoding_finished":true}"#, "url"),
            (r#"{"url":null,"encoding_finished":true}"#, "url"),
            (r#"{"url":"not-a-url","encoding_finished":true}"#, "url"),
            (r#"{"url":"http://10.0.0.1/","encoding_finished":true}"#, "url"),
            (r#"{"url":"http://127.0.0.1:9/"}"#, "event"),
            (r#"{"url":"http://127.0.0.1:9/","encoding_finished":false}"#, "event"),
            (r#"{"url":"http://127.0.0.1:9/","encoding_finished":3}"#, "encoding_finished"),
            (r#"{"url":"http://127.0.0.1:9/","encoding_finished":true,"name":""}"#, "name"),
        ] {
            let message = aioz.failed(aioz.call(&format!("POST {AT}"), body).await, 400);
            assert!(message.contains(named), "{body}: {message}");
        }
        for body in [
            "",
            "{}",
            r#"{"name":"Updated Name Only"}"#,
            r#"{"url":null,"encoding_failed":true}"#,
            r#"{"url":"","encoding_failed":true}"#,
            r#"{"url":"not-a-url"}"#,
        ] {
            for method in ["PATCH", "PUT"] {
                let message = aioz.failed(aioz.call(&format!("{method} {}", at(&made)), body).await, 400);
                assert!(message.contains("url"), "{method} {body}: {message}");
            }
        }
        assert_eq!(get(&aioz, &made).await, made);
    });
}
