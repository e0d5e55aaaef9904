//! Changes of configuration, as they are announced: what caches must read again.
//!
//! Triggers announce each change with its commit (`NOTIFY`) and log it (`changes`). A watcher passes on
//! both: notifications at once, and once a minute what the log says of the last minutes, in case one was
//! missed. Whenever the listening connection is lost, everything counts as changed. How webhooks fare, those that begin
//! to fail and breakers that open and close, is announced by channels of their own, to those who ask for it.

use std::future::poll_fn;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_postgres::AsyncMessage;

use super::{Database, DbError};
use crate::ids::{OrganizationId, WebhookId};
use crate::shutdown::Shutdown;

const CONFIGURATION: &str = "cuewire_changes";
const BREAKERS: &str = "cuewire_breakers";
const FAILING: &str = "cuewire_failing";
const RECONCILE_EVERY: Duration = Duration::from_secs(60);
/// How far back a reconciliation looks: the last one, and a transaction that was open meanwhile.
const RECONCILE_MINUTES: i32 = 3;
const RECONNECT_AFTER: Duration = Duration::from_millis(500);
/// Notifications waiting for a service that is busy reloading; when full, the connection waits.
const BUFFERED: usize = 1_024;

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// Something of this organization: itself, its keys, its webhooks.
    Organization(OrganizationId),
    /// The circuit breaker of this webhook.
    Breaker(WebhookId),
    /// This webhook has begun to fail.
    Failing(WebhookId),
    /// Nobody knows: the watcher was not listening for a while.
    Everything,
}

/// What to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// The configuration.
    Configuration,
    /// The configuration, and how webhooks fare.
    HealthToo,
}

/// The changes, from the moment of [`Database::watch_changes`] on.
#[derive(Debug)]
pub struct Changes(mpsc::Receiver<Change>);

impl Changes {
    /// The next change, or none when the service stops. The first is [`Change::Everything`].
    pub async fn next(&mut self) -> Option<Change> {
        self.0.recv().await
    }

    /// A change that has arrived already.
    pub fn try_next(&mut self) -> Option<Change> {
        self.0.try_recv().ok()
    }
}

impl Change {
    fn read(channel: &str, payload: &str) -> Option<Self> {
        match channel {
            BREAKERS => payload.parse().ok().map(Self::Breaker),
            FAILING => payload.parse().ok().map(Self::Failing),
            _ => payload.parse().ok().map(Self::Organization),
        }
    }
}

impl Database {
    /// Watches until the service stops.
    #[must_use]
    pub fn watch_changes(&self, watched: Watched, shutdown: Shutdown) -> Changes {
        let (sender, receiver) = mpsc::channel(BUFFERED);
        let database = self.clone();
        shutdown.clone().spawn_vital("watch over changes", async move {
            let watch = async {
                loop {
                    if let Err(error) = database.listen(watched, &sender).await {
                        tracing::warn!(%error, "not listening for changes of configuration; trying again");
                    }
                    if sender.is_closed() {
                        return;
                    }
                    tokio::time::sleep(RECONNECT_AFTER).await;
                }
            };
            shutdown.run_until_stopped(watch).await;
        });
        Changes(receiver)
    }

    /// Listens until the connection ends or nobody is interested any more.
    async fn listen(&self, watched: Watched, changes: &mpsc::Sender<Change>) -> Result<(), DbError> {
        let (client, mut connection) = self.config.connect(self.tls.clone()).await?;
        let (sender, mut notifications) = mpsc::channel(BUFFERED);
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(notification) = message
                    && sender.send(notification).await.is_err()
                {
                    return;
                }
            }
        });
        let listen = async {
            client.batch_execute(&format!("LISTEN {CONFIGURATION}")).await?;
            if watched == Watched::HealthToo {
                client.batch_execute(&format!("LISTEN {BREAKERS}; LISTEN {FAILING}")).await?;
            }
            let mut reconcile = tokio::time::interval(RECONCILE_EVERY);
            reconcile.tick().await;
            let mut change = Some(Change::Everything);
            loop {
                if let Some(change) = change.take()
                    && changes.send(change).await.is_err()
                {
                    return Ok(());
                }
                tokio::select! {
                    notification = notifications.recv() => {
                        let Some(notification) = notification else { return Ok(()) };
                        change = Change::read(notification.channel(), notification.payload());
                    }
                    _ = reconcile.tick() => self.reconcile(changes).await?,
                    () = changes.closed() => return Ok(()),
                }
            }
        };
        let result = listen.await;
        driver.abort();
        result
    }

    async fn reconcile(&self, changes: &mpsc::Sender<Change>) -> Result<(), DbError> {
        let rows = self
            .connection()
            .await?
            .query(
                "SELECT DISTINCT organization_id FROM changes
                 WHERE changed_at > now() - make_interval(mins => $1)",
                &[&RECONCILE_MINUTES],
            )
            .await?;
        for row in rows {
            // A closed receiver is noticed by the caller.
            let _ = changes.send(Change::Organization(OrganizationId(row.get(0)))).await;
        }
        Ok(())
    }
}
