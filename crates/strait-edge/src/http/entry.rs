//! Plain HTTP at an entry.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRAILER};
use http::{HeaderMap, Response, StatusCode, Version};
use hyper::body::Incoming;
use strait_engine::{Answer, Body, BoxBody, EmptyBody, Fault, Part, Reason, next_part};

use crate::activity::Activity;
use crate::http::body::{Idle, Plain, cause, poll_incoming};
use crate::http::hop::{content_length, remove, strip};
use crate::http::outgoing::Outgoing;
use crate::visit::{Requested, Visit, carry as carry_visit};

/// Carries a plain request.
pub(crate) async fn carry(visit: Visit, request: Requested, body: Incoming) -> Response<Outgoing> {
    let body = visitor_body(&visit, request.length, body);
    match carry_visit(&visit, request.exchange(body)).await {
        Ok(answer) => respond(visit, answer).await,
        Err(fault) => visit.refuse(&fault),
    }
}

/// The answer as the visitor gets it; also that of a refused WebSocket handshake.
pub(crate) async fn respond(visit: Visit, answer: Answer) -> Response<Outgoing> {
    let Answer { head, mut body } = answer;
    let mut headers = head.headers;
    strip(&mut headers);
    let length = match check(head.status, &mut headers) {
        Ok(length) => length,
        Err(fault) => return visit.refuse(&fault),
    };
    let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if visit.is_head || bodiless {
        if head.status == StatusCode::NO_CONTENT {
            remove(&mut headers, &CONTENT_LENGTH);
        }
        end_of(&mut body).await;
        return visit.respond(head.status, headers, Outgoing::full(""), false);
    }
    if body.is_end() && length.is_some_and(|length| length > 0) {
        let fault = Fault::because(Reason::BackendInvalid, "a body was announced and is missing");
        return visit.refuse(&fault);
    }
    // Both at once would be two framings of one body (RFC 9112 6.2).
    if visit.version < Version::HTTP_2 && length.is_some() {
        remove(&mut headers, &TRAILER);
    }
    let ends_with_connection = length.is_none() && body.size().is_none();
    let body = Outgoing::plain(Plain::answer(body, length));
    visit.respond(head.status, headers, body, ends_with_connection)
}

/// Refuses heads that no HTTP peer may send, and reads the length.
fn check(status: StatusCode, headers: &mut HeaderMap) -> Result<Option<u64>, Fault> {
    if status.is_informational() || status.as_u16() > 599 {
        return Err(Fault::because(Reason::BackendInvalid, "a status that cannot be answered"));
    }
    content_length(headers)
        .map_err(|()| Fault::because(Reason::BackendInvalid, "malformed Content-Length"))
}

/// Sees the end of a body that has nothing to send, so that dropping it is no cancel.
async fn end_of(body: &mut BoxBody) {
    if !body.is_end() {
        let _ = tokio::time::timeout(Duration::from_secs(5), next_part(body)).await;
    }
}

/// The body of a visitor's request.
pub(crate) fn visitor_body(visit: &Visit, length: Option<u64>, body: Incoming) -> BoxBody {
    if http_body::Body::is_end_stream(&body) {
        return Box::new(EmptyBody);
    }
    let idle = Idle::new(visit.door.entry.settings.body_idle);
    let activity = visit.door.activity.clone();
    Box::new(VisitorBody { body, left: length, idle, activity, ended: false })
}

struct VisitorBody {
    body: Incoming,
    left: Option<u64>,
    idle: Idle,
    activity: Arc<Activity>,
    ended: bool,
}

impl Body for VisitorBody {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        let part = match poll_incoming(&mut self.body, cx) {
            Poll::Ready(part) => part,
            Poll::Pending if self.idle.poll_silence(cx).is_ready() => {
                let detail = "the visitor stopped sending its body";
                return Poll::Ready(Some(Err(Fault::because(Reason::Cancelled, detail))));
            }
            Poll::Pending => return Poll::Pending,
        };
        self.idle.spoke();
        Poll::Ready(match part {
            Some(Ok(part)) => {
                if let (Part::Data(data), Some(left)) = (&part, &mut self.left) {
                    *left = left.saturating_sub(data.bytes.len() as u64);
                }
                self.ended = matches!(part, Part::Trailers(_));
                Some(Ok(part))
            }
            Some(Err(error)) => Some(Err(visitor_fault(&error))),
            None => {
                self.ended = true;
                None
            }
        })
    }

    fn is_end(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }

    fn size(&self) -> Option<u64> {
        self.left
    }
}

impl Drop for VisitorBody {
    fn drop(&mut self) {
        if !self.ended && !self.is_end() {
            self.activity.left_unread();
        }
    }
}

/// Why a visitor's body broke: it sent nonsense, or it left.
pub(crate) fn visitor_fault(error: &hyper::Error) -> Fault {
    use std::io::ErrorKind::{InvalidData, InvalidInput};
    let malformed = cause::<std::io::Error>(error)
        .is_some_and(|error| matches!(error.kind(), InvalidData | InvalidInput));
    let reason = if malformed { Reason::BadRequest } else { Reason::Cancelled };
    Fault::because(reason, error.to_string())
}
