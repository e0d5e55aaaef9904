//! The broker's HTTP API, as its administrator uses it: what is bound to what, and who may do what.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

/// Every user's.
pub(crate) const PASSWORD: &str = "password-of-the-tests";

/// A vhost of the broker, seen by the broker's administrator.
#[derive(Debug)]
pub struct Management {
    base: Url,
    vhost: String,
}

/// What a broker user may do: patterns of names.
#[derive(Debug, Clone, Copy)]
pub struct Permissions {
    /// What may be declared, deleted and bound from or to.
    pub configure: &'static str,
    /// What may be published to.
    pub write: &'static str,
    /// What may be consumed.
    pub read: &'static str,
}

impl Management {
    pub(crate) fn new(base: Url, vhost: &str) -> Self {
        Self { base, vhost: vhost.to_owned() }
    }

    pub(crate) async fn create_vhost(&self) {
        self.call(Method::PUT, &format!("vhosts/{}", self.vhost), &json!({})).await;
    }

    /// Removes the vhost, and the users that were made for it.
    pub(crate) async fn remove_vhost(&self) {
        self.call(Method::DELETE, &format!("vhosts/{}", self.vhost), &json!({})).await;
        for user in self.call(Method::GET, "users", &json!({})).await.as_array().unwrap() {
            let name = user["name"].as_str().unwrap();
            if name.starts_with(&self.vhost) {
                self.call(Method::DELETE, &format!("users/{name}"), &json!({})).await;
            }
        }
    }

    /// Every binding of an exchange: its key and the queue or exchange that it leads to.
    pub async fn bindings(&self, exchange: &str) -> BTreeSet<(String, String)> {
        let path = format!("exchanges/{}/{exchange}/bindings/source", self.vhost);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let bindings = self.call(Method::GET, &path, &json!({})).await;
        let bindings = bindings.as_array().unwrap().iter();
        bindings.map(|binding| (text(&binding["routing_key"]), text(&binding["destination"]))).collect()
    }

    /// Makes a broker user who may do this in the vhost. Answers the user's name; the password is
    /// [`PASSWORD`].
    pub(crate) async fn user(&self, name: &str, permissions: Permissions) -> String {
        let Permissions { configure, write, read } = permissions;
        let name = format!("{}.{name}", self.vhost);
        self.call(Method::PUT, &format!("users/{name}"), &json!({"password": PASSWORD, "tags": ""})).await;
        let path = format!("permissions/{}/{name}", self.vhost);
        self.call(Method::PUT, &path, &json!({"configure": configure, "write": write, "read": read})).await;
        name
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        let mut url = self.base.clone();
        url.set_path(&format!("/api/{path}"));
        let request =
            crate::api::http().request(method.clone(), url).header("content-type", "application/json");
        let reply = request.body(body.to_string()).send().await.expect("the broker's HTTP API answers");
        let status: StatusCode = reply.status();
        let text = reply.text().await.unwrap_or_default();
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }
}
