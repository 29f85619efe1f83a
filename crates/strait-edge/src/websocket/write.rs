//! The direction from an exchange into a socket.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use strait_engine::{BoxBody, Fault, Part, fault};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::half::{Half, poll_read_into};
use crate::websocket::frame::Writer;

/// Frames that are ready together share a write up to this size.
const BATCH: usize = 32 << 10;

/// How long a visitor has to take note of a close frame.
const LINGER: Duration = Duration::from_secs(1);

/// Writes the frames of a body to a socket.
pub(crate) struct Pump {
    half: Half,
    writer: Writer,
    /// What is to be written next.
    out: BytesMut,
    /// A large payload, which goes after it.
    large: Bytes,
    /// Something was written and not flushed.
    unflushed: bool,
}

/// Why a pump stopped.
pub(crate) enum End {
    /// A close frame was written.
    Closed,
    /// The body ended without one.
    Ended,
    /// The body was cut.
    Fault(Fault),
    /// The socket is broken.
    Broken(io::Error),
}

impl Pump {
    pub(crate) fn new(half: Half, writer: Writer) -> Pump {
        Pump { half, writer, out: BytesMut::new(), large: Bytes::new(), unflushed: false }
    }

    /// Writes what `body` gives until its end or a close frame. May be dropped at any time.
    pub(crate) async fn run(&mut self, body: &mut BoxBody) -> End {
        let mut end = None;
        let ended = poll_fn(|cx| {
            loop {
                if end.is_some() || !self.large.is_empty() || self.out.len() >= BATCH {
                    ready!(self.poll_flush(cx))?;
                }
                if let Some(end) = end.take() {
                    return Poll::Ready(Ok(end));
                }
                match body.poll_part(cx) {
                    // More that is ready goes with the same write.
                    Poll::Ready(part) => end = self.take(part),
                    Poll::Pending => {
                        ready!(self.poll_flush(cx))?;
                        return Poll::Pending;
                    }
                }
            }
        });
        ended.await.unwrap_or_else(End::Broken)
    }

    /// Takes one part; `Some` when the body is over.
    fn take(&mut self, part: Option<Result<Part, Fault>>) -> Option<End> {
        match part {
            Some(Ok(Part::Data(data))) => match self.writer.put(data, &mut self.out) {
                Ok(large) => {
                    self.large = large.unwrap_or_default();
                    self.writer.is_over().then_some(End::Closed)
                }
                Err(fault) => Some(End::Fault(fault)),
            },
            Some(Ok(Part::Trailers(_))) => None,
            Some(Err(fault)) => Some(End::Fault(fault)),
            None => Some(End::Ended),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.out.has_remaining() || self.large.has_remaining() {
            let half = Pin::new(&mut self.half);
            let both = [IoSlice::new(&self.out), IoSlice::new(&self.large)];
            let written = match self.large.is_empty() {
                true => ready!(half.poll_write(cx, &self.out))?,
                false => ready!(half.poll_write_vectored(cx, &both))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            let of_out = written.min(self.out.len());
            self.out.advance(of_out);
            self.large.advance(written - of_out);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.half).poll_flush(cx))?;
            self.unflushed = false;
            // Idle sockets hold no buffer.
            (self.out, self.large) = (BytesMut::new(), Bytes::new());
        }
        Poll::Ready(Ok(()))
    }

    async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Tells the peer why with a close frame, where one may be written: not within a
    /// frame, and not when the other end vanished without one. Then the cut itself is
    /// what the peer sees.
    pub(crate) async fn close_for(&mut self, fault: &Fault) {
        let code = fault.face().close;
        if code != fault::NO_CLOSE_FRAME {
            self.close(code).await;
        }
    }

    /// Writes a close frame, where one may be written.
    pub(crate) async fn close(&mut self, code: u16) {
        if !self.writer.at_boundary() {
            return;
        }
        let closing = async {
            self.flush().await?;
            self.writer.close(code, &mut self.out);
            self.flush().await
        };
        let _ = tokio::time::timeout(LINGER, closing).await;
    }

    /// Ends the write side and waits shortly for the peer to have read everything.
    pub(crate) async fn shutdown(mut self) {
        let linger = async {
            let _ = self.half.shutdown().await;
            let mut input = BytesMut::new();
            while let Ok(1..) =
                poll_fn(|cx| poll_read_into(&mut self.half, &mut input, usize::MAX, cx)).await
            {
                input.clear();
            }
        };
        let _ = tokio::time::timeout(LINGER, linger).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Conn, Stream};
    use crate::websocket::frame::Rules;
    use strait_engine::{Body, Data, MessageStart, Reason};
    use tokio::io::AsyncReadExt;

    /// A body of one frame that does not end.
    struct One(Option<Data>);

    impl Body for One {
        fn poll_part(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
            self.0.take().map_or(Poll::Pending, |data| Poll::Ready(Some(Ok(Part::Data(data)))))
        }
    }

    #[tokio::test]
    async fn what_was_interrupted_is_written_before_the_close_frame() {
        const LENGTH: usize = 1 << 20;
        let (near, mut far) = tokio::net::UnixStream::pair().unwrap();
        let half = Half::new(Conn::new(Stream::Unix(near), Bytes::new()));
        let rules = Rules::new(false, LENGTH as u64, Reason::Protocol);
        let mut pump = Pump::new(half, Writer::new(rules, false));
        let start = Some(MessageStart { tag: 0x82, length: LENGTH as u64 });
        let bytes = Bytes::from(vec![7; LENGTH]);
        let mut body: BoxBody = Box::new(One(Some(Data { bytes, start, ends_message: true })));
        // Nobody reads: the socket takes a part of it.
        let run = tokio::time::timeout(Duration::from_millis(50), pump.run(&mut body));
        assert!(run.await.is_err());
        let mut came = Vec::new();
        let closing = async {
            pump.close(1001).await;
            pump.shutdown().await;
        };
        let (_, read) = tokio::join!(closing, far.read_to_end(&mut came));
        read.unwrap();
        assert_eq!(came[..10], [0x82, 127, 0, 0, 0, 0, 0, 0x10, 0, 0]);
        assert!(came[10..10 + LENGTH].iter().all(|byte| *byte == 7));
        assert_eq!(came[10 + LENGTH..], [0x88, 2, 0x03, 0xE9]);
    }
}
