//! The topology that all services agree on: what is configured, with the number of the senders' queues that the
//! database records.
//!
//! A running service follows that number, so that `api topology apply` can change it under way: it is read
//! whenever the topology is declared, and every few seconds beside that. While the database is away, the last
//! known holds.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use super::topology::Topology;
use crate::db::{Database, DbError};

/// A database that takes longer is as good as away.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The topology as it is agreed. Clones share it.
#[derive(Debug, Clone)]
pub struct Agreed {
    database: Option<Database>,
    known: watch::Sender<Topology>,
    /// One at a time, so that no older answer comes after a newer one.
    reading: Arc<Mutex<()>>,
}

impl Agreed {
    /// What is configured, until the database says otherwise.
    #[must_use]
    pub fn recorded_in(database: Database, configured: Topology) -> Self {
        Self { database: Some(database), ..Self::from(configured) }
    }

    /// The topology as it is known now.
    #[must_use]
    pub fn known(&self) -> Topology {
        self.known.borrow().clone()
    }

    /// The topology as it is recorded now, or was when the database last answered.
    pub async fn current(&self) -> Topology {
        match tokio::time::timeout(READ_TIMEOUT, self.read()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "the number of the senders' queues is taken as it was");
            }
            Err(_) => tracing::debug!("the number of the senders' queues is taken as it was"),
        }
        self.known()
    }

    /// Reads what is recorded.
    pub async fn read(&self) -> Result<(), DbError> {
        let Some(database) = &self.database else { return Ok(()) };
        let _one_at_a_time = self.reading.lock().await;
        let Some(recorded) = database.sender_queues().await? else { return Ok(()) };
        let before = self.known();
        let now = Topology {
            sender_queues: recorded.now,
            most_sender_queues: recorded.most,
            publishers: before.publishers.clone(),
        };
        if before.sender_queues != now.sender_queues {
            tracing::warn!(
                before = before.sender_queues,
                now = now.sender_queues,
                "`api topology apply` has changed the number of the senders' queues, and this process follows; \
                 the next to start needs CUEWIRE_SENDER_QUEUES to be the new one"
            );
        }
        self.known.send_if_modified(|known| std::mem::replace(known, now) != *known);
        Ok(())
    }

    /// Waits until another topology than this is known.
    pub async fn changed_from(&self, topology: &Topology) {
        // The error means that the sender is gone, and it is ours.
        let _ = self.known.subscribe().wait_for(|known| known != topology).await;
    }
}

/// A topology that nobody else has a say in.
impl From<Topology> for Agreed {
    fn from(topology: Topology) -> Self {
        Self { database: None, known: watch::Sender::new(topology), reading: Arc::default() }
    }
}
