//! A message on its way: a request to a service, or an answer to a visitor.

use std::fmt::Write;
use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderName;
use http_body::{Body, Frame};
use strait_engine::{BoxBody, EmptyBody, Fault};
use tokio::io::AsyncWrite;

use crate::half::Half;
use crate::http::body::{Cut, Plain};
use crate::http::outgoing::Outgoing;
use crate::http::upload::Upload;
use crate::http1::head::write_trailers;

/// How much of a body's piece goes into one buffer with what stands before and behind it, in
/// bytes: copying it costs less than telling the kernel of three.
const SMALL: usize = 1 << 10;

/// A body that is pulled while it is written.
pub(crate) trait Source {
    /// The next frame of it.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>>;

    /// Whether no frame will come.
    fn is_end(&self) -> bool;
}

impl Source for Plain {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        Plain::poll_frame(self, cx)
    }

    fn is_end(&self) -> bool {
        Plain::is_end(self)
    }
}

impl Source for Outgoing {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        Body::poll_frame(Pin::new(self), cx)
    }

    fn is_end(&self) -> bool {
        self.is_end_stream()
    }
}

/// A message that is written: its head, and its body as it comes.
pub(crate) struct Sending<B> {
    /// The head, and what stands before a piece.
    front: BytesMut,
    piece: Bytes,
    /// What stands behind the piece.
    back: &'static [u8],
    body: Option<Framed<B>>,
    /// The body was asked for what shall go with the head.
    asked: bool,
    /// Something was taken from the body.
    taken: bool,
    /// Bytes were written.
    begun: bool,
}

/// A body and how it is framed.
struct Framed<B> {
    body: B,
    chunked: bool,
    announced: Vec<HeaderName>,
}

/// How writing came to its end.
#[derive(Debug)]
pub(crate) enum Sent {
    /// All of it is written.
    Whole,
    /// The other end takes no more. What it says is for the reader to find: a service that answers
    /// early and closes has its answer waiting there.
    Broken,
}

impl<B: Source> Sending<B> {
    /// A message whose head is this, without a body.
    pub(crate) fn new(head: BytesMut) -> Sending<B> {
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

    /// Adds a body. Of its trailer fields those are sent that the head has `announced`.
    pub(crate) fn follow(&mut self, body: B, chunked: bool, announced: Vec<HeaderName>) {
        self.body = Some(Framed { body, chunked, announced });
    }

    /// Whether bytes of it were written.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Writes on; pending while the other end takes no more, or the body has no more at the moment.
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

    /// Whether all that was taken so far is written.
    pub(crate) fn is_written(&self) -> bool {
        self.front.is_empty() && self.piece.is_empty() && self.back.is_empty()
    }

    /// Takes the next piece of the body when the last one is written. Pending when there is none
    /// at the moment.
    fn take(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let Some(framed) = &mut self.body else { return Poll::Ready(Ok(())) };
        // What goes with the head, and then one piece at a time.
        let idle = self.front.is_empty() && self.piece.is_empty() && self.back.is_empty();
        if std::mem::replace(&mut self.asked, true) && !idle {
            return Poll::Ready(Ok(()));
        }
        let frame = ready!(framed.body.poll_frame(cx)).transpose().map_err(Cut::into_fault)?;
        self.taken = true;
        let chunked = framed.chunked;
        let ends = frame.is_none() || framed.body.is_end();
        match frame.map(Frame::into_data) {
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
                    write_trailers(&mut self.front, &trailers, &framed.announced);
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

impl Sending<Plain> {
    /// Writes the rest in a task of its own, until nobody wants it.
    pub(crate) async fn rest(mut self, mut half: Half, upload: Arc<Upload>) -> Result<Sent, Fault> {
        poll_fn(|cx| {
            if upload.is_aborted(cx) {
                self.give_up(&upload);
                return Poll::Ready(Ok(Sent::Broken));
            }
            self.poll(&mut half, cx)
        })
        .await
    }

    /// The rest is not wanted: the answer is over.
    fn give_up(&mut self, upload: &Upload) {
        if let Some(framed) = &mut self.body {
            upload.abort();
            // It tells its source.
            let _ = framed.body.poll_frame(&mut Context::from_waker(Waker::noop()));
        }
        self.body = None;
    }

    /// The body, when nothing of the request was used.
    pub(crate) fn into_body(self) -> Option<BoxBody> {
        match self.body {
            _ if self.begun || self.taken => None,
            None => Some(Box::new(EmptyBody)),
            Some(framed) => Some(framed.body.into_body()),
        }
    }
}
