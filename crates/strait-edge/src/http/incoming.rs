//! What comes of a visitor's request after its head, by either version of HTTP.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use strait_engine::{Data, Fault, Part, Reason};
use tokio::sync::oneshot;

use crate::http::body::is_malformed;
use crate::http1::lent::RequestBody;
use crate::io::Conn;

/// The body of a visitor's request.
pub(crate) enum Incoming {
    /// There is none.
    Nothing,
    Http1(Box<RequestBody>),
    Http2(hyper::body::Incoming),
}

impl Incoming {
    /// The next part of it; `None` at the end.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        match self {
            Incoming::Nothing => Poll::Ready(None),
            Incoming::Http1(body) => body.poll_part(cx),
            Incoming::Http2(body) => poll_http2(body, cx),
        }
    }

    /// Whether the end is already known.
    pub(crate) fn is_end(&self) -> bool {
        match self {
            Incoming::Nothing => true,
            Incoming::Http1(body) => body.is_end(),
            Incoming::Http2(body) => body.is_end_stream(),
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

/// Empty pieces are dropped: HTTP/2 peers allow only a hundred of them in a connection's life.
fn poll_http2(
    body: &mut hyper::body::Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Part, Fault>>> {
    loop {
        let frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                return Poll::Ready(Some(Err(visitor_fault(cause(&error), &error))));
            }
            None => return Poll::Ready(None),
        };
        match frame.into_data() {
            Ok(bytes) if Bytes::is_empty(&bytes) => {}
            Ok(bytes) => return Poll::Ready(Some(Ok(Part::Data(Data::plain(bytes))))),
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return Poll::Ready(Some(Ok(Part::Trailers(trailers))));
                }
            }
        }
    }
}

/// Why a visitor's body broke with `error`, whose cause is `io`: it sent nonsense, or it left.
pub(crate) fn visitor_fault(io: Option<&io::Error>, error: &dyn Error) -> Fault {
    let malformed = io.is_some_and(is_malformed);
    let reason = if malformed { Reason::BadRequest } else { Reason::Cancelled };
    Fault::because(reason, error.to_string())
}

/// The first cause of type `T` behind an error of the HTTP library.
fn cause<T: Error + 'static>(error: &hyper::Error) -> Option<&T> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The connection, or the stream of it, that an accepted handshake is for.
pub(crate) enum Upgrade {
    Http1(oneshot::Receiver<Conn>),
    Http2(OnUpgrade),
}

impl Upgrade {
    /// Waits until the answer to the handshake is written; `None` when it never is.
    pub(crate) async fn conn(self) -> Option<Conn> {
        match self {
            Upgrade::Http1(waiting) => waiting.await.ok(),
            Upgrade::Http2(upgrade) => upgrade.await.ok().map(Conn::upgraded),
        }
    }
}
