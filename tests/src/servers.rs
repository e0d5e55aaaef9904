//! What tests run: the servers that `make test` has started, or a pair of a test's own that may be killed, and
//! the services' binaries.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use cuewire::config::Environment;
use tokio::process::Command;
use url::Url;

/// A broker and a database server.
#[derive(Debug, Clone)]
pub struct Servers {
    /// The broker's administrator, in the vhost `/`.
    pub amqp: Url,
    /// The database's administrator.
    pub database: Url,
    /// The broker's HTTP API, where vhosts are made.
    pub management: Option<Url>,
}

const HOW: &str = "`make test` starts servers for the tests and says where they are. By hand: \
    CUEWIRE_MANAGEMENT_PORT=any RUN_DIR=/tmp/servers deploy/local/servers start; \
    /tmp/servers/servers.env has what CUEWIRE_TEST_AMQP_URL, CUEWIRE_TEST_DATABASE_URL and \
    CUEWIRE_TEST_MANAGEMENT_URL (with the broker's user and password in it) must be";

/// The servers that all tests share.
pub fn shared() -> &'static Servers {
    // The error is kept, so that every test says the same.
    static SHARED: LazyLock<Result<Servers, String>> = LazyLock::new(|| {
        let environment = Environment::of_process();
        let url = |variable| {
            let text = environment.text(variable).ok_or_else(|| format!("{variable} is not set. {HOW}"))?;
            text.parse::<Url>().map_err(|error| format!("{variable} is no URL: {error}"))
        };
        Ok(Servers {
            amqp: url("CUEWIRE_TEST_AMQP_URL")?,
            database: url("CUEWIRE_TEST_DATABASE_URL")?,
            management: Some(url("CUEWIRE_TEST_MANAGEMENT_URL")?),
        })
    });
    SHARED.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

/// Servers of one test's own, in a directory of their own, gone when they are dropped.
#[derive(Debug)]
pub struct OwnServers {
    run_dir: PathBuf,
    /// Where they are.
    pub servers: Servers,
    /// The port of the broker's metrics, where they were asked for.
    metrics_port: String,
}

impl OwnServers {
    /// Starts them on free ports, with what else the script is to be told.
    pub async fn start(options: &[(&str, &str)]) -> Self {
        let nowhere: Url = "none:".parse().unwrap();
        let servers = Servers { amqp: nowhere.clone(), database: nowhere, management: None };
        let mut own = Self { run_dir: new_run_dir(), servers, metrics_port: String::new() };
        // It remembers what it was told first.
        own.run(&["ports", "random"], options).await;
        own.command(&["start"]).await;
        let file = std::fs::read_to_string(own.run_dir.join("servers.env")).unwrap();
        let value =
            |name: &str| file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
        let url = |name: &str| -> Url { value(name).parse().unwrap() };
        own.metrics_port = value("CUEWIRE_PROMETHEUS_PORT").to_owned();
        own.servers = Servers { amqp: url("AMQP_URL"), database: url("DATABASE_URL"), management: None };
        own
    }

    /// Where the broker tells its metrics.
    #[must_use]
    pub fn metrics_address(&self) -> String {
        format!("127.0.0.1:{}", self.metrics_port)
    }

    /// Runs a command of the servers' script: `["kill", "rabbitmq"]`, `["restart", "postgres"]`.
    pub async fn command(&self, arguments: &[&str]) {
        self.run(arguments, &[]).await;
    }

    /// Asks the broker by its command line, and answers with the rows that it lists.
    pub async fn rabbitmqctl(&self, arguments: &[&str]) -> Vec<serde_json::Value> {
        let arguments = [&["rabbitmqctl", "--silent", "--formatter", "json"], arguments].concat();
        let output = self.run(&arguments, &[]).await;
        serde_json::from_slice(&output.stdout).expect("the broker lists rows as JSON")
    }

    /// The command line of this broker, to be run as any other program: the words before its arguments.
    #[must_use]
    pub fn rabbitmqctl_command(&self) -> String {
        let script = root().join("deploy/local/servers");
        let (run_dir, script) = (self.run_dir.display(), script.display());
        format!(r#"env -i PATH="$PATH" HOME="$HOME" RUN_DIR='{run_dir}' '{script}' rabbitmqctl"#)
    }

    async fn run(&self, arguments: &[&str], options: &[(&str, &str)]) -> std::process::Output {
        let output = self.script(arguments, options).await;
        assert!(
            output.status.success(),
            "deploy/local/servers {arguments:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    async fn script(&self, arguments: &[&str], options: &[(&str, &str)]) -> std::process::Output {
        let mut command = script("servers", &self.run_dir);
        command.args(arguments).envs(options.iter().copied());
        command.output().await.expect("the servers' script can be run")
    }

    /// Stops them and removes all they have written.
    pub async fn destroy(&self) {
        let output = self.script(&["destroy"], &[]).await;
        if output.status.success() {
            let _ = std::fs::remove_dir_all(&self.run_dir);
        } else {
            eprintln!("{} is left: {}", self.run_dir.display(), String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// A script of `deploy/local`, to work in this directory. Its environment is its own: ports that this process was
/// given are not meant.
#[must_use]
pub fn script(name: &str, run_dir: &Path) -> Command {
    let environment = Environment::of_process();
    let script = root().join("deploy/local").join(name);
    assert!(
        script.is_file(),
        "{} is not there; CUEWIRE_TEST_ROOT says where this project is",
        script.display()
    );
    let mut command = Command::new(script);
    command.env_clear().env("RUN_DIR", run_dir);
    for name in ["PATH", "HOME"] {
        command.envs(environment.text(name).map(|value| (name, value)));
    }
    command
}

/// Where this project is.
#[must_use]
pub fn root() -> PathBuf {
    let environment = Environment::of_process();
    let built_in =
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("it was built there");
    environment.text("CUEWIRE_TEST_ROOT").map_or_else(built_in, PathBuf::from)
}

/// A directory for servers, or a stack, of one test's own; not there yet. `make test` says where such are, so that
/// it can end what is left in them when it is interrupted.
#[must_use]
pub fn new_run_dir() -> PathBuf {
    let environment = Environment::of_process();
    let above = environment.text("CUEWIRE_TEST_RUN_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    above.join(format!("cuewire-tests-{}", uuid::Uuid::new_v4().simple()))
}

/// The binary of that name: beside this test's own executable, unless `CUEWIRE_TEST_BIN_DIR` says where.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let environment = Environment::of_process();
    let directory = environment.text("CUEWIRE_TEST_BIN_DIR").map_or_else(
        || {
            let executable = std::env::current_exe().expect("this program has a path");
            // Tests are in `deps`, one below the binaries.
            let above = executable.ancestors().skip(1).find(|path| !path.ends_with("deps"));
            above.expect("an executable is in a directory").to_owned()
        },
        PathBuf::from,
    );
    let path = directory.join(name);
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    path
}
