//! A stream that ends when its other side stops taking what it is sent. Else an answer, the memory that it holds
//! and its connection could wait for their reader for ever.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Within which a reader must take [`MIN_BYTES`] of an answer, or all that is left of it. A system tells of room
/// for more only when a good part of its buffer is free, so that the slowest who mean well need this long.
pub(super) const TAKE_WITHIN: Duration = Duration::from_secs(60);
/// So that the largest answers, of some 16 MiB, end within hours, byte for byte though they be taken.
const MIN_BYTES: usize = 64 * 1024;

/// A stream and its patience.
pub(super) struct Impatient<S> {
    stream: S,
    waiting: Option<Waiting>,
}

/// The other side does not take all that there is for it.
struct Waiting {
    ends: Pin<Box<Sleep>>,
    taken: usize,
}

impl<S> Impatient<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, waiting: None }
    }

    /// What becomes of a write: one that finds no room may wait as long as the patience lasts.
    fn judge(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => {
                let begin = || Waiting { ends: Box::pin(tokio::time::sleep(TAKE_WITHIN)), taken: 0 };
                ready!(self.waiting.get_or_insert_with(begin).ends.as_mut().poll(cx));
                Poll::Ready(Err(ErrorKind::TimedOut.into()))
            }
            Poll::Ready(Ok(bytes)) => {
                if let Some(waiting) = &mut self.waiting {
                    waiting.taken += bytes;
                }
                self.waiting.take_if(|waiting| waiting.taken >= MIN_BYTES);
                written
            }
            Poll::Ready(Err(_)) => written,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Asked for when all has been written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waiting = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::time::Instant;

    use super::*;

    const BUFFER: usize = 16 * 1024;

    /// Reads so many bytes every so often, to the end.
    async fn read(mut stream: DuplexStream, at_a_time: usize, every: Duration) {
        let mut buffer = vec![0; at_a_time];
        while stream.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {
            tokio::time::sleep(every).await;
        }
    }

    /// Writes so many bytes to somebody who reads like this; how it ends, and after which time.
    async fn written(bytes: usize, at_a_time: usize, every: Duration) -> (io::Result<()>, Duration) {
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let (begun, mut stream) = (Instant::now(), Impatient::new(ours));
        tokio::spawn(read(theirs, at_a_time, every));
        let result = async {
            stream.write_all(&vec![0; bytes]).await?;
            stream.flush().await
        };
        (result.await, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_little_by_little_gets_all_and_who_takes_too_little_nothing_more() {
        let (hour, second) = (Duration::from_secs(60 * 60), Duration::from_secs(1));
        let (result, took) = written(20 * BUFFER, BUFFER, second * 10).await;
        assert!(result.is_ok() && took > TAKE_WITHIN * 2, "{result:?} after {took:?}");
        for (at_a_time, every) in [(1, hour), (1, second), (BUFFER, second * 25)] {
            let (result, took) = written(20 * BUFFER, at_a_time, every).await;
            assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
            assert_eq!(took.as_secs(), TAKE_WITHIN.as_secs(), "{at_a_time} bytes every {every:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_whole_leaves_no_haste_behind() {
        let (ours, mut theirs) = tokio::io::duplex(BUFFER);
        let mut stream = Impatient::new(ours);
        let mut buffer = vec![0; BUFFER + 1];
        for _ in 0..3 {
            let send = async {
                stream.write_all(&vec![0; BUFFER + 1]).await.unwrap();
                stream.flush().await.unwrap();
            };
            let take = async {
                tokio::time::sleep(TAKE_WITHIN - Duration::from_secs(1)).await;
                theirs.read_exact(&mut buffer).await.unwrap();
            };
            tokio::join!(send, take);
        }
    }
}
