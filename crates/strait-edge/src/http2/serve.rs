//! HTTP/2 at an entry: one connection, each request of which is answered by a task of its own.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderValue, Method, Request, Response};
use http_body::Body as _;
use tokio::sync::oneshot;

use crate::activity::Active;
use crate::http::date::with_date;
use crate::http::hop::Fields;
use crate::http::incoming::Incoming;
use crate::http::outgoing::Outgoing;
use crate::http2::pings::Pings;
use crate::http2::receiving::Receiving;
use crate::http2::sending::Sending;
use crate::http2::socket::Socket;
use crate::io::Conn;
use crate::settings::Settings;
use crate::visit::{Door, visit};

/// Window of one stream in bytes.
const STREAM_WINDOW: u32 = 256 << 10;
/// Requests open at once.
const MAX_STREAMS: u32 = 256;
/// Bytes of one answer that wait for the connection.
const SEND_BUFFER: usize = 128 << 10;

/// Serves `conn` until it is closed.
///
/// # Errors
/// Why it broke, or was left.
pub(crate) async fn serve(conn: Conn, door: Arc<Door>, settings: &Settings) -> io::Result<()> {
    let mut connection = builder(settings).handshake(conn).await.map_err(io::Error::other)?;
    let mut pings = connection.ping_pong().map(Pings::new);
    let mut leaving = false;
    poll_fn(|cx| {
        if !leaving && door.activity.is_leaving() {
            leaving = true;
            connection.graceful_shutdown();
        }
        if pings.as_mut().is_some_and(|pings| pings.poll(cx).is_ready()) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        while let Some(arrived) = ready!(connection.poll_accept(cx)) {
            let (request, respond) = arrived.map_err(io::Error::other)?;
            // At once: its visitor's end may be looked for before the task has its first turn.
            let active = door.activity.request(request.version());
            door.tasks.spawn_stream(answer(door.clone(), active, request, respond));
        }
        Poll::Ready(Ok(()))
    })
    .await
}

fn builder(settings: &Settings) -> Builder {
    let mut builder = Builder::new();
    let head = settings.max_header_bytes + 32 * settings.max_header_fields + settings.max_uri;
    builder
        .initial_window_size(STREAM_WINDOW)
        // Enough for every stream's window: a stalled upload never stalls another.
        .initial_connection_window_size(STREAM_WINDOW * MAX_STREAMS)
        .max_concurrent_streams(MAX_STREAMS)
        // WebSocket by HTTP/2 (RFC 8441 3).
        .enable_connect_protocol()
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX));
    builder
}

/// Answers a request, unless its visitor takes it back before.
async fn answer(
    door: Arc<Door>,
    active: Active,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (parts, stream) = request.into_parts();
    let fields = Fields::of(&parts.headers);
    let (body, upgrade, socket) = match parts.method == Method::CONNECT {
        true => {
            let (to, waiting) = oneshot::channel();
            (Incoming::Nothing, Some(waiting), Some((to, stream)))
        }
        false => (Incoming::Http2(Receiving::request(stream)), None, None),
    };
    let mut visiting = visit(door, active, (parts, fields), body, upgrade);
    let response = poll_fn(|cx| match visiting.as_mut().poll(cx) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending => respond.poll_reset(cx).map(|_| None),
    });
    let response = response.await;
    drop(visiting);
    let Some((head, body)) = response.map(head_of) else { return };
    let accepted = socket.filter(|_| head.status().is_success());
    let ends = accepted.is_none() && body.is_end_stream();
    match respond.send_response(head, ends) {
        Ok(send) => match accepted {
            // Nobody waits for it only when the exchange is over already.
            Some((to, receive)) => drop(to.send(Conn::connected(Socket::new(send, receive)))),
            None if ends => {}
            None => {
                let mut sending = Sending::answer(send, body);
                poll_fn(|cx| sending.poll(cx)).await;
            }
        },
        Err(error) => {
            tracing::debug!(%error, "an answer was not sent");
            respond.send_reset(h2::Reason::INTERNAL_ERROR);
        }
    }
}

/// The head as it is sent, and the body.
fn head_of(response: Response<Outgoing>) -> (Response<()>, Outgoing) {
    let (mut parts, body) = response.into_parts();
    if !parts.headers.contains_key(DATE) {
        with_date(|date| parts.headers.insert(DATE, date.clone()));
    }
    if let (Some(size), false) = (body.size_hint().exact(), body.is_end_stream()) {
        parts.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(size));
    }
    (Response::from_parts(parts, ()), body)
}
