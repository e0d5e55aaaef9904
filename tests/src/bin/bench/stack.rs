//! The running stack, and what a benchmark makes on it.

use std::collections::HashMap;

use anyhow::Context;
use serde_json::{Value, json};

use crate::cost::Processes;

/// Where the stack is.
#[derive(Debug, Clone)]
pub(crate) struct Stack {
    pub(crate) amqp_url: String,
    pub(crate) processes: Processes,
    api_url: String,
    operator_key: String,
    http: reqwest::Client,
}

impl Stack {
    /// Reads the file that `CUEWIRE_ENV_FILE` names.
    #[allow(clippy::disallowed_methods, reason = "a program of its own, without the services' configuration")]
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let file = std::env::var("CUEWIRE_ENV_FILE")
            .context("CUEWIRE_ENV_FILE names no file; `make bench` sets it")?;
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let variables: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let get = |name: &str| {
            variables
                .get(name)
                .map(|value| (*value).to_owned())
                .with_context(|| format!("{file} has no {name}"))
        };
        Ok(Self {
            amqp_url: get("AMQP_URL")?,
            processes: Processes(
                variables
                    .iter()
                    .filter_map(|(name, pid)| {
                        Some((name.strip_suffix("_PID")?.to_owned(), pid.parse().ok()?))
                    })
                    .collect(),
            ),
            api_url: get("API_URL")?,
            operator_key: get("OPERATOR_KEY")?,
            http: reqwest::Client::new(),
        })
    }

    /// A new organization, and an admin's key of it.
    pub(crate) async fn organization(&self, name: &str) -> anyhow::Result<Organization> {
        let organization =
            self.post("/v1/organizations", &self.operator_key, json!({ "name": name })).await?;
        let id = organization["id"].as_str().context("an organization has an id")?.to_owned();
        let path = format!("/v1/organizations/{id}/api-keys");
        let key = self.post(&path, &self.operator_key, json!({ "name": "bench", "role": "admin" })).await?;
        let key = key["key"].as_str().context("a key is shown once")?.to_owned();
        Ok(Organization { stack: self.clone(), id, key })
    }

    async fn post(&self, path: &str, key: &str, body: Value) -> anyhow::Result<Value> {
        let request = self.http.post(format!("{}{path}", self.api_url)).bearer_auth(key);
        let response =
            request.header("content-type", "application/json").body(body.to_string()).send().await?;
        let status = response.status();
        let text = response.text().await?;
        anyhow::ensure!(status.is_success(), "POST {path} answered {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }
}

/// An organization of a benchmark.
#[derive(Debug)]
pub(crate) struct Organization {
    stack: Stack,
    pub(crate) id: String,
    key: String,
}

impl Organization {
    /// A webhook that takes everything.
    pub(crate) async fn webhook(&self, url: &str) -> anyhow::Result<()> {
        let webhook = json!({ "url": url, "max_in_flight": 64 });
        self.stack.post("/v1/webhooks", &self.key, webhook).await?;
        Ok(())
    }
}
