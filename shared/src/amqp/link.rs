//! A connection together with its socket, which is closed when nobody holds the connection any more.
//!
//! lapin drives each connection from a thread of its own, and that thread waits for the broker's word even when
//! nobody else does: a broker that takes connections and says nothing would keep a thread and a socket of every
//! attempt, until there are none left.

use std::net::{Shutdown, TcpStream};
use std::ops::Deref;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use async_rs::traits::Reactor;
use async_rs::{Runtime, TokioRuntime};
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};

type Stream = AsyncTcpStream<<TokioRuntime as Reactor>::TcpStream>;

/// A connection to the broker, on a socket that is closed when this is dropped.
#[derive(Debug)]
pub struct Link {
    connection: Connection,
    _socket: Socket,
}

impl Link {
    /// Connects. Given up half-way, it leaves nothing.
    pub(super) async fn make(uri: AMQPUri, properties: ConnectionProperties) -> lapin::Result<Self> {
        let runtime = Runtime::tokio_current();
        let stream = uri.connect_async(&runtime).await?;
        let socket = Socket::of(&stream)?;
        let stream = Mutex::new(Some(stream));
        // Asked for again, the socket is closed: this attempt is over.
        let connect = async move |_, _| {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            stream.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into())
        };
        let connection = Connection::connector(uri, runtime, connect, properties).await?;
        Ok(Self { connection, _socket: socket })
    }
}

impl Deref for Link {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// A handle of a stream's socket.
#[derive(Debug)]
struct Socket(TcpStream);

impl Socket {
    fn of(stream: &Stream) -> std::io::Result<Self> {
        let tcp = match stream {
            AsyncTcpStream::Plain(tcp) => tcp,
            AsyncTcpStream::Rustls(tls) => tls.get_ref().0,
            _ => return Err(std::io::Error::from(std::io::ErrorKind::Unsupported)),
        };
        tcp.get_ref().as_fd().try_clone_to_owned().map(|socket| Self(socket.into()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // An error says that it is closed already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
