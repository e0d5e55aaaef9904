//! Quortex I/O.

use cuewire_tests::system::test;
use cuewire_tests::{Client, Organization, Receiver, Reply, Webhook, event};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::taken_by;

const WEBHOOKS: &str = "/platforms/quortex/1.0/organization/webhooks/";
const EVENTS: &str = "/platforms/quortex/1.0/events/";
const TOKEN: &str = "/platforms/quortex/1.0/token/";

/// The API as the platform's clients speak it, by an access token.
struct Quortex {
    client: Client,
    token: String,
}

async fn ask_for_token(client: &Client, body: &str) -> Reply {
    client.raw(&format!("POST {TOKEN} HTTP/1.1\nContent-Type: application/json\n\n{body}")).await
}

impl Quortex {
    async fn of(client: &Client) -> Self {
        let body = json!({"api_key_secret": client.key()}).to_string();
        let token = ask_for_token(client, &body).await.expect(201);
        let expires_at = OffsetDateTime::parse(token["expires_at"].as_str().unwrap(), &Rfc3339).unwrap();
        let left = expires_at - OffsetDateTime::now_utc();
        assert!(left <= Duration::HOUR && left > Duration::minutes(59), "{token}");
        Self { client: client.clone(), token: token["access_token"].as_str().unwrap().to_owned() }
    }

    /// Sends a request whose line and body are these.
    async fn call(&self, line: &str, body: &str) -> Reply {
        let content_type = if body.is_empty() { "" } else { "\nContent-Type: application/json" };
        self.with_headers(line, content_type, body).await
    }

    async fn with_headers(&self, line: &str, headers: &str, body: &str) -> Reply {
        let head = format!("{line} HTTP/1.1\nAuthorization: Bearer {}{headers}", self.token);
        self.client.raw(&format!("{head}\n\n{body}")).await
    }

    async fn get(&self, path: &str) -> Value {
        self.call(&format!("GET {path}"), "").await.expect(200)
    }

    async fn create(&self, body: &Value) -> Value {
        self.call(&format!("POST {WEBHOOKS}"), &body.to_string()).await.expect(201)
    }

    async fn update(&self, method: &str, webhook: &Value, body: &Value) -> Value {
        self.call(&format!("{method} {}", at(webhook)), &body.to_string()).await.expect(200)
    }
}

fn at(webhook: &Value) -> String {
    format!("{WEBHOOKS}{}/", webhook["uuid"].as_str().or(webhook["id"].as_str()).unwrap())
}

#[track_caller]
fn error(reply: Reply, status: u16) -> String {
    let body = reply.expect(status);
    let detail = body["detail"].as_str().unwrap_or_default();
    assert!(!detail.is_empty() && body.as_object().unwrap().len() == 1, "{body}");
    detail.to_owned()
}

/// The native webhook behind it.
async fn native(organization: &Organization<'_>, webhook: &Value) -> Value {
    let id = webhook["uuid"].as_str().or(webhook["id"].as_str()).unwrap();
    organization.admin.get(&format!("/v1/webhooks/{id}")).await.expect(200)
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
        let receiver = Receiver::healthy().await;
        let organization = system.organization_named("acme-1").await;
        let quortex = Quortex::of(&organization.with_role("editor").await).await;
        let url = receiver.url("/quortex");
        let filters = json!({"application": "link", "category": "input", "operation": "status_change",
            "pool_uuid": "pool-1", "resource_uuid": "resource-1"});
        let mut fields = filters.clone();
        fields
            .as_object_mut()
            .unwrap()
            .extend(json!({"name": "Alerts", "type": "raw", "url": url}).as_object().unwrap().clone());
        let made = quortex.create(&fields).await;
        let mut expected = fields.clone();
        expected["uuid"] = made["uuid"].clone();
        assert_eq!(made, expected);
        assert_eq!(quortex.get(&at(&made)).await, expected);
        assert_eq!(quortex.get(at(&made).trim_end_matches('/')).await, expected);
        assert_eq!(quortex.get(WEBHOOKS).await, json!([expected]));

        organization.in_effect().await;
        let mut elsewhere = happening(&organization, "input.status_change", "link");
        elsewhere["pooluuid"] = json!("pool-2");
        for other in [
            elsewhere,
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
        assert_eq!(native(&organization, &made).await["event_types"], json!(["input.status_change"]));
        let mut sent = filters;
        sent.as_object_mut().unwrap().extend(
            json!({"organization_uuid": "acme-1", "organization": delivery["organization"],
                "message": "Input main-feed is active", "metadata": wanted["data"]})
            .as_object()
            .unwrap()
            .clone(),
        );
        assert_eq!(delivery, sent);

        let renamed = quortex.update("PATCH", &made, &json!({"name": "All of Link", "category": null})).await;
        assert_eq!((&renamed["name"], renamed.get("category")), (&json!("All of Link"), None));
        assert_eq!(renamed["operation"], "status_change");
        let whole = json!({"name": "Everything", "type": "raw", "url": url});
        let unfiltered = quortex.update("PUT", &made, &whole).await;
        assert_eq!(unfiltered.as_object().unwrap().len(), 4, "an unset filter is absent: {unfiltered}");
        organization.in_effect().await;
        let any = happening(&organization, "organization.update", "organization");
        assert_eq!(taken_by(&organization, &any).await.len(), 1);
        receiver.wait_for(2).await;
        let none = event("input.status_change", &organization.id);
        assert_eq!(taken_by(&organization, &none).await.len(), 0, "it carries no application");

        let gone = quortex.call(&format!("DELETE {}", at(&made)), "").await;
        assert_eq!((gone.status.as_u16(), gone.text.as_str()), (204, ""));
        error(quortex.call(&format!("GET {}", at(&made)), "").await, 404);
        quortex.create(&whole).await;
        let other = organization.webhook("http://1.1.1.1/").create().await;
        let gone = quortex.call(&format!("DELETE {WEBHOOKS}"), "").await;
        assert_eq!((gone.status.as_u16(), gone.text.as_str()), (204, ""));
        assert_eq!(quortex.get(WEBHOOKS).await, json!([]));
        assert_eq!(native(&organization, &other.json).await["id"], other.id, "it is not the platform's");
    });
}

#[test]
fn a_quortex_token_is_good_as_long_as_its_key() {
    test(async |system| {
        let organization = system.organization().await;
        let path = format!("/v1/organizations/{}/api-keys", organization.id);
        let key = system.operator().post(&path, &json!({"name": "q", "role": "admin"})).await.expect(201);
        let client = organization.admin.with_key(key["key"].as_str());
        let quortex = Quortex::of(&client).await;
        assert_eq!(quortex.get(WEBHOOKS).await, json!([]));
        let chunked = "Content-Type: application/json\nTransfer-Encoding: chunked";
        let body = json!({"api_key_secret": client.key(), "other": 1});
        let token =
            client.raw(&format!("POST {} HTTP/1.1\n{chunked}\n\n{body}", TOKEN.trim_end_matches('/'))).await;
        assert_ne!(token.expect(201)["access_token"], quortex.token, "no two tokens are the same");

        for body in ["{", "{}", "[]", r#"{"api_key_secret":null}"#, r#"{"api_key_secret":"cw_x"}"#, "\"x\""] {
            error(ask_for_token(&client, body).await, 400);
        }
        error(client.raw(&format!("POST {TOKEN} HTTP/1.1\n\n{body}")).await, 415);
        let operators = json!({"api_key_secret": system.operator().key()}).to_string();
        error(ask_for_token(&client, &operators).await, 403);

        let mut forged = quortex.token.clone();
        let last = if forged.ends_with('A') { "B" } else { "A" };
        forged.replace_range(forged.len() - 9..forged.len() - 8, last);
        for shown in [forged.as_str(), "", "x", client.key().unwrap(), system.operator().key().unwrap()] {
            let shown = Quortex { client: client.clone(), token: shown.to_owned() };
            error(shown.call(&format!("GET {WEBHOOKS}"), "").await, 401);
        }
        error(client.raw(&format!("GET {WEBHOOKS} HTTP/1.1\n\n")).await, 401);

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
        let quortex = Quortex::of(&organization.admin).await;
        for (kind, format) in
            [("raw", "quortex"), ("gchat", "google_chat"), ("slack", "slack"), ("teams", "teams")]
        {
            let made = quortex.create(&json!({"name": "n", "type": kind, "url": "http://1.1.1.1/"})).await;
            assert_eq!(made["type"], kind);
            assert_eq!(native(&organization, &made).await["format"], format);
        }
        let made = quortex.create(&json!({"name": "n", "type": "raw", "url": "http://1.1.1.1/"})).await;
        let changed = quortex.update("PATCH", &made, &json!({"type": "slack"})).await;
        assert_eq!(changed["type"], "slack");
        for (category, operation, types) in [
            (json!("input"), json!(null), json!(["input.*"])),
            (json!(["input"]), json!(""), json!(["input.*"])),
            (json!("input"), json!("update"), json!(["input.update"])),
            (json!(["input", "pool"]), json!("update"), json!(["input.update", "pool.update"])),
            (json!(["pool"]), json!("update"), json!(["pool.update"])),
            (json!(null), json!("update"), json!([])),
            (json!([]), json!("update"), json!([])),
            (json!(""), json!(null), json!([])),
        ] {
            let fields = json!({"category": category, "operation": operation});
            let changed = quortex.update("PATCH", &made, &fields).await;
            let shown = |value: &Value| Some(value.clone()).filter(|value| !value.is_null() && value != "");
            assert_eq!(changed.get("category").cloned(), shown(&category), "{fields}");
            assert_eq!(changed.get("operation").cloned(), shown(&operation), "{fields}");
            assert_eq!(native(&organization, &made).await["event_types"], types, "{fields}");
            assert_eq!(quortex.get(&at(&made)).await, changed);
            assert_eq!(quortex.update("PUT", &made, &changed).await, changed);
        }
        let _ = quortex.call(&format!("DELETE {WEBHOOKS}"), "").await;
        let receiver = Receiver::healthy().await;
        let several =
            json!({"name": "n", "type": "raw", "url": receiver.url("/"), "category": ["input", "pool"]});
        let several = quortex.create(&several).await;
        quortex.create(&json!({"name": "n", "type": "raw", "url": "http://1.1.1.1/", "category": []})).await;
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
        let quortex = Quortex::of(&organization.admin).await;
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
            assert_eq!(quortex.update("PUT", &made, &expected).await, expected);
            assert_eq!(quortex.update("PATCH", &made, &expected).await, expected);
            let kept = native(&organization, &made).await;
            for field in ["event_types", "filter", "name", "headers", "enabled", "format"] {
                assert_eq!(kept[field], made[field], "{field}");
            }
            let changed =
                quortex.update("PATCH", &made, &json!({"pool_uuid": "q", "application": "link"})).await;
            assert_eq!((&changed["pool_uuid"], &changed["application"]), (&json!("q"), &json!("link")));
            let kept = native(&organization, &made).await;
            assert_eq!(kept["event_types"], made["event_types"]);
            if made["filter"].as_str().is_some_and(|filter| filter.contains("/^u/")) {
                assert_eq!(
                    kept["filter"].as_str(),
                    Some("object_id=\"r\" AND pooluuid = \"q\" AND userid=/^u/ AND application = \"link\"")
                );
            }
            let unset = quortex.update("PATCH", &made, &json!({"application": null})).await;
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
        let quortex = Quortex::of(&organization.admin).await;
        let empty = quortex.get(&format!("{WEBHOOKS}?page=1&page_size=2")).await;
        assert_eq!(empty, json!({"count": 0, "next": null, "previous": null, "results": []}));
        let mut made = Vec::new();
        for name in ["a", "b", "c", "d", "e"] {
            made.push(quortex.create(&json!({"name": name, "type": "raw", "url": "http://1.1.1.1/"})).await);
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
            error(quortex.call(&format!("GET {WEBHOOKS}?page={page}&page_size=2"), "").await, 404);
        }
        let proxy = "\nX-Forwarded-Proto: https\nX-Forwarded-Host: api.example.com";
        let far = quortex.with_headers(&format!("GET {WEBHOOKS}?page_size=4"), proxy, "").await.expect(200);
        assert_eq!(far["next"], format!("https://api.example.com{WEBHOOKS}?page=2&page_size=4"));
    });
}

#[test]
fn the_quortex_event_log_holds_what_carries_an_application() {
    test(async |system| {
        let organization = system.organization().await;
        let quortex = Quortex::of(&organization.with_role("viewer").await).await;
        let mut mute = event("pool.update", &organization.id);
        mute["application"] = json!("play");
        let mut loud = happening(&organization, "input.update", "link");
        loud["message"] = json!("Über-Alarm at \u{1F525} 100%");
        loud["subject"] = json!("resource-2");
        // What no jsonb could hold.
        loud["data"] = json!({"text": "\0", "large": "x".repeat(200_000)});
        let plain = happening(&organization, "input.update", "play");
        for event in [&mute, &event("input.update", &organization.id), &loud, &plain] {
            assert_eq!(taken_by(&organization, event).await.len(), 0);
        }
        let other = system.organization().await;
        taken_by(&other, &happening(&other, "input.update", "play")).await;

        let entry = |message: &Value, resource: &Value, place: [Value; 2], application: &str| {
            let [pool, workspace] = place;
            json!({"timestamp": "2026-01-31T09:30:00.000Z", "message": message, "pool_uuid": pool,
                "workspace_uuid": workspace, "resource_uuid": resource, "application": application})
        };
        let there = || [json!("pool-1"), json!("workspace-1")];
        let plain = entry(&plain["message"], &plain["subject"], there(), "play");
        let loud = entry(&loud["message"], &loud["subject"], there(), "link");
        let mute = entry(&Value::Null, &Value::Null, [Value::Null, Value::Null], "play");
        let all = quortex.get(EVENTS).await;
        assert_eq!(all, json!({"count": 3, "next": null, "previous": null, "results": [plain, loud, mute]}));
        for (query, expected) in [
            ("application=play", vec![&plain, &mute]),
            ("application=play&in_message=FEED", vec![&plain]),
            ("in_message=%C3%BCber-alarm", vec![&loud]),
            ("in_message=100%25&application=&page=1", vec![&loud]),
            ("pool_uuid=pool-1&workspace_uuid=workspace-1", vec![&plain, &loud]),
            ("resource_uuid=resource-2&colour=red", vec![&loud]),
            ("in_message=%00", vec![]),
        ] {
            let found = quortex.get(&format!("{EVENTS}?{query}")).await;
            assert_eq!(found["results"], json!(expected), "{query}");
            assert_eq!(found["count"], expected.len(), "{query}");
        }
        let first = quortex.get(&format!("{EVENTS}?page_size=1&pool_uuid=pool-1&in_message=")).await;
        assert_eq!((&first["count"], &first["results"]), (&json!(2), &json!([plain])));
        let base = organization.admin.base();
        assert_eq!(first["next"], format!("{base}{EVENTS}?page=2&page_size=1&pool_uuid=pool-1"));
        let next = quortex.get(first["next"].as_str().unwrap().strip_prefix(base).unwrap()).await;
        assert_eq!((&next["next"], &next["results"]), (&Value::Null, &json!([loud])));
        error(quortex.call(&format!("GET {EVENTS}?page=2"), "").await, 404);
    });
}

#[test]
fn the_quortex_event_log_goes_back_a_bounded_way() {
    test(async |system| {
        let organization = system.organization().await;
        let quortex = Quortex::of(&organization.admin).await;
        let log = async |count: i32, bytes: i32| {
            let database = system.database().await;
            database.execute("DELETE FROM events", &[]).await.unwrap();
            let statement = "
                INSERT INTO events (day, organization_id, source, id, type, category, received_at, payload, webhooks)
                SELECT current_date, $1::text::uuid, 's', number::text, 'input.update', 'input',
                       now() - number * interval '1 second',
                       convert_to(jsonb_build_object('id', number::text, 'source', 's', 'type', 'input.update',
                           'application', 'play', 'message', number::text, 'data', repeat('x', $3))::text, 'UTF8'),
                       '{}'
                FROM generate_series(1, $2) AS number";
            database.execute(statement, &[&organization.id, &count, &bytes]).await.unwrap();
        };
        // In several reads, of which none ends with the rows or bytes that it may have.
        log(9_999, 1).await;
        let last = quortex.get(&format!("{EVENTS}?page=10&page_size=1000")).await;
        assert_eq!(last["count"], 9_999);
        let messages: Vec<_> =
            last["results"].as_array().unwrap().iter().map(|it| it["message"].clone()).collect();
        let expected: Vec<_> = (9_001..=9_999).map(|number| json!(number.to_string())).collect();
        assert_eq!(messages, expected);
        log(10_001, 1).await;
        assert_eq!(quortex.get(&format!("{EVENTS}?page_size=1")).await["count"], 10_000);
        log(200, 255 * 1024).await;
        let count = quortex.get(EVENTS).await["count"].as_u64().unwrap();
        assert_eq!(
            count, 129,
            "32 MiB of events a little larger than 255 KiB, the last of which goes beyond"
        );
    });
}

#[test]
fn quortex_requests_that_are_not_as_they_must_be_are_answered_in_its_envelope() {
    test(async |system| {
        let organization = system.organization().await;
        let quortex = Quortex::of(&organization.admin).await;
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
            (
                format!(r#"{{"name":"{}","type":"raw","url":"http://1.1.1.1/"}}"#, "ü".repeat(101)),
                "`name` has 101",
            ),
            (
                format!(r#"{{"name":"n","type":"raw","url":"http://1.1.1.1/{}"}}"#, "x".repeat(1_010)),
                "`url` has 1025 characters",
            ),
            (with(&format!(r#","application":"{long}""#)), "`application` has 129 characters"),
            (with(&format!(r#","category":"{long}""#)), "`category` has"),
            (with(r#","category":{"a":1}"#), "`category` cannot be read: text or an array"),
            (with(r#","category":["input",7]"#), "`category` cannot be read: text or an array"),
            (with(r#","category":"a b""#), "`category` has \"a b\""),
            (with(r#","operation":"a b""#), "`operation` is no operation"),
            (with(r#","pool_uuid":7"#), "`pool_uuid` is 7, and must be text"),
        ] {
            let said = error(quortex.call(&post, &body).await, 404);
            assert!(said.contains(sentence), "{body}: {said}");
        }
        error(quortex.with_headers(&post, "\nContent-Type: application/json", "").await, 404);
        error(
            quortex.with_headers(&post, "\nContent-Type: application/x-www-form-urlencoded", "name=n").await,
            415,
        );
        error(quortex.with_headers(&post, "", &with("")).await, 415);
        error(quortex.call(&post, &with(&format!(r#","x":"{}""#, "x".repeat(262_144)))).await, 413);
        error(quortex.call("GET /platforms/quortex/1.0/organizations/", "").await, 404);
        error(quortex.call("GET /platforms/quortex", "").await, 404);
        error(quortex.call(&format!("PATCH {WEBHOOKS}"), "{}").await, 405);
        assert_eq!(quortex.get(WEBHOOKS).await, json!([]), "nothing of that was made");

        let chunked = "\nContent-Type: application/json\nTransfer-Encoding: chunked";
        let body =
            with(r#","uuid":"x","colour":"red","application":null,"category":"","pool_uuid":"a\"b\\""#);
        let made = quortex.with_headers(post.trim_end_matches('/'), chunked, &body).await.expect(201);
        assert_eq!(made["pool_uuid"], "a\"b\\");
        assert_eq!(made.as_object().unwrap().len(), 5, "{made}");
        let longest = json!({"name": "\u{1F525}".repeat(100), "application": "ü".repeat(128)});
        assert_eq!(quortex.update("PATCH", &made, &longest).await["name"], longest["name"]);
        let partial = json!({"name": "m"}).to_string();
        assert!(
            error(quortex.call(&format!("PUT {}", at(&made)), &partial).await, 404)
                .contains("`url` is missing")
        );
        error(
            quortex.with_headers(&format!("PUT {}", at(&made)), "\nContent-Type: text/plain", &partial).await,
            415,
        );

        for id in ["7", "x", "%00", "00000000-0000-0000-0000-000000000000"] {
            error(quortex.call(&format!("GET {WEBHOOKS}{id}/"), "").await, 404);
            error(quortex.call(&format!("PATCH {WEBHOOKS}{id}/"), "{}").await, 404);
            error(quortex.call(&format!("DELETE {WEBHOOKS}{id}/"), "").await, 404);
        }
    });
}

#[test]
fn a_quortex_webhook_is_reached_only_by_whom_it_belongs_to() {
    test(async |system| {
        let organization = system.organization().await;
        let quortex = Quortex::of(&organization.admin).await;
        let fields = json!({"name": "n", "type": "raw", "url": "http://1.1.1.1/"});
        let made = quortex.create(&fields).await;
        let viewer = Quortex::of(&organization.with_role("viewer").await).await;
        assert_eq!(viewer.get(&at(&made)).await, made);
        error(viewer.call(&format!("POST {WEBHOOKS}"), &fields.to_string()).await, 403);
        error(viewer.call(&format!("PUT {}", at(&made)), &fields.to_string()).await, 403);
        error(viewer.call(&format!("PATCH {}", at(&made)), "{}").await, 403);
        error(viewer.call(&format!("DELETE {}", at(&made)), "").await, 403);
        error(viewer.call(&format!("DELETE {WEBHOOKS}"), "").await, 403);

        let other = Quortex::of(&system.organization().await.admin).await;
        error(other.call(&format!("GET {}", at(&made)), "").await, 404);
        error(other.call(&format!("PATCH {}", at(&made)), "{}").await, 404);
        error(other.call(&format!("DELETE {}", at(&made)), "").await, 404);
        let gone = other.call(&format!("DELETE {WEBHOOKS}"), "").await;
        assert_eq!(gone.status.as_u16(), 204);
        assert_eq!(quortex.get(WEBHOOKS).await, json!([made]), "others delete their own");
        let plain = organization.webhook("http://1.1.1.1/").create().await.json;
        error(quortex.call(&format!("GET {}", at(&plain)), "").await, 404);
        error(quortex.call(&format!("PUT {}", at(&plain)), &fields.to_string()).await, 404);
    });
}
