//! What the backend answers that is not over at once: bodies of any length, WebSockets and
//! gRPC calls that echo, and a count of what was pulled from it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use ring::digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Failure;

/// The body of any answer.
pub(crate) type AnyBody = UnsyncBoxBody<Bytes, Failure>;

/// Bytes that a body yields at once.
const PIECE: usize = 16 * 1024;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// What is going on at the backend.
#[derive(Default)]
pub(crate) struct Seen {
    connections: AtomicU64,
    /// Bytes pulled from each body of `endless`, by its note.
    pulled: Mutex<HashMap<String, Arc<AtomicU64>>>,
}

/// A connection that is counted for as long as it lives.
pub(crate) struct Counted(Arc<Seen>);

impl Counted {
    pub(crate) fn new(seen: &Arc<Seen>) -> Counted {
        seen.connections.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(seen))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seen {
    /// As JSON: the live connections, this one left out, and what was pulled.
    pub(crate) fn json(&self) -> String {
        let pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        let notes: Vec<String> = pulled
            .iter()
            .map(|(note, bytes)| format!(r#""{note}":{}"#, bytes.load(Ordering::Relaxed)))
            .collect();
        let connections = self.connections.load(Ordering::Relaxed).saturating_sub(1);
        format!(r#"{{"connections":{connections},"pulled":{{{}}}}}"#, notes.join(","))
    }

    /// The counter of one note, which must be letters, digits and `-`.
    fn counter(&self, note: &str) -> Arc<AtomicU64> {
        let note = note.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let mut pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(pulled.entry(note).or_default())
    }
}

/// A whole body.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The value of one field of a query.
pub(crate) fn field<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    let fields = query?.split('&').filter_map(|field| field.split_once('='));
    fields.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// `n` bytes, counted under `note` as they are pulled.
pub(crate) fn endless(seen: &Seen, query: Option<&str>) -> Response<AnyBody> {
    let left = field(query, "n").and_then(|n| n.parse().ok()).unwrap_or(1 << 30);
    let pulled = seen.counter(field(query, "note").unwrap_or("endless"));
    Response::new(Endless { left, pulled }.boxed_unsync())
}

struct Endless {
    left: u64,
    pulled: Arc<AtomicU64>,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let count = self.left.min(PIECE as u64);
        if count == 0 {
            return Poll::Ready(None);
        }
        self.left -= count;
        self.pulled.fetch_add(count, Ordering::Relaxed);
        let piece = Bytes::from_static(&ZEROS).slice(..count as usize);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.left)
    }
}

/// Answers a gRPC call with the messages that it sends.
pub(crate) fn call(request: Request<Incoming>) -> Response<AnyBody> {
    let echo = Echo { body: request.into_body(), over: false };
    let mut answer = Response::new(echo.boxed_unsync());
    let kind = HeaderValue::from_static("application/grpc");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

struct Echo {
    body: Incoming,
    over: bool,
}

impl Body for Echo {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.over {
            return Poll::Ready(None);
        }
        // The end of a stream comes as an empty frame. Sent as one it would have no meaning,
        // and h2 ends connections on which a hundred of these came.
        let frame = loop {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                other => break other,
            }
        };
        let frame = match frame {
            Some(frame) => frame.map_err(Into::into),
            None => {
                self.over = true;
                let ok =
                    (header::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
                Ok(Frame::trailers(HeaderMap::from_iter([ok])))
            }
        };
        Poll::Ready(Some(frame))
    }
}

/// Accepts a WebSocket, which then echoes each frame.
pub(crate) fn socket(mut request: Request<Incoming>) -> Response<AnyBody> {
    let key =
        request.headers().get(header::SEC_WEBSOCKET_KEY).map_or(&b""[..], |key| key.as_bytes());
    let Ok(accept) = HeaderValue::from_str(&accept(key)) else { return Response::new(whole("")) };
    let upgrade = hyper::upgrade::on(&mut request);
    let mut answer = Response::new(whole(""));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = answer.headers_mut();
    fields.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    tokio::spawn(async move {
        // A visitor who goes away is no news to a backend.
        let _ = frames(upgrade).await;
    });
    answer
}

/// The answer to a handshake's key (RFC 6455 4.2.2).
pub(crate) fn accept(key: &[u8]) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finish())
}

/// Echoes frames of up to 125 bytes until one of them says that it is over.
async fn frames(upgrade: OnUpgrade) -> Result<(), Failure> {
    let mut stream = TokioIo::new(upgrade.await?);
    let mut frame = [0; 2 + 125];
    loop {
        let mut head = [0; 6];
        stream.read_exact(&mut head).await?;
        let length = usize::from(head[1] & 0x7f);
        if length > 125 {
            return Err("a frame longer than this backend takes".into());
        }
        let body = &mut frame[2..2 + length];
        stream.read_exact(body).await?;
        body.iter_mut().zip(head[2..].iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        frame[0] = head[0];
        frame[1] = length as u8;
        stream.write_all(&frame[..2 + length]).await?;
        if head[0] & 0x0f == 8 {
            return Ok(());
        }
    }
}
