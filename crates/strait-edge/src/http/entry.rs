//! Plain HTTP at an entry.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRAILER};
use http::{HeaderMap, Response, StatusCode, Version};
use strait_engine::{Answer, Body, BoxBody, EmptyBody, Fault, Part, Reason, next_part};
use tokio::runtime::Handle;

use crate::http::body::{Idle, Plain};
use crate::http::hop::{content_length, remove, strip};
use crate::http::incoming::Incoming;
use crate::http::outgoing::Outgoing;
use crate::visit::{Door, Requested, Visit, carry as carry_visit};

/// Carries a plain request.
pub(crate) async fn carry(visit: Visit, request: Requested, body: Incoming) -> Response<Outgoing> {
    let body = visitor_body(&visit, &request, body);
    let max_body = visit.entry.settings.max_body;
    if request.length.is_some_and(|length| length > max_body) {
        let fault = Fault::new(Reason::BodyTooLarge);
        visit.record(&request.exchange(Box::new(EmptyBody)), &fault);
        return visit.refuse(&fault);
    }
    match carry_visit(&visit, request.exchange(body)).await {
        Ok(answer) => respond(visit, answer).await,
        Err(fault) => visit.refuse(&fault),
    }
}

/// The answer as the visitor gets it; also that of a refused WebSocket handshake.
pub(crate) async fn respond(visit: Visit, answer: Answer) -> Response<Outgoing> {
    if visit.is_head || is_bodiless(answer.head.status) {
        // Boxed, because most answers have no use for its room.
        return Box::pin(respond_without_body(visit, answer)).await;
    }
    let Answer { head, mut body } = answer;
    let mut headers = head.headers;
    let length = match check(head.status, &mut headers) {
        Ok(length) => length,
        Err(fault) => {
            body.give_up(&fault);
            return visit.refuse(&fault);
        }
    };
    if body.is_end() && length.is_some_and(|length| length > 0) {
        let fault = Fault::because(Reason::BackendInvalid, "a body was announced and is missing");
        body.give_up(&fault);
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

/// Whether an answer like this never has a body (RFC 9110 15.3.5 and 15.4.5).
fn is_bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

async fn respond_without_body(visit: Visit, answer: Answer) -> Response<Outgoing> {
    let Answer { head, mut body } = answer;
    let mut headers = head.headers;
    if let Err(fault) = check(head.status, &mut headers) {
        body.give_up(&fault);
        return visit.refuse(&fault);
    }
    if head.status == StatusCode::NO_CONTENT {
        remove(&mut headers, &CONTENT_LENGTH);
    }
    match end_of(&mut body).await {
        Err(fault) if is_bodiless(head.status) => visit.refuse(&fault),
        _ => visit.respond(head.status, headers, Outgoing::full(""), false),
    }
}

/// Refuses heads that no HTTP peer may send, takes off what is of one connection only, and reads
/// the length.
fn check(status: StatusCode, headers: &mut HeaderMap) -> Result<Option<u64>, Fault> {
    strip(headers);
    if status.is_informational() || status.as_u16() > 599 {
        return Err(Fault::because(Reason::BackendInvalid, "a status that cannot be answered"));
    }
    content_length(headers)
        .map_err(|()| Fault::because(Reason::BackendInvalid, "malformed Content-Length"))
}

/// Sees the end of a body that has nothing to send, so that dropping it is no cancel.
async fn end_of(body: &mut BoxBody) -> Result<(), Fault> {
    if body.is_end() {
        return Ok(());
    }
    match tokio::time::timeout(Duration::from_secs(5), next_part(body)).await {
        Ok(Some(Ok(Part::Data(data)))) if !data.bytes.is_empty() => {
            Err(Fault::because(Reason::BackendInvalid, "a body where there is none"))
        }
        _ => Ok(()),
    }
}

/// The body of a visitor's request.
pub(crate) fn visitor_body(visit: &Visit, request: &Requested, mut body: Incoming) -> BoxBody {
    if body.is_end() {
        return Box::new(EmptyBody);
    }
    let settings = &visit.entry.settings;
    let http2 = visit.version == Version::HTTP_2;
    let awaits_continue = request.context.awaits_continue && !http2;
    if awaits_continue {
        visit.door.activity.await_continue(true);
        body.await_continue();
    }
    Box::new(VisitorBody {
        body: Some(body),
        left: request.length,
        room: settings.max_body,
        idle: Idle::new(settings.body_idle),
        door: visit.door.clone(),
        http2,
        awaits_continue,
        ended: false,
    })
}

struct VisitorBody {
    /// Taken when it is dropped, and never before.
    body: Option<Incoming>,
    /// Bytes that are still to come, when that was announced.
    left: Option<u64>,
    /// Bytes that may still come.
    room: u64,
    idle: Idle,
    door: Arc<Door>,
    http2: bool,
    /// By HTTP/1, where the visitor is told `100 Continue` when it is first polled.
    awaits_continue: bool,
    ended: bool,
}

/// How long an upload over HTTP/2 stays open when its answer is complete.
const LEAVE: Duration = Duration::from_secs(1);
/// What is still read of it, in bytes.
const LEFT_OVER: usize = 256 << 10;

/// Keeps an upload open for a while whose answer has ended before it. Dropping it sends a
/// reset without error, which means "send no more" (RFC 9113 8.1); but curl before
/// version 8 does not look at an answer that comes together with a reset.
async fn leave_unread(mut body: Incoming) {
    let rest = async {
        let mut room = LEFT_OVER;
        while room > 0 {
            match poll_fn(|cx| body.poll_part(cx)).await {
                Some(Ok(Part::Data(data))) => room = room.saturating_sub(data.bytes.len()),
                // It ended after all, or the visitor has reset it.
                _ => return,
            }
        }
        pending().await
    };
    let _ = tokio::time::timeout(LEAVE, rest).await;
}

impl Body for VisitorBody {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        if std::mem::take(&mut self.awaits_continue) {
            self.door.activity.await_continue(false);
        }
        let polled = body.poll_part(cx);
        if !self.http2 {
            self.door.activity.want_body(polled.is_pending());
        }
        let part = match polled {
            Poll::Ready(part) => part,
            Poll::Pending if self.idle.poll_silence(cx).is_ready() => {
                let detail = "the visitor stopped sending its body";
                return Poll::Ready(Some(Err(Fault::because(Reason::RequestTimeout, detail))));
            }
            Poll::Pending => return Poll::Pending,
        };
        self.idle.spoke();
        Poll::Ready(match part {
            Some(Ok(part)) => {
                if let Part::Data(data) = &part {
                    let bytes = data.bytes.len() as u64;
                    self.left = self.left.map(|left| left.saturating_sub(bytes));
                    let Some(room) = self.room.checked_sub(bytes) else {
                        return Poll::Ready(Some(Err(Fault::new(Reason::BodyTooLarge))));
                    };
                    self.room = room;
                }
                self.ended = matches!(part, Part::Trailers(_));
                Some(Ok(part))
            }
            Some(Err(fault)) => Some(Err(fault)),
            None => {
                self.ended = true;
                None
            }
        })
    }

    fn is_end(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end)
    }

    fn size(&self) -> Option<u64> {
        self.left
    }

    fn at_most(&mut self, bytes: usize) {
        if let Some(Incoming::Http1(body)) = &mut self.body {
            body.at_most(bytes);
        }
    }
}

impl Drop for VisitorBody {
    fn drop(&mut self) {
        self.door.activity.want_body(false);
        if self.ended || self.is_end() {
            return;
        }
        match self.body.take() {
            Some(body) if self.http2 && Handle::try_current().is_ok() => {
                self.door.tasks.spawn(leave_unread(body));
            }
            _ => self.door.activity.left_unread(),
        }
    }
}
