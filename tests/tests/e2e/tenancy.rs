//! Two organizations that cannot see each other, on every native route that the API says it has.

use std::collections::HashMap;
use std::time::Instant;

use cuewire_tests::event::id;
use cuewire_tests::system::test;
use cuewire_tests::{Answer, Client, Organization, Receiver, Reply, Service, System, until};
use reqwest::Method;
use serde_json::{Value, json};

/// A route as `/openapi.json` has it.
struct Route {
    method: Method,
    path: String,
    /// The example of its body.
    example: Option<Value>,
    /// Whether it wants a key.
    guarded: bool,
}

async fn routes(api: &Client) -> Vec<Route> {
    let document = api.with_key(None).get("/openapi.json").await.expect(200);
    let mut routes = Vec::new();
    // Keys and ids have other forms in the dialects, whose own tests try another organization's of each.
    let native = |path: &str| !path.starts_with("/platforms/");
    for (path, operations) in document["paths"].as_object().unwrap().iter().filter(|(path, _)| native(path)) {
        for (method, operation) in operations.as_object().unwrap() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            if !matches!(method.as_str(), "GET" | "POST" | "PATCH" | "PUT" | "DELETE") {
                continue;
            }
            let content = operation["requestBody"]["content"].as_object();
            let example = content.map(|types| {
                let body = types.get("application/json").or_else(|| types.values().next()).unwrap();
                let example = example(&document, body).or_else(|| example(&document, &body["schema"]));
                example.unwrap_or_else(|| panic!("{method} {path} has no example of its body"))
            });
            let security = operation.get("security").or_else(|| document.get("security"));
            let guarded = security.is_some_and(|all| all.as_array().is_some_and(|all| !all.is_empty()));
            routes.push(Route { method, path: path.clone(), example, guarded });
        }
    }
    routes
}

/// The example of a body or of a schema, which may be the example of what it refers to.
fn example(document: &Value, of: &Value) -> Option<Value> {
    if let Some(reference) = of["$ref"].as_str() {
        return example(document, document.pointer(reference.trim_start_matches('#'))?);
    }
    if of["type"] == "object" && of.get("properties").is_none() {
        return Some(json!({}));
    }
    let named = || of["examples"].as_object()?.values().next()?.get("value");
    let listed = || of["examples"].as_array()?.first();
    of.get("example").or_else(named).or_else(listed).cloned()
}

/// The route's path with one organization's things for its parameters, each known by the path before it.
fn filled(route: &Route, things: &HashMap<&'static str, String>) -> String {
    let mut path = String::new();
    let mut at = 0;
    while let Some(length) = route.path[at..].find('{') {
        let before = &route.path[..at + length];
        let thing = things
            .get(before)
            .unwrap_or_else(|| panic!("teach this test what follows {before:?} in the route {}", route.path));
        path.push_str(&route.path[at..at + length]);
        path.push_str(thing);
        at += length + route.path[at + length..].find('}').unwrap() + 1;
    }
    path + &route.path[at..]
}

async fn call(api: &Client, route: &Route, path: &str) -> Reply {
    let request = api.request(route.method.clone(), path).timeout(std::time::Duration::from_secs(20));
    api.send(match &route.example {
        Some(example) => request.header("content-type", "application/json").body(example.to_string()),
        None => request,
    })
    .await
}

/// One of everything, by the path under which it is found.
async fn things(system: &System, organization: &Organization<'_>) -> HashMap<&'static str, String> {
    let broken = Receiver::answering([Answer::status(500)]).await;
    let webhook = organization.webhook(broken.url("/")).schedule(&[]).create().await;
    let event = organization.event("secrets.told");
    system.amqp().await.publish(&event).await;
    let letter = organization.dead_letters(1).await.remove(0);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let keys = organization.admin.get("/v1/api-keys").await.expect(200);
    let (letter_id, delivery) = (text(&letter["id"]), text(&letter["delivery_id"]));
    let key = text(&keys["data"][0]["id"]);
    let event_type = format!("slate.{}", organization.id);
    let path = format!("/v1/event-types/{event_type}");
    let _ = organization.admin.body(Method::PUT, &path, "application/json", "{}").await.expect(200);
    HashMap::from([
        ("/v1/event-types/", event_type),
        ("/v1/organizations/", organization.id.clone()),
        ("/v1/webhooks/", webhook.id),
        ("/v1/events/", text(&event["id"])),
        ("/v1/deliveries/", delivery),
        ("/v1/dead-letters/", letter_id),
        ("/v1/api-keys/", key.clone()),
        ("/v1/organizations/{id}/api-keys/", key),
    ])
}

/// Routes that never end.
fn is_stream(route: &Route) -> bool {
    route.path.ends_with("/stream")
}

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
        let before = look().await;
        for route in routes.iter().filter(|route| !is_stream(route)) {
            let path = filled(route, &victims);
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
        for route in routes.iter().filter(|route| !is_stream(route) && route.path.contains('{')) {
            let by_operator = route.path.starts_with("/v1/organizations");
            let operator = system.operator();
            let api = if by_operator { &operator } else { &victim.admin };
            if by_operator && route.method == Method::DELETE {
                continue;
            }
            let reply = call(api, route, &filled(route, &victims)).await;
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
