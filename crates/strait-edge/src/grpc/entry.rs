//! gRPC at an entry.

use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use hyper::body::Incoming;
use strait_engine::{Answer, Body, BoxBody, EmptyBody, Fault, Part, Reason, next_part};

use crate::classify::is_grpc;
use crate::grpc::body::Messages;
use crate::grpc::message::Cutter;
use crate::grpc::read::{self, Read};
use crate::grpc::{status, timeout};
use crate::http::entry::visitor_fault;
use crate::http::hop::{remove, strip};
use crate::http::outgoing::Outgoing;
use crate::visit::{Requested, Visit, X_STRAIT_ERROR, carry as carry_visit};

/// Carries a call.
pub(crate) async fn carry(
    visit: Visit,
    mut request: Requested,
    body: Incoming,
) -> Response<Outgoing> {
    match timeout::read(&request.head.headers) {
        Ok(left) => request.context.deadline = left.map(|left| Instant::now() + left),
        Err(fault) => {
            visit.record(&request.exchange(Box::new(EmptyBody)), &fault);
            return refuse(visit, &fault);
        }
    }
    remove(&mut request.head.headers, &CONTENT_LENGTH);
    let max_message = visit.door.entry.settings.max_message;
    let body: BoxBody = if http_body::Body::is_end_stream(&body) {
        Box::new(EmptyBody)
    } else {
        let cutter = Cutter::new(max_message, Reason::BadRequest);
        Box::new(CallerBody(read::Messages::new(body, cutter)))
    };
    match carry_visit(&visit, request.exchange(body)).await {
        Ok(answer) => respond(visit, answer).await,
        Err(fault) => refuse(visit, &fault),
    }
}

/// A trailers-only answer that tells of `fault`.
pub(crate) fn refuse(visit: Visit, fault: &Fault) -> Response<Outgoing> {
    let mut headers = status::of_fault(fault, &visit.id);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(X_STRAIT_ERROR, HeaderValue::from_static(fault.reason.as_str()));
    visit.respond(StatusCode::OK, headers, Outgoing::full(""), false)
}

async fn respond(visit: Visit, answer: Answer) -> Response<Outgoing> {
    let Answer { head, mut body } = answer;
    let mut headers = head.headers;
    strip(&mut headers);
    remove(&mut headers, &CONTENT_LENGTH);
    if head.status.is_informational() {
        let fault = Fault::because(Reason::BackendInvalid, "a status that cannot be answered");
        body.give_up(&fault);
        return refuse(visit, &fault);
    }
    if head.status != StatusCode::OK || !is_grpc(&headers) {
        // Not an answer of a gRPC server. Callers make a status of the HTTP status; the
        // body is no message and goes.
        return visit.respond(head.status, headers, Outgoing::full(""), false);
    }
    if headers.contains_key(status::GRPC_STATUS) && !body.is_end() {
        // Trailers-only answers must end with their head: callers check.
        let end =
            tokio::time::timeout(std::time::Duration::from_secs(5), next_part(&mut body)).await;
        if matches!(end, Ok(None)) {
            body = Box::new(EmptyBody);
        }
    }
    let body = Outgoing::messages(Messages::answer(body, visit.id));
    visit.respond(StatusCode::OK, headers, body, false)
}

/// The messages of a caller.
struct CallerBody(read::Messages);

impl Body for CallerBody {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        Poll::Ready(match ready!(self.0.poll(cx)) {
            Read::Data(data) => Some(Ok(Part::Data(data))),
            // Callers have no trailers in gRPC.
            Read::End(_) => None,
            Read::Broken(error) => Some(Err(visitor_fault(&error))),
            Read::Wrong(fault) => Some(Err(fault)),
        })
    }

    fn is_end(&self) -> bool {
        self.0.is_end()
    }
}
