//! Policies, by which an operator may change how the broker treats a queue.

use std::collections::BTreeMap;

use serde_json::json;

use crate::servers;
use crate::system::System;

impl System {
    /// Lets a queue hold at most so many messages. It is in force a moment later.
    pub async fn limit_queue(&self, queue: &str, max_length: u32) {
        let policy = json!({
            "pattern": format!("^{}$", queue.replace('.', "\\.")),
            "definition": BTreeMap::from([("max-length", max_length)]),
            "apply-to": "queues",
        });
        let vhost: url::Url = self.amqp_url().parse().expect("the harness made it");
        let mut url = servers::shared().management.clone().expect("the shared broker has an HTTP API");
        url.set_path(&format!("/api/policies{}/limit", vhost.path()));
        let request = crate::api::http().put(url).header("content-type", "application/json");
        let reply = request.body(policy.to_string()).send().await.expect("the broker's HTTP API answers");
        assert!(reply.status().is_success(), "the policy is refused: {}", reply.status());
    }
}
