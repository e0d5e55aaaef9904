//! A proxy before a server, by which a test makes the server hang, or breaks its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use url::Url;

/// A running proxy. It goes on when this is dropped, so that services can still stop.
#[derive(Debug)]
pub struct Proxy {
    url: Url,
    silent: watch::Sender<bool>,
    cuts: watch::Sender<usize>,
    connections: watch::Receiver<usize>,
    open: Arc<AtomicUsize>,
}

impl Proxy {
    /// Before the server of this URL.
    pub async fn before(server: &str) -> Self {
        let mut url: Url = server.parse().expect("a server has a URL");
        let host = url.host_str().expect("a server's URL has a host").to_owned();
        let port = url.port().expect("the servers of tests have ports of their own");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address: SocketAddr = listener.local_addr().expect("it is bound");
        url.set_host(Some("127.0.0.1")).expect("it has a host");
        url.set_port(Some(address.port())).expect("it has a host");
        let (silent, cuts) = (watch::Sender::new(false), watch::Sender::new(0));
        let (accepted, connections) = watch::channel(0);
        let (hushed, cut) = (silent.subscribe(), cuts.subscribe());
        let open: Arc<AtomicUsize> = Arc::default();
        let opened = Arc::clone(&open);
        tokio::spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                accepted.send_modify(|count| *count += 1);
                opened.fetch_add(1, Ordering::SeqCst);
                let passed = pass(client, (host.clone(), port), hushed.clone(), cut.clone());
                let opened = Arc::clone(&opened);
                passing.spawn(async move {
                    let _ = passed.await;
                    opened.fetch_sub(1, Ordering::SeqCst);
                });
                while passing.try_join_next().is_some() {}
            }
        });
        Self { url, silent, cuts, connections, open }
    }

    /// The server's URL, by this way.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// From now on the server gets what it is sent, and nobody hears what it says.
    pub fn silence(&self) {
        self.silent.send_replace(true);
    }

    /// Lets through what the server has said meanwhile, and all that it says from now on.
    pub fn end_silence(&self) {
        self.silent.send_replace(false);
    }

    /// Breaks every connection.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// How many connections were made so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        *self.connections.borrow()
    }

    /// How many of them are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

/// One connection, until either side closes it, or it is cut.
async fn pass(
    client: TcpStream,
    server: (String, u16),
    silent: watch::Receiver<bool>,
    mut cut: watch::Receiver<usize>,
) -> std::io::Result<()> {
    cut.mark_unchanged();
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let (_, never) = watch::channel(false);
    tokio::select! {
        ended = pump(from_client, to_server, never) => ended,
        ended = pump(from_server, to_client, silent) => ended,
        _ = cut.changed() => Ok(()),
    }
}

/// Passes on bytes, while nobody is told to be silent.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut silent: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let bytes = from.read(&mut buffer).await?;
        if bytes == 0 {
            return Ok(());
        }
        // The error means that there is nobody any more who could say so.
        let _ = silent.wait_for(|silent| !silent).await;
        to.write_all(&buffer[..bytes]).await?;
    }
}
