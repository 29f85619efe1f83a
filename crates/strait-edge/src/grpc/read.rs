//! gRPC messages as they come.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use strait_engine::{Data, Fault, Part};

use crate::grpc::message::Cutter;
use crate::http::incoming::Incoming;
use crate::http2::receiving::Receiving;

/// Where the bytes of messages come from.
pub(crate) trait Source {
    /// How it breaks off.
    type Error;

    /// The next part: plain data, or trailers; `None` at the end.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Self::Error>>>;

    /// Whether the end is already known.
    fn is_end(&self) -> bool;
}

impl Source for Incoming {
    type Error = Fault;

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        Incoming::poll_part(self, cx)
    }

    fn is_end(&self) -> bool {
        Incoming::is_end(self)
    }
}

impl Source for Receiving {
    type Error = h2::Error;

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, h2::Error>>> {
        Receiving::poll_part(self, cx)
    }

    fn is_end(&self) -> bool {
        Receiving::is_end(self)
    }
}

/// A body that is cut into the pieces of its messages.
pub(crate) struct Messages<S> {
    source: S,
    cutter: Cutter,
    input: Bytes,
}

/// What came.
pub(crate) enum Read<E> {
    Data(Data),
    /// The end, at a message's end.
    End(Option<HeaderMap>),
    /// The other side broke off.
    Broken(E),
    /// What it sent is no gRPC.
    Wrong(Fault),
}

impl<S: Source> Messages<S> {
    pub(crate) fn new(source: S, cutter: Cutter) -> Messages<S> {
        Messages { source, cutter, input: Bytes::new() }
    }

    /// What comes next. After anything but data there is nothing.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Read<S::Error>> {
        loop {
            match self.cutter.next(&mut self.input) {
                Ok(Some(data)) => return Poll::Ready(Read::Data(data)),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Read::Wrong(fault)),
            }
            let trailers = match ready!(self.source.poll_part(cx)) {
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
        self.input.is_empty() && self.cutter.at_boundary() && self.source.is_end()
    }
}
