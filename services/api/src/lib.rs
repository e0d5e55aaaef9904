//! api: accepts. Events over HTTP go to the broker and nowhere else; configuration goes to the database, which
//! announces it to the router and the senders; what happened is read from the log.
//!
//! It never calls a receiver: a test call is a delivery like any other, made by a sender, whose answer comes
//! back over the broker. No service depends on it: deliveries go on while it is away.

mod auth;
mod call;
mod checks;
pub mod commands;
pub mod config;
mod connections;
mod dialects;
mod error;
mod event_types;
mod extract;
mod metrics;
mod openapi;
mod page;
mod publish;
mod quota;
mod routes;
mod samples;
mod schemas;
mod server;
mod turns;
mod webhooks;

use std::ops::Deref;
use std::sync::Arc;

use anyhow::Context as _;
use cuewire::amqp::Publisher;
use cuewire::db::Database;
use cuewire::db::changes::{Changes, Watched};
use cuewire::service::Context;
use cuewire::shutdown::Shutdown;
use cuewire::vault::Vault;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::auth::Keys;
use crate::call::Calls;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::quota::Quota;
use crate::routes::ingest::{Limits, LongWork, Room};
use crate::routes::stream;
use crate::schemas::Schemas;
use crate::turns::Turns;
use crate::webhooks::Destinations;

/// What handlers work with. Clones share it.
#[derive(Clone)]
pub(crate) struct Api(Arc<Parts>);

/// The parts of [`Api`].
pub(crate) struct Parts {
    database: Database,
    publisher: Publisher,
    calls: Calls,
    keys: Keys,
    schemas: Schemas,
    operator_key_sha256: [u8; 32],
    destinations: Destinations,
    vault: Vault,
    metrics: Metrics,
    listeners: Quota,
    /// At reading the contents of many events.
    log_turns: Turns,
    /// For the bodies of events.
    ingest_room: Room,
    ingest_limits: Limits,
    ingest_work: LongWork,
    shutdown: Shutdown,
}

impl Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Serves the API where the configuration says, until the service stops.
pub async fn run(context: Context, config: Config) -> anyhow::Result<()> {
    if context.prepare().await?.is_none() {
        return Ok(());
    }
    let listen = config.listen;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("CUEWIRE_API_LISTEN: cannot listen on {listen}"))?;
    serve(context, config, listener).await
}

/// Serves the API on `listener` until the service stops; the database must be prepared.
pub async fn serve(context: Context, config: Config, listener: TcpListener) -> anyhow::Result<()> {
    let Context { database, broker, health, registry, shutdown, common, .. } = context;
    let metrics = Metrics::new(&registry);
    // What requests in flight need outlives the signal to stop.
    let publishing = shutdown.later();
    let api = Api(Arc::new(Parts {
        publisher: Publisher::start(broker.clone(), health.component("publisher"), publishing.clone()),
        calls: Calls::start(broker, health.component("caller"), publishing.clone()),
        keys: Keys::new(database.clone(), metrics.clone()),
        schemas: Schemas::new(database.clone()),
        operator_key_sha256: Sha256::digest(config.operator_key.as_bytes()).into(),
        destinations: Destinations::guarded_by(config.guard)?,
        vault: common.vault,
        listeners: stream::listeners(),
        log_turns: Turns::default(),
        ingest_room: Room::default(),
        ingest_limits: Limits::new(config.ingest_limit_per_second),
        ingest_work: LongWork::default(),
        shutdown: shutdown.clone(),
        metrics,
        database,
    }));
    health.is_complete();
    let changes = api.database.watch_changes(Watched::Configuration, shutdown.clone());
    let following = shutdown.spawn_vital("watch over keys and schemas", follow(api.clone(), changes));
    let result = server::serve(listener, api).await;
    following.abort();
    publishing.stop();
    result
}

/// Keeps what is cached of the configuration as it is, until the service stops. Changes are heard at once, whatever
/// the database does meanwhile.
async fn follow(api: Api, mut changes: Changes) {
    let hear = async {
        while let Some(change) = changes.next().await {
            api.keys.hear(change);
            api.schemas.hear(change);
        }
    };
    tokio::select! {
        () = hear => {}
        () = api.keys.settle() => {}
        () = api.schemas.settle() => {}
    }
}
