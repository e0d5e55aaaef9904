//! Who may do what: every native route with every kind of key.

use std::collections::BTreeSet;

use cuewire_tests::amqp::Raw;
use cuewire_tests::system::test;
use cuewire_tests::{Client, System, until};

use crate::native::{Route, Things, routes, things};

const CALLERS: [&str; 4] = ["viewer", "editor", "admin", "operator"];

/// What each of [`CALLERS`] is answered, in the order in which they call: what makes deliveries comes before
/// the webhook that would take them, what removes comes last. Without a key everybody gets 401.
#[rustfmt::skip]
const TABLE: &[(&str, &str, [u16; 4])] = &[
    ("POST",   "/v1/events",                            [403, 202, 202, 202]),
    ("GET",    "/v1/events",                            [200, 200, 200, 403]),
    ("GET",    "/v1/events/{id}",                       [200, 200, 200, 403]),
    ("GET",    "/v1/events/stream",                     [200, 200, 200, 403]),
    ("GET",    "/v1/event-types",                       [200, 200, 200, 200]),
    ("PUT",    "/v1/event-types/{type}",                [403, 200, 200, 403]),
    ("GET",    "/v1/deliveries/{id}",                   [200, 200, 200, 403]),
    ("POST",   "/v1/deliveries/{id}/retry",             [403, 202, 202, 403]),
    ("GET",    "/v1/dead-letters",                      [200, 200, 200, 200]),
    ("GET",    "/v1/dead-letters/{id}",                 [200, 200, 200, 200]),
    // The operator's own are what was not understood, and cannot be sent again.
    ("POST",   "/v1/dead-letters/{id}/redrive",         [403, 202, 202, 422]),
    ("GET",    "/v1/webhooks/{id}",                     [200, 200, 200, 403]),
    ("GET",    "/v1/webhooks/{id}/attempts",            [200, 200, 200, 403]),
    ("GET",    "/v1/webhooks/{id}/stats",               [200, 200, 200, 403]),
    ("POST",   "/v1/webhooks/{id}/test",                [403, 200, 200, 403]),
    ("GET",    "/v1/webhooks/{id}/secret",              [403, 403, 200, 403]),
    ("POST",   "/v1/webhooks/{id}/secret/rotate",       [403, 403, 200, 403]),
    ("PATCH",  "/v1/webhooks/{id}",                     [403, 200, 200, 403]),
    ("POST",   "/v1/webhooks",                          [403, 201, 201, 403]),
    ("GET",    "/v1/webhooks",                          [200, 200, 200, 403]),
    ("GET",    "/v1/api-keys",                          [403, 403, 200, 403]),
    ("GET",    "/v1/api-keys/{id}",                     [403, 403, 200, 403]),
    ("POST",   "/v1/api-keys",                          [403, 403, 201, 403]),
    ("GET",    "/v1/organizations",                     [403, 403, 403, 200]),
    ("GET",    "/v1/organizations/{id}",                [403, 403, 403, 200]),
    ("POST",   "/v1/organizations",                     [403, 403, 403, 201]),
    ("PATCH",  "/v1/organizations/{id}",                [403, 403, 403, 200]),
    ("GET",    "/v1/organizations/{id}/api-keys",       [403, 403, 403, 200]),
    ("POST",   "/v1/organizations/{id}/api-keys",       [403, 403, 403, 201]),
    ("DELETE", "/v1/event-types/{type}",                [403, 204, 204, 403]),
    ("DELETE", "/v1/dead-letters/{id}",                 [403, 204, 204, 204]),
    ("DELETE", "/v1/webhooks/{id}",                     [403, 204, 204, 403]),
    ("DELETE", "/v1/api-keys/{id}",                     [403, 403, 204, 403]),
    ("DELETE", "/v1/organizations/{id}/api-keys/{key}", [403, 403, 403, 204]),
    ("DELETE", "/v1/organizations/{id}",                [403, 403, 403, 204]),
];

/// The status that a route is answered with. What is refused must be told in a sentence.
async fn status(api: &Client, route: &Route, things: &Things) -> u16 {
    let request = api.request(route.method.clone(), &route.filled(things));
    let request = match &route.example {
        Some(example) => {
            let mut body = example.clone();
            if route.path == "/v1/events" {
                body["organization"] = things["/v1/organizations/"].as_str().into();
            }
            request.header("content-type", "application/json").body(body.to_string())
        }
        None => request,
    };
    // Of a stream there is no more to wait for than the head.
    if route.is_stream() && api.key().is_some() {
        return request.send().await.unwrap().status().as_u16();
    }
    let reply = api.send(request).await;
    let status = reply.status.as_u16();
    if !reply.status.is_success() {
        let _ = reply.problem(status);
    }
    status
}

/// A dead letter that belongs to nobody, which the operator has.
async fn letter_of_nobody(system: &System) -> String {
    system.amqp().await.publish_raw(&Raw::body("a.b", "not an event")).await.unwrap();
    until("the operator has a dead letter", async || {
        let letters = system.operator().get("/v1/dead-letters").await.expect(200);
        letters["data"].as_array()?.first()?["id"].as_str().map(str::to_owned)
    })
    .await
}

#[test]
fn every_route_is_open_to_whom_it_is_for_and_to_nobody_else() {
    test(async |system| {
        let routes = routes(&system.operator()).await;
        let named = |method: &str, path: &str| format!("{method} {path}");
        let documented: BTreeSet<_> =
            routes.iter().map(|route| named(route.method.as_str(), &route.path)).collect();
        let listed: BTreeSet<_> = TABLE.iter().map(|(method, path, _)| named(method, path)).collect();
        assert_eq!(documented, listed, "the table has every route, and no other");

        for (column, caller) in CALLERS.into_iter().enumerate() {
            let organization = system.organization().await;
            let mut things = things(system, &organization).await;
            // The type of the document's example.
            things.insert("/v1/event-types/", "slate.shown".to_owned());
            let api = if caller == "operator" {
                things.insert("/v1/dead-letters/", letter_of_nobody(system).await);
                system.operator()
            } else {
                organization.with_role(caller).await
            };
            for (method, path, answers) in TABLE {
                let route = routes.iter().find(|it| it.method == *method && it.path == *path).unwrap();
                let without_key = status(&api.with_key(None), route, &things).await;
                assert_eq!(without_key, 401, "{method} {path} without a key");
                let answered = status(&api, route, &things).await;
                assert_eq!(answered, answers[column], "{method} {path} by {caller}");
            }
        }
    });
}
