//! gRPC at an entry, by HTTP/2 or as gRPC-Web.

use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use strait_engine::{Answer, Body, BoxBody, EmptyBody, Fault, Part, Reason, next_part};

use crate::classify::is_grpc;
use crate::grpc::body::Messages;
use crate::grpc::message::Cutter;
use crate::grpc::read::{self, Read, Source};
use crate::grpc::web::Web;
use crate::grpc::{status, timeout};
use crate::http::entry::visitor_body;
use crate::http::hop::{Fields, strip_with};
use crate::http::incoming::Incoming;
use crate::http::outgoing::Outgoing;
use crate::visit::{Requested, Visit, X_STRAIT_ERROR, carry as carry_visit};

/// Carries a call; `web` is how the caller speaks gRPC-Web, if it does.
pub(crate) async fn carry(
    visit: Visit,
    mut request: Requested,
    body: Incoming,
    web: Option<Web>,
) -> Response<Outgoing> {
    let cutter = Cutter::new(visit.entry.settings.max_message, Reason::BadRequest);
    let body: BoxBody = match &web {
        _ if body.is_end() => Box::new(EmptyBody),
        None => Box::new(CallerBody(read::Messages::new(body, cutter))),
        Some(web) => {
            let body = web.decoded(visitor_body(&visit, &request, body));
            Box::new(CallerBody(read::Messages::new(body, cutter)))
        }
    };
    match timeout::read(&request.head.headers) {
        Ok(left) => request.context.deadline = left.map(|left| Instant::now() + left),
        Err(fault) => {
            visit.record(&request.exchange(Box::new(EmptyBody)), &fault);
            return refuse(visit, &fault, web.as_ref());
        }
    }
    match carry_visit(&visit, request.exchange(body)).await {
        Ok(answer) => respond(visit, answer, web).await,
        Err(fault) => refuse(visit, &fault, web.as_ref()),
    }
}

/// A trailers-only answer that tells of `fault`.
pub(crate) fn refuse(visit: Visit, fault: &Fault, web: Option<&Web>) -> Response<Outgoing> {
    let mut headers = status::of_fault(fault, &visit.id);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(X_STRAIT_ERROR, HeaderValue::from_static(fault.reason.as_str()));
    if let Some(web) = web {
        web.answer(&mut headers);
    }
    visit.respond(StatusCode::OK, headers, Outgoing::full(""), false)
}

async fn respond(visit: Visit, answer: Answer, web: Option<Web>) -> Response<Outgoing> {
    let Answer { head, mut body } = answer;
    let mut headers = head.headers;
    let fields = Fields::of(&headers);
    strip_with(&mut headers, fields, Fields::CONTENT_LENGTH);
    if head.status.is_informational() {
        let fault = Fault::because(Reason::BackendInvalid, "a status that cannot be answered");
        body.give_up(&fault);
        return refuse(visit, &fault, web.as_ref());
    }
    let is_grpc = head.status == StatusCode::OK && is_grpc(&headers);
    if let Some(web) = &web {
        web.answer(&mut headers);
    }
    if !is_grpc {
        // Not an answer of a gRPC server. Callers make a status of the HTTP status; the
        // body is no message and goes.
        return visit.respond(head.status, headers, Outgoing::full(""), false);
    }
    if headers.contains_key(status::GRPC_STATUS) {
        // Trailers-only answers must end with their head: callers check.
        let over = body.is_end() || {
            let end = tokio::time::timeout(Duration::from_secs(5), next_part(&mut body));
            // Boxed, because most answers have no use for its room.
            matches!(Box::pin(end).await, Ok(None))
        };
        if over {
            return visit.respond(StatusCode::OK, headers, Outgoing::full(""), false);
        }
    }
    let messages = Messages::answer(body, visit.id);
    let body = match web {
        None => Outgoing::messages(messages),
        Some(web) => Outgoing::web(web.encoded(messages)),
    };
    visit.respond(StatusCode::OK, headers, body, false)
}

/// The messages of a caller.
struct CallerBody<S>(read::Messages<S>);

impl<S: Source<Error = Fault> + Send + 'static> Body for CallerBody<S> {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        Poll::Ready(match ready!(self.0.poll(cx)) {
            Read::Data(data) => Some(Ok(Part::Data(data))),
            // Callers have no trailers in gRPC.
            Read::End(_) => None,
            Read::Broken(fault) | Read::Wrong(fault) => Some(Err(fault)),
        })
    }

    fn is_end(&self) -> bool {
        self.0.is_end()
    }
}
