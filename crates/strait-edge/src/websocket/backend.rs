//! WebSocket towards a backend: each socket has a connection of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use strait_engine::{Answer, Body, BoxBody, Exchange, Failure, Fault, Part, Reason, ResponseHead};
use tokio::task::AbortHandle;
use tokio::time::Sleep;

use crate::backend::Backend;
use crate::http::backend::fault_of;
use crate::http::body::poll_incoming;
use crate::http::outgoing::Outgoing;
use crate::io::{Conn, Half};
use crate::settings::or_never;
use crate::websocket::frame::{Cutter, Rules, Writer};
use crate::websocket::handshake;
use crate::websocket::read::{Frames, Link};
use crate::websocket::write::{End, Pump};

/// Carries a handshake and, when it is accepted, the frames after it.
pub(crate) async fn carry(backend: &Backend, exchange: Exchange) -> Result<Answer, Failure> {
    let settings = backend.pool().settings();
    let mut key = Ok(http::HeaderValue::from_static(""));
    let request = backend.request(&exchange.head, Version::HTTP_11, |headers| {
        key = handshake::ask(headers);
    })?;
    let key = key?;
    let conn = match backend.pool().dial().await {
        Ok(conn) => conn,
        Err(fault) => return Err(Failure { fault, untouched: Some(Box::new(exchange)) }),
    };
    let exchanged = shake_hands(conn, request.map(|()| Outgoing::full("")));
    let limit = or_never(settings.handshake);
    let response = match tokio::time::timeout(limit, exchanged).await {
        Ok(response) => response?,
        Err(_) => {
            let detail = format!("no answer to the handshake within {limit:?}");
            return Err(Fault::because(Reason::BackendTimeout, detail).into());
        }
    };
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return refused(backend, response);
    }
    handshake::check_answer(response.headers(), &key)?;
    let mut headers = backend.answered(response.headers().clone())?;
    handshake::strip_leg(&mut headers);
    let conn = upgraded(response).await?;
    let extended = handshake::extended(&headers);
    let rules = |blame| Rules::new(extended, settings.max_message, blame);
    let (half, link) = (Half::new(conn), Arc::new(Link::default()));
    let cutter = Cutter::new(rules(Reason::BackendInvalid), false);
    let pump = Pump::new(half.clone(), Writer::new(rules(Reason::Protocol), true));
    let writing = tokio::spawn(write(pump, exchange.body, link.clone()));
    let body = Box::new(ServiceFrames {
        frames: Frames::of_backend(half, cutter, link.clone()),
        link,
        writing: Abort(writing.abort_handle()),
        heard: false,
        patience: None,
        close_wait: or_never(settings.close_wait),
        over: false,
    });
    Ok(Answer { head: ResponseHead { status, headers }, body })
}

/// Sends the handshake; the connection's task lives until the upgrade.
async fn shake_hands(
    conn: Conn,
    request: http::Request<Outgoing>,
) -> Result<Response<Incoming>, Fault> {
    let refused = |error: hyper::Error| Fault::because(Reason::BackendReset, error.to_string());
    let (mut sender, served) =
        http1::Builder::new().handshake(TokioIo::new(conn)).await.map_err(refused)?;
    tokio::spawn(async move {
        let _ = served.with_upgrades().await;
    });
    sender.send_request(request).await.map_err(|error| fault_of(&error, None))
}

/// A backend's refusal is an ordinary answer.
fn refused(backend: &Backend, response: Response<Incoming>) -> Result<Answer, Failure> {
    let (parts, body) = response.into_parts();
    if parts.status.is_informational() {
        return Err(Fault::because(Reason::BackendInvalid, "an unknown interim status").into());
    }
    let headers = backend.answered(parts.headers)?;
    let head = ResponseHead { status: parts.status, headers };
    let body: BoxBody = match http_body::Body::is_end_stream(&body) {
        true => Box::new(strait_engine::EmptyBody),
        false => Box::new(Refusal(body)),
    };
    Ok(Answer { head, body })
}

/// The body of a refusal. Its connection closes with it.
struct Refusal(Incoming);

impl Body for Refusal {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        let part = ready!(poll_incoming(&mut self.0, cx));
        Poll::Ready(part.map(|part| part.map_err(|error| fault_of(&error, None))))
    }

    fn is_end(&self) -> bool {
        http_body::Body::is_end_stream(&self.0)
    }
}

async fn upgraded(response: Response<Incoming>) -> Result<Conn, Fault> {
    let lost = |what: &'static str| Fault::because(Reason::BackendReset, what);
    let upgraded = hyper::upgrade::on(response).await.map_err(|_| lost("lost at the upgrade"))?;
    let parts = upgraded
        .downcast::<TokioIo<Conn>>()
        .map_err(|_| Fault::because(Reason::Internal, "an upgrade of another connection"))?;
    Ok(parts.io.into_inner().upgraded(parts.read_buf))
}

/// The request's direction: its frames, then its end or its cut.
async fn write(mut pump: Pump, mut body: BoxBody, link: Arc<Link>) {
    match pump.run(&mut body).await {
        End::Closed => {
            link.close();
            // The backend closes the connection, or the other direction's end does.
            return;
        }
        End::Ended => {}
        End::Fault(fault) => {
            tracing::debug!(%fault, "a WebSocket was cut");
            pump.close_for(&fault).await;
        }
        End::Broken(error) => tracing::debug!(%error, "a backend's socket broke"),
    }
    pump.shutdown().await;
}

struct Abort(AbortHandle);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The answer's direction. After the close frame of one side it stays open until the
/// other's has passed, so that a close handshake ends on both legs; yet not for ever.
struct ServiceFrames {
    frames: Frames,
    link: Arc<Link>,
    #[allow(dead_code, reason = "held for its drop, which ends the other direction")]
    writing: Abort,
    /// The service's close frame has come.
    heard: bool,
    patience: Option<Pin<Box<Sleep>>>,
    close_wait: Duration,
    over: bool,
}

impl Body for ServiceFrames {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if !self.heard {
            match self.frames.poll_part(cx) {
                Poll::Ready(Some(part)) => return Poll::Ready(Some(part)),
                Poll::Ready(None) => self.heard = true,
                Poll::Pending => {}
            }
        }
        let written = self.link.poll_closed(cx).is_ready();
        if !(self.heard && written) {
            if !self.heard && !written {
                return Poll::Pending;
            }
            let limit = self.close_wait;
            let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            ready!(patience.as_mut().poll(cx));
        }
        self.over = true;
        let late = "the service did not answer a close frame";
        Poll::Ready((!self.heard).then(|| Err(Fault::because(Reason::BackendTimeout, late))))
    }

    fn is_end(&self) -> bool {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_socket_is_small() {
        let writing = size(|(pump, body, link)| write(pump, body, link));
        println!("bytes of a task: writing to a backend's WebSocket {writing}");
        assert!(writing <= 960, "{writing}");
    }
}
