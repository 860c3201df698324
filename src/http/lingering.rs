//! Lingering close: an answer given before the whole request was read reaches its sender.
//!
//! A socket that is closed with bytes unread makes the kernel send a reset, which throws away the answer on its way: a proxy in front
//! says 502 where we said 413 or 401. So the write side is closed first, and what still comes is read and dropped for a short while.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// How long the rest of a request is waited for; as many connections as there may be can be held that long.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes dropped at a time.
const SCRATCH: usize = 4_096;

/// Whether the last request of a connection brought a body, which may not have been read.
#[derive(Clone, Debug, Default)]
pub(super) struct Unread(Arc<AtomicBool>);

impl Unread {
    /// Told of each request.
    pub(super) fn set(&self, has_body: bool) {
        self.0.store(has_body, Ordering::Relaxed);
    }
}

/// A connection that is closed in two steps.
#[derive(Debug)]
pub(super) struct Lingering {
    stream: TcpStream,
    unread: Unread,
    /// When it is cancelled nobody is waited for.
    stop: CancellationToken,
    end: Option<Pin<Box<Sleep>>>,
}

impl Lingering {
    pub(super) fn new(stream: TcpStream, unread: Unread, stop: CancellationToken) -> Self {
        Self { stream, unread, stop, end: None }
    }
}

impl AsyncRead for Lingering {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, unread, stop, end } = &mut *self;
        if end.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
        }
        if !unread.0.load(Ordering::Relaxed) || stop.is_cancelled() {
            return Poll::Ready(Ok(()));
        }
        let end = end.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut scratch = [0; SCRATCH];
        while end.as_mut().poll(context).is_pending() {
            let mut dropped = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut *stream).poll_read(context, &mut dropped));
            // The sender has read the answer and closed, or is gone.
            if read.is_err() || dropped.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}
