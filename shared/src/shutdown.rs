//! Stopping: one small type that everything long-lived holds.
//!
//! A service ends in good order, when it is told to stop, or because a task has ended that it cannot do
//! without: a background task that panics or returns would otherwise leave a process that looks ready and
//! does nothing.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long what is under way may take after the stop where it waits for the database: as long as a commit may
/// take, but not as long as a database may be away.
pub const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// Tells that the service is to stop. Clones tell the same.
#[derive(Debug, Clone)]
pub struct Shutdown {
    stop: CancellationToken,
    /// None while the service may go on to the end of its work.
    cut: Arc<watch::Sender<Option<Cut>>>,
}

/// Why a service ends in the middle of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The work had its time.
    Off,
    /// The vital task of this name has ended unexpectedly.
    Broken(&'static str),
}

impl Shutdown {
    /// Not stopped yet.
    #[must_use]
    pub fn new() -> Self {
        Self { stop: CancellationToken::new(), cut: Arc::new(watch::Sender::new(None)) }
    }

    /// One that is stopped by itself, later than this one: for what finishes the work in flight. The service
    /// cannot do without its vital tasks either.
    #[must_use]
    pub fn later(&self) -> Self {
        Self { stop: CancellationToken::new(), cut: Arc::clone(&self.cut) }
    }

    /// One that stops with this one, and can be stopped by itself before.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { stop: self.stop.child_token(), cut: Arc::clone(&self.cut) }
    }

    /// Stops everything that holds a clone, or a child, of this.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether [`Shutdown::stop`] was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits for the stop.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Runs the future to its end, or answers `None` when the stop comes first.
    pub async fn run_until_stopped<F: Future>(&self, future: F) -> Option<F::Output> {
        self.stop.run_until_cancelled(future).await
    }

    /// Runs the future to its end, or answers `None` when it has not come there [`FINISH_WITHIN`] after the
    /// stop, or after its own begin where that was later.
    pub async fn finish<F: Future>(&self, future: F) -> Option<F::Output> {
        let patience_ends = async {
            self.stopped().await;
            tokio::time::sleep(FINISH_WITHIN).await;
        };
        tokio::select! {
            biased;
            output = future => Some(output),
            () = patience_ends => None,
        }
    }

    /// Runs a task in the background that the service cannot do without. If it panics, or returns before the
    /// stop, the service is broken.
    pub fn spawn_vital<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shutdown = self.clone();
        tokio::spawn(async move {
            // The task is gone afterwards: nobody sees what a panic left half done.
            let ended = AssertUnwindSafe(task).catch_unwind().await;
            if ended.is_ok() && shutdown.is_stopped() {
                return;
            }
            // Those that end after it end because what they worked for is gone.
            if shutdown.cut(Cut::Broken(name)) || ended.is_err() {
                tracing::error!(task = name, panicked = ended.is_err(), "a vital task has ended");
            }
        })
    }

    /// Tells that the work in flight is not waited for any longer: the tasks that end with it have not failed.
    pub fn cut_off(&self) {
        self.cut(Cut::Off);
    }

    /// Whether this is why the service ends: the first reason is.
    fn cut(&self, why: Cut) -> bool {
        self.cut.send_if_modified(|cut| {
            let is_first = cut.is_none();
            cut.get_or_insert(why);
            is_first
        })
    }

    /// Waits until a vital task has ended unexpectedly, and answers which.
    pub async fn broken(&self) -> &'static str {
        let mut cut = self.cut.subscribe();
        loop {
            if let Some(Cut::Broken(name)) = *cut.borrow_and_update() {
                return name;
            }
            // An error means that the sender is gone, and it is ours.
            let _ = cut.changed().await;
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_at_the_stop_is_finished_and_not_waited_for_without_end() {
        const SOON: Duration = Duration::from_secs(4);
        let shutdown = Shutdown::new();
        shutdown.finish(sleep(2 * FINISH_WITHIN)).await.expect("nothing has been stopped");
        let stopping = shutdown.clone();
        let stop = async {
            sleep(FINISH_WITHIN).await;
            stopping.stop();
        };
        let (finished, given_up, ()) = tokio::join!(
            shutdown.finish(sleep(FINISH_WITHIN + SOON)),
            shutdown.finish(sleep(3 * FINISH_WITHIN)),
            stop
        );
        assert_eq!((finished, given_up), (Some(()), None));

        let begun = Instant::now();
        assert_eq!(shutdown.finish(sleep(SOON)).await, Some(()), "it begins after the stop");
        assert_eq!(shutdown.finish(std::future::pending::<()>()).await, None);
        assert_eq!(begun.elapsed(), SOON + FINISH_WITHIN);
    }

    #[tokio::test]
    async fn a_vital_task_that_panics_breaks_the_service() {
        let shutdown = Shutdown::new();
        shutdown.later().spawn_vital("publisher", async { panic!("on purpose") });
        assert_eq!(shutdown.broken().await, "publisher");
    }

    #[tokio::test]
    async fn a_vital_task_that_returns_breaks_the_service_unless_that_has_stopped() {
        let shutdown = Shutdown::new();
        let stopping = shutdown.clone();
        let task = shutdown.spawn_vital("follower", async move { stopping.stopped().await });
        shutdown.stop();
        task.await.unwrap();
        assert_eq!(shutdown.broken().now_or_never(), None);
        let later = shutdown.later();
        later.spawn_vital("batcher", async {}).await.unwrap();
        assert_eq!(shutdown.broken().now_or_never(), Some("batcher"));
    }

    #[tokio::test]
    async fn vital_tasks_that_end_because_the_work_is_cut_off_have_not_broken_the_service() {
        let shutdown = Shutdown::new();
        shutdown.cut_off();
        shutdown.later().spawn_vital("batcher", async {}).await.unwrap();
        assert_eq!(shutdown.broken().now_or_never(), None);
    }
}
