//! What holds of every route of every platform: who may use it, and for whose webhooks.

use std::collections::BTreeSet;

use cuewire_tests::system::{System, test};
use cuewire_tests::{Client, Organization, Receiver, Reply, Service, Setup, until};
use serde_json::{Value, json};

use crate::platform::{Caller, Platform, Right, Route, Things};

/// Each platform with each of its routes.
fn all() -> impl Iterator<Item = (Platform, &'static Route)> {
    Platform::ALL
        .into_iter()
        .flat_map(|platform| platform.routes().iter().map(move |route| (platform, route)))
}

#[test]
fn the_tables_have_every_route_that_the_document_describes() {
    test(async |system| {
        let document = system.operator().get("/openapi.json").await.expect(200);
        let mut described = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            if path.starts_with("/platforms/") {
                let methods = operations.as_object().unwrap().keys().map(|method| method.to_uppercase());
                described.extend(methods.map(|method| format!("{method} {}", path.trim_end_matches('/'))));
            }
        }
        let in_tables: BTreeSet<_> = all()
            .map(|(platform, route)| format!("{} /platforms/{}{}", route.method, platform.name(), route.path))
            .map(|line| line.replace("{event}", "{event_id}"))
            .map(|line| if line.contains("/quortex/") { line.replace("{id}", "{uuid}") } else { line })
            .collect();
        assert_eq!(in_tables, described);
    });
}

/// A sample of the platform's, delivered to the webhook and on record: there is an event then in each log.
async fn deliver(system: &System, organization: &Organization<'_>, caller: &Caller, things: &mut Things) {
    let native = organization.admin.get("/v1/webhooks?limit=1000").await.expect(200);
    let is_it = |webhook: &&Value| caller.platform.id_of_native(webhook) == things.id;
    let webhook = native["data"].as_array().unwrap().iter().find(is_it).expect("it is native too")["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let sample = cuewire::catalogue::find(caller.platform.event_type()).unwrap().sample.get();
    let mut event: Value = serde_json::from_str(sample).unwrap();
    event["id"] = format!("of-{}", organization.id).into();
    event["organization"] = organization.id.as_str().into();
    organization.in_effect().await;
    system.amqp().await.publish(&event).await;
    let delivery = until("the event is delivered", async || {
        let event = organization.admin.get(&format!("/v1/events/of-{}", organization.id)).await;
        let deliveries = event.json["deliveries"].as_array()?.clone();
        deliveries.into_iter().find(|it| it["webhook_id"] == webhook.as_str() && it["state"] == "delivered")
    })
    .await;
    things.event = delivery["id"].as_str().unwrap().replace('-', "")[..24].to_owned();
}

/// What a platform shows to this key of the organization's webhooks.
async fn shown(caller: &Caller) -> Vec<Value> {
    let mut shown = Vec::new();
    let lists = caller.platform.routes().iter().filter(|it| it.right == Right::Read && !it.names_one());
    for route in lists {
        shown.push(caller.follow(route, &Things::default()).await.expect(200));
    }
    shown
}

/// Uses a route as another client may: with a slash at the end of the path, a query that nobody knows, and the body
/// in chunks.
async fn follow_otherwise(caller: &Caller, route: &Route, things: &Things) -> Reply {
    let line = format!("{}/?colour=True&colour=&x[]=1", route.line(caller.platform, things));
    let chunked = "\nContent-Type: application/json; charset=utf-8\nTransfer-Encoding: chunked";
    let headers = if route.body.is_empty() { "" } else { chunked };
    caller.with_headers(&line, headers, &things.put_into(route.body, &caller.client)).await
}

#[test]
fn viewers_read_and_editors_and_admins_do_everything_on_every_route() {
    test(async |system| {
        let receiver = Receiver::healthy().await;
        for platform in Platform::ALL {
            let organization = system.organization().await;
            let admin = platform.by(&organization.admin).await;
            let editor = platform.by(&organization.with_role("editor").await).await;
            let viewer = platform.by(&organization.with_role("viewer").await).await;
            let mut things = admin.make(&receiver.url("/")).await;
            deliver(system, &organization, &admin, &mut things).await;
            let before = shown(&viewer).await;
            for route in platform.routes() {
                let reply = viewer.follow(route, &things).await;
                if route.right == Right::Write {
                    viewer.failed(reply, 403);
                } else {
                    let _ = reply.expect(route.status);
                }
            }
            assert_eq!(shown(&viewer).await, before, "{platform:?}: a viewer changed something");
            for route in platform.routes() {
                let _ = editor.follow(route, &things).await.expect(route.status);
            }
            let event = things.event;
            let mut things = Things { event: event.clone(), ..admin.make(&receiver.url("/")).await };
            if platform == Platform::Omegastream {
                things.event = sent_to_last(&organization).await;
                assert_ne!(things.event, event);
            }
            for route in platform.routes() {
                let _ = follow_otherwise(&admin, route, &things).await.expect(route.status);
            }
        }
    });
}

/// The id of what a test call sent to the newest webhook, in the platform's form.
async fn sent_to_last(organization: &Organization<'_>) -> String {
    let native = organization.admin.get("/v1/webhooks?limit=1").await.expect(200);
    let path = format!("/v1/webhooks/{}/test", native["data"][0]["id"].as_str().unwrap());
    let attempt = organization.admin.post(&path, &json!({})).await.expect(200);
    let id = attempt["delivery_id"].as_str().unwrap().replace('-', "")[..24].to_owned();
    let path = path.replace("/test", "/attempts");
    until("the attempt is on record", async || {
        let attempts = organization.admin.get(&path).await.expect(200);
        (!attempts["data"].as_array()?.is_empty()).then_some(())
    })
    .await;
    id
}

#[test]
fn without_an_organizations_key_no_route_answers_but_in_the_platforms_envelope() {
    test(async |system| {
        let organization = system.organization().await;
        let wrong = organization.admin.with_made_key(&json!({
            "key": format!("cw_{}", "A".repeat(43)), "id": organization.admin.key_id(),
        }));
        for platform in Platform::ALL {
            let things = platform.by(&organization.admin).await.make("http://127.0.0.1:9/").await;
            let none = Caller { platform, client: wrong.clone(), head: "Accept: */*".to_owned() };
            let by_wrong = platform.by(&wrong).await;
            let operator = platform.by(&system.operator()).await;
            for route in platform.routes() {
                let token = route.right == Right::Anybody;
                none.failed(none.follow(route, &things).await, if token { 400 } else { 401 });
                by_wrong.failed(by_wrong.follow(route, &things).await, if token { 400 } else { 401 });
                // The operator's key has no id, and buys no token.
                let bears_key = matches!(platform, Platform::Millicast | Platform::Omegastream) || token;
                operator.failed(operator.follow(route, &things).await, if bears_key { 403 } else { 401 });
            }
        }
    });
}

#[test]
fn an_organization_neither_sees_nor_touches_what_is_anothers_on_any_route() {
    test(async |system| {
        let (receiver, strangers) = (Receiver::healthy().await, Receiver::healthy().await);
        for platform in Platform::ALL {
            let (victim, stranger) = (system.organization().await, system.organization().await);
            let (owner, other) = (platform.by(&victim.admin).await, platform.by(&stranger.admin).await);
            let mut things = owner.make(&receiver.url("/victim")).await;
            deliver(system, &victim, &owner, &mut things).await;
            other.make(&strangers.url("/")).await;
            let (before, received) = (shown(&owner).await, receiver.count());
            for route in platform.routes() {
                let reply = other.follow(route, &Things { url: strangers.url("/"), ..things.clone() }).await;
                assert!(!reply.text.contains("/victim"), "{route:?}: {}", reply.text);
                if route.names_one() {
                    other.failed(reply, 404);
                } else {
                    assert!(!reply.text.contains(&victim.id), "{route:?}: {}", reply.text);
                    let log = reply.expect(route.status);
                    assert!(route.path != "/1.0/events" || log["count"] == 0, "{log}");
                }
            }
            assert_eq!(shown(&owner).await, before, "{platform:?}: nothing has changed");
            assert_eq!(receiver.count(), received, "{platform:?}: nothing was sent");
            for route in platform.routes() {
                let _ = owner.follow(route, &things).await.expect(route.status);
            }
        }
    });
}

/// A webhook of no platform, and one of every format that is another's.
async fn foreign(organization: &Organization<'_>, platform: Platform) -> Vec<Value> {
    let mut made = vec![organization.webhook("http://127.0.0.1:9/").create().await.json];
    let others = Platform::ALL.into_iter().filter(|other| *other != platform).map(Platform::name);
    // Quortex I/O has them as types of its own.
    let chats = ["slack", "google_chat", "teams"].into_iter().filter(|_| platform != Platform::Quortex);
    for format in others.chain(chats).chain(["cloudevents"]) {
        let webhook = organization.webhook("http://127.0.0.1:9/").with("format", format);
        made.push(webhook.create().await.json);
    }
    made
}

#[test]
fn a_platform_reaches_only_webhooks_of_its_own_format() {
    test(async |system| {
        for platform in Platform::ALL {
            let organization = system.organization().await;
            let caller = platform.by(&organization.admin).await;
            let foreign = foreign(&organization, platform).await;
            let nothing = platform.by(&system.organization().await.admin).await;
            assert_eq!(shown(&caller).await, shown(&nothing).await, "{platform:?}");
            for webhook in &foreign {
                let things = Things { id: platform.id_of_native(webhook), ..Things::default() };
                for route in platform.routes().iter().filter(|route| route.names_one()) {
                    caller.failed(caller.follow(route, &things).await, 404);
                }
            }
            for route in platform.routes().iter().filter(|route| !route.names_one()) {
                let _ = caller.follow(route, &Things::default()).await.expect(route.status);
            }
            for webhook in &foreign {
                let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
                let kept = organization.admin.get(&path).await.expect(200);
                assert_eq!(kept["updated_at"], webhook["updated_at"], "{platform:?}");
            }
        }
    });
}

/// The lines of the api's log that say this of a webhook.
async fn logged(system: &System, what: &str, client: &Client) -> usize {
    let by = format!("by={}", client.key_id().unwrap());
    let said = system.said(Service::Api).await;
    said.iter().filter(|line| line.contains(what) && line.contains(&by)).count()
}

#[test]
fn whoever_changes_a_webhook_by_a_platform_is_on_the_log() {
    Setup::processes().run(async |system| {
        for platform in Platform::ALL {
            let organization = system.organization().await;
            let editor = organization.with_role("editor").await;
            let caller = platform.by(&editor).await;
            let things = caller.make("http://127.0.0.1:9/").await;
            for route in platform.routes().iter().filter(|route| route.right == Right::Write) {
                if !route.path.contains("test") && !route.path.contains("check") {
                    let _ = caller.follow(route, &things).await.expect(route.status);
                }
            }
            // By the first route twice, and by the documentation's GET that makes one.
            let made = if platform == Platform::Omegastream { 3 } else { 2 };
            let changed = if platform == Platform::Iconik || platform == Platform::Millicast { 1 } else { 2 };
            let deleted = if platform == Platform::Quortex { 2 } else { 1 };
            for (what, count) in [("was made", made), ("was changed", changed), ("was deleted", deleted)] {
                let line = format!("a webhook {what}");
                until(&format!("{platform:?}: {count} times {line}"), async || {
                    (logged(system, &line, &editor).await == count).then_some(())
                })
                .await;
            }
        }
    });
}
