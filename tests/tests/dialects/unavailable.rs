//! What every platform's client is told while a part of ours is away or broken: the platform's own envelope, and when
//! to come back.

use cuewire_tests::system::System;
use cuewire_tests::{Service, Setup, until};
use reqwest::StatusCode;

use crate::platform::{Caller, Platform, Right, Things};

/// Each platform as an admin speaks to it, with a webhook.
async fn callers(system: &System) -> Vec<(Caller, Things)> {
    let mut callers = Vec::new();
    for platform in Platform::ALL {
        let organization = system.organization().await;
        let caller = platform.by(&organization.admin).await;
        let webhook = caller.make("http://127.0.0.1:9/").await;
        callers.push((caller, webhook));
    }
    callers
}

/// Uses all routes that need the database, of which each must fail with this status.
async fn all_fail(callers: &[(Caller, Things)], status: u16) {
    for (caller, webhook) in callers {
        // The key is known, and a token is made of nothing else.
        for route in caller.platform.routes().iter().filter(|route| route.right != Right::Anybody) {
            let reply = caller.follow(route, webhook).await;
            let retry_after = reply.headers.get("retry-after").cloned();
            caller.failed(reply, status);
            let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
            assert_eq!(seconds.is_some(), status == 503, "{route:?}");
        }
    }
}

#[test]
fn a_database_or_a_broker_that_is_away_or_broken_is_told_in_each_platforms_envelope() {
    Setup::default().own_servers().run(async |system| {
        let callers = callers(system).await;
        let rename = |from: &str, to: &str| format!("ALTER TABLE {from} RENAME TO {to}");
        for (table, hidden) in [("webhooks", "webhooks_gone"), ("events", "events_gone")] {
            system.database().await.batch_execute(&rename(table, hidden)).await.unwrap();
        }
        all_fail(&callers, 500).await;
        for (table, hidden) in [("webhooks", "webhooks_gone"), ("events", "events_gone")] {
            system.database().await.batch_execute(&rename(hidden, table)).await.unwrap();
        }

        system.servers().command(&["kill", "postgres"]).await;
        all_fail(&callers, 503).await;
        system.servers().command(&["start", "postgres"]).await;
        system.ready().await;

        system.servers().command(&["kill", "rabbitmq"]).await;
        until("the api knows that the broker is away", async || system.missing(Service::Api).await.map(drop))
            .await;
        for (caller, webhook) in &callers {
            let sends = |path: &str| path.contains("/test/") || path.contains("/check/");
            for route in caller.platform.routes().iter().filter(|route| sends(route.path)) {
                caller.failed(caller.follow(route, webhook).await, 503);
            }
            let list = caller.follow(caller.platform.list(), webhook).await;
            assert_eq!(list.status, StatusCode::OK, "what needs no broker works on");
        }
        system.servers().command(&["start", "rabbitmq"]).await;
        system.ready().await;
    });
}

#[test]
fn a_test_call_that_no_sender_answers_in_time_is_told_in_the_platforms_envelope() {
    Setup::default().run(async |system| {
        let organization = system.organization().await;
        for platform in [Platform::Millicast, Platform::Aioz] {
            let caller = platform.by(&organization.admin).await;
            let webhook = caller.make("http://127.0.0.1:9/").await;
            let native = organization.admin.get("/v1/webhooks?limit=1").await.expect(200);
            let path = format!("/v1/webhooks/{}", native["data"][0]["id"].as_str().unwrap());
            let quick = serde_json::json!({"timeout_ms": 100});
            let _ = organization.admin.patch(&path, &quick).await.expect(200);
            system.stop(Service::Sender).await;
            let sends = |path: &str| path.contains("/test/") || path.contains("/check/");
            let route = platform.routes().iter().find(|route| sends(route.path)).unwrap();
            let said = caller.failed(caller.follow(route, &webhook).await, 504);
            assert!(said.contains("no sender answered"), "{said}");
            system.start(Service::Sender).await;
        }
    });
}
