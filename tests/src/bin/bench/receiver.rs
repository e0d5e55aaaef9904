//! A receiver that does as little as one can: it takes a request, notes the event's id and the time, answers 200.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// What has arrived: by event, when each request came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Receiver {
    arrived: Arc<Mutex<HashMap<usize, Vec<Instant>>>>,
    pub(crate) url: String,
}

impl Receiver {
    /// Listens on a free port.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let receiver = Self { arrived: Arc::default(), url };
        let shared = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let receiver = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| receiver.take(request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(receiver)
    }

    async fn take(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let body =
            request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        if let Some(event) = event_of(&body) {
            let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
            arrived.entry(event).or_default().push(Instant::now());
        }
        Ok(Response::new(Full::new(Bytes::from_static(b"ok"))))
    }

    /// Waits until `events` have arrived, `copies` of each, or nothing has for `patience`.
    pub(crate) async fn wait(&self, events: usize, copies: usize, patience: Duration) {
        let mut progress = (0, Instant::now());
        loop {
            let arrived: usize =
                self.with(|arrived| arrived.values().map(|times| times.len().min(copies)).sum());
            if arrived >= events * copies || progress.1.elapsed() > patience {
                return;
            }
            if arrived > progress.0 {
                progress = (arrived, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Looks at what has arrived.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&HashMap<usize, Vec<Instant>>) -> T) -> T {
        look(&self.arrived.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets what has arrived.
    pub(crate) fn clear(&self) {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The number in `"id":"bench-<run>-<number>"`.
fn event_of(body: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(body).ok()?;
    let id = text.split_once("\"id\":\"bench-")?.1;
    let id = id.split_once('"')?.0;
    id.rsplit_once('-')?.1.parse().ok()
}
