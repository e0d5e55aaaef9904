//! A Prometheus of a test's own, and the exporter that tells it of Postgres: Debian's programs, on ports of their own
//! choice, gone when they are dropped.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// A program that says in its log where it listens.
#[derive(Debug)]
struct Listening {
    address: String,
    _child: Child,
}

impl Listening {
    async fn start(command: &mut Command) -> Self {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap_or_else(|error| {
            panic!("{program} cannot be started ({error}): `deploy/local/install tests` installs it")
        });
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let mut said = Vec::new();
        let address = loop {
            let line = lines.next_line().await.unwrap_or_default();
            let line = line.unwrap_or_else(|| panic!("{program} has ended: {said:#?}"));
            if let Some((_, rest)) = line.split_once("msg=\"Listening on\" address=") {
                break rest.split_whitespace().next().unwrap_or_default().to_owned();
            }
            said.push(line);
        };
        // A pipe that nobody empties would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { address, _child: child }
    }
}

/// What tells of Postgres.
#[derive(Debug)]
pub struct PostgresExporter(Listening);

impl PostgresExporter {
    /// Starts it beside this database.
    pub async fn start(database_url: &str) -> Self {
        let mut command = Command::new("prometheus-postgres-exporter");
        command.arg("--web.listen-address=127.0.0.1:0");
        command.env("DATA_SOURCE_NAME", format!("{database_url}?sslmode=disable"));
        Self(Listening::start(&mut command).await)
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.address
    }
}

/// What `promtool` has against these metrics: their names, units, types and help.
pub async fn lint(metrics: &str) -> Result<(), String> {
    let mut command = Command::new("promtool");
    let command = command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("promtool is there");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(metrics.as_bytes()).await.expect("promtool reads");
    drop(input);
    let output = child.wait_with_output().await.expect("promtool ends");
    let said = || String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned();
    if output.status.success() { Ok(()) } else { Err(said()) }
}

/// A Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    listening: Listening,
    directory: PathBuf,
}

impl Prometheus {
    /// Starts it with this configuration.
    pub async fn start(configuration: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("cuewire-tests-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&directory).unwrap();
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new("prometheus");
        command.arg("--web.listen-address=127.0.0.1:0");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
        Self { listening: Listening::start(&mut command).await, directory }
    }

    /// The values that an expression has now, without those that are no numbers.
    pub async fn query(&self, expression: &str) -> Vec<f64> {
        let data = self.get("query", &[("query", expression)]).await;
        let samples = data["result"].as_array().unwrap_or_else(|| panic!("{expression}: {data}"));
        let value = |sample: &Value| sample["value"][1].as_str()?.parse::<f64>().ok();
        samples.iter().filter_map(value).filter(|value| value.is_finite()).collect()
    }

    /// Every rule, as it is evaluated.
    pub async fn rules(&self) -> Vec<Value> {
        let data = self.get("rules", &[]).await;
        let groups = data["groups"].as_array().expect("groups of rules").iter();
        groups.flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut url: url::Url = format!("http://{}/api/v1/{path}", self.listening.address).parse().unwrap();
        url.query_pairs_mut().extend_pairs(parameters);
        let reply = crate::api::http().get(url).send().await.expect("Prometheus answers");
        let text = reply.text().await.expect("Prometheus answers to the end");
        let mut reply: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {text}"));
        assert_eq!(reply["status"], "success", "{parameters:?}: {reply}");
        reply["data"].take()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It is killed a moment later, and may still write: what it makes anew then is empty.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
