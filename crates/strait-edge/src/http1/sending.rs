//! A request on its way to a service.

use std::fmt::Write;
use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderName;
use strait_engine::{BoxBody, EmptyBody, Fault, Reason};
use tokio::io::AsyncWrite;

use crate::half::Half;
use crate::http::body::Plain;
use crate::http::upload::Upload;
use crate::http1::request::write_trailers;

/// How much of a body's piece goes into one buffer with what stands before and behind it, in
/// bytes: copying it costs less than telling the kernel of three.
const SMALL: usize = 1 << 10;

/// A request that is written: its head, and its body as it comes.
pub(crate) struct Sending {
    /// The head, and what stands before a piece.
    front: BytesMut,
    piece: Bytes,
    /// What stands behind the piece.
    back: &'static [u8],
    body: Option<Source>,
    /// The body was asked for what shall go with the head.
    asked: bool,
    /// Something was taken from the body.
    taken: bool,
    /// Bytes were written.
    begun: bool,
}

/// The body of a request and how it is framed.
struct Source {
    plain: Plain,
    upload: Arc<Upload>,
    chunked: bool,
    announced: Vec<HeaderName>,
}

impl Source {
    /// The fault that cut it.
    fn cut(&self) -> Fault {
        self.upload.fault().unwrap_or_else(|| Fault::new(Reason::Internal))
    }
}

/// How writing came to its end.
#[derive(Debug)]
pub(crate) enum Sent {
    /// All of it is written.
    Whole,
    /// The service takes no more. What it says is for the reader to find: one that answers early
    /// and closes has its answer waiting there.
    Broken,
}

impl Sending {
    /// A request whose head is this, without a body.
    pub(crate) fn new(head: BytesMut) -> Sending {
        Sending {
            front: head,
            piece: Bytes::new(),
            back: b"",
            body: None,
            asked: false,
            taken: false,
            begun: false,
        }
    }

    /// Adds a body that is observed through `upload`. Of its trailer fields those are sent that
    /// the head has `announced`.
    pub(crate) fn follow(
        &mut self,
        plain: Plain,
        upload: Arc<Upload>,
        chunked: bool,
        announced: Vec<HeaderName>,
    ) {
        self.body = Some(Source { plain, upload, chunked, announced });
    }

    /// Whether bytes of it were written.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Writes on; pending while the service takes no more, or the body has no more at the moment.
    ///
    /// # Errors
    /// The fault that cut the body.
    pub(crate) fn poll(
        &mut self,
        half: &mut Half,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Sent, Fault>> {
        loop {
            let silent = self.take(cx)?.is_pending();
            if !self.is_written() {
                match ready!(self.write(half, cx)) {
                    Ok(()) => continue,
                    Err(_) => return Poll::Ready(Ok(Sent::Broken)),
                }
            }
            // Under TLS bytes may wait for their record to be written.
            if ready!(Pin::new(&mut *half).poll_flush(cx)).is_err() {
                return Poll::Ready(Ok(Sent::Broken));
            }
            if silent {
                return Poll::Pending;
            }
            if self.body.is_none() {
                return Poll::Ready(Ok(Sent::Whole));
            }
        }
    }

    /// Writes the rest in a task of its own, until nobody wants it.
    pub(crate) async fn rest(mut self, mut half: Half, upload: Arc<Upload>) -> Result<Sent, Fault> {
        poll_fn(|cx| {
            if upload.is_aborted(cx) {
                self.give_up();
                return Poll::Ready(Ok(Sent::Broken));
            }
            self.poll(&mut half, cx)
        })
        .await
    }

    /// The rest is not wanted: the answer is over.
    pub(crate) fn give_up(&mut self) {
        if let Some(body) = &mut self.body {
            body.upload.abort();
            // It tells its source.
            let _ = body.plain.poll_frame(&mut Context::from_waker(Waker::noop()));
        }
        self.body = None;
    }

    /// The body, when nothing of the request was used.
    pub(crate) fn into_body(self) -> Option<BoxBody> {
        match self.body {
            _ if self.begun || self.taken => None,
            None => Some(Box::new(EmptyBody)),
            Some(body) => Some(body.plain.into_body()),
        }
    }

    fn is_written(&self) -> bool {
        self.front.is_empty() && self.piece.is_empty() && self.back.is_empty()
    }

    /// Takes the next piece of the body when the last one is written. Pending when there is none
    /// at the moment.
    fn take(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        // What goes with the head, and then one piece at a time.
        let idle = self.front.is_empty() && self.piece.is_empty() && self.back.is_empty();
        if std::mem::replace(&mut self.asked, true) && !idle {
            return Poll::Ready(Ok(()));
        }
        let frame = ready!(body.plain.poll_frame(cx)).transpose().map_err(|_| body.cut())?;
        self.taken = true;
        let chunked = body.chunked;
        let ends = frame.is_none() || body.plain.is_end();
        match frame.map(http_body::Frame::into_data) {
            Some(Ok(piece)) => {
                if chunked {
                    // Never fails on memory.
                    let _ = write!(self.front, "{:x}\r\n", piece.len());
                    self.back = if ends { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                }
                self.piece = piece;
            }
            Some(Err(frame)) => {
                if let (true, Ok(trailers)) = (chunked, frame.into_trailers()) {
                    self.front.extend_from_slice(b"0\r\n");
                    write_trailers(&mut self.front, &trailers, &body.announced);
                    self.front.extend_from_slice(b"\r\n");
                }
                self.body = None;
                return Poll::Ready(Ok(()));
            }
            None if chunked => self.back = b"0\r\n\r\n",
            None => {}
        }
        if ends {
            self.body = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes once.
    fn write(&mut self, half: &mut Half, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if !self.piece.is_empty() && self.piece.len() <= SMALL {
            self.front.extend_from_slice(&self.piece);
            self.front.extend_from_slice(self.back);
            (self.piece, self.back) = (Bytes::new(), b"");
        }
        let half = Pin::new(half);
        let written = if self.piece.is_empty() && self.back.is_empty() {
            half.poll_write(cx, &self.front)
        } else {
            let all = [&self.front[..], &self.piece[..], self.back].map(IoSlice::new);
            half.poll_write_vectored(cx, &all)
        };
        let mut written = ready!(written)?;
        if written == 0 {
            return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
        }
        self.begun = true;
        for part in [&mut self.front as &mut dyn Buf, &mut self.piece, &mut self.back] {
            let n = written.min(part.remaining());
            part.advance(n);
            written -= n;
        }
        Poll::Ready(Ok(()))
    }
}
