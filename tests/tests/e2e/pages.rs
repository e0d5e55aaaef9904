//! Lists, read page by page while rows come in between: everything once.

use std::collections::BTreeSet;

use cuewire_tests::amqp::Raw;
use cuewire_tests::event::events;
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Client, Receiver, until};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::native::routes;

/// Of each list to begin with.
const ROWS: usize = 7;
/// To each list while it is read.
const ADDED: usize = 3;

/// An entry's name: attempts have no id.
fn name(entry: &Value) -> String {
    match &entry["id"] {
        Value::Null => format!("{} {} {}", entry["delivery_id"], entry["round"], entry["number"]),
        id => id.to_string(),
    }
}

/// Reads a list to its end, and does something after each of the first pages. Nothing may be there twice.
async fn read(api: &Client, list: &str, limit: usize, meanwhile: impl AsyncFn()) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut page = format!("{list}{}limit={limit}", if list.contains('?') { '&' } else { '?' });
    let first = page.clone();
    for number in 0..20 * ROWS {
        let reply = api.get(&page).await.expect(200);
        let entries = reply["data"].as_array().unwrap();
        assert!(entries.len() <= limit, "{page}: {} entries", entries.len());
        for entry in entries {
            assert!(seen.insert(name(entry)), "{page} has {} again", name(entry));
        }
        let Some(next) = reply["next_cursor"].as_str() else { return seen };
        page = format!("{first}&cursor={next}");
        if number < ADDED {
            meanwhile().await;
        }
    }
    panic!("{first} does not end");
}

/// Reads a list by pages of one entry and of three, while others come, and finds all that was there before.
async fn check(api: &Client, list: &str, rows: usize, add: impl AsyncFn()) {
    for limit in [1, 3] {
        let before = read(api, list, 1_000, async || {}).await;
        assert!(before.len() >= rows, "{list} has {} entries", before.len());
        let seen = read(api, list, limit, &add).await;
        let missed: Vec<_> = before.difference(&seen).collect();
        assert!(missed.is_empty(), "{list} by {limit}: {missed:?} are missing");
        let after = read(api, list, 1_000, async || {}).await.len();
        assert!(after > before.len(), "{list} has got no more");
    }
}

/// Adds what becomes a dead letter, and waits until it heads the list.
async fn add_letter(api: &Client, add: impl AsyncFn()) {
    let newest = async || {
        let letters = api.get("/v1/dead-letters?limit=1").await.expect(200);
        letters["data"][0]["id"].as_str().map(str::to_owned)
    };
    let before = newest().await;
    add().await;
    until("there is another dead letter", async || (newest().await != before).then_some(())).await;
}

#[test]
fn every_list_read_page_by_page_has_everything_once_while_others_come() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(500)]).await;
        let (organization, operator) = (system.organization().await, system.operator());
        let (amqp, admin) = (system.amqp().await, &organization.admin);
        // What its format cannot carry fails without a request, which leaves its breaker closed.
        let webhook = organization.webhook(receiver.url("/")).with("format", "aioz").create().await;
        let id = &organization.id;
        let (attempts, keys_of) =
            (format!("/v1/webhooks/{}/attempts", webhook.id), format!("/v1/organizations/{id}/api-keys"));
        let post = async |api: &Client, path: &str, body: Value| {
            let _ = api.post(path, &body).await.expect(201);
        };
        let key = json!({"name": "n", "role": "viewer"});
        let quiet = json!({"url": receiver.url("/"), "event_types": ["none.such"]});
        let add_organization = async || post(&operator, "/v1/organizations", json!({"name": "n"})).await;
        let add_key_of = async || post(&operator, &keys_of, key.clone()).await;
        let add_key = async || post(admin, "/v1/api-keys", key.clone()).await;
        let add_webhook = async || post(admin, "/v1/webhooks", quiet.clone()).await;
        let add_failure =
            async || add_letter(admin, async || amqp.publish(&organization.event("a.b")).await).await;
        let add_poison = async || {
            // The same message twice would be one dead letter.
            let no_event = Raw::body("a.b", format!("not an event {}", Uuid::new_v4()));
            add_letter(&operator, async || amqp.publish_raw(&no_event).await.unwrap()).await;
        };

        for _ in 0..ROWS {
            add_organization().await;
            add_key().await;
            add_webhook().await;
            add_poison().await;
        }
        amqp.publish_all(&events(ROWS, "a.b", id)).await;
        organization.dead_letters(ROWS).await;
        // All at the same moment, where the time decides.
        for (table, column) in [
            ("webhooks", "created_at"),
            ("events", "received_at"),
            ("attempts", "started_at"),
            ("dead_letters", "created_at"),
        ] {
            let at_once = format!("UPDATE {table} SET {column} = (SELECT min({column}) FROM {table})");
            system.database().await.execute(&at_once, &[]).await.unwrap();
        }

        check(&operator, "/v1/organizations", ROWS + 1, add_organization).await;
        check(&operator, &keys_of, ROWS + 1, add_key_of).await;
        check(&operator, "/v1/dead-letters", ROWS, add_poison).await;
        check(admin, "/v1/api-keys", ROWS + 1, add_key).await;
        check(admin, "/v1/webhooks", ROWS + 1, add_webhook).await;
        for list in ["/v1/events?type=a.b", "/v1/events?category=a", &attempts, "/v1/dead-letters"] {
            check(admin, list, ROWS, &add_failure).await;
        }
        check(admin, &format!("/v1/dead-letters?webhook_id={}", webhook.id), ROWS, &add_failure).await;
    });
}

#[test]
fn a_page_that_there_cannot_be_is_refused_in_every_list() {
    let limits = ["", "0", "-1", "1.5", "1001", "x", "%00", "99999999999999999999"];
    // Nothing, no base64, base64 of no JSON, of JSON of another form, and more than any place takes.
    let long = "A".repeat(5_000);
    let cursors = ["", "%00", "***", "bm90IGEgY3Vyc29y", "WzFd", "bnVsbA", long.as_str()];
    test(async |system| {
        let organization = system.organization().await;
        let webhook = organization.webhook("http://127.0.0.1:9/").types(&["none.such"]).create().await;
        let lists = routes(&system.operator()).await;
        let lists: Vec<_> =
            lists.iter().filter(|route| route.query.iter().any(|it| it == "cursor")).collect();
        let paths: Vec<_> = lists.iter().map(|list| list.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/v1/api-keys",
                "/v1/dead-letters",
                "/v1/events",
                "/v1/organizations",
                "/v1/organizations/{id}/api-keys",
                "/v1/webhooks",
                "/v1/webhooks/{id}/attempts",
            ],
            "teach both tests of this file what else is a list"
        );
        for list in paths {
            let by_operator = list.starts_with("/v1/organizations");
            let api = if by_operator { &system.operator() } else { &organization.admin };
            let id = if by_operator { &organization.id } else { &webhook.id };
            let list = list.replace("{id}", id);
            for (name, values) in [("limit", &limits[..]), ("cursor", &cursors[..])] {
                for value in values {
                    let detail = api.get(&format!("{list}?{name}={value}")).await.problem(422);
                    assert!(detail.starts_with(&format!("`{name}` is ")), "{list}?{name}={value}: {detail}");
                }
            }
        }
    });
}
