//! Health and readiness: what a service depends on, and whether it is there. Served over HTTP beside the
//! metrics, apart from the service's own port.
//!
//! `/healthz` tells that the process runs (a restart would mend nothing that it depends on); `/readyz` names
//! what is missing with 503. [`ask`] is for health checks of containers, whose images have no other program.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use prometheus::{IntGaugeVec, Registry, TextEncoder};
use tokio::sync::watch;

use crate::metrics;
use crate::shutdown::Shutdown;

/// Shorter than what a container's health check is given.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// What a service depends on.
#[derive(Debug, Clone)]
pub struct Health {
    components: Arc<Mutex<Vec<Component>>>,
    /// Missing until the service has added all that it depends on.
    start: Component,
    connected: IntGaugeVec,
}

/// One of the things a service depends on: a connection, a cache that must be filled.
#[derive(Debug, Clone)]
pub struct Component {
    name: &'static str,
    /// Why it is not there; none when it is.
    missing: watch::Sender<Option<String>>,
    connected: prometheus::IntGauge,
}

impl Health {
    /// Nothing yet; the gauge of connections is registered.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let connected = metrics::gauges(
            registry,
            "cuewire_connected",
            "Whether a part that the service depends on is there (1) or not (0)",
            &["component"],
        );
        let start = Component::new("start", &connected);
        Self { components: Arc::new(Mutex::new(vec![start.clone()])), start, connected }
    }

    /// The service has added all that it depends on.
    pub fn is_complete(&self) {
        self.start.up();
    }

    /// Adds something that the service depends on, missing until it says otherwise.
    #[must_use]
    pub fn component(&self, name: &'static str) -> Component {
        let component = Component::new(name, &self.connected);
        self.components.lock().unwrap_or_else(PoisonError::into_inner).push(component.clone());
        component
    }

    /// What is missing, and why.
    #[must_use]
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        let components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        components.iter().filter_map(|component| Some((component.name, component.missing()?))).collect()
    }
}

impl Component {
    fn new(name: &'static str, connected: &IntGaugeVec) -> Self {
        let missing = watch::Sender::new(Some("not there yet".to_owned()));
        Self { name, missing, connected: connected.with_label_values(&[name]) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// It is there.
    pub fn up(&self) {
        self.set(None);
    }

    /// It is not, and why.
    pub fn down(&self, reason: &str) {
        self.set(Some(reason.to_owned()));
    }

    /// Whether it is there.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.missing().is_none()
    }

    /// Waits until it is there.
    pub async fn wait_until_up(&self) {
        // The error means that the sender is gone, and it is ours.
        let _ = self.missing.subscribe().wait_for(Option::is_none).await;
    }

    fn set(&self, missing: Option<String>) {
        self.connected.set(i64::from(missing.is_none()));
        self.missing.send_replace(missing);
    }

    fn missing(&self) -> Option<String> {
        self.missing.borrow().clone()
    }
}

/// Serves `/healthz`, `/readyz` and `/metrics` until the service has stopped.
pub async fn serve(
    listen: SocketAddr,
    health: Health,
    registry: Registry,
    shutdown: Shutdown,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    tracing::info!(address = %listener.local_addr()?, "health and metrics are served");
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready).with_state(health))
        .route("/metrics", get(scrape).with_state(registry));
    let stopping = shutdown.clone();
    shutdown.spawn_vital("health and metrics", async move {
        let stopped = async move { stopping.stopped().await };
        if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "health and metrics are no longer served");
        }
    });
    Ok(())
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    let missing = health.missing();
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let missing: serde_json::Map<_, _> =
        missing.into_iter().map(|(name, reason)| (name.to_owned(), reason.into())).collect();
    (status, Json(serde_json::json!({ "ready": missing.is_empty(), "missing": missing })))
}

/// Asks the service that tells its health at this address of this machine whether it is ready; the error says
/// what is missing.
pub fn ask(mut listens: SocketAddr) -> Result<(), String> {
    match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listens.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listens.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let answer =
        fetch(listens, "/readyz").map_err(|error| format!("nobody answers at {listens}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(body.to_owned()) }
}

fn fetch(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&address, ASK_TIMEOUT)?;
    connection.set_read_timeout(Some(ASK_TIMEOUT))?;
    // HTTP/1.0: the answer ends with the connection.
    write!(connection, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

async fn scrape(State(registry): State<Registry>) -> impl IntoResponse {
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap_or_default();
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text)
}
