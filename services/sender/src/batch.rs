//! Batching: callers hand in one item each and wait, a task works them off together.
//!
//! While one batch is under way the next one fills, so that batches grow with the load and a single item
//! waits for nothing.

use cuewire::shutdown::Shutdown;
use tokio::sync::{mpsc, oneshot};

/// Hands items to a task that works in batches.
#[derive(Debug)]
pub struct Batcher<T, R>(mpsc::Sender<(T, oneshot::Sender<R>)>);

impl<T: Send + 'static, R: Send + 'static> Batcher<T, R> {
    /// Starts the task, a vital one. `work` answers a batch with one result for each item, in their order.
    #[must_use]
    pub fn start<F, Fut>(name: &'static str, max_batch: usize, shutdown: &Shutdown, mut work: F) -> Self
    where
        F: FnMut(Vec<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<R>> + Send,
    {
        let (sender, mut receiver) = mpsc::channel::<(T, oneshot::Sender<R>)>(max_batch);
        shutdown.spawn_vital(name, async move {
            let mut waiting = Vec::with_capacity(max_batch);
            while receiver.recv_many(&mut waiting, max_batch).await > 0 {
                let (items, callers): (Vec<_>, Vec<_>) = waiting.drain(..).unzip();
                for (caller, result) in callers.into_iter().zip(work(items).await) {
                    // A caller that gave up does not need the result.
                    let _ = caller.send(result);
                }
            }
        });
        Self(sender)
    }

    /// Hands an item in, and waits for its result.
    pub async fn submit(&self, item: T) -> Result<R, Ended> {
        let (caller, result) = oneshot::channel();
        self.0.send((item, caller)).await.map_err(|_| Ended)?;
        result.await.map_err(|_| Ended)
    }
}

/// The task has ended, with the process or by a panic: nothing can be said of the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended;
