//! The one HTTP client that all deliveries go through, and the guard that none gets around.
//!
//! Every address that is connected to is vetted, each time: those that a name resolves to by the client's
//! own resolver, and one that stands in the URL itself before the request. No redirects, no proxies. Of an
//! answer at most 16 KiB are read, decompressed; whatever a receiver does, its request ends in time.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cuewire::delivery::{Answer, Failure, Outcome};
use cuewire::formats;
use cuewire::guard::{FORBIDDEN, Guard};
use cuewire::names::{self, Names};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{Client, Response, redirect};

use crate::targets::Target;

/// The resolution of its name included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const _: () = assert!(names::LONGEST.as_millis() < CONNECT_TIMEOUT.as_millis());
/// Of an answer's body no more is kept, and no more is read.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// Of an answer's headers no more are kept.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Idle connections to one host: enough for a busy webhook, few enough for ten thousand quiet ones.
const MAX_IDLE_PER_HOST: usize = 64;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_ERROR_BYTES: usize = 1_024;
const AGENT: &str = concat!("Cuewire/", env!("CARGO_PKG_VERSION"));

/// Sends requests to receivers. Clones share connections.
#[derive(Debug, Clone)]
pub struct Receivers {
    client: Client,
}

/// A name leads only to addresses where deliveries may not go. Which they are is for the operator's log: the
/// tenant must not learn what our resolver says.
#[derive(Debug, thiserror::Error)]
#[error("{name} leads to {FORBIDDEN}")]
struct Forbidden {
    name: String,
    address: IpAddr,
}

impl Receivers {
    /// A client that goes where `guard` permits.
    pub fn new(guard: Arc<Guard>) -> anyhow::Result<Self> {
        Self::asking(MachinesNames(Names::of_this_machine()?), guard)
    }

    /// A client that asks `names` for addresses.
    fn asking(names: impl Resolve + 'static, guard: Arc<Guard>) -> anyhow::Result<Self> {
        // An error means that a provider is installed already, and one is as good as another.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .dns_resolver(Arc::new(GuardedNames { names, guard }))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()?;
        Ok(Self { client })
    }

    /// Sends a request, and reads the answer.
    pub async fn post(&self, target: &Target, request: formats::Request) -> Outcome {
        let url = match &target.url {
            Ok(url) => url.clone(),
            Err(reason) => {
                return Outcome::Failed { kind: Failure::Blocked, error: format!("the URL {reason}") };
            }
        };
        let headers = headers(&request, target);
        let send = async {
            let response = self.client.post(url).headers(headers).body(request.body).send().await?;
            read_answer(response).await
        };
        match tokio::time::timeout(target.webhook.timeout, send).await {
            Ok(Ok(answer)) => Outcome::Answered(answer),
            Ok(Err(error)) => failure(&error),
            Err(_) => Outcome::Failed {
                kind: Failure::Timeout,
                error: format!("no complete answer within {:?}", target.webhook.timeout),
            },
        }
    }
}

/// The format's headers over the webhook's own.
fn headers(request: &formats::Request, target: &Target) -> HeaderMap {
    let mut headers = target.headers.clone();
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    let event_headers = request.event_headers.iter().map(|(name, value)| (name.as_str(), value));
    for (name, value) in request.headers.iter().map(|(name, value)| (*name, value)).chain(event_headers) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    headers
}

async fn read_answer(mut response: Response) -> reqwest::Result<Answer> {
    let status = response.status().as_u16();
    let mut left = MAX_HEADER_BYTES;
    let mut headers = Vec::with_capacity(response.headers().len());
    for (name, value) in response.headers() {
        let size = name.as_str().len() + value.len();
        if size <= left {
            left -= size;
            headers.push((name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes())));
        }
    }
    let mut body = BytesMut::new();
    while body.len() < MAX_BODY_BYTES
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk[..chunk.len().min(MAX_BODY_BYTES - body.len())]);
    }
    Ok(Answer { status, headers, body: body.freeze() })
}

fn failure(error: &reqwest::Error) -> Outcome {
    let causes = || std::iter::successors(error.source(), cause);
    // The innermost cause says what happened; the outer ones repeat the URL.
    let mut innermost = causes().last().map_or_else(|| error.to_string(), ToString::to_string);
    // A receiver may have a say in it, and it travels in a message's header.
    innermost.truncate(innermost.floor_char_boundary(MAX_ERROR_BYTES));
    if let Some(Forbidden { name, address }) = causes().find_map(<dyn Error + 'static>::downcast_ref) {
        tracing::warn!(name, %address, "a webhook's name leads where deliveries may not go");
        return Outcome::Failed { kind: Failure::Blocked, error: innermost };
    }
    let (kind, what) = if error.is_timeout() {
        (Failure::Timeout, "no connection within the time for it")
    } else if error.is_connect() {
        (Failure::Connection, "no connection")
    } else {
        (Failure::Connection, "the connection broke off")
    };
    Outcome::Failed { kind, error: format!("{what}: {innermost}") }
}

fn cause<'a>(error: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    (*error).source()
}

/// Resolves names as this machine does.
struct MachinesNames(Names);

impl Resolve for MachinesNames {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.0.clone();
        Box::pin(async move {
            let addresses = names.addresses(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::from((address, 0)))) as Addrs)
        })
    }
}

/// Resolves names to those of their addresses that the guard permits.
struct GuardedNames<N> {
    names: N,
    guard: Arc<Guard>,
}

impl<N: Resolve> Resolve for GuardedNames<N> {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, asked) = (Arc::clone(&self.guard), name.as_str().to_owned());
        let resolving = self.names.resolve(name);
        Box::pin(async move {
            let resolved: Vec<SocketAddr> = resolving.await?.collect();
            let permitted: Vec<SocketAddr> =
                resolved.iter().copied().filter(|address| guard.permits(address.ip())).collect();
            match (permitted.is_empty(), resolved.first()) {
                (true, Some(address)) => Err(Forbidden { name: asked, address: address.ip() }.into()),
                _ => Ok(Box::new(permitted.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const PUBLIC: [u8; 4] = [127, 0, 0, 2];
    const PRIVATE: [u8; 4] = [127, 0, 0, 1];

    /// Names whose address changes: these, one after another.
    struct Rebinding(Mutex<VecDeque<Vec<[u8; 4]>>>);

    impl Resolve for Rebinding {
        fn resolve(&self, _: Name) -> Resolving {
            let next = self.0.lock().unwrap().pop_front().expect("no more is asked for");
            let addresses = next.into_iter().map(|address| SocketAddr::from((address, 0)));
            Box::pin(async { Ok(Box::new(addresses) as Addrs) })
        }
    }

    /// A receiver that ends each connection with its first answer, and how many have come to it.
    async fn receiver(address: impl Into<SocketAddr>) -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind(address.into()).await.unwrap();
        let (port, count) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 204 None\r\nconnection: close\r\n\r\n").await;
            }
        });
        (port, count)
    }

    #[tokio::test]
    async fn a_name_is_vetted_by_what_it_leads_to_when_it_is_sent_to() {
        let (port, public) = receiver((PUBLIC, 0)).await;
        let (_, private) = receiver((PRIVATE, port)).await;
        let answers = [vec![PUBLIC], vec![PRIVATE], vec![PRIVATE, PUBLIC], vec![PRIVATE]];
        let guard = Guard::read("127.0.0.2/32").unwrap();
        let receivers = Receivers::asking(Rebinding(Mutex::new(answers.into())), Arc::new(guard)).unwrap();
        let url = format!("http://hooks.example:{port}/");
        for permitted in [true, false, true, false] {
            let sent = receivers.client.post(&url).send().await;
            match sent {
                Ok(response) => assert!(permitted && response.status() == 204),
                Err(error) => {
                    let Outcome::Failed { kind: Failure::Blocked, error } = failure(&error) else {
                        panic!("{error:?}")
                    };
                    assert!(!permitted && error == format!("hooks.example leads to {FORBIDDEN}"), "{error}");
                }
            }
        }
        assert_eq!((public.load(Ordering::SeqCst), private.load(Ordering::SeqCst)), (2, 0));
    }
}
