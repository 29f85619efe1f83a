//! Opening a socket to a backend. By HTTP/1.1 each has a connection of its own (RFC 6455 4);
//! by HTTP/2 it is one stream of a shared connection (RFC 8441 5), where the backend offers that.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use strait_engine::{
    Answer, Body, BoxBody, EmptyBody, Exchange, Failure, Fault, Part, Reason, RequestHead,
    ResponseHead,
};

use crate::backend::Backend;
use crate::http::backend::{Held, fault_of, send};
use crate::http::body::poll_incoming;
use crate::http::outgoing::Outgoing;
use crate::io::Conn;
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
        let mut request = backend.request(head, Version::HTTP_2, handshake::ask_connect)?;
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        Ok((request, None))
    };
    let limit = backend.pool().settings().handshake;
    let sent = send(backend, exchange, build, true, limit, |_, _, _| Outgoing::full("")).await?;
    let (mut response, held) = (sent.response, sent.held);
    match response.status() {
        StatusCode::OK => {
            let headers = agreed(backend, &mut response)?;
            let conn = upgraded(response).await?;
            Ok(Dialled::Accepted(Accepted { headers, conn, held: Some(held) }))
        }
        status if status.is_success() => {
            let detail = format!("status {status} accepts a CONNECT and says something else");
            Err(Fault::because(Reason::BackendInvalid, detail).into())
        }
        _ => refused(backend, response, |body| held.body(body)),
    }
}

/// The handshake by HTTP/1.1, on a connection of its own.
async fn upgrade(backend: &Backend, exchange: Exchange) -> Result<Dialled, Failure> {
    let mut key = Ok(http::HeaderValue::from_static(""));
    let request = backend.request(&exchange.head, Version::HTTP_11, |headers| {
        key = handshake::ask_upgrade(headers);
    })?;
    let key = key?;
    let conn = match backend.pool().dial().await {
        Ok(conn) => conn,
        Err(fault) => return Err(Failure { fault, untouched: Some(Box::new(exchange)) }),
    };
    let limit = or_never(backend.pool().settings().handshake);
    let mut response = shake_hands(conn, request, limit).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return refused(backend, response, |body| Box::new(Refusal(body)));
    }
    handshake::check_answer(response.headers(), &key)?;
    let headers = agreed(backend, &mut response)?;
    let conn = upgraded(response).await?;
    Ok(Dialled::Accepted(Accepted { headers, conn, held: None }))
}

/// Sends the handshake on a connection whose task lives until the upgrade.
async fn shake_hands(
    conn: Conn,
    request: Request<()>,
    limit: Duration,
) -> Result<Response<Incoming>, Fault> {
    let exchanged = async {
        let refused = |error: hyper::Error| Fault::because(Reason::BackendReset, error.to_string());
        let (mut sender, served) =
            http1::Builder::new().handshake(TokioIo::new(conn)).await.map_err(refused)?;
        tokio::spawn(async move {
            let _ = served.with_upgrades().await;
        });
        let sent = sender.send_request(request.map(|()| Outgoing::full(""))).await;
        sent.map_err(|error| fault_of(&error, None))
    };
    tokio::time::timeout(limit, exchanged).await.unwrap_or_else(|_| {
        let detail = format!("no answer to the handshake within {limit:?}");
        Err(Fault::because(Reason::BackendTimeout, detail))
    })
}

/// The fields of an accepted handshake that travel.
fn agreed(backend: &Backend, response: &mut Response<Incoming>) -> Result<HeaderMap, Fault> {
    let mut headers = backend.answered(std::mem::take(response.headers_mut()))?;
    handshake::strip_leg(&mut headers);
    Ok(headers)
}

async fn upgraded(response: Response<Incoming>) -> Result<Conn, Fault> {
    let lost = |_| Fault::because(Reason::BackendReset, "lost at the upgrade");
    hyper::upgrade::on(response).await.map(Conn::upgraded).map_err(lost)
}

/// A backend's refusal is an ordinary answer.
fn refused(
    backend: &Backend,
    response: Response<Incoming>,
    frame: impl FnOnce(Incoming) -> BoxBody,
) -> Result<Dialled, Failure> {
    let (parts, body) = response.into_parts();
    if parts.status.is_informational() {
        return Err(Fault::because(Reason::BackendInvalid, "an unknown interim status").into());
    }
    let headers = backend.answered(parts.headers)?;
    let head = ResponseHead { status: parts.status, headers };
    let body = match http_body::Body::is_end_stream(&body) {
        true => Box::new(EmptyBody),
        false => frame(body),
    };
    Ok(Dialled::Refused(Answer { head, body }))
}

/// The body of a refusal by HTTP/1.1. Its connection closes with it.
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
