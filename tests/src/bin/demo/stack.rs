//! The running stack: where it is, and its API.

use std::collections::HashMap;

use anyhow::Context;
use cuewire::config::Environment;
use cuewire_tests::Client;
use reqwest::Method;
use serde_json::Value;

/// Where everything is.
pub(crate) struct Stack {
    pub(crate) api_url: String,
    pub(crate) amqp_url: String,
    pub(crate) operator_key: String,
}

impl Stack {
    /// Reads the file that `CUEWIRE_ENV_FILE` names, which `make up` and `make demo` write.
    pub(crate) fn of(environment: &Environment) -> anyhow::Result<Self> {
        let file = environment.text("CUEWIRE_ENV_FILE").context(
            "CUEWIRE_ENV_FILE names no file; `make demo` sets it, and after `make up` it is .run/env",
        )?;
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
        let variables: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let get = |name: &str| {
            let value = variables.get(name).with_context(|| format!("{file} has no {name}"))?;
            anyhow::Ok((*value).to_owned())
        };
        Ok(Self { api_url: get("API_URL")?, amqp_url: get("AMQP_URL")?, operator_key: get("OPERATOR_KEY")? })
    }

    /// The API by this key.
    pub(crate) fn api(&self, key: &str) -> Client {
        Client::new(&self.api_url, Some(key))
    }
}

/// Asks the API, and wants a success.
pub(crate) async fn ask(
    api: &Client,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    let mut request = api.request(method.clone(), path);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let reply = api.try_send(request).await.with_context(|| format!("{method} {path}"))?;
    anyhow::ensure!(reply.status.is_success(), "{method} {path} answered {}: {}", reply.status, reply.text);
    Ok(reply.json)
}
