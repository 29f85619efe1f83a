//! gRPC messages as they come out of the HTTP library.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;
use hyper::body::Incoming;
use strait_engine::{Data, Fault, Part};

use crate::grpc::message::Cutter;
use crate::http::body::poll_incoming;

/// A body that is cut into the pieces of its messages.
pub(crate) struct Messages {
    body: Incoming,
    cutter: Cutter,
    input: Bytes,
}

/// What came.
pub(crate) enum Read {
    Data(Data),
    /// The end, at a message's end.
    End(Option<HeaderMap>),
    /// The other side broke off.
    Broken(hyper::Error),
    /// What it sent is no gRPC.
    Wrong(Fault),
}

impl Messages {
    pub(crate) fn new(body: Incoming, cutter: Cutter) -> Messages {
        Messages { body, cutter, input: Bytes::new() }
    }

    /// What comes next. After anything but data there is nothing.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        loop {
            match self.cutter.next(&mut self.input) {
                Ok(Some(data)) => return Poll::Ready(Read::Data(data)),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Read::Wrong(fault)),
            }
            let trailers = match ready!(poll_incoming(&mut self.body, cx)) {
                Some(Ok(Part::Data(data))) => {
                    self.input = data.bytes;
                    continue;
                }
                Some(Ok(Part::Trailers(trailers))) => Some(trailers),
                Some(Err(error)) => return Poll::Ready(Read::Broken(error)),
                None => None,
            };
            return Poll::Ready(match self.cutter.end() {
                Some(fault) => Read::Wrong(fault),
                None => Read::End(trailers),
            });
        }
    }

    /// Whether what came ends with a message.
    pub(crate) fn at_boundary(&self) -> bool {
        self.cutter.at_boundary()
    }

    /// Whether the end has come and nothing is held back.
    pub(crate) fn is_end(&self) -> bool {
        self.input.is_empty() && self.cutter.at_boundary() && self.body.is_end_stream()
    }
}
