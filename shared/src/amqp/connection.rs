//! A connection to the broker as the unit of failure: connect, declare, run; on the first error drop
//! everything, wait a little, and do the same again, for ever.

use std::future::Future;
use std::time::Duration;

use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, ErrorKind};
use rand::RngExt;
use tokio::time::Instant;

use super::agreed::Agreed;
use super::link::Link;
use super::topology::Topology;
use crate::health::Component;
use crate::shutdown::Shutdown;

/// Two missed beats and a dead peer is noticed.
const HEARTBEAT_SECONDS: u16 = 10;
/// AMQP's codes for what a user may not do, and for what is not there.
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A session of this length makes the next pause short again.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// Where the broker is, and what is declared there. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Broker {
    /// An `amqp://` or `amqps://` URL with credentials and vhost.
    pub url: String,
    /// What every session declares first.
    pub topology: Agreed,
    /// Shown by the broker beside each connection.
    pub service: &'static str,
    /// After which silence a connection is given up.
    pub timeouts: Timeouts,
}

/// After which silence of the broker a connection is given up. The same everywhere but in tests, which cannot
/// wait for so long.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// While it is made: the broker may be a name that resolves slowly, or drop packets.
    pub connect: Duration,
    /// While it is made and everything is declared on it. Twenty queues with an election each take less than a
    /// second; a broker that has just started may take many.
    pub open: Duration,
    /// While messages are unconfirmed: the connection is dead, or a queue has lost its majority.
    pub confirm: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let [connect, confirm, open] = [10, 30, 60].map(Duration::from_secs);
        Self { connect, open, confirm }
    }
}

impl Broker {
    /// The broker at this URL.
    #[must_use]
    pub fn new(url: String, topology: impl Into<Agreed>, service: &'static str) -> Self {
        Self { url, topology: topology.into(), service, timeouts: Timeouts::default() }
    }

    /// Runs sessions, one after another, until the service stops: `session` gets a connection on which
    /// everything is declared, and returns when it is of no use any more. `component` tells whether one
    /// is running.
    pub async fn supervise<F, Fut>(&self, component: &Component, shutdown: &Shutdown, session: F)
    where
        F: FnMut(Link) -> Fut,
        Fut: Future<Output = lapin::Result<()>>,
    {
        one_after_another(component, shutdown, || self.open(component.name()), session).await;
    }

    /// Connects and declares the topology, or checks it where the broker's user may not declare.
    pub async fn open(&self, purpose: &str) -> lapin::Result<Link> {
        let open = tokio::time::timeout(self.timeouts.open, self.connect_and_declare(purpose)).await;
        open.unwrap_or_else(|_| Err(timed_out("the broker did not declare the topology in time")))
    }

    async fn connect_and_declare(&self, purpose: &str) -> lapin::Result<Link> {
        let connection = self.connect(purpose).await?;
        let mut topology = self.topology.current().await;
        loop {
            declare_or_check(&connection, &topology).await?;
            // Changed meanwhile, it would be declared as it was over what it became.
            let declared = std::mem::replace(&mut topology, self.topology.current().await);
            if declared == topology {
                return Ok(connection);
            }
        }
    }

    /// Connects, and declares nothing.
    pub async fn connect(&self, purpose: &str) -> lapin::Result<Link> {
        let mut uri: AMQPUri = self.url.parse().map_err(|error: String| {
            lapin::Error::from(std::io::Error::new(std::io::ErrorKind::InvalidInput, error))
        })?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let properties = ConnectionProperties::default()
            .with_connection_name(format!("{}: {purpose}", self.service).into());
        let connected = tokio::time::timeout(self.timeouts.connect, Link::make(uri, properties)).await;
        connected.unwrap_or_else(|_| Err(timed_out("the broker did not answer in time")))
    }
}

/// Opens a connection, runs a session over it, waits a little, and does the same again until the service stops.
async fn one_after_another<C, Opened, Ended>(
    component: &Component,
    shutdown: &Shutdown,
    mut open: impl FnMut() -> Opened,
    mut session: impl FnMut(C) -> Ended,
) where
    Opened: Future<Output = lapin::Result<C>>,
    Ended: Future<Output = lapin::Result<()>>,
{
    let mut backoff = Backoff::new();
    while !shutdown.is_stopped() {
        let result = match shutdown.run_until_stopped(open()).await {
            None => return,
            Some(Err(error)) => Err(error),
            Some(Ok(connection)) => {
                component.up();
                // Not before: to open may take longer than health, and end in nothing.
                let started = Instant::now();
                let ended = session(connection).await;
                if started.elapsed() > HEALTHY_AFTER {
                    backoff = Backoff::new();
                }
                ended
            }
        };
        if shutdown.is_stopped() {
            return;
        }
        let (name, wait) = (component.name(), backoff.pause());
        match result {
            Ok(()) => {
                component.down("the session ended");
                tracing::info!(component = name, ?wait, "the session ended; connecting again");
            }
            Err(error) => {
                component.down(&error.to_string());
                tracing::warn!(component = name, %error, ?wait, "lost the broker; connecting again");
            }
        }
        shutdown.run_until_stopped(tokio::time::sleep(wait)).await;
    }
}

async fn declare_or_check(connection: &Connection, topology: &Topology) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    match topology.declare(&channel).await {
        Ok(()) => channel.close(200, "declared".into()).await,
        Err(error) if has_code(&error, ACCESS_REFUSED) => {
            let channel = connection.create_channel().await?;
            topology.check(&channel).await.map_err(not_declared)?;
            channel.close(200, "checked".into()).await
        }
        Err(error) => Err(error),
    }
}

/// What an operator has to do where something is missing that the broker's user may not declare.
fn not_declared(error: lapin::Error) -> lapin::Error {
    if !has_code(&error, NOT_FOUND) {
        return error;
    }
    std::io::Error::other(format!(
        "the topology is not declared, and this broker user may not declare it: run `api topology apply` with an \
         AMQP_URL of one who may ({error})"
    ))
    .into()
}

fn timed_out(what: &str) -> lapin::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, what).into()
}

fn has_code(error: &lapin::Error, code: u16) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(refusal) if refusal.get_id() == code)
}

/// Pauses that grow from 100 ms to 5 s, each with jitter, so that services do not return in step.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Backoff {
    /// Starts at the shortest pause.
    #[must_use]
    pub fn new() -> Self {
        Self(SHORTEST_PAUSE)
    }

    /// The next pause: half to all of a length that doubles.
    pub fn pause(&mut self) -> Duration {
        let length = self.0;
        self.0 = (length * 2).min(LONGEST_PAUSE);
        length.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use prometheus::Registry;

    use super::*;
    use crate::health::Health;

    /// What becomes of an attempt to connect, and how long that takes.
    #[derive(Clone, Copy)]
    enum Attempt {
        Refused(Duration),
        Session(Duration),
    }

    /// Lets these attempts happen, one after another, and answers with the pauses after them.
    async fn pauses(attempts: impl IntoIterator<Item = Attempt>) -> Vec<Duration> {
        let (health, shutdown) = (Health::new(&Registry::new()), Shutdown::new());
        let component = health.component("test");
        let mut attempts = attempts.into_iter();
        let (mut pauses, ended) = (Vec::new(), RefCell::new(None));
        let open = || {
            pauses.extend(ended.take().map(|ended: Instant| ended.elapsed()));
            let attempt = attempts.next();
            let (shutdown, ended) = (&shutdown, &ended);
            async move {
                match attempt {
                    Some(Attempt::Session(length)) => return Ok(length),
                    Some(Attempt::Refused(after)) => tokio::time::sleep(after).await,
                    None => shutdown.stop(),
                }
                ended.replace(Some(Instant::now()));
                Err(timed_out("on purpose"))
            }
        };
        let session = |length| {
            let ended = &ended;
            async move {
                tokio::time::sleep(length).await;
                ended.replace(Some(Instant::now()));
                Ok(())
            }
        };
        one_after_another(&component, &shutdown, open, session).await;
        pauses
    }

    /// Whether each pause is half to all of its length, to the millisecond by which timers are late.
    fn assert_lengths(pauses: &[Duration], lengths_ms: &[u64]) {
        assert_eq!(pauses.len(), lengths_ms.len(), "{pauses:?}");
        for (pause, length) in pauses.iter().zip(lengths_ms) {
            let length = Duration::from_millis(*length);
            assert!(
                (length / 2..=length + Duration::from_millis(1)).contains(pause),
                "{pause:?} of {length:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_between_connections_grow_from_100_ms_to_5_s_with_jitter() {
        let pauses = pauses([Attempt::Refused(Duration::ZERO); 106]).await;
        let (growing, longest) = pauses.split_at(6);
        assert_lengths(growing, &[100, 200, 400, 800, 1_600, 3_200]);
        assert_lengths(longest, &[5_000; 100]);
        // None of a hundred in a fifth of the span happens once in five billion runs.
        let (least, most) = (longest.iter().min().unwrap(), longest.iter().max().unwrap());
        assert!(least.as_millis() < 3_000 && most.as_millis() > 4_500, "{least:?} to {most:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_30_s_of_health_and_no_sooner_pauses_begin_at_100_ms_again() {
        let short = Attempt::Session(HEALTHY_AFTER - Duration::from_secs(1));
        let healthy = Attempt::Session(HEALTHY_AFTER + Duration::from_secs(1));
        let in_vain = Attempt::Refused(HEALTHY_AFTER * 2);
        let at_once = Attempt::Refused(Duration::ZERO);
        let pauses = pauses([at_once, at_once, short, in_vain, at_once, healthy, at_once]).await;
        assert_lengths(&pauses, &[100, 200, 400, 800, 1_600, 100, 200]);
    }
}
