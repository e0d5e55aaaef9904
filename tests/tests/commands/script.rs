//! A command under way, as one that was typed into a terminal: in a process group of its own, to which a Ctrl-C
//! goes.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cuewire_tests::process::kill;
use cuewire_tests::wait::within;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// A stack comes up in 15 s, and one in whose way others are builds takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A command, and what it has said so far.
pub(crate) struct Script {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    listening: [JoinHandle<()>; 2],
}

/// A command that has ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) said: Vec<String>,
}

impl Script {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let said = Arc::default();
        let (output, errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let listening = [listen(output, &said), listen(errors, &said)];
        Self { child, said, listening }
    }

    /// Its process, and the group of that.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it has not ended")
    }

    /// The lines that it has printed so far, to wherever; those to standard output and those to standard error are
    /// each in their order.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has said something that the condition is looking for.
    pub(crate) async fn says<T>(&self, what: &str, mut condition: impl FnMut(&[String]) -> Option<T>) -> T {
        within(PATIENCE, what, async || {
            let said = self.said();
            let found = condition(&said);
            let ended = found.is_none() && self.listening.iter().all(JoinHandle::is_finished);
            assert!(!ended, "it has ended before it said {what}:\n{}", said.join("\n"));
            found
        })
        .await
    }

    /// A Ctrl-C: SIGINT to the group.
    pub(crate) async fn interrupt(&self) {
        kill("INT", &format!("-{}", self.pid())).await;
    }

    /// SIGTERM to the process.
    pub(crate) async fn terminate(&self) {
        kill("TERM", &self.pid().to_string()).await;
    }

    /// Waits for its end, and for that of everything that could still print.
    pub(crate) async fn ended(mut self) -> Ended {
        let ended = tokio::time::timeout(PATIENCE, async {
            let status = self.child.wait().await.unwrap();
            for listening in &mut self.listening {
                listening.await.unwrap();
            }
            status
        });
        let status = ended.await;
        let said = self.said();
        let status = status.unwrap_or_else(|_| panic!("it does not end:\n{}", said.join("\n")));
        Ended { code: status.code(), said }
    }
}

impl Drop for Script {
    /// One that a failed test leaves alone is told to end, and tidies up.
    fn drop(&mut self) {
        if let Some(pid) = self.child.id() {
            let _ = std::process::Command::new("kill").arg(pid.to_string()).status();
        }
    }
}

impl Ended {
    /// Fails the test unless it has ended with this exit code.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32) {
        assert_eq!(self.code, Some(code), "it said:\n{}", self.said.join("\n"));
    }

    /// The line that contains this; fails the test where there is none.
    #[track_caller]
    pub(crate) fn line(&self, part: &str) -> &str {
        let line = self.said.iter().find(|line| line.contains(part));
        line.unwrap_or_else(|| panic!("it did not say {part:?}, but:\n{}", self.said.join("\n")))
    }
}

fn listen(output: impl AsyncRead + Unpin + Send + 'static, said: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let (mut lines, said) = (BufReader::new(output).lines(), Arc::clone(said));
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            said.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}
