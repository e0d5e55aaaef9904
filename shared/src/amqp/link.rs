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
        let (stream, socket) = open(&uri, &runtime).await?;
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

/// A stream to the broker, with TLS where the URL wants it, and its socket. What is written goes out at once: lapin
/// writes a message in several parts, of which the last would wait 40 ms for the broker's word (TCP_NODELAY).
async fn open(uri: &AMQPUri, runtime: &TokioRuntime) -> std::io::Result<(Stream, Socket)> {
    let stream = uri.connect_async(runtime).await?;
    let socket = Socket::of(&stream)?;
    Ok((stream, socket))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_to_the_broker_does_not_wait_for_its_word() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("amqp://u:p@{}/x", listener.local_addr().unwrap()).parse().unwrap();
        let (_stream, socket) = open(&uri, &Runtime::tokio_current()).await.unwrap();
        assert!(socket.0.nodelay().unwrap());
    }
}
