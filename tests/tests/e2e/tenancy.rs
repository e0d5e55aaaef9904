//! Two organizations that cannot see each other, on every native route that the API says it has.

use std::time::Instant;

use cuewire_tests::event::id;
use cuewire_tests::system::test;
use cuewire_tests::{Receiver, Service, until};
use reqwest::Method;
use serde_json::json;

use crate::native::{call, routes, things};

#[test]
fn no_route_lets_an_organization_see_or_touch_what_belongs_to_another() {
    test(async |system| {
        let (victim, stranger) = (system.organization().await, system.organization().await);
        let victims = things(system, &victim).await;
        things(system, &stranger).await;
        let mut routes = routes(&system.operator()).await;
        assert!(routes.len() >= 25, "{} routes", routes.len());
        let look = async || {
            let mut seen = Vec::new();
            for path in ["/v1/webhooks", "/v1/dead-letters", "/v1/events", "/v1/api-keys", "/v1/event-types"]
            {
                seen.push(victim.admin.get(path).await.expect(200));
            }
            seen
        };
        let told = "/v1/events?type=webhook.delivery_failed";
        until("its dead letter is told of", async || {
            let events = victim.admin.get(told).await.expect(200);
            events["data"].as_array().filter(|events| !events.is_empty()).map(|_| ())
        })
        .await;
        let before = look().await;
        for route in routes.iter().filter(|route| !route.is_stream()) {
            let path = route.filled(&victims);
            let what = format!("{} {path}", route.method);
            if route.guarded {
                let reply = call(&stranger.admin.with_key(None), route, &path).await;
                assert_eq!(reply.status, 401, "{what} without a key: {}", reply.text);
            }
            // Whoever registers a type makes an entry of their own, by whatever name they say.
            if route.method == Method::PUT && route.path.starts_with("/v1/event-types/") {
                continue;
            }
            let reply = call(&stranger.admin, route, &path).await;
            if route.path.starts_with("/v1/organizations") {
                assert!(
                    reply.status == 403 || reply.status == 404,
                    "{what}: {} {}",
                    reply.status,
                    reply.text
                );
            } else if route.path.contains('{') {
                assert_eq!(reply.status, 404, "{what}: {}", reply.text);
            }
            for (kind, id) in &victims {
                let echoed = reply.status == 404;
                assert!(
                    echoed || !reply.text.contains(id.as_str()),
                    "{what} shows one of {kind}: {}",
                    reply.text
                );
            }
        }
        assert_eq!(look().await, before, "nothing has changed");

        // The same calls by their owner find what they name; what removes comes last.
        routes.sort_by_key(|route| route.method == Method::DELETE);
        for route in routes.iter().filter(|route| !route.is_stream() && route.path.contains('{')) {
            let by_operator = route.path.starts_with("/v1/organizations");
            let operator = system.operator();
            let api = if by_operator { &operator } else { &victim.admin };
            if by_operator && route.method == Method::DELETE {
                continue;
            }
            let reply = call(api, route, &route.filled(&victims)).await;
            assert_ne!(reply.status, 404, "{} {}: {}", route.method, route.path, reply.text);
            assert!(!reply.status.is_server_error(), "{} {}: {}", route.method, route.path, reply.text);
        }
    });
}

#[test]
fn an_organizations_events_reach_its_own_webhooks_alone() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        let (one, other) = (system.organization().await, system.organization_named("other").await);
        one.webhook(receiver.url("/one")).create().await;
        other.webhook(receiver.url("/other")).create().await;
        let (mine, theirs) = (one.event("a.b"), cuewire_tests::event("a.b", "other"));
        system.amqp().await.publish_all(&[mine.clone(), theirs.clone()]).await;
        system.stop_all().await;
        let mut arrived: Vec<_> = receiver
            .requests()
            .iter()
            .map(|request| (request.path.clone(), json!(request.event_id())))
            .collect();
        arrived.sort_by_key(|(path, _)| path.clone());
        let expected = [("/one".to_owned(), mine["id"].clone()), ("/other".to_owned(), theirs["id"].clone())];
        assert_eq!(arrived, expected);
    });
}

#[test]
fn the_same_event_id_in_two_organizations_shows_each_its_own() {
    test(async |system| {
        let (one, other) = (system.organization().await, system.organization().await);
        let mut mine = one.event("a.b");
        mine["data"] = json!({"whose": "mine"});
        let mut theirs = mine.clone();
        theirs["organization"] = other.id.clone().into();
        theirs["data"] = json!({"whose": "theirs"});
        system.amqp().await.publish_all(&[mine.clone(), theirs]).await;
        let path = format!("/v1/events/{}", mine["id"].as_str().unwrap());
        for (organization, whose) in [(&one, "mine"), (&other, "theirs")] {
            let shown = cuewire_tests::until("the event is logged", async || {
                let reply = organization.admin.get(&path).await;
                (reply.status == 200).then_some(reply.json)
            })
            .await;
            assert!(shown.to_string().contains(whose), "{shown}");
            let other = if whose == "mine" { "theirs" } else { "\"mine\"" };
            assert!(!shown.to_string().contains(other), "{shown}");
        }
    });
}

#[test]
fn a_flood_of_events_of_unknown_organizations_asks_the_database_seldom_and_none_is_lost() {
    test(async |system| {
        let flood: Vec<_> =
            (0..1_000).map(|n| cuewire_tests::event("a.b", &format!("ghost-{}", n % 7))).collect();
        let began = Instant::now();
        system.amqp().await.publish_all(&flood).await;
        let sql = "SELECT count(*) FROM dead_letters WHERE reason = 'rejected'";
        until("each of them is a dead letter", async || {
            let letters: i64 = system.database().await.query_one(sql, &[]).await.unwrap().get(0);
            (letters == 1_000).then_some(())
        })
        .await;
        let asked = system.sum(Service::Router, "cuewire_router_look_ups_total").await;
        // At most one question a second for each name, and mostly one for all.
        let most = 7.0 * (began.elapsed().as_secs_f64() + 1.0).ceil();
        assert!((1.0..=most).contains(&asked), "{asked}");
        // One of them is made a moment after it was found to be unknown.
        let receiver = Receiver::healthy().await;
        let organization = system.organization_named("ghost-3").await;
        organization.webhook(receiver.url("/")).create().await;
        let event = cuewire_tests::event("a.b", "ghost-3");
        system.amqp().await.publish(&event).await;
        assert_eq!(receiver.wait_for(1).await[0].event_id(), id(&event));
    });
}
