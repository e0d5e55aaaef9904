//! AIOZ Stream.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cuewire_tests::system::{System, test};
use cuewire_tests::{Answer, Client, Organization, Receiver, Reply, until, verify};
use serde_json::{Value, json};

const AT: &str = "/platforms/aioz/api/webhooks";

/// The platform's way to say that a request failed, whose message is a sentence.
#[track_caller]
fn fail(reply: Reply, status: u16) -> String {
    let body = reply.expect(status);
    let message = body["message"].as_str().unwrap_or_default().to_owned();
    assert_eq!(body, json!({"message": message, "status": "fail"}));
    assert!(!message.is_empty());
    message
}

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

/// A request by the key alone, with a body of JSON unless that is empty.
async fn call(client: &Client, line: &str, body: &str) -> Reply {
    let key = client.key().unwrap_or("none");
    let content_type = if body.is_empty() { "" } else { "\nContent-Type: application/json" };
    client.raw(&format!("{line} HTTP/1.1\nAuthorization: Bearer {key}{content_type}\n\n{body}")).await
}

async fn create(client: &Client, body: &Value) -> Value {
    let data = success(call(client, &format!("POST {AT}"), &body.to_string()).await, 201);
    assert_eq!(data, json!({"webhook": data["webhook"]}));
    data["webhook"].clone()
}

async fn get(client: &Client, webhook: &Value) -> Value {
    success(call(client, &format!("GET {}", at(webhook)), "").await, 200)["webhook"].clone()
}

fn at(webhook: &Value) -> String {
    format!("{AT}/{}", webhook["id"].as_str().unwrap())
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
        let receiver = Receiver::answering([Answer::status(200), Answer::status(503)]).await;
        let organization = system.organization_named("aioz-user").await;
        let api = &organization.admin;
        let key = api.key().unwrap();
        let url = receiver.url("/hook");
        let made = success(
            api.raw(&format!(
                "POST /platforms/aioz/api/webhooks HTTP/1.1\n\
                 Accept: application/json\nAuthorization: Bearer {key}\nContent-Type: application/json\n\n\
                 {{\"encoding_finished\":true,\"encoding_started\":true,\"file_received\":true,\
                 \"name\":\"Test Webhook\",\"url\":\"{url}\"}}\n"
            ))
            .await,
            201,
        )["webhook"]
            .clone();
        let expected = json!({
            "id": made["id"], "user_id": "aioz-user", "name": "Test Webhook", "url": url, "file_received": true,
            "encoding_started": true, "partial_finished": false, "encoding_finished": true,
            "encoding_failed": false, "created_at": made["created_at"], "updated_at": made["updated_at"], "last_triggered_at": null,
        });
        assert_eq!(made, expected);
        for time in ["created_at", "updated_at"] {
            assert_eq!(made[time].as_str().unwrap().len(), "2023-06-11T11:11:11.111111Z".len(), "{made}");
        }
        assert_eq!(get(api, &made).await, expected);

        organization.in_effect().await;
        let event = media(&organization, "encoding.finished");
        system.amqp().await.publish(&event).await;
        let delivery = receiver.wait_for(1).await.remove(0);
        let secret =
            api.get(&format!("/v1/webhooks/{}/secret", made["id"].as_str().unwrap())).await.expect(200);
        verify::v1(secret["secret"].as_str().unwrap(), &delivery).unwrap();
        let mut flat = event["data"].clone();
        flat["type"] = "encoding.finished".into();
        flat["emitted_at"] = event["time"].clone();
        assert_eq!(delivery.json(), flat);
        let triggered = until("the attempt is on record", async || {
            get(api, &made).await["last_triggered_at"].as_str().map(str::to_owned)
        })
        .await;
        assert!(triggered.as_str() > made["created_at"].as_str().unwrap(), "{triggered}");

        let checked = done(call(api, &format!("POST {AT}/check/{}", made["id"].as_str().unwrap()), "").await);
        assert!(checked.contains("file.received") && checked.contains("503"), "{checked}");
        assert_eq!(receiver.wait_for(2).await[1].json()["type"], "file.received");
        let attempts =
            api.get(&format!("/v1/webhooks/{}/attempts", made["id"].as_str().unwrap())).await.expect(200);
        assert_eq!(attempts["data"].as_array().unwrap().len(), 2);
        assert!(get(api, &made).await["last_triggered_at"].as_str().unwrap() > triggered.as_str());

        let change = json!({"url": receiver.url("/other"), "encoding_failed": true, "file_received": false});
        done(call(api, &format!("PATCH {}", at(&made)), &change.to_string()).await);
        let changed = get(api, &made).await;
        assert_eq!(changed["url"], receiver.url("/other"));
        for (flag, on) in [
            ("file_received", false),
            ("encoding_started", true),
            ("partial_finished", false),
            ("encoding_finished", true),
            ("encoding_failed", true),
        ] {
            assert_eq!(changed[flag], on, "{flag}");
        }
        assert_eq!(changed["name"], "Test Webhook");
        assert!(changed["updated_at"].as_str() > made["updated_at"].as_str());
        let change = json!({"url": url, "name": "Renamed", "encoding_failed": null});
        done(call(api, &format!("PUT {}/", at(&made)), &change.to_string()).await);
        let changed = get(api, &made).await;
        assert_eq!((&changed["name"], &changed["encoding_failed"]), (&json!("Renamed"), &json!(true)));

        done(call(api, &format!("DELETE {}", at(&made)), "").await);
        for line in ["GET", "DELETE"] {
            fail(call(api, &format!("{line} {}", at(&made)), "").await, 404);
        }
        fail(call(api, &format!("POST {AT}/check/{}", made["id"].as_str().unwrap()), "").await, 404);
    });
}

#[test]
fn aioz_clients_may_show_their_key_in_any_of_the_platforms_forms() {
    test(async |system| {
        let organization = system.organization().await;
        let api = &organization.admin;
        let key = api.key().unwrap();
        let keys = api.get("/v1/api-keys").await.expect(200);
        let id = keys["data"][0]["id"].as_str().unwrap();
        let basic = |public: &str, secret: &str| BASE64.encode(format!("{public}:{secret}"));
        let other = "0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a11";
        let headers =
            |public: &str, secret: &str| format!("stream-public-key: {public}\nstream-secret-key: {secret}");
        for (shown, status) in [
            (format!("Authorization: Bearer {key}"), 200),
            (format!("authorization: bearer {id}:{key}"), 200),
            (format!("Authorization: Basic {}", basic(id, key)), 200),
            (headers(id, key), 200),
            (format!("Authorization: Basic {}\n{}", basic(id, key), headers(id, key)), 200),
            (format!("Authorization: Bearer none\n{}", headers(id, key)), 200),
            (format!("Authorization: Bearer {key}\n{}", headers("", "")), 200),
            (format!("Authorization: Basic {}", basic(other, key)), 401),
            (format!("Authorization: Basic {}", basic(id, "cw_wrong")), 401),
            (format!("Authorization: Basic {}", basic("", key)), 401),
            ("Authorization: Basic %%%".to_owned(), 401),
            (format!("Authorization: Bearer {other}:{key}"), 401),
            (headers(other, key), 401),
            (headers(id, "cw_wrong"), 401),
            (format!("stream-secret-key: {key}"), 401),
            ("Accept: */*".to_owned(), 401),
        ] {
            let reply = api.raw(&format!("GET {AT} HTTP/1.1\n{shown}\n\n")).await;
            if status == 200 {
                assert_eq!(success(reply, 200), json!({"total": 0, "webhooks": []}), "{shown}");
            } else {
                fail(reply, status);
            }
        }
    });
}

#[test]
fn an_aioz_body_may_be_a_form_and_may_come_in_chunks() {
    test(async |system| {
        let organization = system.organization().await;
        let api = &organization.admin;
        let key = api.key().unwrap();
        let send = async |line: &str, head: &str, body: &str| {
            api.raw(&format!("{line} HTTP/1.1\nAuthorization: Bearer {key}\n{head}\n\n{body}")).await
        };
        let form = "Content-Type: application/x-www-form-urlencoded";
        let body = "name=true&url=http%3A%2F%2F127.0.0.1%3A9%2Fa%3Fb%3Dc+d&encoding_finished=True\
                    &encoding_failed=false&partial_finished=&unknown=1";
        let made = success(send(&format!("POST {AT}/"), &format!("{form}; charset=utf-8"), body).await, 201)
            ["webhook"]
            .clone();
        assert_eq!((&made["name"], &made["url"]), (&json!("true"), &json!("http://127.0.0.1:9/a?b=c d")));
        assert_eq!((&made["encoding_finished"], &made["encoding_failed"]), (&json!(true), &json!(false)));
        let patch = format!("PATCH {}", at(&made));
        done(
            send(
                &patch,
                &format!("{form}\nTransfer-Encoding: chunked"),
                "url=http://127.0.0.1:9/&file_received=1",
            )
            .await,
        );
        let changed = get(api, &made).await;
        assert_eq!((&changed["file_received"], &changed["encoding_finished"]), (&json!(true), &json!(true)));
        let refused = fail(send(&patch, form, "url=http://127.0.0.1:9/&file_received=perhaps").await, 400);
        assert!(refused.contains("file_received"), "{refused}");

        let json = "Content-Type: application/json; charset=utf-8\nTransfer-Encoding: chunked";
        let body = r#"{"url":"http://127.0.0.1:9/","partial_finished":true,"unknown":{"a":[1]}}"#;
        let made = success(send(&format!("POST {AT}"), json, body).await, 201)["webhook"].clone();
        assert_eq!(
            (&made["partial_finished"], &made["name"]),
            (&json!(true), &json!("default_name_webhook"))
        );
        fail(send(&format!("POST {AT}"), "Content-Type: text/plain", body).await, 415);
        fail(send(&format!("POST {AT}"), "Accept: */*", body).await, 415);
    });
}

#[test]
fn an_aioz_list_is_searched_filtered_sorted_and_cut() {
    test(async |system| {
        let organization = system.organization().await;
        let api = &organization.admin;
        for (name, flag) in
            [("Beta", "file_received"), ("alpha", "encoding_started"), ("Gamma one", "encoding_finished")]
        {
            create(api, &json!({"url": "http://127.0.0.1:9/", "name": name, flag: true})).await;
        }
        organization.webhook("http://127.0.0.1:9/").with("name", "native").create().await;
        let listed = async |query: &str| {
            let data = success(call(api, &format!("GET {AT}{query}"), "").await, 200);
            let webhooks = data["webhooks"].as_array().unwrap();
            let names: Vec<_> = webhooks.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect();
            (data["total"].as_u64().unwrap(), names.join(" "))
        };
        for (query, total, names) in [
            ("", 3, "Beta alpha Gamma one"),
            ("/?colour=red&limit=100&offset=0", 3, "Beta alpha Gamma one"),
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
            fail(call(api, &format!("GET {AT}?{wrong}"), "").await, 400);
        }
    });
}

#[test]
fn aioz_flags_choose_the_types_and_none_of_them_is_no_event_at_all() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let api = &organization.admin;
        let url = receiver.url("/");
        let made =
            create(api, &json!({"url": url, "encoding_finished": true, "partial_finished": true})).await;
        organization.in_effect().await;
        for (event_type, count) in
            [("encoding.finished", 1), ("partial.finished", 1), ("encoding.failed", 0), ("file.received", 0)]
        {
            assert_eq!(takers(system, &organization, event_type).await, count, "{event_type}");
        }
        let off = json!({"url": url, "encoding_finished": false, "partial_finished": false});
        done(call(api, &format!("PATCH {}", at(&made)), &off.to_string()).await);
        organization.in_effect().await;
        for event_type in ["encoding.finished", "partial.finished", "file.received", "video.deleted"] {
            assert_eq!(takers(system, &organization, event_type).await, 0, "{event_type}");
        }
        let refused =
            fail(call(api, &format!("POST {AT}/check/{}", made["id"].as_str().unwrap()), "").await, 400);
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
        let made = create(api, &json!({"url": receiver.url("/"), "encoding_finished": true})).await;
        let native = format!("/v1/webhooks/{}", made["id"].as_str().unwrap());
        let enabled = async || api.get(&native).await.expect(200)["enabled"].as_bool().unwrap();
        organization.in_effect().await;
        system.amqp().await.publish(&media(&organization, "encoding.finished")).await;
        until("the webhook is disabled", async || (!enabled().await).then_some(())).await;
        let patch = format!("PATCH {}", at(&made));
        done(call(api, &patch, &json!({"url": receiver.url("/")}).to_string()).await);
        assert!(!enabled().await, "the same receiver");
        done(call(api, &patch, &json!({"url": receiver.url("/moved")}).to_string()).await);
        assert!(enabled().await);
        let _ = api.patch(&native, &json!({"enabled": false})).await.expect(200);
        done(call(api, &patch, &json!({"url": receiver.url("/again")}).to_string()).await);
        assert!(!enabled().await, "disabled by hand");
    });
}

#[test]
fn a_native_webhook_keeps_what_aioz_has_no_word_for() {
    test(async |system| {
        let organization = system.organization().await;
        let api = &organization.admin;
        let native = organization
            .webhook("http://127.0.0.1:9/")
            .types(&["encoding.*", "video.deleted"])
            .with("format", "aioz")
            .with("filter", "data.title = \"a\" OR subject = \"x\"")
            .with("headers", json!({"x-token": "t"}))
            .create()
            .await;
        let id = json!({"id": native.id});
        let shown = get(api, &id).await;
        for (flag, on) in [
            ("file_received", false),
            ("encoding_started", true),
            ("partial_finished", false),
            ("encoding_finished", true),
            ("encoding_failed", true),
        ] {
            assert_eq!(shown[flag], on, "{flag}");
        }
        done(call(api, &format!("PUT {}", at(&id)), &shown.to_string()).await);
        let read = async || api.get(&format!("/v1/webhooks/{}", native.id)).await.expect(200);
        let unchanged = read().await;
        for member in ["event_types", "filter", "url", "name", "headers", "format"] {
            assert_eq!(unchanged[member], native.json[member], "{member}");
        }
        let change = json!({"url": "http://127.0.0.1:9/", "encoding_failed": false, "file_received": true});
        done(call(api, &format!("PATCH {}", at(&id)), &change.to_string()).await);
        let changed = read().await;
        let mut types: Vec<_> = changed["event_types"].as_array().unwrap().clone();
        types.sort_by_key(ToString::to_string);
        assert_eq!(
            json!(types),
            json!(["encoding.finished", "encoding.started", "file.received", "video.deleted"])
        );
        assert_eq!(changed["filter"], native.json["filter"]);

        let made = create(api, &json!({"url": "http://127.0.0.1:9/", "encoding_failed": true})).await;
        let seen = api.get(&format!("/v1/webhooks/{}", made["id"].as_str().unwrap())).await.expect(200);
        assert_eq!((&seen["format"], &seen["event_types"]), (&json!("aioz"), &json!(["encoding.failed"])));
    });
}

#[test]
fn what_is_wrong_is_told_in_aiozs_words() {
    test(async |system| {
        let organization = system.organization().await;
        let api = &organization.admin;
        let viewer = organization.with_role("viewer").await;
        let post = format!("POST {AT}");
        let good = json!({"url": "http://127.0.0.1:9/", "encoding_finished": true});
        let made = create(api, &good).await;
        let good = good.to_string();
        fail(call(&api.with_key(Some("cw_wrong")), &post, &good).await, 401);
        fail(call(&viewer, &post, &good).await, 403);
        fail(call(&viewer, &format!("DELETE {}", at(&made)), "").await, 403);
        fail(call(&viewer, &format!("POST {AT}/check/{}", made["id"].as_str().unwrap()), "").await, 403);
        assert_eq!(get(&viewer, &made).await, made);
        fail(call(api, "GET /platforms/aioz/api/nothing", "").await, 404);
        fail(call(api, "GET /platforms/aioz", "").await, 404);
        fail(call(api, &format!("PATCH {AT}"), &good).await, 405);
        fail(call(api, &post, &"x".repeat(300 * 1024)).await, 413);
        for (body, named) in [
            ("", "url"),
            ("{", "JSON"),
            ("[]", "object"),
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
            let message = fail(call(api, &post, body).await, 400);
            assert!(message.contains(named), "{body}: {message}");
        }
        for body in ["", "{}", r#"{"name":"Updated Name Only"}"#, r#"{"url":"not-a-url"}"#] {
            let message = fail(call(api, &format!("PATCH {}", at(&made)), body).await, 400);
            assert!(message.contains("url"), "{body}: {message}");
        }
        let other = system.organization().await;
        let standard = organization.webhook("http://127.0.0.1:9/").create().await;
        for (client, id) in [
            (api, "invalid-id"),
            (api, "0190a6f2-4c1e-7b52-9c7d-2f6f1f3f8a11"),
            (api, standard.id.as_str()),
            (&other.admin, made["id"].as_str().unwrap()),
        ] {
            fail(call(client, &format!("GET {AT}/{id}"), "").await, 404);
            fail(call(client, &format!("PATCH {AT}/{id}"), "{}").await, 404);
            fail(call(client, &format!("PUT {AT}/{id}"), &good).await, 404);
            fail(call(client, &format!("DELETE {AT}/{id}"), "").await, 404);
            fail(call(client, &format!("POST {AT}/check/{id}"), "").await, 404);
        }
        assert_eq!(get(api, &made).await, made);
    });
}
