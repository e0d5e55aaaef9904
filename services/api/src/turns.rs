//! Turns at what costs much to read: few read at a time, and of an organization one. So one that asks for much at
//! once waits for itself, and the others' turns come no later than after one of each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cuewire::ids::OrganizationId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::error::Problem;

/// Each holds some MiB, and now and then a connection to the database.
const AT_A_TIME: usize = 4;
/// An organization's that read or wait: clients read page by page.
const MAX_OWN: usize = 16;

/// Who reads, and who waits to.
#[derive(Debug)]
pub(crate) struct Turns {
    all: Semaphore,
    own: Mutex<HashMap<OrganizationId, Line>>,
}

/// An organization's line, as long as somebody stands in it.
#[derive(Debug)]
struct Line {
    turn: Arc<Semaphore>,
    length: usize,
}

/// A turn, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    _all: SemaphorePermit<'a>,
    _own: OwnedSemaphorePermit,
    _place: Place<'a>,
}

/// A place in an organization's line.
#[derive(Debug)]
struct Place<'a> {
    turns: &'a Turns,
    organization: OrganizationId,
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Semaphore::new(AT_A_TIME), own: Mutex::default() }
    }
}

impl Turns {
    /// Waits for a turn, unless too many of the organization's do so already.
    pub(crate) async fn wait(&self, organization: OrganizationId) -> Result<Turn<'_>, Problem> {
        let (place, turn) = self.place(organization).ok_or_else(|| {
            let detail = "too many of your requests for this are under way; wait until one is answered";
            Problem::too_many(detail, None)
        })?;
        // First the own line: in the common one stands one of each organization.
        let own = turn.acquire_owned().await.expect("nobody closes it");
        let all = self.all.acquire().await.expect("nobody closes it");
        Ok(Turn { _all: all, _own: own, _place: place })
    }

    fn place(&self, organization: OrganizationId) -> Option<(Place<'_>, Arc<Semaphore>)> {
        let mut lines = self.lines();
        let line = lines
            .entry(organization)
            .or_insert_with(|| Line { turn: Arc::new(Semaphore::new(1)), length: 0 });
        if line.length >= MAX_OWN {
            return None;
        }
        line.length += 1;
        Some((Place { turns: self, organization }, Arc::clone(&line.turn)))
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<OrganizationId, Line>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut lines = self.turns.lines();
        if let Some(line) = lines.get_mut(&self.organization) {
            line.length -= 1;
            if line.length == 0 {
                lines.remove(&self.organization);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_organization_has_one_turn_at_a_time_and_a_bounded_line() {
        let (turns, one) = (Turns::default(), OrganizationId::new());
        let first = turns.wait(one).await.unwrap();
        let mut waiting: Vec<_> = (1..MAX_OWN).map(|_| Box::pin(turns.wait(one))).collect();
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
        assert_eq!(turns.wait(one).await.unwrap_err().status, 429);
        assert!(turns.wait(OrganizationId::new()).await.is_ok(), "others are not behind it");
        drop(first);
        let second = waiting.remove(0).await.unwrap();
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
        drop((second, waiting));
        assert!(turns.lines().is_empty(), "nobody is remembered");
    }

    #[tokio::test]
    async fn few_have_their_turn_at_a_time() {
        let turns = Turns::default();
        let mut taken = Vec::new();
        for _ in 0..AT_A_TIME {
            taken.push(turns.wait(OrganizationId::new()).await.unwrap());
        }
        let mut next = Box::pin(turns.wait(OrganizationId::new()));
        assert!((&mut next).now_or_never().is_none());
        taken.pop();
        assert!(next.await.is_ok());
    }
}
