//! Bodies of gRPC messages between a connection and the engine.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use strait_engine::{BoxBody, EmptyBody, Fault, Reason, RequestId};

use crate::grpc::message::{Joined, Joiner};
use crate::grpc::status;
use crate::http::body::Cut;
use crate::http::upload::Upload;

/// Messages on their way to a connection.
pub(crate) struct Messages {
    body: BoxBody,
    joiner: Joiner,
    end: End,
}

/// What a fault in the messages becomes.
enum End {
    /// Of a request to a backend: a reset.
    Request(Arc<Upload>),
    /// Of an answer to a caller: trailers with a status.
    Answer(RequestId),
    /// Trailers were sent.
    Over,
}

impl Messages {
    /// The messages of a request, observed through `upload`.
    pub(crate) fn request(body: BoxBody, upload: Arc<Upload>) -> Messages {
        Messages { body, joiner: Joiner::new(), end: End::Request(upload) }
    }

    /// The messages of the answer to request `id`.
    pub(crate) fn answer(body: BoxBody, id: RequestId) -> Messages {
        Messages { body, joiner: Joiner::new(), end: End::Answer(id) }
    }

    /// Whether what was given out ends with a message.
    pub(crate) fn at_boundary(&self) -> bool {
        self.joiner.at_boundary()
    }

    /// Whether no frame will come.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self.end, End::Over) || self.joiner.is_end(&self.body)
    }

    fn fail(&mut self, fault: Fault) -> Option<Result<Frame<Bytes>, Cut>> {
        self.body.give_up(&fault);
        self.body = Box::new(EmptyBody);
        match std::mem::replace(&mut self.end, End::Over) {
            End::Request(upload) => {
                upload.cut(&fault);
                Some(Err(fault.into()))
            }
            End::Answer(id) => Some(Ok(Frame::trailers(status::of_fault(&fault, &id)))),
            End::Over => None,
        }
    }

    /// The next frame.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &self.end {
            End::Over => return Poll::Ready(None),
            End::Request(upload) if upload.is_aborted(cx) => {
                return Poll::Ready(self.fail(Fault::new(Reason::None)));
            }
            End::Answer(_) | End::Request(_) => {}
        }
        let joined = ready!(self.joiner.poll(&mut self.body, cx));
        let frame = match joined {
            Some(Ok(Joined::Data(bytes))) => Some(Ok(Frame::data(bytes))),
            Some(Ok(Joined::Trailers(_))) if !self.joiner.at_boundary() => {
                let detail = "trailers within a gRPC message";
                self.fail(Fault::because(Reason::Protocol, detail))
            }
            Some(Ok(Joined::Trailers(trailers))) => {
                self.body = Box::new(EmptyBody);
                Some(Ok(Frame::trailers(trailers)))
            }
            Some(Err(fault)) => self.fail(fault),
            None => {
                self.body = Box::new(EmptyBody);
                None
            }
        };
        if let End::Request(upload) = &self.end {
            upload.sent();
            if self.is_end() {
                upload.end();
            }
        }
        Poll::Ready(frame)
    }
}
