//! The answer to a request: its body, and what its errors mean.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use h2::RecvStream;
use strait_engine::{Body, BoxBody, Data, EmptyBody, Fault, Part, Reason};

use crate::http::body::is_malformed;
use crate::http::upload::{AbortUpload, Upload};
use crate::pool::Http2 as Lease;

/// The body of an answer as it comes.
pub(crate) struct Receiving {
    stream: RecvStream,
    /// Bytes that are still to come, when that was announced.
    left: Option<u64>,
    /// Only trailers can come.
    data_over: bool,
}

impl Receiving {
    /// What comes on `stream`; `length` is what the head announces.
    pub(crate) fn new(stream: RecvStream, length: Option<u64>) -> Receiving {
        Receiving { stream, left: length, data_over: false }
    }

    /// The next part; `None` at the end. Empty pieces are dropped.
    pub(crate) fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, h2::Error>>> {
        while !self.data_over {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    // Fails only when the stream has ended, and nobody waits for room then.
                    let _ = self.stream.flow_control().release_capacity(bytes.len());
                    self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                    if !bytes.is_empty() {
                        return Poll::Ready(Some(Ok(Part::Data(Data::plain(bytes)))));
                    }
                }
                Some(Err(error)) => return Poll::Ready(broken(error)),
                None => self.data_over = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Part::Trailers(trailers)))),
            Err(error) => Poll::Ready(broken(error)),
        }
    }

    /// Whether the end is already known.
    pub(crate) fn is_end(&self) -> bool {
        self.stream.is_end_stream()
    }
}

/// A reset without error follows an answer that is complete: no more of the upload is wanted
/// (RFC 9113 8.1). Whoever knows its length finds out if it is not. Anything else is a cut.
fn broken(error: h2::Error) -> Option<Result<Part, h2::Error>> {
    let is_end = error.is_reset() && error.reason() == Some(h2::Reason::NO_ERROR);
    if is_end { None } else { Some(Err(error)) }
}

/// The fault behind an error of a stream or its connection. When our own body was cut, that is it.
pub(crate) fn fault_of(error: &h2::Error, upload: Option<&Upload>) -> Fault {
    if let Some(fault) = upload.and_then(Upload::fault) {
        return fault;
    }
    // When it was our library that reset the stream, the answer broke a rule.
    let broke_rule = error.is_library();
    if error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM) && !broke_rule {
        return Fault::because(Reason::BackendRefused, error.to_string()).retry_safe();
    }
    let invalid = broke_rule || error.get_io().is_some_and(is_malformed);
    let reason = if invalid { Reason::BackendInvalid } else { Reason::BackendReset };
    Fault::because(reason, error.to_string())
}

/// What an answer holds on to until it ends.
pub(crate) struct Held {
    /// Held for its drop, which gives the share of a connection back.
    _lease: Lease,
    /// Ends the rest of the request's body.
    upload: Option<AbortUpload>,
}

impl Held {
    pub(crate) fn new(lease: Lease, upload: Option<Arc<Upload>>) -> Held {
        Held { _lease: lease, upload: upload.map(AbortUpload) }
    }

    fn upload(&self) -> Option<&Upload> {
        self.upload.as_ref().map(|upload| &*upload.0)
    }

    /// The fault that cut the request's body, if one did.
    pub(crate) fn upload_fault(&self) -> Option<Fault> {
        self.upload().and_then(Upload::fault)
    }

    /// The fault behind an error in the answer's body.
    pub(crate) fn fault(&self, error: &h2::Error) -> Fault {
        fault_of(error, self.upload())
    }

    /// The answer's body, which comes like this. When it ends, the rest of the upload is not wanted.
    pub(crate) fn body(self, receiving: Receiving) -> BoxBody {
        if receiving.is_end() {
            return Box::new(EmptyBody);
        }
        Box::new(AnswerBody { receiving, held: Some(self) })
    }
}

struct AnswerBody {
    receiving: Receiving,
    held: Option<Held>,
}

impl Body for AnswerBody {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        let upload = self.held.as_ref().and_then(Held::upload);
        let part = ready!(self.receiving.poll_part(cx))
            .map(|part| part.map_err(|error| fault_of(&error, upload)));
        if !matches!(part, Some(Ok(Part::Data(_)))) {
            self.held = None;
        }
        Poll::Ready(part)
    }

    fn is_end(&self) -> bool {
        self.receiving.is_end()
    }

    fn size(&self) -> Option<u64> {
        self.receiving.left
    }
}
