//! The running stack, and what a benchmark makes on it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use cuewire::amqp::Broker;
use cuewire::amqp::topology::{Topology, retry_exchange};
use cuewire::retry::TIERS;
use cuewire::vault::Vault;
use cuewire_tests::metrics::samples;
use lapin::options::QueuePurgeOptions;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::cost::Processes;

/// Senders count each other every ten seconds.
const PEERS_ARE_COUNTED: Duration = Duration::from_secs(12);
/// A router that reads a million webhooks is ready in some seconds.
const READY_WITHIN: Duration = Duration::from_secs(120);
const WEBHOOKS_OF_ROUTER: &str = "cuewire_router_webhooks";

/// Where the stack is.
#[derive(Debug, Clone)]
pub(crate) struct Stack {
    pub(crate) amqp_url: String,
    pub(crate) database_url: String,
    pub(crate) processes: Processes,
    pub(crate) env_file: PathBuf,
    /// Of each service, as the stack's file names it.
    health_urls: HashMap<String, String>,
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
            database_url: get("DATABASE_URL")?,
            processes: Processes(
                variables
                    .iter()
                    .filter_map(|(name, pid)| {
                        Some((name.strip_suffix("_PID")?.to_owned(), pid.parse().ok()?))
                    })
                    .collect(),
            ),
            health_urls: variables
                .iter()
                .filter_map(|(name, url)| {
                    Some((name.strip_suffix("_HEALTH_URL")?.to_owned(), (*url).to_owned()))
                })
                .collect(),
            api_url: get("API_URL")?,
            operator_key: get("OPERATOR_KEY")?,
            http: reqwest::Client::new(),
            env_file: file.clone().into(),
        })
    }

    /// A new organization, and an admin's key of it.
    pub(crate) async fn organization(&self, name: &str) -> anyhow::Result<Organization> {
        let organization =
            self.post("/v1/organizations", &self.operator_key, json!({ "name": name })).await?;
        let id = organization["id"].as_str().context("an organization has an id")?.to_owned();
        let key = self.key_of(&id).await?;
        Ok(Organization { stack: self.clone(), id, key })
    }

    /// A new admin's key of an organization.
    pub(crate) async fn key_of(&self, organization: &str) -> anyhow::Result<String> {
        let path = format!("/v1/organizations/{organization}/api-keys");
        let key = self.post(&path, &self.operator_key, json!({ "name": "bench", "role": "admin" })).await?;
        Ok(key["key"].as_str().context("a key is shown once")?.to_owned())
    }

    /// A new organization with a webhook for each of these URLs, which takes everything.
    pub(crate) async fn organization_with(&self, urls: &[String]) -> anyhow::Result<Organization> {
        let organization = self.organization("bench").await?;
        organization.webhooks(urls).await?;
        Ok(organization)
    }

    /// Empties the delayed queues: what a benchmark has left there would come back into the next one. Answers how
    /// many messages there were.
    pub(crate) async fn clear_delayed_queues(&self) -> anyhow::Result<usize> {
        let broker = Broker::new(self.amqp_url.clone(), Topology::default(), "bench");
        let connection = broker.connect("clearing").await?;
        let channel = connection.create_channel().await?;
        let mut messages = 0;
        for tier in TIERS {
            let queue = format!("{}.v1", retry_exchange(tier));
            let purged = channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?;
            messages += purged as usize;
        }
        connection.close(200, "done".into()).await?;
        Ok(messages)
    }

    /// One more sender, when each has counted the other.
    pub(crate) async fn start_sender(&self) -> anyhow::Result<Second> {
        let sender = self.start("sender").await?;
        tokio::time::sleep(PEERS_ARE_COUNTED).await;
        Ok(sender)
    }

    /// One more of a service, of the build that this program is of, when it is ready.
    #[allow(clippy::disallowed_methods, reason = "a program of its own, without the services' configuration")]
    pub(crate) async fn start(&self, service: &str) -> anyhow::Result<Second> {
        let program = std::env::current_exe()?.with_file_name(service);
        // It is free until the service takes it, a moment later.
        let health = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut process = Command::new(&program)
            .env("AMQP_URL", &self.amqp_url)
            .env("DATABASE_URL", &self.database_url)
            .env("CUEWIRE_SECRETS_KEY", self.secrets_key()?)
            .env("CUEWIRE_ALLOWED_NETWORKS", "127.0.0.0/8")
            .env("CUEWIRE_HEALTH_LISTEN", health.to_string())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} does not start", program.display()))?;
        let health_url = format!("http://{health}");
        let deadline = Instant::now() + READY_WITHIN;
        while !self.is_ready(&health_url).await {
            anyhow::ensure!(process.try_wait()?.is_none(), "the second {service} has ended");
            anyhow::ensure!(Instant::now() < deadline, "the second {service} is not ready in time");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(Second { process, health_url })
    }

    async fn is_ready(&self, health_url: &str) -> bool {
        let answer = self.http.get(format!("{health_url}/readyz")).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// How many webhooks the stack's router knows.
    pub(crate) async fn webhooks_of_router(&self) -> anyhow::Result<usize> {
        self.webhooks_of(self.health_url("ROUTER")?).await
    }

    /// What a service of the stack tells Prometheus.
    pub(crate) async fn metrics(&self, service: &str) -> anyhow::Result<String> {
        self.metrics_at(self.health_url(service)?).await
    }

    /// How many webhooks the router knows whose health is told there.
    pub(crate) async fn webhooks_of(&self, health_url: &str) -> anyhow::Result<usize> {
        let metrics = self.metrics_at(health_url).await?;
        let webhooks = samples(&metrics).find(|sample| sample.name == WEBHOOKS_OF_ROUTER);
        Ok(webhooks.context("a router tells how many webhooks it knows")?.value as usize)
    }

    fn health_url(&self, service: &str) -> anyhow::Result<&str> {
        let url = self.health_urls.get(service).map(String::as_str);
        url.with_context(|| format!("the stack's file has no {service}_HEALTH_URL"))
    }

    async fn metrics_at(&self, health_url: &str) -> anyhow::Result<String> {
        Ok(self.http.get(format!("{health_url}/metrics")).send().await?.text().await?)
    }

    /// What seals secrets as the stack's services do.
    pub(crate) fn vault(&self) -> anyhow::Result<Vault> {
        Vault::from_base64(&self.secrets_key()?).map_err(|error| anyhow::anyhow!("SECRETS_KEY {error}"))
    }

    fn secrets_key(&self) -> anyhow::Result<String> {
        let keys = std::fs::read_to_string(self.env_file.with_file_name("keys"))?;
        let key = keys.lines().find_map(|line| line.strip_prefix("SECRETS_KEY="));
        Ok(key.context("the stack's file of keys has no SECRETS_KEY")?.to_owned())
    }

    /// A connection to the stack's database.
    pub(crate) async fn database(&self) -> anyhow::Result<tokio_postgres::Client> {
        let (client, connection) = tokio_postgres::connect(&self.database_url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// What the API answers to somebody who reads, whole.
    pub(crate) async fn get(&self, path: &str, key: &str) -> anyhow::Result<bytes::Bytes> {
        let response = self.http.get(format!("{}{path}", self.api_url)).bearer_auth(key).send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        anyhow::ensure!(status.is_success(), "GET {path} answered {status}: {body:?}");
        Ok(body)
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

/// A service beside the stack's own.
#[derive(Debug)]
pub(crate) struct Second {
    process: Child,
    pub(crate) health_url: String,
}

impl Second {
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.process.id().context("it has ended by itself")
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").arg(self.pid()?.to_string()).status().await?;
        self.process.wait().await?;
        Ok(())
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
    /// Its id, for events that go to nobody else.
    pub(crate) fn alone(&self) -> &[String] {
        std::slice::from_ref(&self.id)
    }

    pub(crate) async fn webhook(&self, webhook: Value) -> anyhow::Result<()> {
        self.stack.post("/v1/webhooks", &self.key, webhook).await?;
        Ok(())
    }

    /// A webhook for each of these URLs, which takes everything.
    pub(crate) async fn webhooks(&self, urls: &[String]) -> anyhow::Result<()> {
        for url in urls {
            self.webhook(json!({ "url": url, "max_in_flight": 64 })).await?;
        }
        Ok(())
    }

    /// Publishes events over HTTP, in one request.
    pub(crate) async fn publish(&self, events: &[String]) -> anyhow::Result<()> {
        let (content_type, body) = match events {
            [event] => ("application/cloudevents+json", event.clone()),
            events => ("application/cloudevents-batch+json", format!("[{}]", events.join(","))),
        };
        let url = format!("{}/v1/events", self.stack.api_url);
        let request = self.stack.http.post(url).bearer_auth(&self.key).header("content-type", content_type);
        request.body(body).send().await?.error_for_status()?;
        Ok(())
    }

    /// Deletes it with its webhooks: nothing more is sent to them.
    pub(crate) async fn delete(self) -> anyhow::Result<()> {
        let Stack { http, api_url, operator_key, .. } = &self.stack;
        let url = format!("{api_url}/v1/organizations/{}", self.id);
        http.delete(url).bearer_auth(operator_key).send().await?.error_for_status()?;
        Ok(())
    }
}
