//! Quortex I/O.

mod log;

use cuewire_tests::system::test;
use cuewire_tests::{Answer, Organization, Receiver, Webhook, event, until};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::platform::{Caller, Platform, ask_for_token};
use crate::taken_by;

const WEBHOOKS: &str = "/platforms/quortex/1.0/organization/webhooks/";

async fn create(quortex: &Caller, body: &Value) -> Value {
    quortex.call(&format!("POST {WEBHOOKS}"), &body.to_string()).await.expect(201)
}

async fn update(quortex: &Caller, method: &str, webhook: &Value, body: &Value) -> Value {
    quortex.call(&format!("{method} {}", at(webhook)), &body.to_string()).await.expect(200)
}

fn at(webhook: &Value) -> String {
    format!("{WEBHOOKS}{}/", webhook["uuid"].as_str().or(webhook["id"].as_str()).unwrap())
}

/// The native webhook behind it.
async fn native(organization: &Organization<'_>, webhook: &Value) -> Value {
    let id = webhook["uuid"].as_str().or(webhook["id"].as_str()).unwrap();
    organization.admin.get(&format!("/v1/webhooks/{id}")).await.expect(200)
}

/// The members of both.
fn with(one: &Value, other: &Value) -> Value {
    let mut all = one.clone();
    all.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    all
}

/// An event of the platform.
fn happening(organization: &Organization<'_>, event_type: &str, application: &str) -> Value {
    let mut event = event(event_type, &organization.id);
    event["subject"] = json!("resource-1");
    event["application"] = json!(application);
    event["pooluuid"] = json!("pool-1");
    event["workspaceuuid"] = json!("workspace-1");
    event["message"] = json!("Input main-feed is active");
    event["data"] = json!({"previous_status": "ready", "current_status": "active", "stream": "main"});
    event
}

#[test]
fn a_quortex_webhook_lives_as_the_platforms_documentation_tells() {
    test(async |system| {
        let organization = system.organization().await;
        let client = &organization.admin;
        let token = client
            .raw(&format!(
                "POST /platforms/quortex/1.0/token/ HTTP/1.1\nContent-Type: application/json\n\n\
                 {{\"api_key_secret\":\"{}\"}}",
                client.key().unwrap()
            ))
            .await
            .expect(201);
        let mut expected = json!({
            "name": "Alerts", "type": "raw", "url": "http://127.0.0.1:9/", "application": "link",
            "category": "input", "operation": "status_change", "pool_uuid": "pool-1",
            "resource_uuid": "resource-1",
        });
        let made = client
            .raw(&format!(
                "POST /platforms/quortex/1.0/organization/webhooks/ HTTP/1.1\nAuthorization: Bearer {}\n\
                 Content-Type: application/json\n\n{expected}",
                token["access_token"].as_str().unwrap()
            ))
            .await
            .expect(201);
        expected["uuid"] = made["uuid"].clone();
        assert_eq!(made, expected);
        let quortex = Platform::Quortex.by(client).await;
        assert_eq!(quortex.get(&at(&made)).await, expected);
        assert_eq!(quortex.get(WEBHOOKS).await, json!([expected]));

        let renamed = json!({"name": "All of Link", "category": null, "resource_uuid": ""});
        let changed = update(&quortex, "PATCH", &made, &renamed).await;
        expected["name"] = "All of Link".into();
        for unset in ["category", "resource_uuid"] {
            expected.as_object_mut().unwrap().remove(unset);
        }
        assert_eq!(changed, expected, "an unset filter is absent");
        let whole = json!({"name": "Everything", "type": "raw", "url": "http://127.0.0.1:9/x"});
        let mut expected = whole.clone();
        expected["uuid"] = made["uuid"].clone();
        assert_eq!(update(&quortex, "PUT", &made, &whole).await, expected);

        let gone = quortex.call(&format!("DELETE {}", at(&made)), "").await;
        assert_eq!((gone.status.as_u16(), gone.text.as_str()), (204, ""));
        quortex.failed(quortex.call(&format!("GET {}", at(&made)), "").await, 404);
        let _ = (create(&quortex, &whole).await, create(&quortex, &whole).await);
        let gone = quortex.call(&format!("DELETE {WEBHOOKS}"), "").await;
        assert_eq!((gone.status.as_u16(), gone.text.as_str()), (204, ""));
        assert_eq!(quortex.get(WEBHOOKS).await, json!([]));
    });
}

#[test]
fn a_quortex_webhook_receives_what_its_filters_select() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization_named("acme-1").await;
        let quortex = Platform::Quortex.by(&organization.with_role("editor").await).await;
        let filters = json!({"application": "link", "category": "input", "operation": "status_change",
            "pool_uuid": "pool-1", "resource_uuid": "resource-1"});
        let plain = json!({"name": "Alerts", "type": "raw", "url": receiver.url("/quortex")});
        let made = create(&quortex, &with(&plain, &filters)).await;
        organization.in_effect().await;
        let mut elsewhere = happening(&organization, "input.status_change", "link");
        elsewhere["pooluuid"] = json!("pool-2");
        let mut of_another = happening(&organization, "input.status_change", "link");
        of_another["subject"] = json!("resource-2");
        for other in [
            elsewhere,
            of_another,
            happening(&organization, "input.status_change", "play"),
            happening(&organization, "input.update", "link"),
            happening(&organization, "output.status_change", "link"),
            event("input.status_change", &organization.id),
        ] {
            assert_eq!(taken_by(&organization, &other).await, Vec::<String>::new(), "{other}");
        }
        let wanted = happening(&organization, "input.status_change", "link");
        assert_eq!(taken_by(&organization, &wanted).await, [made["uuid"].as_str().unwrap()]);
        let delivery = receiver.wait_for(1).await.remove(0).json();
        let sent = json!({"organization_uuid": "acme-1", "organization": "acme-1", "metadata": wanted["data"],
            "message": "Input main-feed is active"});
        assert_eq!(delivery, with(&filters, &sent));
        assert_eq!(native(&organization, &made).await["event_types"], json!(["input.status_change"]));

        update(&quortex, "PUT", &made, &plain).await;
        organization.in_effect().await;
        let any = happening(&organization, "organization.update", "organization");
        assert_eq!(taken_by(&organization, &any).await.len(), 1);
        receiver.wait_for(2).await;
        let none = event("input.status_change", &organization.id);
        assert_eq!(taken_by(&organization, &none).await.len(), 0, "it carries no application");
    });
}

#[test]
fn a_quortex_token_is_good_for_an_hour_and_as_long_as_its_key() {
    test(async |system| {
        let organization = system.organization().await;
        let path = format!("/v1/organizations/{}/api-keys", organization.id);
        let key = system.operator().post(&path, &json!({"name": "q", "role": "admin"})).await.expect(201);
        let client = organization.admin.with_made_key(&key);
        let quortex = Platform::Quortex.by(&client).await;
        assert_eq!(quortex.get(WEBHOOKS).await, json!([]));
        let body = json!({"api_key_secret": client.key(), "other": 1}).to_string();
        let token = ask_for_token(&client, &body).await.expect(201);
        let expires_at = OffsetDateTime::parse(token["expires_at"].as_str().unwrap(), &Rfc3339).unwrap();
        let left = expires_at - OffsetDateTime::now_utc();
        assert!(left <= Duration::HOUR && left > Duration::minutes(59), "{token}");
        let token = token["access_token"].as_str().unwrap();
        assert!(!quortex.head.contains(token), "no two tokens are the same");

        for body in ["{", "{}", "[]", r#"{"api_key_secret":null}"#, r#"{"api_key_secret":"cw_x"}"#, "\"x\""] {
            quortex.failed(ask_for_token(&client, body).await, 400);
        }
        let operators = json!({"api_key_secret": system.operator().key()}).to_string();
        quortex.failed(ask_for_token(&client, &operators).await, 403);

        let mut forged = token.to_owned();
        let last = if forged.as_bytes()[forged.len() - 9] == b'A' { "B" } else { "A" };
        forged.replace_range(forged.len() - 9..forged.len() - 8, last);
        for shown in [forged.as_str(), "", "x", client.key().unwrap(), system.operator().key().unwrap()] {
            let shown = Caller { head: format!("Authorization: Bearer {shown}"), ..quortex.clone() };
            let said = quortex.failed(shown.call(&format!("GET {WEBHOOKS}"), "").await, 401);
            assert!(said.contains("/1.0/token/"), "{said}");
        }

        let gone = system.operator().delete(&format!("{path}/{}", key["id"].as_str().unwrap())).await;
        assert_eq!(gone.status.as_u16(), 204);
        cuewire_tests::until("the token has ended with its key", async || {
            let reply = quortex.call(&format!("GET {WEBHOOKS}"), "").await;
            (reply.status.as_u16() == 401).then_some(())
        })
        .await;
    });
}

#[test]
fn a_quortex_webhook_is_of_a_type_and_takes_one_category_or_several() {
    test(async |system| {
        let organization = system.organization().await;
        let quortex = Platform::Quortex.by(&organization.admin).await;
        for (kind, format) in
            [("raw", "quortex"), ("gchat", "google_chat"), ("slack", "slack"), ("teams", "teams")]
        {
            let made = create(&quortex, &json!({"name": "n", "type": kind, "url": "http://1.1.1.1/"})).await;
            assert_eq!(made["type"], kind);
            assert_eq!(native(&organization, &made).await["format"], format);
        }
        let made = create(&quortex, &json!({"name": "n", "type": "raw", "url": "http://1.1.1.1/"})).await;
        let long = |length| "x".repeat(length);
        let changed = update(&quortex, "PATCH", &made, &json!({"type": "slack"})).await;
        assert_eq!(changed["type"], "slack");
        for (category, operation, types) in [
            (json!("input"), json!(null), json!(["input.*"])),
            (json!(["input"]), json!(""), json!(["input.*"])),
            (json!(["pool", "input", "pool"]), json!(null), json!(["pool.*", "input.*"])),
            (json!(["pool", "pool"]), json!(null), json!(["pool.*"])),
            (json!([long(127), "pool", long(128)]), json!(null), json!(["pool.*"])),
            (json!([long(127), "pool", "pool"]), json!("update"), json!(["pool.update"])),
            (json!([long(127), long(128)]), json!(null), json!([])),
            (json!("input"), json!("update"), json!(["input.update"])),
            (json!(["input", "pool"]), json!("update"), json!(["input.update", "pool.update"])),
            (json!(["pool"]), json!("update"), json!(["pool.update"])),
            (json!(null), json!("update"), json!([])),
            (json!([]), json!("update"), json!([])),
            (json!(""), json!(null), json!([])),
        ] {
            let fields = json!({"category": category, "operation": operation});
            let changed = update(&quortex, "PATCH", &made, &fields).await;
            let shown = |value: &Value| Some(value.clone()).filter(|value| !value.is_null() && value != "");
            assert_eq!(changed.get("category").cloned(), shown(&category), "{fields}");
            assert_eq!(changed.get("operation").cloned(), shown(&operation), "{fields}");
            assert_eq!(native(&organization, &made).await["event_types"], types, "{fields}");
            assert_eq!(quortex.get(&at(&made)).await, changed);
            assert_eq!(update(&quortex, "PUT", &made, &changed).await, changed);
            for untouched in
                [json!({"name": "m"}), json!({"pool_uuid": "p"}), json!({"pool_uuid": null, "name": "n"})]
            {
                let renamed = update(&quortex, "PATCH", &made, &untouched).await;
                assert_eq!(renamed.get("category"), changed.get("category"), "{untouched}");
            }
        }
        let _ = quortex.call(&format!("DELETE {WEBHOOKS}"), "").await;
        let receiver = Receiver::healthy().await;
        let several = json!({"name": "n", "type": "raw", "url": receiver.url("/"),
            "category": ["input", "pool", long(128), "input"]});
        let several = create(&quortex, &several).await;
        create(&quortex, &json!({"name": "n", "type": "raw", "url": "http://1.1.1.1/", "category": []}))
            .await;
        organization.in_effect().await;
        for (event_type, taken) in
            [("input.update", true), ("pool.alarm_change", true), ("output.update", false)]
        {
            let taken = if taken { vec![several["uuid"].as_str().unwrap().to_owned()] } else { Vec::new() };
            let event = happening(&organization, event_type, "play");
            assert_eq!(taken_by(&organization, &event).await, taken, "{event_type}");
        }
        receiver.wait_for(2).await;
    });
}

#[test]
fn what_quortex_cannot_say_of_a_webhook_survives_its_updates() {
    test(async |system| {
        let organization = system.organization().await;
        let quortex = Platform::Quortex.by(&organization.admin).await;
        for (types, filter, shown) in [
            (
                json!(["input.update", "pool.*"]),
                json!("data.size > 0 OR pooluuid = \"p\""),
                json!({"category": ["input", "pool"]}),
            ),
            (
                json!(["input.creation", "input.update"]),
                json!("object_id=\"r\" pooluuid=\"p\" userid=/^u/ application=\"play\""),
                json!({"category": "input", "application": "play", "pool_uuid": "p", "resource_uuid": "r"}),
            ),
            (json!([]), json!(null), json!({})),
        ] {
            let made = organization.webhook("http://1.1.1.1/").with("format", "slack").with("filter", filter);
            let Webhook { json: made, .. } = made.with("event_types", types).create().await;
            let mut expected = shown.clone();
            for (field, value) in [
                ("uuid", &made["id"]),
                ("name", &made["name"]),
                ("url", &made["url"]),
                ("type", &json!("slack")),
            ] {
                expected[field] = value.clone();
            }
            assert_eq!(quortex.get(&at(&made)).await, expected);
            assert_eq!(update(&quortex, "PUT", &made, &expected).await, expected);
            assert_eq!(update(&quortex, "PATCH", &made, &expected).await, expected);
            let kept = native(&organization, &made).await;
            for field in ["event_types", "filter", "name", "headers", "enabled", "format"] {
                assert_eq!(kept[field], made[field], "{field}");
            }
            let changed =
                update(&quortex, "PATCH", &made, &json!({"pool_uuid": "q", "application": "link"})).await;
            assert_eq!((&changed["pool_uuid"], &changed["application"]), (&json!("q"), &json!("link")));
            let kept = native(&organization, &made).await;
            assert_eq!(kept["event_types"], made["event_types"]);
            if made["filter"].as_str().is_some_and(|filter| filter.contains("/^u/")) {
                assert_eq!(
                    kept["filter"].as_str(),
                    Some("object_id=\"r\" AND pooluuid = \"q\" AND userid=/^u/ AND application = \"link\"")
                );
            }
            let unset = update(&quortex, "PATCH", &made, &json!({"application": null})).await;
            assert_eq!(unset.get("application"), None);
            let filter = native(&organization, &made).await["filter"].as_str().unwrap().to_owned();
            assert!(filter.contains("application != null"), "{filter}");
        }
    });
}

#[test]
fn quortex_lists_have_pages_when_a_size_is_asked_for() {
    test(async |system| {
        let organization = system.organization().await;
        let quortex = Platform::Quortex.by(&organization.admin).await;
        let empty = quortex.get(&format!("{WEBHOOKS}?page=1&page_size=2")).await;
        assert_eq!(empty, json!({"count": 0, "next": null, "previous": null, "results": []}));
        let mut made = Vec::new();
        for name in ["a", "b", "c", "d", "e"] {
            made.push(
                create(&quortex, &json!({"name": name, "type": "raw", "url": "http://1.1.1.1/"})).await,
            );
        }
        assert_eq!(quortex.get(WEBHOOKS).await, json!(made));
        assert_eq!(quortex.get(&format!("{WEBHOOKS}?page=2")).await, json!(made), "no size, no pages");
        let base = format!("{}{WEBHOOKS}", organization.admin.base());
        let first = quortex.get(&format!("{WEBHOOKS}?page_size=2&colour=True")).await;
        let next = format!("{base}?page=2&page_size=2");
        assert_eq!(first, json!({"count": 5, "next": next, "previous": null, "results": made[..2]}));
        let second = quortex.get(next.strip_prefix(organization.admin.base()).unwrap()).await;
        assert_eq!(second["results"], json!(made[2..4]));
        assert_eq!(second["previous"], format!("{base}?page=1&page_size=2"));
        let last = quortex.get(&format!("{WEBHOOKS}?page=3&page_size=2")).await;
        assert_eq!((&last["next"], &last["results"]), (&Value::Null, &json!(made[4..])));
        for page in ["0", "4", "x", "-1", "99999999999999999999"] {
            quortex.failed(quortex.call(&format!("GET {WEBHOOKS}?page={page}&page_size=2"), "").await, 404);
        }
        // Of a parameter that is repeated the last counts.
        let last =
            quortex.get(&format!("{WEBHOOKS}?page_size=4&page=7&colour=a&page=2&page_size=2&colour=b")).await;
        assert_eq!((&last["count"], &last["results"]), (&json!(5), &json!(made[2..4])));
        let proxy = "\nX-Forwarded-Proto: https\nX-Forwarded-Host: api.example.com";
        let far = quortex.with_headers(&format!("GET {WEBHOOKS}?page_size=4"), proxy, "").await.expect(200);
        assert_eq!(far["next"], format!("https://api.example.com{WEBHOOKS}?page=2&page_size=4"));
    });
}

#[test]
fn what_is_wrong_with_a_quortex_webhook_is_told_in_a_sentence() {
    test(async |system| {
        let quortex = Platform::Quortex.by(&system.organization().await.admin).await;
        let post = format!("POST {WEBHOOKS}");
        let with = |members: &str| format!(r#"{{"name":"n","type":"raw","url":"http://1.1.1.1/"{members}}}"#);
        let long = "x".repeat(129);
        for (body, sentence) in [
            ("{".to_owned(), "not valid JSON"),
            ("[]".to_owned(), "must be an object"),
            ("7".to_owned(), "is 7, and must be an object"),
            ("{}".to_owned(), "`name` is missing; `url` is missing; `type` is missing"),
            (r#"{"name":"","type":"raw","url":"http://1.1.1.1/"}"#.to_owned(), "`name` is missing"),
            (r#"{"name":"n","type":"fax","url":"http://1.1.1.1/"}"#.to_owned(), "`type` is \"fax\""),
            (r#"{"name":"n","type":"raw","url":"http://10.0.0.1/"}"#.to_owned(), "private or reserved"),
            (r#"{"name":"n","type":"raw","url":7}"#.to_owned(), "`url` is 7, and must be text"),
            (with(r#","name":"x""#), "duplicate field"),
            (with(&format!(r#","application":"{long}""#)), "`application` has 129 characters"),
            (with(&format!(r#","category":"{long}""#)), "`category` has"),
            (with(r#","category":{"a":1}"#), "`category` cannot be read: text or an array"),
            (with(r#","category":["input",7]"#), "`category` cannot be read: text or an array"),
            (with(r#","category":"a b""#), "`category` has \"a b\""),
            (with(r#","operation":"a b""#), "`operation` is no operation"),
            (with(r#","pool_uuid":7"#), "`pool_uuid` is 7, and must be text"),
        ] {
            let said = quortex.failed(quortex.call(&post, &body).await, 404);
            assert!(said.contains(sentence), "{body}: {said}");
        }
        assert_eq!(quortex.get(WEBHOOKS).await, json!([]), "nothing of that was made");
        let made =
            quortex.call(&post, &with(r#","uuid":"x","colour":"red","category":"""#)).await.expect(201);
        assert_eq!(made.as_object().unwrap().len(), 4, "{made}");
        let partial = quortex.call(&format!("PUT {}", at(&made)), r#"{"name":"m"}"#).await;
        assert!(quortex.failed(partial, 404).contains("`url` is missing"));
    });
}

#[test]
fn a_quortex_webhook_whose_receiver_is_gone_comes_back_with_another_url() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(410)]).await;
        let organization = system.organization().await;
        let quortex = Platform::Quortex.by(&organization.admin).await;
        let made = create(&quortex, &json!({"name": "n", "type": "raw", "url": receiver.url("/")})).await;
        let enabled = async || native(&organization, &made).await["enabled"].as_bool().unwrap();
        organization.in_effect().await;
        system.amqp().await.publish(&happening(&organization, "input.status_change", "link")).await;
        until("the webhook is disabled", async || (!enabled().await).then_some(())).await;
        update(&quortex, "PATCH", &made, &json!({"url": receiver.url("/"), "name": "same"})).await;
        assert!(!enabled().await, "the same receiver");
        update(&quortex, "PATCH", &made, &json!({"url": receiver.url("/moved")})).await;
        assert!(enabled().await);
    });
}

#[test]
fn quortex_names_urls_and_filters_may_be_as_long_as_documented_and_no_longer() {
    test(async |system| {
        let quortex = Platform::Quortex.by(&system.organization().await.admin).await;
        let plain = json!({"name": "n", "type": "raw", "url": "http://1.1.1.1/"});
        for (field, max) in [
            ("name", 100),
            ("url", 1_024),
            ("application", 128),
            ("category", 128),
            ("operation", 128),
            ("pool_uuid", 128),
            ("resource_uuid", 128),
        ] {
            let text = |length: usize| match field {
                "category" | "operation" => "x".repeat(length),
                "url" => format!("http://1.1.1.1/{}", "x".repeat(length - 15)),
                _ => "\u{1F525}".repeat(length),
            };
            let longest = with(&plain, &json!({field: text(max)}));
            let made = create(&quortex, &longest).await;
            assert_eq!(made[field], longest[field], "{field}");
            let longer = with(&plain, &json!({field: text(max + 1)}));
            let refused = quortex.call(&format!("POST {WEBHOOKS}"), &longer.to_string()).await;
            let said = quortex.failed(refused, 404);
            assert!(said.contains(&format!("`{field}` has {} characters", max + 1)), "{said}");
        }
        // No event has them, so there is nothing to tell of them but that they were given.
        let several = |length| with(&plain, &json!({"category": ["input", "x".repeat(length)]}));
        assert_eq!(create(&quortex, &several(128)).await["category"], several(128)["category"]);
        let refused = quortex.call(&format!("POST {WEBHOOKS}"), &several(129).to_string()).await;
        let said = quortex.failed(refused, 404);
        assert!(said.contains("`category` has 129 characters"), "{said}");
    });
}
