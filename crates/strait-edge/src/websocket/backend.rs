//! WebSocket towards a backend.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use strait_engine::{
    Answer, Body, BoxBody, EmptyBody, Exchange, Failure, Fault, Part, Reason, ResponseHead,
};
use tokio::task::AbortHandle;
use tokio::time::Sleep;

use crate::backend::Backend;
use crate::half::Half;
use crate::http2::answer::Held;
use crate::settings::{Settings, or_never};
use crate::websocket::dial::{Accepted, Dialled, dial};
use crate::websocket::frame::{Cutter, Rules, Writer};
use crate::websocket::handshake;
use crate::websocket::read::{Frames, Link};
use crate::websocket::write::{End, Pump};

/// Carries a handshake and, when it is accepted, the frames after it.
pub(crate) async fn carry(backend: &Backend, exchange: Exchange) -> Result<Answer, Failure> {
    let Exchange { head, context, body } = exchange;
    let handshake = Exchange { head, context, body: Box::new(EmptyBody) };
    match dial(backend, handshake).await {
        Ok(Dialled::Accepted(accepted)) => Ok(relay(accepted, body, backend.pool().settings())),
        Ok(Dialled::Refused(answer)) => Ok(answer),
        Err(mut failure) => {
            if let Some(untouched) = &mut failure.untouched {
                untouched.body = body;
            }
            Err(failure)
        }
    }
}

/// Starts both directions of an accepted socket; `body` is the request's.
fn relay(accepted: Accepted, body: BoxBody, settings: &Settings) -> Answer {
    let Accepted { headers, conn, held } = accepted;
    let extended = handshake::extended(&headers);
    let rules = |blame| Rules::new(extended, settings.max_message, blame);
    let (half, link) = (Half::new(conn), Arc::new(Link::default()));
    let cutter = Cutter::new(rules(Reason::BackendInvalid), false);
    let pump = Pump::new(half.clone(), Writer::new(rules(Reason::Protocol), true));
    let writing = tokio::spawn(write(pump, body, link.clone()));
    let body = Box::new(ServiceFrames {
        frames: Frames::of_backend(half, cutter, link.clone()),
        link,
        writing: Abort(writing.abort_handle()),
        held,
        heard: false,
        patience: None,
        close_wait: or_never(settings.close_wait),
        over: false,
    });
    Answer { head: ResponseHead { status: StatusCode::SWITCHING_PROTOCOLS, headers }, body }
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
    #[allow(dead_code, reason = "held for its drop, which gives the share of a connection back")]
    held: Option<Held>,
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
