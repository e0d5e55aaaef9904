//! HTTP connections: accepted, bounded in the time that a request's head and an answer's way to its reader may
//! take, and ended without cutting a request off.
//!
//! HTTP/1.1, as balancers and TLS terminators speak to what is behind them.

mod impatient;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use cuewire::shutdown::Shutdown;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::impatient::Impatient;

/// From a connection's begin, or the answer before, to the end of the next request's head. It also ends
/// connections that are kept without being used: later than balancers do, for most of which that is a minute,
/// or they would send requests into connections that are about to end.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// What hyper itself refuses, without a body; [`crate::server`] refuses less, with one.
const MAX_HEADERS: usize = 400;

/// Connections at a time: what their heads may hold of memory is bounded, and far more than balancers keep.
const MAX_CONNECTIONS: usize = 4_096;
/// How long a request in flight may take after the signal to stop, its answer's way to a slow reader included:
/// within the grace for stopping.
const END_TIMEOUT: Duration = Duration::from_secs(43);

/// Serves `router` on every connection until the service stops, and then finishes the requests in flight.
pub(crate) async fn serve(mut listener: TcpListener, router: Router, shutdown: Shutdown) {
    let mut connections = JoinSet::new();
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut accept = async || {
        let place = Arc::clone(&room).acquire_owned().await.ok()?;
        let (stream, _) = Listener::accept(&mut listener).await;
        Some((stream, place))
    };
    while let Some(Some((stream, place))) = shutdown.run_until_stopped(accept()).await {
        let attended = attend(stream, router.clone(), shutdown.clone());
        connections.spawn(async move {
            attended.await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    // One that panicked has ended too.
    while connections.join_next().await.is_some() {}
}

/// Serves one connection to its end.
async fn attend(stream: TcpStream, router: Router, shutdown: Shutdown) {
    // Answers are small and whole: waiting for more of them would only make them late.
    let _ = stream.set_nodelay(true);
    let begun = Arc::new(AtomicBool::new(false));
    let (routes, has_begun) = (TowerToHyperService::new(router), Arc::clone(&begun));
    let service = service_fn(move |request| {
        has_begun.store(true, Ordering::Relaxed);
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(Impatient::new(stream)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.stopped() => {
            // Of a first request that is still being sent nothing was accepted; hyper would wait for its head.
            if !begun.load(Ordering::Relaxed) {
                return;
            }
            connection.as_mut().graceful_shutdown();
            let Ok(ended) = tokio::time::timeout(END_TIMEOUT, connection).await else { return };
            ended
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::{Body, Bytes};
    use axum::routing::get;
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::{mpsc, oneshot};

    use super::impatient::TAKE_WITHIN;
    use super::*;

    const WHOLE: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    async fn served(router: Router) -> (std::net::SocketAddr, Shutdown, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), Shutdown::new());
        (address, shutdown.clone(), tokio::spawn(serve(listener, router, shutdown)))
    }

    /// A connection over which this was sent.
    async fn sent(address: std::net::SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// All that comes until the other side ends the connection.
    async fn rest(mut stream: TcpStream) -> String {
        let mut text = String::new();
        // A connection that is reset ends too.
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_arrive_in_time_ends_its_connection() {
        let (address, ..) = served(Router::new().route("/", get(|| async { "answer" }))).await;
        for begin in ["", "G", "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ", "PRI * HTTP/2.0\r\n\r\n"] {
            let before = tokio::time::Instant::now();
            let text = rest(sent(address, begin).await).await;
            assert!(!text.contains("answer") && before.elapsed() < HEAD_TIMEOUT * 2, "{begin:?}: {text}");
        }
        let text = rest(sent(address, WHOLE).await).await;
        assert!(text.ends_with("answer"), "a connection that is kept unused ends too: {text}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_ends_with_its_connection() {
        let (bodies, mut made) = mpsc::channel(1);
        // Without an end, so that no system has a buffer for all of it.
        let endless = move || async move {
            let (held, gone) = oneshot::channel::<()>();
            bodies.send(gone).await.unwrap();
            let chunks = stream::repeat_with(move || {
                let _held = &held;
                Ok::<_, Infallible>(Bytes::from_static(&[0; 64 * 1024]))
            });
            Body::from_stream(chunks)
        };
        let (address, ..) = served(Router::new().route("/", get(endless))).await;
        let before = tokio::time::Instant::now();
        let unread = sent(address, WHOLE).await;
        let gone = made.recv().await.unwrap();
        let ended = tokio::time::timeout(TAKE_WITHIN * 2, gone).await;
        assert!(ended.is_ok_and(|held| held.is_err()), "the answer is still held");
        assert!(before.elapsed() >= TAKE_WITHIN, "{:?}", before.elapsed());
        drop(unread);
    }

    #[tokio::test]
    async fn a_stop_waits_for_requests_in_flight_and_for_nothing_else() {
        let (begins, mut begun) = mpsc::channel(1);
        let end = Shutdown::new();
        let handler = {
            let end = end.clone();
            move || async move {
                begins.send(()).await.unwrap();
                end.stopped().await;
                "answer"
            }
        };
        let idle = get(|| async { "idle" });
        let (address, shutdown, serving) =
            served(Router::new().route("/", get(handler)).route("/idle", idle)).await;
        let silent = sent(address, "").await;
        let half = sent(address, "POST / HTTP/1.1\r\nHost").await;
        let mut kept = sent(address, "GET /idle HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut answer = vec![0; 15];
        kept.read_exact(&mut answer).await.unwrap();
        let in_flight = sent(address, WHOLE).await;
        begun.recv().await.unwrap();

        shutdown.stop();
        for stream in [silent, half, kept] {
            rest(stream).await;
        }
        assert!(!serving.is_finished());
        end.stop();
        let text = rest(in_flight).await;
        assert!(text.ends_with("answer"), "{text}");
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "no new connection is taken");
    }
}
