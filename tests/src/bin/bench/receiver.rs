//! A receiver that does as little as one can: it takes a request, notes the event's number and the time, and answers as
//! its hook is told to. Once a run has begun, what is not of that run is answered, and noted nowhere.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use uuid::Uuid;

/// How often it is looked whether everything has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What comes twice comes within this time, where nothing has crashed.
const FOR_COPIES: Duration = Duration::from_millis(250);

/// Which events belong together: those of one measurement, which their ids name. By default they are of none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Run(u64);

impl Run {
    pub(crate) fn new() -> Self {
        Self(Uuid::new_v4().as_u64_pair().0)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// How a hook answers while it is not well.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Manner {
    /// 200, at once, as all do that are well.
    Quick,
    /// 200, after this long.
    Slow(Duration),
    /// 500, at once.
    Failing,
    /// Never.
    Silent,
}

/// One URL of the receiver, which one webhook has.
#[derive(Debug)]
struct Hook {
    manner: Manner,
    is_well: AtomicBool,
    /// Requests that have come, whether they were answered or not.
    asked: AtomicUsize,
    book: Mutex<Book>,
}

/// What has come to a hook.
#[derive(Debug, Default)]
struct Book {
    /// Of every request that was answered.
    requests: Vec<Instant>,
    /// Of those that were answered with 200, by event.
    arrived: HashMap<usize, Vec<Instant>>,
}

/// The receiver. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Receiver {
    hooks: Arc<Vec<Hook>>,
    run: Arc<AtomicU64>,
    address: SocketAddr,
}

/// What is wrong with what arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reconciled {
    pub(crate) missing: usize,
    pub(crate) duplicates: usize,
}

impl Reconciled {
    /// Itself, where nothing is missing: a figure of what arrived alone would be too good.
    pub(crate) fn complete(self) -> anyhow::Result<Self> {
        anyhow::ensure!(self.missing == 0, "deliveries are missing: {self:?}");
        Ok(self)
    }

    /// As a note to a figure.
    pub(crate) fn note(self) -> String {
        format!("; {} missing, {} duplicates", self.missing, self.duplicates)
    }
}

impl std::ops::AddAssign for Reconciled {
    fn add_assign(&mut self, other: Self) {
        self.missing += other.missing;
        self.duplicates += other.duplicates;
    }
}

impl Receiver {
    /// Listens on a free port, with a hook for each of these manners.
    pub(crate) async fn start(manners: impl IntoIterator<Item = Manner>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let hook = |manner| Hook {
            manner,
            is_well: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
            book: Mutex::default(),
        };
        let hooks = Arc::new(manners.into_iter().map(hook).collect());
        let receiver = Self { hooks, run: Arc::default(), address: listener.local_addr()? };
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

    /// A hook's URL.
    pub(crate) fn url(&self, hook: usize) -> String {
        format!("http://{}/{hook}", self.address)
    }

    /// All URLs, in the order of the hooks.
    pub(crate) fn urls(&self) -> Vec<String> {
        (0..self.hooks.len()).map(|hook| self.url(hook)).collect()
    }

    async fn take(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let at = Instant::now();
        let number = request.uri().path().trim_start_matches('/').parse().unwrap_or(usize::MAX);
        let body =
            request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let Some(hook) = self.hooks.get(number) else { return Ok(answer(404)) };
        hook.asked.fetch_add(1, Ordering::Relaxed);
        let is_well = hook.is_well.load(Ordering::Relaxed);
        let status = match hook.manner {
            Manner::Quick => 200,
            _ if is_well => 200,
            Manner::Slow(wait) => {
                tokio::time::sleep(wait).await;
                200
            }
            Manner::Failing => 500,
            Manner::Silent => std::future::pending().await,
        };
        if let Some((run, event)) = event_of(&body) {
            let mut book = hook.book();
            if [run, Run::default()].contains(&self.run()) {
                book.requests.push(at);
                if status == 200 {
                    book.arrived.entry(event).or_default().push(at);
                }
            }
        }
        Ok(answer(status))
    }

    /// Waits until `events` have arrived at each of these hooks, and some time for those that come twice; or until nothing
    /// has for `patience`.
    pub(crate) async fn wait(&self, hooks: std::ops::Range<usize>, events: usize, patience: Duration) {
        let all = events * hooks.len();
        let mut progress = (0, Instant::now());
        loop {
            let arrived: usize =
                self.hooks[hooks.clone()].iter().map(|hook| hook.book().arrived.len().min(events)).sum();
            if arrived >= all {
                return tokio::time::sleep(FOR_COPIES).await;
            }
            if progress.1.elapsed() > patience {
                return;
            }
            if arrived > progress.0 {
                progress = (arrived, Instant::now());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What is missing of the events below `events` at these hooks, and what came more than once.
    pub(crate) fn reconcile(&self, hooks: std::ops::Range<usize>, events: usize) -> Reconciled {
        let mut reconciled = Reconciled::default();
        for hook in &self.hooks[hooks] {
            let book = hook.book();
            for event in 0..events {
                match book.arrived.get(&event).map_or(0, Vec::len) {
                    0 => reconciled.missing += 1,
                    copies => reconciled.duplicates += copies - 1,
                }
            }
        }
        reconciled
    }

    /// How long each event took to these hooks, in milliseconds, by when it was published.
    pub(crate) fn latencies_ms(&self, hooks: std::ops::Range<usize>, published: &[Instant]) -> Vec<f64> {
        let mut latencies = Vec::new();
        for hook in &self.hooks[hooks] {
            let book = hook.book();
            let took = |(event, at): (usize, &Instant)| Some(*book.arrived.get(&event)?.first()? - *at);
            latencies
                .extend(published.iter().enumerate().filter_map(took).map(|took| took.as_secs_f64() * 1e3));
        }
        latencies
    }

    /// When the last of what has arrived at these hooks did.
    pub(crate) fn last(&self, hooks: std::ops::Range<usize>) -> Option<Instant> {
        let last = |hook: &Hook| hook.book().arrived.values().flatten().max().copied();
        self.hooks[hooks].iter().filter_map(last).max()
    }

    /// When each request came to a hook that was answered, whatever the answer was.
    pub(crate) fn requests(&self, hook: usize) -> Vec<Instant> {
        self.hooks[hook].book().requests.clone()
    }

    /// How many requests have come to a hook, in whatever run, whether they were answered or not.
    pub(crate) fn asked(&self, hook: usize) -> usize {
        self.hooks[hook].asked.load(Ordering::Relaxed)
    }

    /// Begins a run: what has come is forgotten, and what comes late of another is noted no more.
    pub(crate) fn begin(&self) -> Run {
        let run = Run::new();
        self.note_only(run);
        run
    }

    /// What has come is forgotten, and whatever comes is noted until a run begins.
    pub(crate) fn note_all(&self) {
        self.note_only(Run::default());
    }

    fn note_only(&self, run: Run) {
        self.run.store(run.0, Ordering::Relaxed);
        for hook in &*self.hooks {
            *hook.book() = Book::default();
        }
    }

    fn run(&self) -> Run {
        Run(self.run.load(Ordering::Relaxed))
    }

    /// From now on these hooks answer 200 at once, or as their manner is.
    pub(crate) fn are_well(&self, hooks: std::ops::Range<usize>, are_well: bool) {
        for hook in &self.hooks[hooks] {
            hook.is_well.store(are_well, Ordering::Relaxed);
        }
    }
}

impl Hook {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(status: u16) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"ok")));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response
}

/// The run and the number in `"id":"bench-<run>-<number>"`.
fn event_of(body: &[u8]) -> Option<(Run, usize)> {
    let text = std::str::from_utf8(body).ok()?;
    let id = text.split_once("\"id\":\"bench-")?.1;
    let (run, number) = id.split_once('"')?.0.split_once('-')?;
    Some((Run(u64::from_str_radix(run, 16).ok()?), number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::event;

    #[test]
    fn an_event_tells_its_run_and_its_number() {
        let run = Run::new();
        assert_eq!(event_of(event(run, "organization", 17).as_bytes()), Some((run, 17)));
        assert_eq!(event_of(br#"{"id":"another-17"}"#), None);
    }

    #[tokio::test]
    async fn a_hook_that_is_not_well_takes_nothing_and_no_run_takes_what_is_anothers() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let receiver = Receiver::start([Manner::Failing]).await.unwrap();
        let client = reqwest::Client::new();
        let post = async |run| {
            let request = client.post(receiver.url(0)).body(event(run, "organization", 0));
            request.send().await.unwrap().status().as_u16()
        };
        let run = receiver.begin();
        assert_eq!(post(run).await, 500);
        receiver.are_well(0..1, true);
        assert_eq!(post(Run::new()).await, 200);
        assert_eq!(receiver.reconcile(0..1, 1), Reconciled { missing: 1, duplicates: 0 });
        assert_eq!((post(run).await, post(run).await), (200, 200));
        assert_eq!(receiver.reconcile(0..1, 1), Reconciled { missing: 0, duplicates: 1 });
        receiver.are_well(0..1, false);
        assert_eq!(post(run).await, 500);
        assert_eq!(receiver.requests(0).len(), 4, "of the run");
    }
}
