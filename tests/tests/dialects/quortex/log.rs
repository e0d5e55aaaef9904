//! The event log of Quortex I/O.

use cuewire_tests::Organization;
use cuewire_tests::event;
use cuewire_tests::system::{System, test};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::happening;
use crate::platform::Platform;
use crate::taken_by;

const EVENTS: &str = "/platforms/quortex/1.0/events/";

#[test]
fn the_quortex_event_log_holds_what_carries_an_application() {
    test(async |system| {
        let organization = system.organization().await;
        let quortex = Platform::Quortex.by(&organization.with_role("viewer").await).await;
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
            ("application=link&application=play&in_message=nothing&in_message=feed", vec![&plain]),
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
        quortex.failed(quortex.call(&format!("GET {EVENTS}?page=2"), "").await, 404);
    });
}

/// Puts so many events with so much data into the log, and nothing else.
async fn fill_log(system: &System, organization: &Organization<'_>, count: i32, bytes: i32) {
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
}

#[test]
fn the_quortex_event_log_goes_back_a_bounded_way() {
    test(async |system| {
        let organization = system.organization().await;
        let quortex = Platform::Quortex.by(&organization.admin).await;
        // In several reads, of which none ends with the rows or bytes that it may have.
        fill_log(system, &organization, 9_999, 1).await;
        let last = quortex.get(&format!("{EVENTS}?page=10&page_size=1000")).await;
        assert_eq!(last["count"], 9_999);
        let messages: Vec<_> =
            last["results"].as_array().unwrap().iter().map(|it| it["message"].clone()).collect();
        let expected: Vec<_> = (9_001..=9_999).map(|number| json!(number.to_string())).collect();
        assert_eq!(messages, expected);
        fill_log(system, &organization, 10_001, 1).await;
        assert_eq!(quortex.get(&format!("{EVENTS}?page_size=1")).await["count"], 10_000);
        fill_log(system, &organization, 200, 255 * 1024).await;
        let count = quortex.get(EVENTS).await["count"].as_u64().unwrap();
        assert_eq!(
            count, 129,
            "32 MiB of events a little larger than 255 KiB, the last of which goes beyond"
        );
    });
}

#[test]
fn the_quortex_event_log_is_read_in_turns() {
    test(async |system| {
        let organization = system.organization().await;
        let quortex = Platform::Quortex.by(&organization.admin).await;
        let other = Platform::Quortex.by(&system.organization().await.admin).await;
        fill_log(system, &organization, 100, 255 * 1024).await;
        let line = format!("GET {EVENTS}?page_size=1");
        let reads = join_all((0..40).map(|_| quortex.call(&line, "")));
        let others = async {
            for _ in 0..3 {
                let _ = other.call(&line, "").await.expect(200);
            }
        };
        let (replies, ()) = tokio::join!(reads, others);
        let mut refused = 0;
        for reply in replies {
            if reply.status == 200 {
                assert_eq!(reply.json["count"], 100);
                continue;
            }
            refused += 1;
            assert!(reply.headers.contains_key("retry-after"));
            let said = quortex.failed(reply, 429);
            assert!(said.contains("too many of your requests"), "{said}");
        }
        assert!((1..=24).contains(&refused), "{refused}: 16 of 40 read or wait at any time");
    });
}
