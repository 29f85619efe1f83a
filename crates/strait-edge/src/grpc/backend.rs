//! gRPC towards a backend.

use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, StatusCode};
use strait_engine::{
    Answer, Body, BoxBody, EmptyBody, Exchange, Failure, Fault, Part, Reason, RequestHead,
    ResponseHead,
};

use crate::backend::Backend;
use crate::classify::is_grpc;
use crate::forwarded::TRACEPARENT;
use crate::grpc::body::Messages;
use crate::grpc::message::Cutter;
use crate::grpc::read::{self, Read};
use crate::grpc::{status, timeout};
use crate::http::hop::remove;
use crate::http::outgoing::Outgoing;
use crate::http2::answer::Held;
use crate::http2::carry::{Asked, Unanswered, ask};
use crate::http2::receiving::Receiving;

/// Carries a call.
pub(crate) async fn carry(backend: &Backend, exchange: Exchange) -> Result<Answer, Failure> {
    let left = match exchange.context.deadline {
        None => None,
        Some(at) => match at.checked_duration_since(Instant::now()) {
            None => return Err(Fault::new(Reason::Deadline).into()),
            left => left,
        },
    };
    let build = |head: &RequestHead| {
        let request = backend.request(head, |headers| {
            remove(headers, &CONTENT_LENGTH);
            headers.insert(TE, HeaderValue::from_static("trailers"));
            if let Some(left) = left {
                headers.insert(timeout::GRPC_TIMEOUT, timeout::write(left));
            }
            // Never the same again: in the connection's table (RFC 7541 2.3.2) they would take the
            // place of what is, and every call would be compared with those before it.
            for once in [TRACEPARENT, timeout::GRPC_TIMEOUT] {
                if let Some(value) = headers.get_mut(once) {
                    value.set_sensitive(true);
                }
            }
        });
        Ok((request?, None))
    };
    let frame = |body, _, upload| Outgoing::messages(Messages::request(body, upload));
    // No time for the head: callers bring their own deadline, and streams may be silent.
    let asked = ask(backend, exchange, build, Duration::ZERO, frame).await;
    let Asked { response, held, .. } = match asked {
        Ok(asked) => asked,
        Err(Unanswered { failure, reset: Some(code) }) if !failure.fault.retry_safe => {
            return Ok(reset_answer(code));
        }
        Err(unanswered) => return Err(unanswered.into()),
    };
    let (parts, stream) = response.into_parts();
    let receiving = Receiving::answer(stream, None);
    let mut headers = backend.passed(parts.headers)?;
    remove(&mut headers, &CONTENT_LENGTH);
    let body: BoxBody = if parts.status != StatusCode::OK || !is_grpc(&headers) {
        // Not an answer of a gRPC server; its body is no message.
        Box::new(EmptyBody)
    } else if receiving.is_end() {
        Box::new(EmptyBody)
    } else {
        let max_message = backend.pool().settings().max_message;
        let cutter = Cutter::new(max_message, Reason::BackendInvalid);
        let messages = read::Messages::new(receiving, cutter);
        Box::new(ServiceBody { messages, held: Some(held), over: false })
    };
    Ok(Answer { head: ResponseHead { status: parts.status, headers }, body })
}

/// The trailers of a call that the service reset with `code`: the status that a caller
/// without us would have derived.
fn reset_trailers(code: h2::Reason) -> HeaderMap {
    let text = format!("the service reset the stream ({code:?})");
    status::trailers(status::of_reset(code), &text)
}

/// The same before the head: a trailers-only answer.
fn reset_answer(code: h2::Reason) -> Answer {
    let mut headers = reset_trailers(code);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let head = ResponseHead { status: StatusCode::OK, headers };
    Answer { head, body: Box::new(EmptyBody) }
}

/// The messages of a service.
struct ServiceBody {
    messages: read::Messages<Receiving>,
    held: Option<Held>,
    over: bool,
}

impl ServiceBody {
    fn end(&mut self) {
        self.over = true;
        self.held = None;
    }

    /// What a reset by the service becomes: a status between messages, else a fault.
    fn broken(&mut self, error: &h2::Error) -> Result<Part, Fault> {
        let reset = error.reason().filter(|_| error.is_reset());
        let Some(held) = self.held.take() else {
            return Err(Fault::because(Reason::BackendReset, error.to_string()));
        };
        if let Some(fault) = held.upload_fault() {
            return Err(fault);
        }
        match reset {
            Some(reason) if self.messages.at_boundary() => {
                self.over = true;
                Ok(Part::Trailers(reset_trailers(reason)))
            }
            _ => Err(held.fault(error)),
        }
    }
}

impl Body for ServiceBody {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        if self.over {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.messages.poll(cx)) {
            Read::Data(data) => Some(Ok(Part::Data(data))),
            Read::End(trailers) => {
                self.end();
                trailers.map(|trailers| Ok(Part::Trailers(trailers)))
            }
            Read::Broken(error) => Some(self.broken(&error)),
            Read::Wrong(fault) => Some(Err(fault)),
        })
    }

    fn is_end(&self) -> bool {
        self.over || self.messages.is_end()
    }
}
