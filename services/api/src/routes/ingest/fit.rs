//! Holding a request's events against the schemas in force: at once where that is quick, else on a thread that
//! serves nobody meanwhile, when its turn comes.

use std::sync::Arc;

use cuewire::event::Event;
use cuewire::schema::InForce;
use tokio::sync::Semaphore;

use super::ORGANIZATION;
use super::faults::Refusal;
use super::read::Events;
use crate::Api;
use crate::error::Problem;

/// What is checked at once, where requests are served: up to a fifth of a millisecond, as long as reading 64 KiB
/// of JSON takes. A thousand events of a few values each take a hundred times as many.
const FEW_STEPS: usize = 64 * 1024;
/// What one request may ask for: 0.3 s of one core, and a few seconds where schemas have patterns that are built to be
/// slow. It lets the largest batch pass that the catalogue's schemas are for, and a thousand events of 1 KiB by
/// four patterns; a thousand events of the dearest kind would take minutes.
const MAX_STEPS: usize = 128 * 1024 * 1024;

/// Answers the events, if all of them fit.
pub(super) async fn fit(api: &Api, events: Events) -> Result<Events, Problem> {
    let in_force = |event: &Event| api.schemas.of(event.extension(ORGANIZATION).unwrap_or_default());
    let in_force: Vec<Option<Arc<InForce>>> = events.items.iter().map(in_force).collect();
    let steps = events
        .items
        .iter()
        .zip(&in_force)
        .filter_map(|(event, in_force)| in_force.as_ref().map(|in_force| in_force.most_steps(event)));
    let steps = steps.sum();
    if steps > MAX_STEPS {
        return Err(Problem::too_large(
            "the events have too many values to be checked with their schemas at once; send them in several requests",
        ));
    }
    api.ingest_work.take(steps, move || check(events, &in_force)).await?
}

fn check(events: Events, in_force: &[Option<Arc<InForce>>]) -> Result<Events, Problem> {
    let mut faults = events.faults();
    for (index, (event, in_force)) in events.items.iter().zip(in_force).enumerate() {
        let fits = in_force.as_ref().map_or(Ok(()), |in_force| in_force.check(event));
        faults.note(index, fits.map_err(Refusal::Unfit));
    }
    faults.finish()?;
    Ok(events)
}

/// Whose turn it is to take long.
#[derive(Debug)]
pub(crate) struct LongWork(Arc<Semaphore>);

impl Default for LongWork {
    /// Half of the machine's cores, so that the others serve who asks for less.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        Self(Arc::new(Semaphore::new(cores)))
    }
}

impl LongWork {
    /// Does work of so many steps.
    async fn take<T: Send + 'static>(
        &self,
        steps: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        if steps <= FEW_STEPS {
            return Ok(work());
        }
        let turn = Arc::clone(&self.0).acquire_owned().await.map_err(|_| Problem::internal())?;
        // The turn is over when the work is, also where its request has ended before.
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        work.await.map_err(|_| Problem::internal())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_takes_long_is_done_elsewhere_and_by_turns() {
        let (work, here) = (LongWork(Arc::new(Semaphore::new(1))), thread::current().id());
        let who = || thread::current().id();
        assert_eq!(work.take(FEW_STEPS, who).await.unwrap(), here);
        assert_ne!(work.take(FEW_STEPS + 1, who).await.unwrap(), here);

        let (end, ended) = oneshot::channel::<()>();
        let first = work.take(MAX_STEPS, move || ended.blocking_recv());
        let mut first = Box::pin(first);
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(work.take(MAX_STEPS, who));
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(work.take(FEW_STEPS, who).await.unwrap(), here, "little need not wait");
        // Whoever asked for the first is gone; it still has its turn.
        drop(first);
        assert_eq!(work.0.available_permits(), 0);
        end.send(()).unwrap();
        assert_ne!(second.await.unwrap(), here);
    }
}
