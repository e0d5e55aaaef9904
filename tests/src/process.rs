//! A service as the process that it is in production, which can be killed.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use reqwest::StatusCode;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::running::Service;
use crate::servers;
use crate::wait::until;

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none where a signal has ended it.
    pub code: Option<i32>,
    /// All that it has logged.
    pub said: String,
}

/// A process, and what it has said so far.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) service: Service,
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    listening: JoinHandle<()>,
}

impl Process {
    /// Starts the binary with exactly these variables.
    pub(crate) fn start(service: Service, variables: &[(String, String)]) -> Self {
        let mut child = Command::new(servers::binary(service.name()))
            .env_clear()
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("the {} cannot be started: {error}", service.name()));
        let said = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let listening = tokio::spawn({
            let said = Arc::clone(&said);
            async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    said.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            }
        });
        Self { service, child, said, listening }
    }

    /// All that it has logged.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// The address in the log line that contains `what`.
    pub(crate) async fn address(&self, what: &str) -> String {
        until(&format!("the {} logs an address: {}", self.service.name(), self.said()), async || {
            self.address_now(what)
        })
        .await
    }

    fn address_now(&self, what: &str) -> Option<String> {
        let said = self.said();
        let line = said.lines().find(|line| line.contains(what))?;
        if let Ok(json) = serde_json::from_str::<serde_json::Value>(line) {
            return json["address"].as_str().map(str::to_owned);
        }
        Some(line.split("address=").nth(1)?.split_whitespace().next()?.to_owned())
    }

    /// What it still lacks; none when it is ready.
    pub(crate) async fn missing(&self) -> Option<String> {
        match self.get("/readyz").await {
            Ok((StatusCode::OK, _)) => None,
            Ok((_, missing)) => Some(missing),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Its metrics.
    pub(crate) async fn scrape(&self) -> Option<String> {
        self.get("/metrics").await.ok().map(|(_, text)| text)
    }

    /// What it answers where health and metrics are served.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<(StatusCode, String)> {
        let address = self.address_now("health and metrics are served");
        let address =
            address.with_context(|| format!("it has not said where its health is told: {}", self.said()))?;
        let reply = crate::api::http().get(format!("http://{address}{path}")).send().await?;
        Ok((reply.status(), reply.text().await?))
    }

    /// SIGTERM; fails the test unless it ends with 0 in time.
    pub(crate) async fn stop(self, limit: Duration) {
        self.signal("TERM").await;
        let name = self.service.name();
        let Ended { code, said } = self.ended(limit).await;
        assert_eq!(code, Some(0), "the {name}: {said}");
    }

    /// Waits for its end, which must come in time and without a panic.
    pub(crate) async fn ended(mut self, limit: Duration) -> Ended {
        let name = self.service.name();
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("the {name} does not end: {}", self.said()));
        let _ = (&mut self.listening).await;
        let said = self.said();
        assert!(!said.contains("panicked at"), "the {name}: {said}");
        Ended { code: ended.expect("it is ours").code(), said }
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) {
        let _ = self.child.kill().await;
        let said = self.said();
        assert!(!said.contains("panicked at"), "the {}: {said}", self.service.name());
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) async fn signal(&self, signal: &str) {
        let pid = self.child.id();
        let pid = pid.unwrap_or_else(|| panic!("the {} has ended: {}", self.service.name(), self.said()));
        kill(signal, &pid.to_string()).await;
    }
}

/// Sends a signal to a process, or to a group of them (`-<id>`), by the shell's own `kill`, since this program has
/// no unsafe code.
pub async fn kill(signal: &str, whom: &str) {
    let kill = Command::new("sh").args(["-c", &format!("kill -s {signal} -- {whom}")]).status().await;
    assert!(kill.is_ok_and(|status| status.success()), "kill -s {signal} -- {whom}");
}
