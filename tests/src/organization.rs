//! An organization with its keys, and its webhooks.

use serde_json::{Map, Value, json};

use crate::api::Client;
use crate::system::System;

/// An organization, and clients of the API by its keys.
#[derive(Debug)]
pub struct Organization<'a> {
    system: &'a System,
    /// Its id.
    pub id: String,
    /// The API by a key with the role admin.
    pub admin: Client,
}

/// A webhook as it was made.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Its id.
    pub id: String,
    /// What its deliveries are signed with.
    pub secret: String,
    /// The API's whole answer.
    pub json: Value,
}

impl<'a> Organization<'a> {
    pub(crate) async fn create(system: &'a System, body: &Value) -> Self {
        let operator = system.operator();
        let organization = operator.post("/v1/organizations", body).await.expect(201);
        let id = organization["id"].as_str().unwrap().to_owned();
        let unkeyed = Self { system, id, admin: operator };
        Self { admin: unkeyed.with_role("admin").await, ..unkeyed }
    }

    /// The API by a new key with this role.
    pub async fn with_role(&self, role: &str) -> Client {
        let path = format!("/v1/organizations/{}/api-keys", self.id);
        let made =
            self.system.operator().post(&path, &json!({"name": "test", "role": role})).await.expect(201);
        self.system.operator().with_made_key(&made)
    }

    /// A webhook to be created, with everything as it is by default.
    #[must_use]
    pub fn webhook(&self, url: impl Into<String>) -> Builder<'_> {
        let members = Map::from_iter([("url".to_owned(), url.into().into())]);
        Builder { organization: self, members }
    }

    /// An event of this organization.
    #[must_use]
    pub fn event(&self, event_type: &str) -> Value {
        crate::event(event_type, &self.id)
    }

    /// Changes a webhook, and waits until routers know.
    pub async fn change(&self, webhook: &Webhook, change: &Value) -> Value {
        let changed = self.admin.patch(&format!("/v1/webhooks/{}", webhook.id), change).await.expect(200);
        self.in_effect().await;
        changed
    }

    /// Waits until all that was changed so far is in effect: a webhook more, which takes what nobody
    /// publishes, is known to every router, and with it all that came before.
    pub async fn in_effect(&self) {
        self.system.routers_know_webhooks().await;
        // An address that may be saved under any configuration, and is never called.
        let marker = json!({"url": "http://1.1.1.1/", "name": "marker", "event_types": ["marker.none"]});
        let _ = self.admin.post("/v1/webhooks", &marker).await.expect(201);
        self.system.routers_know_webhooks().await;
    }

    /// The deliveries of an event, when it is on record: one for each webhook that it was fanned out to.
    pub async fn deliveries(&self, event: &Value) -> Vec<Value> {
        let id = event["id"].as_str().expect("an event has an id");
        crate::until(&format!("the event {id} is on record"), async || {
            let reply = self.admin.get(&format!("/v1/events/{id}")).await;
            reply.json["deliveries"].as_array().cloned()
        })
        .await
    }

    /// The delivery of an event to a webhook, when it has reached this state.
    pub async fn delivery(&self, event_id: &str, webhook: &Webhook, state: &str) -> Value {
        let what = format!("the delivery of {event_id} is {state}");
        crate::until(&what, async || {
            let reply = self.admin.get(&format!("/v1/events/{event_id}")).await;
            let deliveries = reply.json["deliveries"].as_array()?.clone();
            deliveries
                .into_iter()
                .find(|delivery| delivery["webhook_id"] == webhook.id.as_str() && delivery["state"] == state)
        })
        .await
    }

    /// Every dead letter of the organization, when there are as many.
    pub async fn dead_letters(&self, count: usize) -> Vec<Value> {
        crate::until(&format!("there are {count} dead letters"), async || {
            let letters = self.admin.get("/v1/dead-letters?limit=100").await.expect(200);
            let letters = letters["data"].as_array().expect("a list").clone();
            (letters.len() == count).then_some(letters)
        })
        .await
    }
}

/// A webhook to be created.
#[derive(Debug)]
pub struct Builder<'a> {
    organization: &'a Organization<'a>,
    members: Map<String, Value>,
}

impl Builder<'_> {
    /// Sets a member of the webhook.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    /// Exact event types or patterns.
    #[must_use]
    pub fn types(self, types: &[&str]) -> Self {
        self.with("event_types", types)
    }

    /// The delays of its retries.
    #[must_use]
    pub fn schedule(self, delays: &[&str]) -> Self {
        self.with("retry_schedule", delays)
    }

    /// Creates it, and waits until it is in effect.
    pub async fn create(self) -> Webhook {
        let json = self.organization.admin.post("/v1/webhooks", &self.members.into()).await.expect(201);
        self.organization.system.routers_know_webhooks().await;
        let text = |member: &str| json[member].as_str().unwrap_or_default().to_owned();
        Webhook { id: text("id"), secret: text("secret"), json }
    }
}
