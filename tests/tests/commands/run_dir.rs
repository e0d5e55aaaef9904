//! A directory in which a stack of a test's own lives, on ports that are nobody's usual ones.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

use cuewire_tests::servers;
use futures_util::FutureExt;
use tokio::process::Command;

use crate::script::{Ended, Script};
use crate::traces::Traces;

const PORTS: [&str; 9] = [
    "CUEWIRE_AMQP_PORT",
    "CUEWIRE_POSTGRES_PORT",
    "CUEWIRE_EPMD_PORT",
    "CUEWIRE_DIST_PORT",
    "CUEWIRE_API_PORT",
    "CUEWIRE_API_HEALTH_PORT",
    "CUEWIRE_ROUTER_HEALTH_PORT",
    "CUEWIRE_SENDER_HEALTH_PORT",
    "CUEWIRE_DLQ_REAPER_HEALTH_PORT",
];

/// The directory.
pub(crate) struct RunDir {
    pub(crate) path: PathBuf,
}

impl RunDir {
    /// Runs a test with a directory of its own, in which nothing is left however the test ends.
    pub(crate) fn run<T>(test: impl AsyncFnOnce(&Self) -> T) -> T {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let result = runtime.block_on(async {
            let run_dir = Self { path: servers::new_run_dir() };
            let result = AssertUnwindSafe(test(&run_dir)).catch_unwind().await;
            run_dir.remove().await;
            result
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A script of `deploy/local` that takes the services from where the tests have them, on any free ports.
    pub(crate) fn script(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = self.script_on_usual_ports(name, arguments);
        command.envs(PORTS.map(|port| (port, "any")));
        command
    }

    /// The same on the usual ports, or the next that are free.
    pub(crate) fn script_on_usual_ports(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = servers::script(name, &self.path);
        command.args(arguments).env("CUEWIRE_BIN_DIR", servers::binary("demo").parent().unwrap());
        command
    }

    /// Runs `deploy/local/stack`, as `make up` and `make down` do, to its end.
    pub(crate) async fn stack(&self, command: &str) -> Ended {
        Script::start(&mut self.script("stack", &[command])).ended().await
    }

    /// The lines of its file `env`.
    pub(crate) fn env(&self) -> HashMap<String, String> {
        let text = std::fs::read_to_string(self.path.join("env")).unwrap();
        let line = |line: &str| {
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line:?} is no KEY=value"));
            (name.to_owned(), value.to_owned())
        };
        text.lines().map(line).collect()
    }

    /// What runs for it now.
    pub(crate) fn traces(&self) -> Traces {
        Traces::of(&self.path)
    }

    async fn remove(&self) {
        for (script, command) in [("stack", "down"), ("servers", "destroy")] {
            let output = self.script(script, &[command]).output().await.unwrap();
            assert!(
                output.status.success(),
                "{}: {}",
                self.path.display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
