//! Plain HTTP towards a backend, and what gRPC shares of it.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use strait_engine::{
    Answer, Body, BoxBody, EmptyBody, Exchange, Failure, Fault, Part, Reason, RequestHead,
};

use crate::backend::Backend;
use crate::http::body::{Plain, cause, poll_incoming};
use crate::http::hop::content_length;
use crate::http::outgoing::Outgoing;
use crate::http::upload::{AbortUpload, Upload};
use crate::http1;
use crate::pool::Http2 as Lease;

/// Carries a plain request.
pub(crate) async fn carry(backend: &Backend, exchange: Exchange) -> Result<Answer, Failure> {
    if !backend.speaks_http2() {
        return http1::carry::carry(backend, exchange).await;
    }
    // By HTTP/2 the library does not tell what comes before the answer: there is no expectation.
    let build = |head: &RequestHead| {
        let mut length = Ok(None);
        let request = backend.request(head, |headers| length = content_length(headers))?;
        let malformed = |()| Fault::because(Reason::BadRequest, "malformed Content-Length");
        Ok((request, length.map_err(malformed)?))
    };
    let frame = |body, length, upload| Outgoing::plain(Plain::request(body, length, upload));
    let limit = backend.pool().settings().answer_head;
    let sent = send(backend, exchange, build, limit, frame).await?;
    let (parts, body) = sent.response.into_parts();
    let head = backend.answered(parts.status, parts.headers)?;
    Ok(Answer { head, body: sent.held.body(body) })
}

/// A request that was sent and the head of its answer.
pub(crate) struct Sent {
    pub(crate) response: Response<Incoming>,
    pub(crate) held: Held,
}

/// Why a request that was sent got no head of an answer.
pub(crate) struct Unanswered {
    pub(crate) failure: Failure,
    /// The code with which the backend reset it, if that was it.
    pub(crate) reset: Option<h2::Reason>,
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Unanswered {
        Unanswered { failure, reset: None }
    }
}

impl From<Fault> for Unanswered {
    fn from(fault: Fault) -> Unanswered {
        Failure::from(fault).into()
    }
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Failure {
        unanswered.failure
    }
}

/// Sends `exchange` on a connection of the backend, with the head and length that `build`
/// and the body that `frame` makes.
pub(crate) async fn send(
    backend: &Backend,
    exchange: Exchange,
    build: impl Fn(&RequestHead) -> Result<(Request<()>, Option<u64>), Fault>,
    head_within: Duration,
    frame: impl Fn(BoxBody, Option<u64>, Option<Arc<Upload>>) -> Outgoing,
) -> Result<Sent, Unanswered> {
    let Exchange { head, context, mut body } = exchange;
    let mut fresh = false;
    loop {
        let (request, length) = build(&head)?;
        let empty = body.is_end();
        if empty && length.is_some_and(|length| length > 0) {
            let detail = "a body was announced and is missing";
            return Err(Fault::because(Reason::BadRequest, detail).into());
        }
        let mut lease = match backend.pool().http2().await {
            Ok(lease) => lease,
            Err(fault) => {
                let untouched = Some(Box::new(Exchange { head, context, body }));
                return Err(Failure { fault, untouched }.into());
            }
        };
        let upload = (!empty).then(Arc::<Upload>::default);
        let abort = upload.clone().map(AbortUpload);
        let outgoing = frame(body, length, upload.clone()).piped(upload.clone());
        let request = request.map(|()| outgoing);
        let sending = lease.send(request);
        let mut error = match within(sending, upload.as_deref(), head_within).await? {
            Ok(response) => return Ok(Sent { response, held: Held { _lease: lease, abort } }),
            Err(error) => error,
        };
        let reset = cause::<h2::Error>(error.error()).filter(|error| error.is_reset());
        let reset = reset.and_then(h2::Error::reason);
        if reset.is_none() {
            lease.forsake();
        }
        // A connection that was used before may have been closed unseen. What was not
        // written can go again, and so can what is safe to do twice (RFC 9110 9.2.1).
        let again = !fresh && lease.reused;
        if let Some(unsent) = error.take_message() {
            body = unsent.into_body().into_body();
            if !again {
                let fault = fault_of(error.error(), None).retry_safe();
                let untouched = Some(Box::new(Exchange { head, context, body }));
                return Err(Failure { fault, untouched }.into());
            }
        } else if again && empty && reset.is_none() && head.method.is_safe() {
            body = Box::new(EmptyBody);
        } else {
            let upload = upload.as_deref();
            let failure = fault_of(error.error(), upload).into();
            let ours = upload.is_some_and(|upload| upload.fault().is_some());
            return Err(Unanswered { failure, reset: reset.filter(|_| !ours) });
        }
        fresh = true;
    }
}

/// Waits for the head of an answer; the time counts from the last progress of the upload.
async fn within<T>(
    sending: impl Future<Output = T>,
    upload: Option<&Upload>,
    limit: Duration,
) -> Result<T, Fault> {
    if limit.is_zero() {
        return Ok(sending.await);
    }
    let mut sending = std::pin::pin!(sending);
    let mut seen = 0;
    loop {
        if let Ok(result) = tokio::time::timeout(limit, sending.as_mut()).await {
            return Ok(result);
        }
        let pieces = upload.map_or(0, Upload::pieces);
        if pieces == seen {
            let detail = format!("no answer within {limit:?}");
            return Err(Fault::because(Reason::BackendTimeout, detail));
        }
        seen = pieces;
    }
}

/// The fault behind an error of the HTTP library. When our own body was cut, that is it.
pub(crate) fn fault_of(error: &hyper::Error, upload: Option<&Upload>) -> Fault {
    if let Some(fault) = upload.and_then(Upload::fault) {
        return fault;
    }
    let detail = match cause::<std::io::Error>(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    let h2 = cause::<h2::Error>(error);
    // When it was our library that reset the stream, the answer broke a rule.
    let broke_rule = h2.is_some_and(|error| error.is_library());
    let reset = h2.and_then(h2::Error::reason);
    if reset == Some(h2::Reason::REFUSED_STREAM) && !broke_rule {
        return Fault::because(Reason::BackendRefused, detail).retry_safe();
    }
    let invalid =
        broke_rule || error.is_parse() || error.is_parse_too_large() || error.is_parse_status();
    let malformed = cause::<std::io::Error>(error).is_some_and(|error| {
        matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput)
    });
    let reason = if invalid || malformed { Reason::BackendInvalid } else { Reason::BackendReset };
    Fault::because(reason, detail)
}

/// What an answer's body holds on to until it ends.
pub(crate) struct Held {
    /// Held for its drop, which gives the share of a connection back.
    _lease: Lease,
    abort: Option<AbortUpload>,
}

impl Held {
    fn upload(&self) -> Option<&Upload> {
        self.abort.as_ref().map(|abort| &*abort.0)
    }

    /// The fault that cut the request's body, if one did.
    pub(crate) fn upload_fault(&self) -> Option<Fault> {
        self.upload().and_then(Upload::fault)
    }

    /// The fault behind an error in the answer's body.
    pub(crate) fn fault(&self, error: &hyper::Error) -> Fault {
        fault_of(error, self.upload())
    }

    /// The answer has ended. The rest of an upload whose answer is complete is not wanted.
    pub(crate) fn end(self) {
        if let Some(upload) = self.upload().filter(|upload| upload.ended()) {
            upload.let_go();
        }
    }

    /// The answer's body.
    pub(crate) fn body(self, body: Incoming) -> BoxBody {
        if body.is_end_stream() {
            self.end();
            return Box::new(EmptyBody);
        }
        Box::new(BackendBody { body, held: Some(self) })
    }
}

struct BackendBody {
    body: Incoming,
    held: Option<Held>,
}

impl BackendBody {
    fn end(&mut self) {
        if let Some(held) = self.held.take() {
            held.end();
        }
    }
}

impl Body for BackendBody {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        Poll::Ready(match ready!(poll_incoming(&mut self.body, cx)) {
            Some(Ok(part)) => {
                if matches!(part, Part::Trailers(_)) {
                    self.end();
                }
                Some(Ok(part))
            }
            Some(Err(error)) => {
                let upload = self.held.as_ref().and_then(Held::upload);
                let fault = fault_of(&error, upload);
                self.held = None;
                Some(Err(fault))
            }
            None => {
                self.end();
                None
            }
        })
    }

    fn is_end(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }
}

impl Drop for BackendBody {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.end();
        }
    }
}
