//! WebSocket at an entry.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode};
use strait_engine::{Answer, BoxBody, Fault, Reason, next_part};
use tokio::sync::oneshot;

use crate::activity::Active;
use crate::half::Half;
use crate::http::hop::strip;
use crate::http::incoming::Upgrade;
use crate::http::outgoing::Outgoing;
use crate::listen::Tasks;
use crate::settings::or_never;
use crate::unless::unless;
use crate::visit::{Requested, Visit, carry as carry_visit};
use crate::websocket::frame::{Cutter, Rules, Writer};
use crate::websocket::handshake;
use crate::websocket::read::{Frames, Link};
use crate::websocket::write::{End, Pump};

/// Carries a handshake and, when it is accepted, the frames after it. `key` is of the
/// handshake by HTTP/1.1; that by HTTP/2 has none.
pub(crate) async fn carry(
    visit: Visit,
    request: Requested,
    upgrade: Option<Upgrade>,
    key: Option<HeaderValue>,
) -> Response<Outgoing> {
    let Some(upgrade) = upgrade else {
        let fault = Fault::because(Reason::Internal, "a checked handshake without an upgrade");
        return visit.refuse(&fault);
    };
    let link = Arc::new(Link::default());
    let (socket, waiting) = oneshot::channel();
    let frames = Frames::of_visitor(waiting, link.clone());
    let answer = match carry_visit(&visit, request.exchange(Box::new(frames))).await {
        Ok(answer) => answer,
        Err(fault) => return visit.refuse(&fault),
    };
    if answer.head.status != StatusCode::SWITCHING_PROTOCOLS {
        drop(socket);
        if key.is_none() && answer.head.status.is_success() {
            // By HTTP/2 this would accept what the service did not.
            let detail = "no handshake, but an answer to a plain request";
            return visit.refuse(&Fault::because(Reason::BackendInvalid, detail));
        }
        return crate::http::entry::respond(visit, answer).await;
    }
    let Answer { head, body } = answer;
    let mut headers: HeaderMap = head.headers;
    strip(&mut headers);
    handshake::strip_leg(&mut headers);
    let settings = &visit.entry.settings;
    let relay = Relay {
        upgrade,
        body,
        socket,
        link,
        extended: handshake::extended(&headers),
        max_message: settings.max_message,
        close_wait: or_never(settings.close_wait),
        tasks: visit.door.tasks.clone(),
        active: key.is_none().then(|| visit.door.activity.request(visit.version)),
    };
    visit.door.tasks.spawn(relay.run());
    let status = match key {
        None => StatusCode::OK,
        Some(key) => {
            handshake::upgrade(&mut headers);
            headers.insert(http::header::SEC_WEBSOCKET_ACCEPT, handshake::accept(key.as_bytes()));
            StatusCode::SWITCHING_PROTOCOLS
        }
    };
    visit.respond(status, headers, Outgoing::full(""), false)
}

/// An accepted socket; it lives in a task of its own until both directions are over.
pub(crate) struct Relay {
    upgrade: Upgrade,
    body: BoxBody,
    socket: oneshot::Sender<(Half, Cutter)>,
    link: Arc<Link>,
    extended: bool,
    max_message: u64,
    close_wait: Duration,
    tasks: Tasks,
    #[allow(
        dead_code,
        reason = "held for its drop: an HTTP/2 connection with a socket is not idle"
    )]
    active: Option<Active>,
}

impl Relay {
    pub(crate) async fn run(self) {
        let Relay { upgrade, mut body, socket, link, .. } = self;
        // Until the answer to the handshake is written, if it ever is.
        let Ok(conn) = upgrade.await else { return };
        let half = Half::new(conn);
        let rules = |blame| Rules::new(self.extended, self.max_message, blame);
        let cutter = Cutter::new(rules(Reason::BadRequest), true);
        // Nobody waits for it only when the exchange is over already.
        let _ = socket.send((half.clone(), cutter));
        let mut pump = Pump::new(half, Writer::new(rules(Reason::Protocol), false));
        let interruption = async {
            tokio::select! {
                biased;
                fault = link.failed() => fault,
                () = self.tasks.drain().cancelled() => Fault::new(Reason::Draining),
            }
        };
        let end = unless(pin!(pump.run(&mut body)), pin!(interruption)).await;
        match end {
            Ok(End::Closed) => {
                // The visitor's close frame, if it is still to come, travels meanwhile;
                // the upstream ends this body when the backend has it.
                let rest = async { while let Some(Ok(_)) = next_part(&mut body).await {} };
                let _ = tokio::time::timeout(self.close_wait, rest).await;
            }
            Ok(End::Fault(fault)) | Err(fault) => {
                body.give_up(&fault);
                drop(body);
                pump.close_for(&fault).await;
            }
            Ok(End::Ended) => {}
            Ok(End::Broken(error)) => {
                tracing::debug!(%error, "a visitor's socket broke");
                return;
            }
        }
        pump.shutdown().await;
    }
}
