//! A customer's endpoint: a real HTTP server that records every request and answers by a script.
//!
//! Written down to the bytes, since it must also do what no HTTP library lets a server do: say nothing,
//! break off, drip.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::wait::PATIENCE;

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Request {
    /// `POST`, as a rule.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The headers, their names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// When it had arrived whole.
    pub at: Instant,
    /// The same by the clock.
    pub time: OffsetDateTime,
    /// Which of the receiver's connections it came by, from 0.
    pub connection: usize,
    /// The status that it was answered with; 0 where it was not answered.
    pub answered: u16,
    /// Requests that this receiver was busy with, this one included.
    pub in_flight: usize,
}

impl Request {
    /// The first header of that name (in lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(header, _)| header == name)?;
        Some(value)
    }

    /// The `webhook-id`; fails the test where there is none.
    #[must_use]
    pub fn id(&self) -> &str {
        self.header("webhook-id").expect("every delivery has a webhook-id")
    }

    /// The body as JSON; fails the test where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// The id of the event that a `standard` or `cloudevents` delivery carries.
    #[must_use]
    pub fn event_id(&self) -> String {
        self.json()["id"].as_str().expect("the body has the event's id").to_owned()
    }
}

/// What the receiver does with a request.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
    after: Duration,
    /// Not before this is true.
    when: Option<watch::Receiver<bool>>,
    manner: Manner,
}

#[derive(Debug, Clone)]
enum Manner {
    /// At once, whole.
    Whole,
    /// Not at all, with the connection open.
    Never,
    /// The connection is closed instead.
    BreakOff,
    /// These bytes, and then the others again and again with this pause, for as long as somebody reads.
    Endless { first: Bytes, again: Bytes, every: Duration },
}

impl Answer {
    /// An answer of this status, at once.
    #[must_use]
    pub fn status(status: u16) -> Self {
        let (headers, body) = (Vec::new(), Bytes::new());
        Self { status, headers, body, after: Duration::ZERO, when: None, manner: Manner::Whole }
    }

    /// With a header more.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// After so much time.
    #[must_use]
    pub fn after(mut self, time: Duration) -> Self {
        self.after = time;
        self
    }

    /// When the test says so, by making this true.
    #[must_use]
    pub fn when(mut self, said: &watch::Sender<bool>) -> Self {
        self.when = Some(said.subscribe());
        self
    }

    /// None: the request hangs until its sender gives up.
    #[must_use]
    pub fn never() -> Self {
        Self { manner: Manner::Never, ..Self::status(0) }
    }

    /// One without an end: `first`, and then `again` every so often until the connection is closed. Both are
    /// as on the wire.
    #[must_use]
    pub fn endless(first: &str, again: &str, every: Duration) -> Self {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        Self {
            manner: Manner::Endless { first: bytes(first), again: bytes(again), every },
            ..Self::status(0)
        }
    }

    /// None: the connection is closed.
    #[must_use]
    pub fn break_off() -> Self {
        Self { manner: Manner::BreakOff, ..Self::status(0) }
    }
}

type Script = dyn Fn(&Request, &[Request]) -> Answer + Send + Sync;

/// A running server. It goes on when this is dropped, so that what arrives at a test's end is answered too.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Box<Script>,
    requests: Mutex<Vec<Request>>,
    /// How many of them those that wait have been told of.
    count: watch::Sender<usize>,
    in_flight: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Receiver {
    /// One that answers 200 to everything.
    pub async fn healthy() -> Self {
        Self::start(|_, _| Answer::status(200)).await
    }

    /// One that gives these answers in turn, and then the last for ever.
    pub async fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let answers: Vec<_> = answers.into_iter().collect();
        let last = answers.len().checked_sub(1).expect("a script has an answer");
        Self::start(move |_, before| answers[before.len().min(last)].clone()).await
    }

    /// One that does as the script says, which is told the request and those that came before it.
    pub async fn start(script: impl Fn(&Request, &[Request]) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            requests: Mutex::default(),
            count: watch::Sender::new(0),
            in_flight: AtomicUsize::new(0),
        });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared }
    }

    /// The URL of a path of this receiver.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Everything that has arrived so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many have arrived.
    #[must_use]
    pub fn count(&self) -> usize {
        // Not by the count, which is told a moment after.
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits for at least so many requests.
    pub async fn wait_for(&self, count: usize) -> Vec<Request> {
        self.wait_within(PATIENCE, count).await
    }

    /// Waits for at least so many requests, for so long.
    pub async fn wait_within(&self, limit: Duration, count: usize) -> Vec<Request> {
        let mut seen = self.shared.count.subscribe();
        if tokio::time::timeout(limit, seen.wait_for(|seen| *seen >= count)).await.is_err() {
            panic!("waited {limit:?} for {count} requests, and {} came", self.count());
        }
        self.requests()
    }

    /// Waits until the condition holds for what has arrived.
    pub async fn wait_until(
        &self,
        limit: Duration,
        what: &str,
        condition: impl Fn(&[Request]) -> bool,
    ) -> Vec<Request> {
        let mut seen = self.shared.count.subscribe();
        let wait = seen
            .wait_for(|_| condition(&self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner)));
        if tokio::time::timeout(limit, wait).await.is_err() {
            panic!("waited {limit:?} in vain, and {} requests came: {what}", self.count());
        }
        self.requests()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    for number in 0.. {
        let Ok((stream, _)) = listener.accept().await else { return };
        connections.spawn(serve(stream, number, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

/// One connection, until either side closes it.
async fn serve(stream: TcpStream, connection: usize, shared: Arc<Shared>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read(&mut stream, connection).await? {
        let in_flight = InFlight::enter(&shared);
        request.in_flight = in_flight.1;
        let answer = {
            let mut requests = shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = (shared.script)(&request, &requests);
            request.answered = answer.status;
            requests.push(request);
            answer
        };
        shared.count.send_modify(|count| *count += 1);
        tokio::time::sleep(answer.after).await;
        if let Some(said) = &answer.when {
            // The error means that the test is over.
            let _ = said.clone().wait_for(|said| *said).await;
        }
        match &answer.manner {
            Manner::Whole => {}
            Manner::BreakOff => return Ok(()),
            Manner::Endless { first, again, every } => {
                stream.get_mut().write_all(first).await?;
                loop {
                    tokio::time::sleep(*every).await;
                    stream.get_mut().write_all(again).await?;
                }
            }
            Manner::Never => {
                let _ = stream.read_u8().await;
                return Ok(());
            }
        }
        // No longer in flight when the other side can know.
        drop(in_flight);
        stream.get_mut().write_all(&write(&answer)).await?;
    }
    Ok(())
}

/// Counts a request as in flight until it is dropped.
struct InFlight<'a>(&'a AtomicUsize, usize);

impl<'a> InFlight<'a> {
    fn enter(shared: &'a Shared) -> Self {
        let before = shared.in_flight.fetch_add(1, Ordering::SeqCst);
        Self(&shared.in_flight, before + 1)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The next request, or none when the connection has ended.
async fn read(stream: &mut BufReader<TcpStream>, connection: usize) -> std::io::Result<Option<Request>> {
    let mut first = String::new();
    if stream.read_line(&mut first).await? == 0 {
        return Ok(None);
    }
    let mut words = first.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or_default();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let (at, time) = (Instant::now(), OffsetDateTime::now_utc());
    Ok(Some(Request {
        method,
        path,
        headers,
        body: body.into(),
        at,
        time,
        connection,
        answered: 0,
        in_flight: 0,
    }))
}

fn write(answer: &Answer) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} Said\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    [head.as_bytes(), &answer.body].concat()
}
