//! A connection whose directions live in different tasks, or wait in one.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::io::Conn;

thread_local! {
    // Shared by all connections of a thread: one that is idle holds no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 32 << 10].into());
}

/// One of several handles to a connection whose directions live in different tasks.
#[derive(Clone)]
pub(crate) struct Half(Arc<Mutex<Conn>>);

impl Half {
    /// A first handle to `conn`.
    pub(crate) fn new(conn: Conn) -> Half {
        Half(Arc::new(Mutex::new(conn)))
    }

    /// The connection, when there is no other handle.
    pub(crate) fn into_conn(self) -> Option<Conn> {
        Arc::into_inner(self.0)
            .map(|conn| conn.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nobody waits for what comes, as far as its caller knows: see [`Conn::unattended`].
    pub(crate) fn unattended(&self) {
        self.lock().unattended();
    }

    /// See [`Conn::is_silent`].
    pub(crate) fn is_silent(&self) -> bool {
        self.lock().is_silent()
    }

    // Held for one poll of the socket, never over an await.
    fn lock(&self) -> MutexGuard<'_, Conn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Half {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Half {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(cx)
    }
}

/// Reads once, at most so many bytes; `Ok(0)` is the end.
pub(crate) fn poll_read_into(
    half: &mut Half,
    input: &mut BytesMut,
    most: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let most = most.min(scratch.len());
        let mut buf = ReadBuf::new(&mut scratch[..most]);
        ready!(Pin::new(half).poll_read(cx, &mut buf))?;
        if input.is_empty() {
            // A fresh buffer of the right size: the old one may live on in other pieces.
            *input = BytesMut::from(buf.filled());
        } else {
            input.extend_from_slice(buf.filled());
        }
        Poll::Ready(Ok(buf.filled().len()))
    })
}
