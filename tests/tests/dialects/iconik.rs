//! iconik.

use cuewire_tests::system::test;
use cuewire_tests::{Answer, Client, Organization, Receiver, Reply, System, Webhook, event, until};
use serde_json::{Value, json};

use crate::taken_by;

const WEBHOOKS: &str = "/platforms/iconik/API/notifications/v1/webhooks/";

/// The API as the platform's clients speak it, by one key.
struct Iconik {
    client: Client,
    app_id: String,
}

impl Iconik {
    async fn of(system: &System, organization: &Organization<'_>, role: &str) -> Self {
        let path = format!("/v1/organizations/{}/api-keys", organization.id);
        let made = system.operator().post(&path, &json!({"name": "iconik", "role": role})).await.expect(201);
        Self {
            client: system.operator().with_key(made["key"].as_str()),
            app_id: made["id"].as_str().unwrap().to_owned(),
        }
    }

    /// Sends a request whose line and body are these.
    async fn call(&self, line: &str, body: &str) -> Reply {
        let content_type = if body.is_empty() { "" } else { "\nContent-Type: application/json" };
        self.with_headers(line, content_type, body).await
    }

    async fn with_headers(&self, line: &str, headers: &str, body: &str) -> Reply {
        let (id, key) = (&self.app_id, self.client.key().unwrap());
        let head = format!("{line} HTTP/1.1\nApp-ID: {id}\nAuth-Token: {key}{headers}");
        self.client.raw(&format!("{head}\n\n{body}")).await
    }

    async fn create(&self, body: &Value) -> Value {
        self.call(&format!("POST {WEBHOOKS}"), &body.to_string()).await.expect(201)
    }

    async fn read(&self, webhook: &Value) -> Value {
        self.call(&format!("GET {}", at(webhook)), "").await.expect(200)
    }

    async fn update(&self, webhook: &Value, body: &Value) -> Value {
        self.call(&format!("PUT {}", at(webhook)), &body.to_string()).await.expect(200)
    }
}

fn at(webhook: &Value) -> String {
    format!("{WEBHOOKS}{}/", webhook["id"].as_str().unwrap())
}

/// The platform's way to say what is wrong with the request as a whole.
#[track_caller]
fn error(reply: Reply, status: u16) -> String {
    let body = reply.expect(status);
    let sentence = body["errors"][0].as_str().unwrap_or_default();
    assert!(!sentence.is_empty() && body["errors"].as_array().unwrap().len() == 1, "{body}");
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    sentence.to_owned()
}

/// The platform's way to say what is wrong with a field.
#[track_caller]
fn field_error(reply: Reply, field: &str) -> String {
    let body = reply.expect(400);
    let sentence = body["errors"][field].as_str().unwrap_or_default();
    assert!(!sentence.is_empty(), "no {field} in {body}");
    sentence.to_owned()
}

/// The native webhook behind it.
async fn native(organization: &Organization<'_>, webhook: &Value) -> Value {
    organization.admin.get(&format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap())).await.expect(200)
}

/// An event of the platform.
fn asset(organization: &Organization<'_>, event_type: &str, realm: &str, data: &Value) -> Value {
    let mut event = event(event_type, &organization.id);
    event["subject"] = json!("0d56db81-1b8e-4a68-9658-98ad9a94d841");
    event["realm"] = json!(realm);
    event["userid"] = json!("256ebe90-c0c8-11ec-9fcd-0648baddf8b3");
    event["requestid"] = json!("eaf4c20c4095f007a059b77c640dbbf9");
    event["data"] = data.clone();
    event
}

#[test]
fn an_iconik_webhook_lives_as_the_platforms_documentation_tells() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization_named("acme-domain").await;
        let iconik = Iconik::of(system, &organization, "editor").await;
        let url = receiver.url("/webhook_handler");
        let query = "data.is_archived=false AND data.size>0 (data.status=\"CLOSED\" OR data.status=\"DELETED\") \
                     AND data.external_id!=null";
        let fields = json!({
            "name": "Archive", "description": "What is closed", "event_type": "assets", "object_id": null,
            "operation": "UPDATE", "realm": "metadata", "url": url, "query": query,
            "headers": {"AUTH-TOKEN": "XYZ"},
        });
        let made = iconik.create(&fields).await;
        let mut expected = fields;
        let read_only = json!({
            "id": made["id"], "operation": "update", "status": "ENABLED", "date_created": made["date_created"],
            "date_modified": made["date_modified"], "deleted_at": null, "first_failed_at": null,
            "last_error": null, "last_payload": null,
        });
        expected.as_object_mut().unwrap().extend(read_only.as_object().unwrap().clone());
        assert_eq!(made, expected);
        assert_eq!(iconik.read(&made).await, expected);
        assert!(made["date_created"].as_str().unwrap().ends_with("+00:00"), "{made}");
        let list = iconik.call(&format!("GET {WEBHOOKS}?page=1&per_page=500"), "").await.expect(200);
        assert_eq!(list, json!({"objects": [expected]}));

        organization.in_effect().await;
        let data = json!({"is_archived": false, "size": 9, "status": "DELETED", "external_id": "x"});
        let open = json!({"is_archived": false, "size": 9, "status": "OPEN", "external_id": "x"});
        for other in [
            asset(&organization, "assets.update", "metadata", &open),
            asset(&organization, "assets.update", "files", &data),
            asset(&organization, "assets.create", "metadata", &data),
            asset(&organization, "collections.update", "metadata", &data),
        ] {
            assert_eq!(taken_by(&organization, &other).await, Vec::<String>::new(), "{other}");
        }
        let wanted = asset(&organization, "assets.update", "metadata", &data);
        assert_eq!(taken_by(&organization, &wanted).await, [made["id"].as_str().unwrap()]);
        let delivery = receiver.wait_for(1).await.remove(0);
        assert_eq!(
            (delivery.path.as_str(), delivery.header("auth-token")),
            ("/webhook_handler", Some("XYZ"))
        );
        assert_eq!(
            delivery.json(),
            json!({
                "system_domain_id": "acme-domain", "event_type": "assets",
                "object_id": "0d56db81-1b8e-4a68-9658-98ad9a94d841",
                "user_id": "256ebe90-c0c8-11ec-9fcd-0648baddf8b3", "realm": "metadata", "operation": "update",
                "data": data, "request_id": "eaf4c20c4095f007a059b77c640dbbf9",
            })
        );

        let changed = iconik.update(&made, &json!({"realm": null, "operation": null, "query": null})).await;
        assert_eq!(
            (&changed["realm"], &changed["operation"], &changed["query"]),
            (&Value::Null, &Value::Null, &Value::Null)
        );
        assert_eq!((&changed["name"], &changed["event_type"]), (&json!("Archive"), &json!("assets")));
        organization.in_effect().await;
        let purged = asset(&organization, "assets.purge", "files", &json!({}));
        assert_eq!(taken_by(&organization, &purged).await.len(), 1);
        receiver.wait_for(2).await;

        let disabled = iconik.update(&made, &json!({"status": "DISABLED"})).await;
        assert_eq!(disabled["status"], "DISABLED");
        organization.in_effect().await;
        let unheard = asset(&organization, "assets.purge", "files", &json!({}));
        assert_eq!(taken_by(&organization, &unheard).await, Vec::<String>::new());
        assert_eq!(iconik.update(&made, &json!({"status": "ENABLED"})).await["status"], "ENABLED");

        let gone = iconik.call(&format!("DELETE {}", at(&made)), "").await;
        assert_eq!((gone.status.as_u16(), gone.text.as_str()), (204, ""));
        error(iconik.call(&format!("GET {}", at(&made)), "").await, 404);
        error(iconik.call(&format!("DELETE {}", at(&made)), "").await, 404);
        assert_eq!(iconik.call(&format!("GET {WEBHOOKS}"), "").await.expect(200), json!({"objects": []}));
    });
}

#[test]
fn an_iconik_webhook_tells_since_when_it_fails_and_what_it_sent_in_vain() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(500), Answer::status(200)]).await;
        let organization = system.organization().await;
        let iconik = Iconik::of(system, &organization, "admin").await;
        let made = iconik.create(&json!({"event_type": "assets", "url": receiver.url("/")})).await;
        let once = json!({"retry_schedule": []});
        let path = format!("/v1/webhooks/{}", made["id"].as_str().unwrap());
        let _ = organization.admin.patch(&path, &once).await.expect(200);
        organization.in_effect().await;
        let event = asset(&organization, "assets.update", "metadata", &json!({"size": 1}));
        assert_eq!(taken_by(&organization, &event).await.len(), 1);
        let sent = receiver.wait_for(1).await.remove(0);
        let failing = until("the webhook is failing", async || {
            Some(iconik.read(&made).await).filter(|webhook| webhook["status"] == "FAILING")
        })
        .await;
        assert_eq!(failing["last_error"], "the receiver answered 500");
        assert_eq!(failing["last_payload"], String::from_utf8_lossy(&sent.body).as_ref());
        assert!(failing["first_failed_at"].as_str().is_some_and(|at| at.ends_with("+00:00")), "{failing}");
        let list = iconik.call(&format!("GET {WEBHOOKS}"), "").await.expect(200);
        assert_eq!(list["objects"][0], failing);

        let same = iconik.update(&made, &failing).await;
        assert_eq!(same["status"], "FAILING", "what was read and sent back changes nothing");
        let enabled = iconik.update(&made, &json!({"status": "ENABLED"})).await;
        assert_eq!(enabled["status"], "FAILING", "it is enabled, and fails until it succeeds");
        let event = asset(&organization, "assets.update", "metadata", &json!({"size": 2}));
        assert_eq!(taken_by(&organization, &event).await.len(), 1);
        let enabled = until("a success ends the failing", async || {
            Some(iconik.read(&made).await).filter(|webhook| webhook["status"] == "ENABLED")
        })
        .await;
        assert_eq!(enabled["first_failed_at"], Value::Null);
        assert_eq!(enabled["last_payload"], failing["last_payload"]);
        // The client's copy is from before.
        assert_eq!(iconik.update(&made, &failing).await["status"], "ENABLED");
        assert_eq!(organization.dead_letters(1).await[0]["reason"], "exhausted");
    });
}

#[test]
fn what_iconik_cannot_say_of_a_webhook_survives_its_updates() {
    test(async |system| {
        let organization = system.organization().await;
        let iconik = Iconik::of(system, &organization, "editor").await;
        for (types, filter, shown) in [
            (
                json!(["assets.create", "collections.*"]),
                json!("data.size > 0 OR userid = \"u\""),
                json!({"event_type": "assets,collections", "operation": null, "realm": null, "object_id": null,
                    "query": "data.size > 0 OR userid = \"u\""}),
            ),
            (
                json!(["assets.Create"]),
                json!("realm=\"acls\" and object_id=\"o\" data.x = 1 userid = /^u/"),
                json!({"event_type": "assets", "operation": "create", "realm": "acls", "object_id": "o",
                    "query": "data.x = 1 AND userid = /^u/"}),
            ),
            (
                json!([]),
                json!(null),
                json!({"event_type": "*", "operation": null, "realm": null, "object_id": null, "query": null}),
            ),
        ] {
            let made =
                organization.webhook("http://1.1.1.1/").with("format", "iconik").with("filter", filter);
            let Webhook { json: made, .. } = made.with("event_types", types).create().await;
            let read = iconik.read(&made).await;
            for (field, value) in shown.as_object().unwrap() {
                assert_eq!(&read[field], value, "{field} of {read}");
            }
            let _ = iconik.update(&made, &read).await;
            let kept = native(&organization, &made).await;
            for field in ["event_types", "filter", "name", "headers", "enabled", "description"] {
                assert_eq!(kept[field], made[field], "{field}");
            }
            let changed = iconik.update(&made, &json!({"realm": "files", "query": "data.y=2"})).await;
            assert_eq!((&changed["realm"], &changed["query"]), (&json!("files"), &json!("data.y=2")));
            assert_eq!(changed["object_id"], shown["object_id"]);
            assert_eq!(native(&organization, &made).await["event_types"], made["event_types"]);
        }
    });
}

#[test]
fn iconik_takes_any_text_for_what_it_selects_by() {
    test(async |system| {
        let organization = system.organization().await;
        let iconik = Iconik::of(system, &organization, "editor").await;
        for (event_type, operation, realm, types) in [
            ("assets", "Metadata.Update", "x\"y\\", json!(["assets.metadata.update"])),
            ("assets", "download all", "ä", json!(["assets.*"])),
            ("my assets", "update", "/x/", json!([])),
            ("assets,collections", "create", ")", json!(["assets.create", "collections.create"])),
            ("*", "create", "r", json!([])),
        ] {
            let fields = json!({"event_type": event_type, "operation": operation, "realm": realm,
                "object_id": realm, "url": "http://1.1.1.1/", "query": "(operation=\"x\") realm!=null"});
            let made = iconik.create(&fields).await;
            assert_eq!(made["operation"], operation.to_lowercase());
            for field in ["event_type", "realm", "object_id", "query"] {
                assert_eq!(made[field], fields[field], "{field}");
            }
            assert_eq!(native(&organization, &made).await["event_types"], types, "{event_type}");
            assert_eq!(iconik.update(&made, &made).await["query"], made["query"]);
        }
    });
}

#[test]
fn iconik_requests_that_are_not_as_they_must_be_are_answered_in_its_envelope() {
    test(async |system| {
        let organization = system.organization().await;
        let iconik = Iconik::of(system, &organization, "editor").await;
        let post = format!("POST {WEBHOOKS}");
        let with = |members: &str| format!(r#"{{"event_type":"assets","url":"http://1.1.1.1/"{members}}}"#);
        for (body, field, sentence) in [
            (r#"{"url":"http://1.1.1.1/"}"#.to_owned(), "event_type", "is missing"),
            (r#"{"event_type":"assets"}"#.to_owned(), "url", "is missing"),
            (r#"{"event_type":" ","url":"http://1.1.1.1/"}"#.to_owned(), "event_type", "is empty"),
            (
                r#"{"event_type":7,"url":"http://1.1.1.1/"}"#.to_owned(),
                "event_type",
                "is 7, and must be text",
            ),
            (r#"{"event_type":"a","url":"ftp://1.1.1.1/"}"#.to_owned(), "url", "must be http or https"),
            (r#"{"event_type":"a","url":"http://10.0.0.1/"}"#.to_owned(), "url", "private or reserved"),
            (with(r#","query":"data.size>0 AND data.x=""#), "query", "at position 24"),
            (with(&format!(r#","query":"data.x=\"{}\"""#, "x".repeat(5_000))), "query", "at position 4097"),
            (with(r#","status":"FAILING""#), "status", "can be set to ENABLED or DISABLED"),
            (with(r#","status":"DELETED""#), "status", "can be set to ENABLED or DISABLED"),
            (with(r#","headers":{"Host":"x"}"#), "headers", "belongs to the connection"),
            (with(r#","headers":["Host"]"#), "headers", "and must be an object"),
            (with(r#","name":"a\u0000""#), "name", "control character"),
            ("[]".to_owned(), "body", "must be an object"),
        ] {
            let said = field_error(iconik.call(&post, &body).await, field);
            assert!(said.contains(sentence), "{body}: {said}");
        }
        error(iconik.call(&post, "{").await, 400);
        error(iconik.with_headers(&post, "\nContent-Type: application/json", "").await, 400);
        error(iconik.with_headers(&post, "\nContent-Type: text/plain", &with("")).await, 415);
        error(iconik.call(&post, &with(&format!(r#","name":"{}""#, "x".repeat(262_144)))).await, 413);
        error(iconik.call("GET /platforms/iconik/API/notifications/v1/hooks/", "").await, 404);
        error(iconik.call("GET /platforms/iconik/", "").await, 404);
        error(iconik.call(&format!("PATCH {WEBHOOKS}"), "{}").await, 405);
        error(iconik.call(&format!("GET {WEBHOOKS}?page=x"), "").await, 400);
        assert!(
            !field_error(iconik.call(&format!("GET {WEBHOOKS}?per_page=0"), "").await, "per_page").is_empty()
        );

        let base = iconik.call(&format!("GET {WEBHOOKS}"), "").await.expect(200);
        assert_eq!(base, json!({"objects": []}), "nothing of that was made");

        // What is unknown or null is as good as left out; the body may come in chunks, the slash may be missing.
        let line = post.trim_end_matches('/').to_owned();
        let chunked = "\nContent-Type: application/json; charset=utf-8\nTransfer-Encoding: chunked";
        let body = with(
            r#","id":7,"colour":"red","query":null,"headers":null,"realm":"","description":"","name":null"#,
        );
        let made = iconik.with_headers(&line, chunked, &body).await.expect(201);
        let shown = (&made["name"], &made["headers"], &made["realm"], &made["description"]);
        assert_eq!(shown, (&json!("1.1.1.1"), &json!({}), &Value::Null, &Value::Null));
        let read = iconik.call(&format!("GET {}?Colour=True", at(&made).trim_end_matches('/')), "").await;
        assert_eq!(read.expect(200), made);
        let refused = iconik.call(&format!("PUT {}", at(&made)), r#"{"query":"x"}"#).await;
        assert!(field_error(refused, "query").contains("at position 2"));
        let made = iconik.update(&made, &json!({})).await;
        assert_eq!(made["url"], "http://1.1.1.1/");

        let second = iconik.create(&json!({"event_type": "assets", "url": "http://1.1.1.1/"})).await;
        for (query, expected) in [
            ("", vec![&made, &second]),
            ("?page=1", vec![&made, &second]),
            ("?page=2", vec![]),
            ("?per_page=1", vec![&made]),
            ("?per_page=1&page=2", vec![&second]),
            ("?per_page=2&page=2", vec![]),
        ] {
            let list = iconik.call(&format!("GET {WEBHOOKS}{query}"), "").await.expect(200);
            assert_eq!(list, json!({"objects": expected}), "{query}");
        }

        for id in ["7", "x", "%00", "00000000-0000-0000-0000-000000000000"] {
            error(iconik.call(&format!("GET {WEBHOOKS}{id}/"), "").await, 404);
            error(iconik.call(&format!("PUT {WEBHOOKS}{id}/"), "{}").await, 404);
            error(iconik.call(&format!("DELETE {WEBHOOKS}{id}/"), "").await, 404);
        }
    });
}

#[test]
fn an_iconik_webhook_is_reached_only_by_whom_it_belongs_to() {
    test(async |system| {
        let organization = system.organization().await;
        let iconik = Iconik::of(system, &organization, "editor").await;
        let made = iconik.create(&json!({"event_type": "assets", "url": "http://1.1.1.1/"})).await;
        let viewer = Iconik::of(system, &organization, "viewer").await;
        assert_eq!(viewer.read(&made).await, made);
        error(viewer.call(&format!("POST {WEBHOOKS}"), "{}").await, 403);
        error(viewer.call(&format!("PUT {}", at(&made)), "{}").await, 403);
        error(viewer.call(&format!("DELETE {}", at(&made)), "").await, 403);

        let other = Iconik::of(system, &system.organization().await, "admin").await;
        for line in ["GET", "DELETE"] {
            error(other.call(&format!("{line} {}", at(&made)), "").await, 404);
        }
        error(other.call(&format!("PUT {}", at(&made)), "{}").await, 404);
        let plain = organization.webhook("http://1.1.1.1/").create().await.json;
        error(iconik.call(&format!("GET {}", at(&plain)), "").await, 404);
        error(iconik.call(&format!("DELETE {}", at(&plain)), "").await, 404);

        let key = iconik.client.key().unwrap();
        for headers in [
            String::new(),
            format!("App-ID: {}", iconik.app_id),
            format!("Auth-Token: {key}"),
            format!("Authorization: Bearer {key}"),
            format!("App-ID: {}\nAuth-Token: {key}", viewer.app_id),
            format!("App-ID: {}\nAuth-Token: {key}x", iconik.app_id),
            format!("App-ID: me\nAuth-Token: {key}"),
        ] {
            let head = format!("GET {WEBHOOKS} HTTP/1.1\n{headers}\n\n").replace("\n\n\n", "\n\n");
            error(iconik.client.raw(&head).await, 401);
        }
    });
}
