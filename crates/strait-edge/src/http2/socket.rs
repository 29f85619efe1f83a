//! A stream that an extended CONNECT has opened to a service, as a stream of bytes (RFC 8441 5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http2::sending::poll_room;

/// Both directions of a stream. Dropped before both have ended, it resets the stream.
pub(crate) struct Socket {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// What has come and was not read yet.
    ahead: Bytes,
    shut: bool,
}

impl Socket {
    pub(crate) fn new(send: SendStream<Bytes>, recv: RecvStream) -> Socket {
        Socket { send, recv, ahead: Bytes::new(), shut: false }
    }
}

/// The error of a connection, or that of a stream that was reset.
fn failed(error: h2::Error) -> io::Error {
    match error.into_io() {
        Some(error) => error,
        None => io::ErrorKind::ConnectionReset.into(),
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.ahead.is_empty() {
            match ready!(this.recv.poll_data(cx)) {
                Some(Ok(bytes)) => this.ahead = bytes,
                Some(Err(error)) if error.reason() == Some(h2::Reason::NO_ERROR) => break,
                Some(Err(error)) => return Poll::Ready(Err(failed(error))),
                None => break,
            }
        }
        let bytes = this.ahead.len().min(buf.remaining());
        buf.put_slice(&this.ahead[..bytes]);
        this.ahead.advance(bytes);
        // Fails only when the stream has ended, and nobody waits for room then.
        let _ = this.recv.flow_control().release_capacity(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if !ready!(poll_room(&mut self.send, buf.len(), cx)) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let bytes = self.send.capacity().min(buf.len());
        let sent = self.send.send_data(Bytes::copy_from_slice(&buf[..bytes]), false);
        Poll::Ready(sent.map(|()| bytes).map_err(|_| io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task writes whenever there is something.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.shut, true) {
            // Fails when the service has ended the stream already.
            let _ = self.send.send_data(Bytes::new(), true);
        }
        Poll::Ready(Ok(()))
    }
}
