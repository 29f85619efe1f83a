//! The one type of what is written after a head, whatever the protocol and the version of HTTP.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::activity::{Active, Held};
use crate::grpc::body::Messages;
use crate::grpc::web;
use crate::http::body::{Cut, Plain};

/// What is sent after a head.
pub(crate) struct Outgoing {
    kind: Kind,
    /// The visitor's connection is busy until the answer has ended.
    active: Option<Active>,
    held: Held,
    /// A cut of this answer shows only as a reset of the connection (HTTP/1.0).
    reset_on_cut: bool,
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
        Outgoing { kind, active: None, held: Held::default(), reset_on_cut: false }
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

    /// Marks the connection as busy until this body ends.
    pub(crate) fn active(mut self, active: Active, reset_on_cut: bool) -> Outgoing {
        if matches!(self.kind, Kind::Plain(_)) {
            self.held.set(true, &active);
        }
        self.active = Some(active);
        self.reset_on_cut = reset_on_cut;
        self
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
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.kind.is_end()
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
