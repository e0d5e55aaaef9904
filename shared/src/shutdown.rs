//! Stopping: one small type that everything long-lived holds.

use std::future::Future;

use tokio_util::sync::CancellationToken;

/// Tells that the service is to stop. Clones tell the same.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Not stopped yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops everything that holds a clone, or a child, of this.
    pub fn stop(&self) {
        self.0.cancel();
    }

    /// Whether [`Shutdown::stop`] was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits for the stop.
    pub async fn stopped(&self) {
        self.0.cancelled().await;
    }

    /// Stops with this one, and can be stopped by itself.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Runs the future to its end, or answers `None` when the stop comes first.
    pub async fn run_until_stopped<F: Future>(&self, future: F) -> Option<F::Output> {
        self.0.run_until_cancelled(future).await
    }
}
