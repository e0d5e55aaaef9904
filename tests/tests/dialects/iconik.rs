//! iconik.

use cuewire_tests::system::test;
use cuewire_tests::{Answer, Organization, Receiver, Reply, Webhook, event, until};
use serde_json::{Value, json};

use crate::platform::{Caller, Platform};
use crate::taken_by;

const WEBHOOKS: &str = "/platforms/iconik/API/notifications/v1/webhooks/";

async fn create(iconik: &Caller, body: &Value) -> Value {
    iconik.call(&format!("POST {WEBHOOKS}"), &body.to_string()).await.expect(201)
}

async fn read(iconik: &Caller, webhook: &Value) -> Value {
    iconik.get(&at(webhook)).await
}

async fn update(iconik: &Caller, webhook: &Value, body: &Value) -> Value {
    iconik.call(&format!("PUT {}", at(webhook)), &body.to_string()).await.expect(200)
}

fn at(webhook: &Value) -> String {
    format!("{WEBHOOKS}{}/", webhook["id"].as_str().unwrap())
}

/// What is said to be wrong with a field.
#[track_caller]
fn field_error(reply: Reply, field: &str) -> String {
    let said = reply.json["errors"][field].as_str().map(str::to_owned);
    Platform::Iconik.failed(reply, 400);
    said.unwrap_or_else(|| panic!("nothing is said of {field}"))
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

/// The platform's own example of a query, which has no AND before its parenthesis.
const QUERY: &str = "data.is_archived=false AND data.size>0 (data.status=\"CLOSED\" OR data.status=\"DELETED\") \
                     AND data.external_id!=null";

#[test]
fn an_iconik_webhook_lives_as_the_platforms_documentation_tells() {
    test(async |system| {
        let organization = system.organization().await;
        let iconik = Platform::Iconik.by(&organization.with_role("editor").await).await;
        let (id, key) = (iconik.client.key_id().unwrap(), iconik.client.key().unwrap());
        let fields = json!({
            "name": "Archive", "description": "What is closed", "event_type": "assets", "object_id": null,
            "operation": "UPDATE", "realm": "metadata", "url": "http://127.0.0.1:9/webhook_handler",
            "query": QUERY, "headers": {"AUTH-TOKEN": "XYZ"},
        });
        let made = iconik
            .client
            .raw(&format!(
                "POST /platforms/iconik/API/notifications/v1/webhooks/ HTTP/1.1\n\
                 App-ID: {id}\nAuth-Token: {key}\nContent-Type: application/json\n\n{fields}"
            ))
            .await
            .expect(201);
        let mut expected = fields;
        let read_only = json!({
            "id": made["id"], "operation": "update", "status": "ENABLED", "date_created": made["date_created"],
            "date_modified": made["date_modified"], "deleted_at": null, "first_failed_at": null,
            "last_error": null, "last_payload": null,
        });
        expected.as_object_mut().unwrap().extend(read_only.as_object().unwrap().clone());
        assert_eq!(made, expected);
        assert_eq!(read(&iconik, &made).await, expected);
        assert!(made["date_created"].as_str().unwrap().ends_with("+00:00"), "{made}");
        let list = iconik.get(&format!("{WEBHOOKS}?page=1&per_page=500")).await;
        assert_eq!(list, json!({"objects": [expected]}));

        let mut change = json!({"realm": null, "operation": null, "query": null, "first_failed_at": "now"});
        for read_only in ["id", "date_created", "date_modified", "deleted_at", "last_error", "last_payload"] {
            change[read_only] = "never".into();
        }
        let changed = update(&iconik, &made, &change).await;
        for cleared in ["realm", "operation", "query"] {
            expected[cleared] = Value::Null;
        }
        assert_ne!(changed["date_modified"], expected["date_modified"]);
        expected["date_modified"] = changed["date_modified"].clone();
        assert_eq!(changed, expected);
        for status in ["DISABLED", "ENABLED"] {
            expected["status"] = status.into();
            let changed = update(&iconik, &made, &json!({"status": status})).await;
            expected["date_modified"] = changed["date_modified"].clone();
            assert_eq!(changed, expected);
        }

        let off = json!({"event_type": "assets", "url": "http://127.0.0.1:9/", "status": "DISABLED"});
        let line = "POST /platforms/iconik/API/notifications/v1/webhooks";
        let off = iconik.call(line, &off.to_string()).await.expect(201);
        assert_eq!(off["status"], "DISABLED");
        let native = format!("/v1/webhooks/{}", off["id"].as_str().unwrap());
        assert_eq!(iconik.client.get(&native).await.expect(200)["enabled"], false);
        let gone = iconik.call(&format!("DELETE {}", at(&off)), "").await;
        assert_eq!(gone.status.as_u16(), 204);

        let gone = iconik.call(&format!("DELETE {}", at(&made)), "").await;
        assert_eq!((gone.status.as_u16(), gone.text.as_str()), (204, ""));
        iconik.failed(iconik.call(&format!("GET {}", at(&made)), "").await, 404);
        iconik.failed(iconik.call(&format!("DELETE {}", at(&made)), "").await, 404);
        assert_eq!(iconik.get(WEBHOOKS).await, json!({"objects": []}));
    });
}

#[test]
fn an_iconik_webhook_receives_what_its_fields_and_its_query_select() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization_named("acme-domain").await;
        let iconik = Platform::Iconik.by(&organization.admin).await;
        let made = create(
            &iconik,
            &json!({
                "event_type": "assets", "operation": "update", "realm": "metadata", "query": QUERY,
                "object_id": "0d56db81-1b8e-4a68-9658-98ad9a94d841",
                "url": receiver.url("/webhook_handler"), "headers": {"AUTH-TOKEN": "XYZ"},
            }),
        )
        .await;
        organization.in_effect().await;
        let data = json!({"is_archived": false, "size": 9, "status": "DELETED", "external_id": "x"});
        let open = json!({"is_archived": false, "size": 9, "status": "OPEN", "external_id": "x"});
        let mut elsewhere = asset(&organization, "assets.update", "metadata", &data);
        elsewhere["subject"] = json!("0d56db81-1b8e-4a68-9658-98ad9a94d842");
        for other in [
            elsewhere,
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
        let (path, header) = (delivery.path.as_str(), delivery.header("auth-token"));
        assert_eq!((path, header), ("/webhook_handler", Some("XYZ")));
        let expected = json!({
            "system_domain_id": "acme-domain", "event_type": "assets",
            "object_id": "0d56db81-1b8e-4a68-9658-98ad9a94d841",
            "user_id": "256ebe90-c0c8-11ec-9fcd-0648baddf8b3", "realm": "metadata", "operation": "update",
            "data": data, "request_id": "eaf4c20c4095f007a059b77c640dbbf9",
        });
        assert_eq!(delivery.json(), expected);

        update(&iconik, &made, &json!({"realm": null, "operation": null, "query": null})).await;
        organization.in_effect().await;
        let purged = || asset(&organization, "assets.purge", "files", &json!({}));
        assert_eq!(taken_by(&organization, &purged()).await.len(), 1);
        receiver.wait_for(2).await;
        update(&iconik, &made, &json!({"status": "DISABLED"})).await;
        organization.in_effect().await;
        assert_eq!(taken_by(&organization, &purged()).await, Vec::<String>::new());
    });
}

#[test]
fn an_iconik_webhook_tells_since_when_it_fails_and_what_it_sent_in_vain() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(500), Answer::status(200)]).await;
        let organization = system.organization().await;
        let iconik = Platform::Iconik.by(&organization.admin).await;
        let made = create(&iconik, &json!({"event_type": "assets", "url": receiver.url("/")})).await;
        let once = json!({"retry_schedule": []});
        let path = format!("/v1/webhooks/{}", made["id"].as_str().unwrap());
        let _ = organization.admin.patch(&path, &once).await.expect(200);
        organization.in_effect().await;
        let event = asset(&organization, "assets.update", "metadata", &json!({"size": 1}));
        assert_eq!(taken_by(&organization, &event).await.len(), 1);
        let sent = receiver.wait_for(1).await.remove(0);
        let failing = until("the webhook is failing", async || {
            Some(read(&iconik, &made).await).filter(|webhook| webhook["status"] == "FAILING")
        })
        .await;
        assert_eq!(failing["last_error"], "the receiver answered 500");
        assert_eq!(failing["last_payload"], String::from_utf8_lossy(&sent.body).as_ref());
        assert!(failing["first_failed_at"].as_str().is_some_and(|at| at.ends_with("+00:00")), "{failing}");
        let list = iconik.get(WEBHOOKS).await;
        assert_eq!(list["objects"][0], failing);

        let same = update(&iconik, &made, &failing).await;
        assert_eq!(same["status"], "FAILING", "what was read and sent back changes nothing");
        let enabled = update(&iconik, &made, &json!({"status": "ENABLED"})).await;
        assert_eq!(enabled["status"], "FAILING", "it is enabled, and fails until it succeeds");
        let event = asset(&organization, "assets.update", "metadata", &json!({"size": 2}));
        assert_eq!(taken_by(&organization, &event).await.len(), 1);
        let enabled = until("a success ends the failing", async || {
            Some(read(&iconik, &made).await).filter(|webhook| webhook["status"] == "ENABLED")
        })
        .await;
        assert_eq!(enabled["first_failed_at"], Value::Null);
        assert_eq!(enabled["last_payload"], failing["last_payload"]);
        // The client's copy is from before.
        assert_eq!(update(&iconik, &made, &failing).await["status"], "ENABLED");
        let _ = update(&iconik, &made, &json!({"status": "DISABLED"})).await;
        assert_eq!(update(&iconik, &made, &failing).await["status"], "DISABLED", "it is no command");
        assert_eq!(organization.dead_letters(1).await[0]["reason"], "exhausted");
    });
}

#[test]
fn what_iconik_cannot_say_of_a_webhook_survives_its_updates() {
    test(async |system| {
        let organization = system.organization().await;
        let iconik = Platform::Iconik.by(&organization.admin).await;
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
            let read = read(&iconik, &made).await;
            for (field, value) in shown.as_object().unwrap() {
                assert_eq!(&read[field], value, "{field} of {read}");
            }
            let _ = update(&iconik, &made, &read).await;
            let kept = native(&organization, &made).await;
            for field in ["event_types", "filter", "name", "headers", "enabled", "description"] {
                assert_eq!(kept[field], made[field], "{field}");
            }
            let changed = update(&iconik, &made, &json!({"realm": "files", "query": "data.y=2"})).await;
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
        let iconik = Platform::Iconik.by(&organization.admin).await;
        for (event_type, operation, realm, types) in [
            ("assets", "Metadata.Update", "x\"y\\", json!(["assets.metadata.update"])),
            ("assets", "download all", "ä", json!(["assets.*"])),
            ("my assets", "update", "/x/", json!([])),
            ("assets,collections", "create", ")", json!(["assets.create", "collections.create"])),
            ("*", "create", "r", json!([])),
            ("a\u{0}\u{1F525}\n", "up\u{0}date", "\u{0}", json!([])),
        ] {
            let fields = json!({"event_type": event_type, "operation": operation, "realm": realm,
                "object_id": realm, "url": "http://1.1.1.1/", "query": "(operation=\"x\") realm!=null"});
            let made = create(&iconik, &fields).await;
            assert_eq!(made["operation"], operation.to_lowercase());
            for field in ["event_type", "realm", "object_id", "query"] {
                assert_eq!(made[field], fields[field], "{field}");
            }
            assert_eq!(native(&organization, &made).await["event_types"], types, "{event_type}");
            assert_eq!(update(&iconik, &made, &made).await["query"], made["query"]);
        }
        // What no event can be is taken too, and selects nothing.
        let never = json!({"event_type": "my assets", "url": "http://1.1.1.1/"});
        let _ = (create(&iconik, &never).await, organization.in_effect().await);
        for event_type in ["my.assets", "assets.update"] {
            let event = asset(&organization, event_type, "entity", &json!({}));
            assert_eq!(taken_by(&organization, &event).await, Vec::<String>::new());
        }
    });
}

#[test]
fn an_iconik_operation_is_known_in_any_case_and_an_event_type_as_it_is_written() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let iconik = Platform::Iconik.by(&organization.admin).await;
        let fields = json!({"event_type": "Assets", "operation": "CREATE", "url": receiver.url("/")});
        let made = create(&iconik, &fields).await;
        assert_eq!((&made["event_type"], &made["operation"]), (&json!("Assets"), &json!("create")));
        organization.in_effect().await;
        for (event_type, count) in [("Assets.create", 1), ("assets.create", 0), ("Assets.update", 0)] {
            let event = asset(&organization, event_type, "entity", &json!({}));
            assert_eq!(taken_by(&organization, &event).await.len(), count, "{event_type}");
        }
    });
}

#[test]
fn what_is_wrong_with_an_iconik_webhook_is_told_field_by_field() {
    test(async |system| {
        let iconik = Platform::Iconik.by(&system.organization().await.admin).await;
        let with = |members: &str| format!(r#"{{"event_type":"assets","url":"http://1.1.1.1/"{members}}}"#);
        for (body, field, sentence) in [
            (r#"{"url":"http://1.1.1.1/"}"#.to_owned(), "event_type", "is missing"),
            (r#"{"event_type":"assets"}"#.to_owned(), "url", "is missing"),
            (r#"{"event_type":" ","url":"http://1.1.1.1/"}"#.to_owned(), "event_type", "is empty"),
            (r#"{"event_type":"","url":"http://1.1.1.1/"}"#.to_owned(), "event_type", "is empty"),
            (r#"{"event_type":null,"url":"http://1.1.1.1/"}"#.to_owned(), "event_type", "is missing"),
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
            let said = field_error(iconik.call(&format!("POST {WEBHOOKS}"), &body).await, field);
            assert!(said.contains(sentence), "{body}: {said}");
        }
        assert_eq!(iconik.get(WEBHOOKS).await, json!({"objects": []}), "nothing of that was made");
        let made = create(&iconik, &json!({"event_type": "assets", "url": "http://1.1.1.1/"})).await;
        let refused = iconik.call(&format!("PUT {}", at(&made)), r#"{"query":"x"}"#).await;
        assert!(field_error(refused, "query").contains("at position 2"));
        let refused = iconik.call(&format!("PUT {}", at(&made)), r#"{"event_type":""}"#).await;
        assert!(field_error(refused, "event_type").contains("is empty"));
        let refused = iconik.call(&format!("PUT {}", at(&made)), r#"{"status":"DELETED"}"#).await;
        assert!(field_error(refused, "status").contains("DELETE deletes"));
        assert_eq!(read(&iconik, &made).await, made);
    });
}

#[test]
fn what_iconik_does_not_know_or_is_not_told_is_as_good_as_left_out() {
    test(async |system| {
        let iconik = Platform::Iconik.by(&system.organization().await.admin).await;
        let body = r#"{"event_type":"assets","url":"http://1.1.1.1/","id":7,"colour":"red","query":null,
            "headers":null,"realm":"","description":"","name":null}"#;
        let made = iconik.call(&format!("POST {WEBHOOKS}"), body).await.expect(201);
        let shown = (&made["name"], &made["headers"], &made["realm"], &made["description"]);
        assert_eq!(shown, (&json!("1.1.1.1"), &json!({}), &Value::Null, &Value::Null));
        assert_eq!(update(&iconik, &made, &json!({})).await["url"], "http://1.1.1.1/");

        let made = read(&iconik, &made).await;
        let second = create(&iconik, &json!({"event_type": "assets", "url": "http://1.1.1.1/"})).await;
        for (query, expected) in [
            ("", vec![&made, &second]),
            ("?page=1", vec![&made, &second]),
            ("?page=2", vec![]),
            ("?per_page=1", vec![&made]),
            ("?per_page=1&page=2", vec![&second]),
            ("?per_page=2&page=2", vec![]),
            ("?page=abc&per_page=abc", vec![&made, &second]),
            ("?page=&per_page=0", vec![&made, &second]),
            ("?page=-1&per_page=1", vec![&made]),
            ("?page=0&per_page=99999999999999999999999", vec![&made, &second]),
            ("?per_page=2&page=1&per_page=1&page=2", vec![&second]),
        ] {
            let list = iconik.get(&format!("{WEBHOOKS}{query}")).await;
            assert_eq!(list, json!({"objects": expected}), "{query}");
        }
    });
}

#[test]
fn an_iconik_key_is_shown_with_its_id_and_in_no_other_form() {
    test(async |system| {
        let organization = system.organization().await;
        let (api, viewer) = (&organization.admin, organization.with_role("viewer").await);
        let (id, key) = (api.key_id().unwrap(), api.key().unwrap());
        for (shown, status) in [
            (format!("App-ID: {id}\nAuth-Token: {key}"), 200),
            (format!("app-id:{id}\nauth-token:  {key} "), 200),
            (format!("App-ID: {id}"), 401),
            (format!("Auth-Token: {key}"), 401),
            (format!("Authorization: Bearer {key}"), 401),
            (format!("App-ID: {}\nAuth-Token: {key}", viewer.key_id().unwrap()), 401),
            (format!("App-ID: {id}\nAuth-Token: {key}x"), 401),
            (format!("App-ID: me\nAuth-Token: {key}"), 401),
        ] {
            let reply = api.raw(&format!("GET {WEBHOOKS} HTTP/1.1\n{shown}\n\n")).await;
            if status == 200 {
                assert_eq!(reply.expect(200), json!({"objects": []}), "{shown}");
            } else {
                let said = Platform::Iconik.failed(reply, status);
                assert!(said.contains("App-ID") && said.contains("Auth-Token"), "{said}");
            }
        }
    });
}
