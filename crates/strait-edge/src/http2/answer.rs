//! The answer of a service: its body, and what its errors mean.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use strait_engine::{Body, BoxBody, EmptyBody, Fault, Part, Reason};

use crate::http::body::is_malformed;
use crate::http::upload::{AbortUpload, Upload};
use crate::http2::receiving::Receiving;
use crate::pool::Http2 as Lease;

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
        self.receiving.left()
    }
}
