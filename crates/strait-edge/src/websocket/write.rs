//! The direction from an exchange into a socket.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use strait_engine::{BoxBody, Fault, Part, fault, next_part};
use tokio::io::AsyncWriteExt;

use crate::io::Half;
use crate::websocket::frame::Writer;
use crate::websocket::read::poll_read_into;

/// Frames that are ready together share a write up to this size.
const BATCH: usize = 32 << 10;

/// How long a visitor has to take note of a close frame.
const LINGER: Duration = Duration::from_secs(1);

/// Writes the frames of a body to a socket.
pub(crate) struct Pump {
    half: Half,
    writer: Writer,
    out: BytesMut,
    /// A write has begun and was not seen to end.
    writing: bool,
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
        Pump { half, writer, out: BytesMut::new(), writing: false }
    }

    /// Writes what `body` gives until its end or a close frame. May be dropped at any time.
    pub(crate) async fn run(&mut self, body: &mut BoxBody) -> End {
        loop {
            let mut part = next_part(body).await;
            let end = loop {
                match self.take(part).await {
                    Ok(None) if self.writer.is_over() => break Some(End::Closed),
                    Ok(None) if self.out.len() >= BATCH => break None,
                    Ok(None) => {}
                    Ok(end) => break end,
                    Err(error) => return End::Broken(error),
                }
                // More that is ready goes with the same write.
                part = match poll_fn(|cx| Poll::Ready(body.poll_part(cx))).await {
                    Poll::Ready(part) => part,
                    Poll::Pending => break None,
                };
            };
            if let Err(error) = self.flush().await {
                return End::Broken(error);
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Takes one part; `Some` when the body is over.
    async fn take(&mut self, part: Option<Result<Part, Fault>>) -> io::Result<Option<End>> {
        let data = match part {
            Some(Ok(Part::Data(data))) => data,
            Some(Ok(Part::Trailers(_))) => return Ok(None),
            Some(Err(fault)) => return Ok(Some(End::Fault(fault))),
            None => return Ok(Some(End::Ended)),
        };
        match self.writer.put(data, &mut self.out) {
            Ok(None) => Ok(None),
            Ok(Some(large)) => {
                self.flush().await?;
                self.writing = true;
                self.half.write_all(&large).await?;
                self.writing = false;
                Ok(None)
            }
            Err(fault) => Ok(Some(End::Fault(fault))),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.writing = true;
            let half = &mut self.half;
            half.write_all(&self.out).await?;
            half.flush().await?;
            self.writing = false;
            // Idle sockets hold no buffer.
            self.out = BytesMut::new();
        }
        Ok(())
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
        if !self.writing && self.writer.at_boundary() {
            self.writer.close(code, &mut self.out);
            let _ = tokio::time::timeout(LINGER, self.flush()).await;
        }
    }

    /// Ends the write side and waits shortly for the peer to have read everything.
    pub(crate) async fn shutdown(mut self) {
        let linger = async {
            let _ = self.half.shutdown().await;
            let mut input = BytesMut::new();
            while let Ok(1..) = poll_fn(|cx| poll_read_into(&mut self.half, &mut input, cx)).await {
                input.clear();
            }
        };
        let _ = tokio::time::timeout(LINGER, linger).await;
    }
}
