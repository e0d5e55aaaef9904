//! The native API's routes, as its document has them, and what they are called with.

use std::collections::HashMap;

use cuewire_tests::{Answer, Client, Organization, Receiver, Reply, System, event};
use reqwest::Method;
use serde_json::{Value, json};

/// A route as `/openapi.json` has it.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// The example of its body.
    pub(crate) example: Option<Value>,
    /// The parameters of its query.
    pub(crate) query: Vec<String>,
    /// Whether it wants a key.
    pub(crate) guarded: bool,
}

/// One of everything, by the path under which it is found.
pub(crate) type Things = HashMap<&'static str, String>;

/// All routes but those of the dialects, where keys and ids have other forms: their own tests try another
/// organization's of each.
pub(crate) async fn routes(api: &Client) -> Vec<Route> {
    let document = api.with_key(None).get("/openapi.json").await.expect(200);
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        if path.starts_with("/platforms/") {
            continue;
        }
        for (method, operation) in operations.as_object().unwrap() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            if matches!(method.as_str(), "GET" | "POST" | "PATCH" | "PUT" | "DELETE") {
                routes.push(Route::read(&document, method, path, operation));
            }
        }
    }
    routes
}

impl Route {
    fn read(document: &Value, method: Method, path: &str, operation: &Value) -> Self {
        let content = operation["requestBody"]["content"].as_object();
        let example = content.map(|types| {
            let body = types.get("application/json").or_else(|| types.values().next()).unwrap();
            let example = example(document, body).or_else(|| example(document, &body["schema"]));
            example.unwrap_or_else(|| panic!("{method} {path} has no example of its body"))
        });
        let security = operation.get("security").or_else(|| document.get("security"));
        let guarded = security.is_some_and(|all| all.as_array().is_some_and(|all| !all.is_empty()));
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let query = parameters.filter(|parameter| parameter["in"] == "query");
        let query = query.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect();
        Self { method, path: path.to_owned(), example, query, guarded }
    }

    /// Whether its answer never ends.
    pub(crate) fn is_stream(&self) -> bool {
        self.path.ends_with("/stream")
    }

    /// The path with these things for its parameters, each known by the path before it.
    pub(crate) fn filled(&self, things: &Things) -> String {
        let mut path = String::new();
        let mut at = 0;
        while let Some(length) = self.path[at..].find('{') {
            let before = &self.path[..at + length];
            let thing = things
                .get(before)
                .unwrap_or_else(|| panic!("teach these tests what follows {before:?} in {}", self.path));
            path.push_str(&self.path[at..at + length]);
            path.push_str(thing);
            at += length + self.path[at + length..].find('}').unwrap() + 1;
        }
        path + &self.path[at..]
    }
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

/// Calls a route with the example of its body.
pub(crate) async fn call(api: &Client, route: &Route, path: &str) -> Reply {
    let request = api.request(route.method.clone(), path).timeout(std::time::Duration::from_secs(20));
    api.send(match &route.example {
        Some(example) => request.header("content-type", "application/json").body(example.to_string()),
        None => request,
    })
    .await
}

/// One of everything that an organization has. The dead letter is of another delivery than the one that is
/// there too, so that both can be sent again.
pub(crate) async fn things(system: &System, organization: &Organization<'_>) -> Things {
    let broken = Receiver::answering([Answer::status(500)]).await;
    let webhook = organization.webhook(broken.url("/")).schedule(&[]).create().await;
    let events = event::events(2, "secrets.told", &organization.id);
    system.amqp().await.publish_all(&events).await;
    let letters = organization.dead_letters(2).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let key = json!({"name": "one of everything", "role": "viewer"});
    let key = text(&organization.admin.post("/v1/api-keys", &key).await.expect(201)["id"]);
    let event_type = format!("slate.{}", organization.id);
    let path = format!("/v1/event-types/{event_type}");
    let _ = organization.admin.body(Method::PUT, &path, "application/json", "{}").await.expect(200);
    HashMap::from([
        ("/v1/event-types/", event_type),
        ("/v1/organizations/", organization.id.clone()),
        ("/v1/webhooks/", webhook.id),
        ("/v1/events/", text(&events[0]["id"])),
        ("/v1/deliveries/", text(&letters[0]["delivery_id"])),
        ("/v1/dead-letters/", text(&letters[1]["id"])),
        ("/v1/api-keys/", key.clone()),
        ("/v1/organizations/{id}/api-keys/", key),
    ])
}
