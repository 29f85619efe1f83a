//! What comes of a visitor's request after its head, by either version of HTTP.

use std::error::Error;
use std::io;
use std::task::{Context, Poll};

use strait_engine::{Fault, Part, Reason};
use tokio::sync::oneshot;

use crate::http::body::is_malformed;
use crate::http1::lent::RequestBody;
use crate::http2::receiving::Receiving;
use crate::io::Conn;

/// The body of a visitor's request.
pub(crate) enum Incoming {
    /// There is none.
    Nothing,
    Http1(Box<RequestBody>),
    Http2(Receiving),
}

impl Incoming {
    /// The next part of it; `None` at the end.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        match self {
            Incoming::Nothing => Poll::Ready(None),
            Incoming::Http1(body) => body.poll_part(cx),
            Incoming::Http2(body) => body.poll_part(cx).map_err(|error| fault_of(&error)),
        }
    }

    /// Whether the end is already known.
    pub(crate) fn is_end(&self) -> bool {
        match self {
            Incoming::Nothing => true,
            Incoming::Http1(body) => body.is_end(),
            Incoming::Http2(body) => body.is_end(),
        }
    }

    /// By HTTP/1.1 the visitor waits for `100 Continue`, which it is told when the body is first
    /// asked for.
    pub(crate) fn await_continue(&mut self) {
        if let Incoming::Http1(body) = self {
            body.await_continue();
        }
    }
}

/// Why a visitor's body broke with `error`, whose cause is `io`: it sent nonsense, or it left.
pub(crate) fn visitor_fault(io: Option<&io::Error>, error: &dyn Error) -> Fault {
    let malformed = io.is_some_and(is_malformed);
    let reason = if malformed { Reason::BadRequest } else { Reason::Cancelled };
    Fault::because(reason, error.to_string())
}

/// Why a visitor's body by HTTP/2 broke. When it was our library that reset the stream, the request
/// broke a rule.
fn fault_of(error: &h2::Error) -> Fault {
    match error.is_library() {
        true => Fault::because(Reason::BadRequest, error.to_string()),
        false => visitor_fault(error.get_io(), error),
    }
}

/// The connection, or the stream of it, that an accepted handshake is for.
pub(crate) type Upgrade = oneshot::Receiver<Conn>;
