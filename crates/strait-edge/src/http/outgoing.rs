//! The one body type that goes into the HTTP library, for requests and answers alike.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use strait_engine::BoxBody;

use crate::activity::{Active, Held};
use crate::grpc::body::Messages;
use crate::grpc::web;
use crate::http::body::{Cut, Plain};
use crate::http::pipe;
use crate::http::upload::Upload;

/// What is sent after a head.
pub(crate) struct Outgoing {
    kind: Kind,
    /// The visitor's connection is busy until the answer has ended.
    active: Option<Active>,
    held: Held,
    /// A cut of this answer shows only as a reset of the connection (HTTP/1.0).
    reset_on_cut: bool,
    /// Of a request by HTTP/2 that is not yet in the hands of the task that sends it.
    unpiped: Option<Arc<Upload>>,
    /// Its first piece, which waits for that task.
    first: Option<Frame<Bytes>>,
}

enum Kind {
    Full(Option<Bytes>),
    Plain(Plain),
    Messages(Box<Messages>),
    Web(Box<web::Encoded>),
}

impl Kind {
    fn is_end(&self) -> bool {
        match self {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Plain(plain) => plain.is_end(),
            Kind::Messages(messages) => messages.is_end(),
            Kind::Web(encoded) => encoded.is_end(),
        }
    }
}

impl Outgoing {
    fn of(kind: Kind) -> Outgoing {
        Outgoing {
            kind,
            active: None,
            held: Held::default(),
            reset_on_cut: false,
            unpiped: None,
            first: None,
        }
    }

    /// All of it, known at once.
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Outgoing {
        let bytes = bytes.into();
        Outgoing::of(Kind::Full((!bytes.is_empty()).then_some(bytes)))
    }

    /// A plain body.
    pub(crate) fn plain(plain: Plain) -> Outgoing {
        Outgoing::of(Kind::Plain(plain))
    }

    /// gRPC messages.
    pub(crate) fn messages(messages: Messages) -> Outgoing {
        Outgoing::of(Kind::Messages(Box::new(messages)))
    }

    /// gRPC messages as gRPC-Web.
    pub(crate) fn web(encoded: web::Encoded) -> Outgoing {
        Outgoing::of(Kind::Web(Box::new(encoded)))
    }

    /// Has the task that sends this by HTTP/2 end when `upload` is aborted.
    pub(crate) fn piped(mut self, upload: Option<Arc<Upload>>) -> Outgoing {
        self.unpiped = upload;
        self
    }

    /// Marks the connection as busy until this body ends.
    pub(crate) fn active(mut self, active: Active, reset_on_cut: bool) -> Outgoing {
        if matches!(self.kind, Kind::Plain(_)) {
            self.held.set(true, &active);
        }
        self.active = Some(active);
        self.reset_on_cut = reset_on_cut;
        self
    }

    /// The engine's body, when nothing of it was sent.
    pub(crate) fn into_body(mut self) -> BoxBody {
        match std::mem::replace(&mut self.kind, Kind::Full(None)) {
            Kind::Full(_) => Box::new(strait_engine::EmptyBody),
            Kind::Plain(plain) => plain.into_body(),
            Kind::Messages(messages) => messages.into_body(),
            Kind::Web(encoded) => encoded.into_body(),
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(active) = &self.active {
            self.held.set(false, active);
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self;
        if let Some(active) = &this.active {
            this.held.set(false, active);
        }
        if let Some(upload) = &this.unpiped
            && let Some(end) = pipe::end()
        {
            upload.sent_by(end);
            this.unpiped = None;
        }
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let frame = match &mut this.kind {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Plain(plain) => plain.poll_frame(cx),
            Kind::Messages(messages) => messages.poll_frame(cx),
            Kind::Web(encoded) => encoded.poll_frame(cx),
        };
        if let (Kind::Plain(_), Poll::Ready(Some(Ok(_))), Some(active)) =
            (&this.kind, &frame, &this.active)
        {
            this.held.set(true, active);
        }
        if let (Poll::Ready(Some(Err(cut))), Some(active)) = (&frame, &this.active) {
            tracing::debug!(%cut, "an answer was cut");
            if this.reset_on_cut {
                active.connection().reset_on_close();
            }
        }
        // The library tries to do without a task. A body that may be stopped needs one.
        match frame {
            Poll::Ready(Some(Ok(frame))) if this.unpiped.is_some() && !this.kind.is_end() => {
                this.first = Some(frame);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.kind.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Plain(plain) => plain.size_hint(),
            // gRPC bodies have no Content-Length.
            Kind::Messages(_) | Kind::Web(_) => SizeHint::default(),
        }
    }
}
