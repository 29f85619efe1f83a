//! The transport of a tunnel: one gRPC call over one HTTP/2 connection.
//!
//! The call's body pulls its frames from the session, so there is no queue between the
//! scheduler and HTTP/2, and what lies below is kept small: a buffer that the scheduler
//! cannot reorder is delay for everybody.

pub(crate) mod accept;
#[cfg(test)]
mod delay;
pub(crate) mod dial;
mod near;
mod outgoing;
mod received;
mod stranger;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::HeaderValue;
use socket2::SockRef;
use strait_engine::{Share, Turns};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::Status;

use near::{Distance, OverTcp, keep_short};
pub(crate) use outgoing::Outgoing;
pub(crate) use received::Received;

/// The one method of the service `strait.v1.Tunnel`.
pub(crate) const PATH: &str = "/strait.v1.Tunnel/Proxy";

/// HTTP/2 flow control shall never be what stops a tunnel: the reader always drains, and
/// credit bounds what can be sent. h2 also ends connections whose window is small when
/// many small frames wait unread.
pub(crate) const WINDOW: u32 = 16 * 1024 * 1024;

/// Largest HTTP/2 frame: one write each, so bulk wants it large. A full piece fits in with what
/// is around it, so that it arrives in one block.
pub(crate) const FRAME: u32 = 65 * 1024;

/// Bytes that HTTP/2 may hold back for writing.
pub(crate) const SEND_BUFFER: usize = 16 * 1024;

/// Bytes that are packed into one HTTP/2 write, as long as no message has so many.
const PACK: usize = 16 * 1024;

/// Bytes before each message of a gRPC call: a flag and the length.
const PREFIX: usize = 5;

/// What the bodies of gRPC calls are.
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// Bytes in the socket that the kernel has not sent: beyond this it reports "full".
const NOT_SENT: u32 = 16 * 1024;

/// Unacknowledged data for so long means that the path is dead.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Sets up a tunnel's socket. None of the options is essential.
pub(crate) fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let outcomes = [
        socket.set_tcp_nodelay(true),
        socket.set_tcp_notsent_lowat(NOT_SENT),
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT)),
    ];
    for error in outcomes.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "a socket option is not available");
    }
}

/// A connection that hands out its bytes in shares: what HTTP/2 reads in one go keeps every
/// other task of its thread waiting.
pub(crate) struct Shared<T> {
    io: T,
    share: Share,
    /// Until it is known that the peer is near.
    distance: Option<Arc<Distance>>,
}

impl<T> Shared<T> {
    pub(crate) fn new(io: T, distance: &Arc<Distance>) -> Shared<T> {
        Shared { io, share: Share::of_tunnel(), distance: Some(Arc::clone(distance)) }
    }
}

impl<T: AsyncRead + OverTcp + Unpin> AsyncRead for Shared<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.share.poll_turn(&Turns::NONE, cx));
        if self.distance.take_if(|distance| distance.is_near()).is_some() {
            keep_short(self.io.tcp());
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        match read {
            Poll::Ready(_) => self.share.spend(buf.filled().len() - before),
            Poll::Pending => self.share.rest(),
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Shared<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A gRPC status for a log line: its code and message.
pub(crate) fn told(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// The deepest cause of `error`, for a log line.
pub(crate) fn deepest(error: &dyn Error) -> String {
    let mut deepest = error;
    while let Some(deeper) = deepest.source() {
        deepest = deeper;
    }
    // Libraries append addresses of their manuals, which help nobody here.
    deepest.to_string().split(": https://").next().unwrap_or_default().to_owned()
}
