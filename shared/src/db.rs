//! Postgres: configuration, the event log, the account of attempts, dead letters. All SQL lives below here.
//!
//! One file a table, or two that belong together. Nothing here is held across an HTTP request or a
//! publish; the hot paths write in batches, one statement each.

pub mod api_keys;
pub mod attempts;
pub mod changes;
pub mod dead_letters;
pub mod event_types;
pub mod events;
pub mod notices;
pub mod organizations;
pub mod partitions;
mod patience;
pub mod retention;
pub mod retries;
#[cfg(test)]
mod scratch;
pub mod settings;
mod tls;
#[cfg(test)]
mod upgrades;
pub mod webhooks;

use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use self::tls::Tls;

pub use patience::until_it_answers;

mod migrations {
    refinery::embed_migrations!("migrations");
}

/// Longer, and a caller is better off trying again: the database is overloaded or away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds a statement that waits for a lock or reads too much, on the server's side.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// The advisory lock under which replicas that start together migrate one after another.
const MIGRATION_LOCK: i64 = 0x6375_6577_6972_6501;

/// The database could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// It cannot be reached now; the same call may succeed later.
    #[error("the database cannot be reached: {0}")]
    Unavailable(String),
    /// A row's day has no partition.
    #[error("the database has no partition for the day")]
    NoPartition,
    /// A value that must be unique is taken, or the row that a new one belongs to is gone; the constraint.
    #[error("a row conflicts with another by {0}")]
    Conflict(String),
    /// It cannot hold what it was given, now or later.
    #[error("the database cannot hold what it was given: {0}")]
    Unfit(String),
    /// It refused a statement, for a reason that lies with it: rights, schema, time.
    #[error("the database refused a statement: {0}")]
    Refused(String),
    /// A row holds what no version of Cuewire writes.
    #[error("the database holds what cannot be read: {0}")]
    Unreadable(String),
}

impl From<tokio_postgres::Error> for DbError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            // Class 57: shutting down or starting up; class 53: out of connections, memory or disk;
            // 40001 and 40P01: a conflict that ends by itself.
            Some(refusal)
                if matches!(&refusal.code().code()[..2], "57" | "53" | "08" | "40")
                    && refusal.code().code() != "57014" =>
            {
                Self::Unavailable(refusal.message().to_owned())
            }
            Some(refusal)
                if refusal.code() == &SqlState::CHECK_VIOLATION && refusal.constraint().is_none() =>
            {
                Self::NoPartition
            }
            Some(refusal)
                if matches!(
                    refusal.code(),
                    &SqlState::UNIQUE_VIOLATION | &SqlState::FOREIGN_KEY_VIOLATION
                ) =>
            {
                Self::Conflict(refusal.constraint().unwrap_or_default().to_owned())
            }
            Some(refusal) => {
                let reason = format!("{} ({})", refusal.message(), refusal.code().code());
                match &refusal.code().code()[..2] {
                    // Values that a type or a constraint does not allow, or over a limit of the program.
                    "22" | "23" | "54" => Self::Unfit(reason),
                    _ => Self::Refused(reason),
                }
            }
            None => Self::Unavailable(with_cause(&error)),
        }
    }
}

/// An error with what it comes from, which says more: that a certificate is not trusted, that nobody listens.
fn with_cause(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

impl From<PoolError> for DbError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// The database: a pool of connections, opened when needed. Clones share it.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    config: tokio_postgres::Config,
    tls: Tls,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Database")
    }
}

impl Database {
    /// A pool of at most `connections` to `url`. Connects to nothing yet.
    pub fn new(url: &str, connections: usize) -> Result<Self, DbError> {
        let (mut config, tls) = tls::read_url(url).map_err(DbError::Refused)?;
        config
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(Duration::from_secs(30))
            .tcp_user_timeout(Duration::from_secs(30))
            .options(format!("-c statement_timeout={}", STATEMENT_TIMEOUT.as_millis()));
        let manager = Manager::from_config(
            config.clone(),
            tls.clone(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(CONNECT_TIMEOUT),
                create: Some(CONNECT_TIMEOUT),
                recycle: Some(CONNECT_TIMEOUT),
            })
            .build()
            .map_err(|error| DbError::Refused(error.to_string()))?;
        Ok(Self { pool, config, tls })
    }

    /// Whether this is a URL that can be connected to; the error is a sentence to be read after the variable's
    /// name.
    pub fn check_url(url: &str) -> Result<(), String> {
        tls::read_url(url).map(drop)
    }

    /// A connection of the pool.
    async fn connection(&self) -> Result<Object, DbError> {
        Ok(self.pool.get().await?)
    }

    /// A connection outside the pool, and the task that drives it.
    async fn dedicated(&self) -> Result<Client, DbError> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a dedicated database connection ended");
            }
        });
        Ok(client)
    }

    /// Brings the schema up to date, and makes today's partitions. Replicas that start together wait for
    /// one another.
    pub async fn migrate(&self) -> Result<(), DbError> {
        let mut client = self.dedicated().await?;
        // Another replica's migration, or this one's, may take longer than any statement of the services.
        client.batch_execute("SET statement_timeout = 0").await?;
        client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await?;
        // The lock ends with the connection, however this ends.
        migrations::migrations::runner()
            .run_async(&mut client)
            .await
            .map_err(|error| DbError::Refused(format!("a migration failed: {error}")))?;
        drop(client);
        self.ensure_partitions().await
    }
}
