//! Carrying requests to a service, and the heads of their answers back.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response};
use strait_engine::{Answer, BoxBody, EmptyBody, Exchange, Failure, Fault, Reason, RequestHead};

use crate::backend::Backend;
use crate::http::body::Plain;
use crate::http::hop::{content_length, decimal};
use crate::http::outgoing::Outgoing;
use crate::http::upload::Upload;
use crate::http2::answer::{Held, fault_of};
use crate::http2::receiving::Receiving;
use crate::http2::sending::Sending;

/// Carries a plain request.
pub(crate) async fn carry(backend: &Backend, exchange: Exchange) -> Result<Answer, Failure> {
    let is_head = exchange.head.method == Method::HEAD;
    // The library does not tell what comes before the answer: there is no expectation.
    let build = |head: &RequestHead| {
        let mut length = Ok(None);
        let request = backend.request(head, |headers| length = content_length(headers))?;
        let malformed = |()| Fault::because(Reason::BadRequest, "malformed Content-Length");
        Ok((request, length.map_err(malformed)?))
    };
    let frame = |body, length, upload| Outgoing::plain(Plain::request(body, length, upload));
    let limit = backend.pool().settings().answer_head;
    let Asked { response, held, .. } = ask(backend, exchange, build, limit, frame).await?;
    let (parts, stream) = response.into_parts();
    let length = parts.headers.get(CONTENT_LENGTH).filter(|_| !is_head);
    let length = length.and_then(|length| decimal(length.as_bytes()));
    let head = backend.answered(parts.status, parts.headers)?;
    Ok(Answer { head, body: held.body(Receiving::answer(stream, length)) })
}

/// A request that was sent and the head of its answer.
pub(crate) struct Asked {
    pub(crate) response: Response<RecvStream>,
    pub(crate) held: Held,
    /// Of a CONNECT: where more can be sent.
    pub(crate) open: Option<SendStream<Bytes>>,
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
pub(crate) async fn ask(
    backend: &Backend,
    exchange: Exchange,
    build: impl Fn(&RequestHead) -> Result<(Request<()>, Option<u64>), Fault>,
    head_within: Duration,
    frame: impl Fn(BoxBody, Option<u64>, Arc<Upload>) -> Outgoing,
) -> Result<Asked, Unanswered> {
    let Exchange { head, context, mut body } = exchange;
    let mut fresh = false;
    let (fault, body) = loop {
        let (request, length) = build(&head)?;
        let empty = body.is_end();
        if empty && length.is_some_and(|length| length > 0) {
            let detail = "a body was announced and is missing";
            return Err(Fault::because(Reason::BadRequest, detail).into());
        }
        let mut lease = match backend.pool().http2().await {
            Ok(lease) => lease,
            Err(fault) => break (fault, body),
        };
        let stays_open = request.method() == Method::CONNECT;
        let (response, stream) = match lease.open(request, empty && !stays_open) {
            Ok(opened) => opened,
            Err(error) => {
                lease.forsake();
                // It may have been closed unseen: there is another, or a new one.
                if lease.reused {
                    continue;
                }
                break (fault_of(&error, None).retry_safe(), body);
            }
        };
        let mut asking = Asking { response, sending: None, upload: None };
        let mut open = None;
        if stays_open {
            open = Some(stream);
        } else if !empty {
            let upload = Arc::<Upload>::default();
            asking.sending = Some(Sending::request(stream, frame(body, length, upload.clone())));
            asking.upload = Some(upload);
        }
        let error = match asking.hear(head_within).await? {
            Ok(response) => {
                let Asking { sending, upload, .. } = asking;
                if let (Some(sending), Some(upload)) = (sending, &upload) {
                    tokio::spawn(sending.rest(upload.clone()));
                }
                return Ok(Asked { response, held: Held::new(lease, upload), open });
            }
            Err(error) => error,
        };
        let reset = error.reason().filter(|_| error.is_reset());
        if reset.is_none() {
            lease.forsake();
        }
        // A connection that was used before may have been closed unseen. What is safe to do
        // twice can go again (RFC 9110 9.2.1).
        if !fresh && lease.reused && empty && reset.is_none() && head.method.is_safe() {
            body = Box::new(EmptyBody);
            fresh = true;
            continue;
        }
        let upload = asking.upload.as_deref();
        let failure = fault_of(&error, upload).into();
        let ours = upload.is_some_and(|upload| upload.fault().is_some());
        return Err(Unanswered { failure, reset: reset.filter(|_| !ours) });
    };
    let untouched = Some(Box::new(Exchange { head, context, body }));
    Err(Failure { fault, untouched }.into())
}

/// A request that is sent while its answer is waited for.
struct Asking {
    response: ResponseFuture,
    /// Until all of the body is sent.
    sending: Option<Sending>,
    /// What is known of the body, if there is one.
    upload: Option<Arc<Upload>>,
}

impl Asking {
    /// Sends and hears. Neither waits for the other.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<RecvStream>, h2::Error>> {
        if self.sending.as_mut().is_some_and(|sending| sending.poll(cx).is_ready()) {
            self.sending = None;
        }
        Pin::new(&mut self.response).poll(cx)
    }

    /// Waits for the head of the answer, for `limit` from the last progress of the upload; zero is
    /// no limit.
    async fn hear(
        &mut self,
        limit: Duration,
    ) -> Result<Result<Response<RecvStream>, h2::Error>, Fault> {
        let upload = self.upload.clone();
        let mut heard = pin!(poll_fn(|cx| self.poll(cx)));
        if limit.is_zero() {
            return Ok(heard.await);
        }
        let mut seen = 0;
        loop {
            if let Ok(heard) = tokio::time::timeout(limit, heard.as_mut()).await {
                return Ok(heard);
            }
            let pieces = upload.as_ref().map_or(0, |upload| upload.pieces());
            if pieces == seen {
                let detail = format!("no answer within {limit:?}");
                return Err(Fault::because(Reason::BackendTimeout, detail));
            }
            seen = pieces;
        }
    }
}
