//! A change of configuration takes effect within a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cuewire_tests::system::test;
use cuewire_tests::{Answer, Receiver, Request, System};
use serde_json::json;

const SOON: Duration = Duration::from_secs(1);

/// Publishes events of this type until one of them has arrived as `arrived` says, which must be one that was
/// published within a second of now.
async fn takes_effect(
    system: &System,
    receiver: &Receiver,
    make: impl Fn() -> serde_json::Value,
    arrived: impl Fn(&Request) -> bool,
) {
    let changed = Instant::now();
    let amqp = system.amqp().await;
    while !receiver.requests().iter().any(&arrived) {
        assert!(changed.elapsed() < SOON, "no effect after {SOON:?}");
        amqp.publish(&make()).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_new_a_changed_and_a_disabled_webhook_take_effect_within_a_second() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let organization = system.organization().await;
        let admin = &organization.admin;
        let api = "/v1/webhooks";
        let make = |event_type: &'static str| {
            let id = organization.id.clone();
            move || cuewire_tests::event(event_type, &id)
        };
        let new = admin.post(api, &json!({"url": receiver.url("/new"), "event_types": ["a.new"]})).await;
        let path = format!("{api}/{}", new.expect(201)["id"].as_str().unwrap());
        takes_effect(system, &receiver, make("a.new"), |request| request.path == "/new").await;

        let change = json!({"event_types": ["a.changed"], "url": receiver.url("/changed")});
        let _ = admin.patch(&path, &change).await.expect(200);
        takes_effect(system, &receiver, make("a.changed"), |request| request.path == "/changed").await;

        // A second webhook tells that events published after it take their new way.
        let _ = admin.patch(&path, &json!({"enabled": false})).await.expect(200);
        let tell = json!({"url": receiver.url("/tell"), "event_types": ["a.changed"]});
        let _ = admin.post(api, &tell).await.expect(201);
        takes_effect(system, &receiver, make("a.changed"), |request| request.path == "/tell").await;
        let last = organization.event("a.changed");
        system.amqp().await.publish(&last).await;
        system.stop_all().await;
        let last: Vec<_> = receiver
            .requests()
            .into_iter()
            .filter(|request| request.json()["id"] == last["id"])
            .map(|request| request.path)
            .collect();
        assert_eq!(last, ["/tell"]);
    });
}

#[test]
fn a_deleted_key_is_refused_within_a_second_though_it_is_used_and_others_change_all_the_time() {
    test(async |system| {
        let (organization, other) = (system.organization().await, system.organization().await);
        let doomed = organization.with_role("viewer").await;
        let keys = organization.admin.get("/v1/api-keys").await.expect(200);
        let keys = keys["data"].as_array().unwrap();
        let key = keys.iter().find(|key| key["role"] == "viewer").unwrap();
        let path = format!("/v1/api-keys/{}", key["id"].as_str().unwrap());
        let refused = AtomicBool::new(false);
        let change = async {
            while !refused.load(Ordering::Relaxed) {
                other.with_role("viewer").await;
            }
        };
        let use_it = async {
            for _ in 0..50 {
                let _ = doomed.get("/v1/webhooks").await.expect(200);
            }
            assert_eq!(organization.admin.delete(&path).await.status, 204);
            let deleted = Instant::now();
            while doomed.get("/v1/webhooks").await.status != 401 {
                assert!(deleted.elapsed() < SOON, "it still works after {SOON:?}");
            }
            for _ in 0..50 {
                let _ = doomed.get("/v1/webhooks").await.problem(401);
            }
            refused.store(true, Ordering::Relaxed);
        };
        tokio::join!(change, use_it);
    });
}

#[test]
fn a_webhook_that_is_enabled_again_takes_events_again() {
    test(async |system| {
        let receiver = Receiver::answering([Answer::status(410), Answer::status(200)]).await;
        let organization = system.organization().await;
        let webhook = organization.webhook(receiver.url("/")).create().await;
        system.amqp().await.publish(&organization.event("a.b")).await;
        organization.dead_letters(1).await;
        organization.change(&webhook, &json!({"enabled": true})).await;
        let event = organization.event("a.b");
        system.amqp().await.publish(&event).await;
        let requests = receiver.wait_for(2).await;
        assert_eq!(requests[1].event_id(), cuewire_tests::event::id(&event));
        let shown = organization.admin.get(&format!("/v1/webhooks/{}", webhook.id)).await.expect(200);
        assert_eq!((&shown["enabled"], &shown["disabled_reason"]), (&json!(true), &json!(null)));
    });
}
