//! A service as the process that it is in production, which can be killed.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::running::Service;
use crate::servers;
use crate::wait::until;

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
        let Some(address) = self.address_now("health and metrics are served") else {
            return Some(format!("it has not said where its health is told: {}", self.said()));
        };
        match crate::api::http().get(format!("http://{address}/readyz")).send().await {
            Ok(reply) if reply.status().is_success() => None,
            Ok(reply) => Some(reply.text().await.unwrap_or_default()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Its metrics.
    pub(crate) async fn scrape(&self) -> Option<String> {
        let address = self.address_now("health and metrics are served")?;
        crate::api::http().get(format!("http://{address}/metrics")).send().await.ok()?.text().await.ok()
    }

    /// SIGTERM; fails the test unless it ends with 0 in time.
    pub(crate) async fn stop(mut self, limit: Duration) {
        self.signal("TERM").await;
        let name = self.service.name();
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("the {name} does not stop: {}", self.said()));
        let _ = self.listening.await;
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
        assert_eq!(ended.ok().and_then(|status: ExitStatus| status.code()), Some(0), "the {name}: {said}");
        assert!(!said.contains("panicked at"), "the {name}: {said}");
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) {
        let _ = self.child.kill().await;
        let said = self.said();
        assert!(!said.contains("panicked at"), "the {}: {said}", self.service.name());
    }

    /// Sends a signal, by the shell's own `kill`, since this program has no unsafe code.
    async fn signal(&self, signal: &str) {
        let pid = self
            .child
            .id()
            .unwrap_or_else(|| panic!("the {} has ended: {}", self.service.name(), self.said()));
        let kill = Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).status().await;
        assert!(kill.is_ok_and(|status| status.success()), "kill -{signal} {pid}");
    }
}
