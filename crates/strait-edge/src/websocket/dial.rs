//! Opening a socket to a backend. By HTTP/1.1 each has a connection of its own (RFC 6455 4);
//! by HTTP/2 it is one stream of a shared connection (RFC 8441 5), where the backend offers that.

use h2::ext::Protocol;
use http::{HeaderMap, Method, StatusCode};
use strait_engine::{Answer, Exchange, Failure, Fault, Reason, RequestHead};

use crate::backend::Backend;
use crate::http::outgoing::Outgoing;
use crate::http1::carry::{Asking, Unheard};
use crate::http1::request::write::write;
use crate::http2::answer::Held;
use crate::http2::carry::{Asked, ask};
use crate::http2::receiving::Receiving;
use crate::http2::socket::Socket;
use crate::io::Conn;
use crate::pool::Http1;
use crate::settings::or_never;
use crate::websocket::handshake;

/// What a backend says to a handshake.
pub(crate) enum Dialled {
    Accepted(Accepted),
    /// An ordinary answer.
    Refused(Answer),
}

/// A socket that a backend has accepted.
pub(crate) struct Accepted {
    /// What was agreed on, end to end.
    pub(crate) headers: HeaderMap,
    pub(crate) conn: Conn,
    /// The share of an HTTP/2 connection.
    pub(crate) held: Option<Held>,
}

/// Sends the handshake that is the head of `exchange`, whose body is empty.
pub(crate) async fn dial(backend: &Backend, exchange: Exchange) -> Result<Dialled, Failure> {
    if backend.speaks_http2() {
        let lease = match backend.pool().http2().await {
            Ok(lease) => lease,
            Err(fault) => return Err(Failure { fault, untouched: Some(Box::new(exchange)) }),
        };
        if lease.takes_connect(or_never(backend.pool().settings().backend_connect)).await {
            drop(lease);
            return connect(backend, exchange).await;
        }
    }
    upgrade(backend, exchange).await
}

/// The handshake by HTTP/2: an extended CONNECT.
async fn connect(backend: &Backend, exchange: Exchange) -> Result<Dialled, Failure> {
    let build = |head: &RequestHead| {
        let mut request = backend.request(head, handshake::ask_connect)?;
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        Ok((request, None))
    };
    let limit = backend.pool().settings().handshake;
    let bodiless = |_, _, _| Outgoing::full("");
    let Asked { response, held, open } = ask(backend, exchange, build, limit, bodiless).await?;
    let (parts, stream) = response.into_parts();
    match (parts.status, open) {
        (StatusCode::OK, Some(open)) => {
            let headers = agreed(backend, parts.headers)?;
            let conn = Conn::connected(Socket::new(open, stream));
            Ok(Dialled::Accepted(Accepted { headers, conn, held: Some(held) }))
        }
        (status, _) if status.is_success() => {
            let detail = format!("status {status} accepts a CONNECT and says something else");
            Err(Fault::because(Reason::BackendInvalid, detail).into())
        }
        (status, _) => {
            let head = backend.answered(status, parts.headers)?;
            let body = held.body(Receiving::answer(stream, None));
            Ok(Dialled::Refused(Answer { head, body }))
        }
    }
}

/// The handshake by HTTP/1.1, on a connection of its own.
async fn upgrade(backend: &Backend, exchange: Exchange) -> Result<Dialled, Failure> {
    let mut head = RequestHead::clone(&exchange.head);
    handshake::strip_leg(&mut head.headers);
    let mut of_leg = HeaderMap::new();
    let key = handshake::ask_upgrade(&mut of_leg)?;
    let (written, _) = write(backend, &head, false, &of_leg)?;
    let pool = backend.pool();
    let mut lease = match pool.dial().await {
        Ok(conn) => Http1::alone(conn),
        Err(fault) => return Err(Failure { fault, untouched: Some(Box::new(exchange)) }),
    };
    let mut asking = Asking::bodiless(head.method, written);
    let limit = pool.settings().handshake;
    let answer =
        asking.hear(&mut lease.connection, pool.settings(), limit).await.map_err(Unheard::fault)?;
    if answer.status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Dialled::Refused(asking.answered(backend, lease, answer)?));
    }
    handshake::check_answer(&answer.headers, &key)?;
    let headers = agreed(backend, answer.headers)?;
    let lost = || Fault::because(Reason::Internal, "a handshake that is still written");
    let conn = lease.connection.into_conn().ok_or_else(lost)?;
    Ok(Dialled::Accepted(Accepted { headers, conn, held: None }))
}

/// The fields of an accepted handshake that travel.
fn agreed(backend: &Backend, headers: HeaderMap) -> Result<HeaderMap, Fault> {
    let mut headers = backend.passed(headers)?;
    handshake::strip_leg(&mut headers);
    Ok(headers)
}
