//! Which events a webhook gets: types, patterns, and the filter.

use cuewire_tests::Receiver;
use cuewire_tests::system::test;
use serde_json::{Value, json};

/// The events that arrived at each path, by their ids.
fn arrived(receiver: &Receiver, path: &str) -> Vec<String> {
    let mut ids: Vec<_> = receiver
        .requests()
        .iter()
        .filter(|request| request.path == path)
        .map(cuewire_tests::Request::event_id)
        .collect();
    ids.sort();
    ids
}

#[test]
fn types_and_patterns_decide_who_gets_an_event() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhooks: [(&str, &[&str]); 6] = [
            ("/all", &[]),
            ("/exact", &["recordings.completed"]),
            ("/category", &["recordings.*"]),
            ("/operation", &["*.completed"]),
            ("/two", &["feeds.started", "recordings.part.*"]),
            ("/own", &["webhook.*"]),
        ];
        for (path, types) in webhooks {
            organization.webhook(receiver.url(path)).types(types).create().await;
        }
        let types =
            ["recordings.completed", "recordings.part.completed", "recordings.failed", "feeds.started"];
        for event_type in types {
            let mut event = organization.event(event_type);
            event["id"] = event_type.into();
            system.amqp().await.publish(&event).await;
        }
        system.stop_all().await;
        let [completed, part, failed, feeds] = types;
        assert_eq!(arrived(&receiver, "/all"), [feeds, completed, failed, part]);
        assert_eq!(arrived(&receiver, "/exact"), [completed]);
        assert_eq!(arrived(&receiver, "/category"), [completed, failed, part]);
        assert_eq!(arrived(&receiver, "/operation"), [completed, part]);
        assert_eq!(arrived(&receiver, "/two"), [feeds, part]);
        assert!(arrived(&receiver, "/own").is_empty());
        assert_eq!(receiver.count(), 12);
    });
}

#[test]
fn a_filter_decides_by_attributes_and_data() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let webhooks = [
            ("/attribute", r#"pooluuid = "p1" AND data.size > 0"#),
            (
                "/juxtaposed",
                r#"data.is_archived=false AND data.size>0 (data.status="CLOSED" OR data.status="DELETED") AND data.external_id!=null"#,
            ),
            ("/regex", r#"subject = /^rec-[0-9]+$/"#),
            ("/category", r#"category = "assets" AND operation = "update""#),
            ("/nested", r#"data.tags = ["a", {"b": 1}] OR data.missing != null"#),
        ];
        for (path, filter) in webhooks {
            organization.webhook(receiver.url(path)).with("filter", filter).create().await;
        }
        let event = |id: &str, more: &Value| {
            let mut event = organization.event("assets.create");
            event["id"] = id.into();
            for (name, value) in more.as_object().unwrap() {
                event[name] = value.clone();
            }
            event
        };
        let closed = json!({"is_archived": false, "size": 3, "status": "CLOSED", "external_id": "x"});
        let no_external_id = json!({"is_archived": false, "size": 3, "status": "CLOSED"});
        let events = [
            event("1", &json!({"pooluuid": "p1", "data": {"size": 1}})),
            event("2", &json!({"pooluuid": "p2", "data": {"size": 1}})),
            event("3", &json!({"pooluuid": "p1", "data": {"size": 0}})),
            event("4", &json!({"data": closed})),
            event("5", &json!({"data": no_external_id})),
            event("6", &json!({"subject": "rec-12"})),
            event("7", &json!({"subject": "my rec-12"})),
            event("8", &json!({"type": "assets.update"})),
            event("9", &json!({"data": {"tags": ["a", {"b": 1}]}})),
            event("10", &json!({"data": {"tags": ["a"]}})),
        ];
        system.amqp().await.publish_all(&events).await;
        system.stop_all().await;
        assert_eq!(arrived(&receiver, "/attribute"), ["1"]);
        assert_eq!(arrived(&receiver, "/juxtaposed"), ["4"]);
        assert_eq!(arrived(&receiver, "/regex"), ["6"]);
        assert_eq!(arrived(&receiver, "/category"), ["8"]);
        assert_eq!(arrived(&receiver, "/nested"), ["9"]);
    });
}

#[test]
fn a_filter_that_cannot_be_read_is_refused_with_its_position() {
    test(async |system| {
        let organization = system.organization().await;
        for (filter, position) in [("data.size >", 12), ("(a = 1", 7), ("a = /[/", 5), ("", 1)] {
            let webhook = json!({"url": "http://127.0.0.1:9/", "filter": filter});
            let reply = organization.admin.post("/v1/webhooks", &webhook).await;
            if filter.is_empty() && reply.status == 201 {
                continue;
            }
            let detail = reply.problem(422);
            assert!(
                detail.contains("filter") && detail.contains(&position.to_string()),
                "{filter}: {detail}"
            );
        }
    });
}
