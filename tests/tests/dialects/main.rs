//! The platforms' management APIs as each platform's documentation has them, on the wire.
//!
//! The requests are written out as those clients send them, byte for byte.

#![allow(clippy::unwrap_used, reason = "in a test, what cannot be done fails the test")]

mod aioz;
mod bad_input;
mod every_route;
mod iconik;
mod millicast;
mod omegastream;
mod platform;
mod quortex;
mod random;
mod sent_back;
mod unavailable;

use std::collections::BTreeSet;

use cuewire_tests::system::test;
use cuewire_tests::{Organization, Service, event, until};
use serde_json::Value;

use crate::platform::{Caller, Platform, Things};

/// Publishes an event, and answers the webhooks that it was fanned out to when that is decided.
async fn taken_by(organization: &Organization<'_>, event: &Value) -> Vec<String> {
    let _ = organization.admin.post("/v1/events", event).await.expect(202);
    let path = format!("/v1/events/{}", event::id(event));
    until("the event is logged", async || {
        let reply = organization.admin.get(&path).await;
        let deliveries = reply.json["deliveries"].as_array()?;
        Some(deliveries.iter().map(|it| it["webhook_id"].as_str().unwrap().to_owned()).collect())
    })
    .await
}

/// Every `$ref` of a document.
fn references<'a>(of: &'a Value, found: &mut BTreeSet<&'a str>) {
    match of {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(elements) => elements.iter().for_each(|element| references(element, found)),
        _ => {}
    }
}

#[test]
fn the_document_describes_every_dialect_and_all_that_it_refers_to() {
    test(async |system| {
        let document = system.operator().get("/openapi.json").await.expect(200);
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in found {
            let named = document.pointer(reference.trim_start_matches('#'));
            assert!(named.is_some(), "{reference} leads nowhere");
        }
        let mut ids = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            let platform = path.strip_prefix("/platforms/").and_then(|rest| rest.split('/').next());
            for operation in operations.as_object().unwrap().values() {
                let id = operation["operationId"].as_str().unwrap();
                let own = platform.is_none_or(|name| id.starts_with(&format!("{name}_")));
                assert!(own, "{path}: {id}");
                let tag = operation["tags"][0].as_str().unwrap();
                assert_eq!(tag.starts_with("Platform: "), platform.is_some(), "{path}: {tag}");
                assert!(platform.is_none() || ids.insert(id.to_owned()), "{id} is there twice");
            }
        }
        for name in ["aioz", "iconik", "millicast", "omegastream", "quortex"] {
            assert!(ids.iter().any(|id| id.starts_with(name)), "{name}");
        }
    });
}

#[test]
fn a_request_is_counted_by_the_status_that_the_platforms_client_gets() {
    test(async |system| {
        let organization = system.organization().await;
        for platform in Platform::ALL {
            let caller = platform.by(&organization.admin).await;
            let route = &platform.routes()[0];
            let counted = async |status: u16| {
                let path = format!("/platforms/{}{}", platform.name(), route.path);
                let labels =
                    [("route", path.as_str()), ("method", route.method), ("status", &status.to_string())];
                system.metric(Service::Api, "cuewire_api_requests_total", &labels).await.unwrap_or_default()
            };
            // A field that is wrong: 422 natively, and no platform has that.
            let status = if platform == Platform::Quortex { 404 } else { 400 };
            let before = counted(status).await;
            let things = Things { url: "nowhere".to_owned(), ..Things::default() };
            caller.failed(caller.follow(route, &things).await, status);
            assert_eq!((counted(status).await, counted(422).await), (before + 1.0, 0.0), "{platform:?}");

            let nobody = Caller { head: "X-Key: none".to_owned(), ..caller };
            let reply = nobody.follow(route, &Things::default()).await;
            let challenge = reply.headers.get("www-authenticate").cloned();
            nobody.failed(reply, 401);
            let expected = (platform != Platform::Iconik).then_some("Bearer");
            assert_eq!(challenge.as_ref().map(|it| it.to_str().unwrap()), expected, "{platform:?}");
        }
    });
}
