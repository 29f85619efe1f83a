//! The backend.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::Failure;
use crate::streams::{self, AnyBody, Counted, Seen, field, whole};

/// Bytes that the kernel takes from an answer before it has sent them.
const NOT_SENT: u32 = 128 * 1024;
static SMALL: [u8; 1024] = [b's'; 1024];

/// Serves for ever at the address in `words`.
pub(crate) async fn serve(words: &[String]) -> Result<(), Failure> {
    let [address] = words else { return Err(crate::HELP.into()) };
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    let seen = Arc::new(Seen::default());
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        stream.set_nodelay(true)?;
        // What the kernel has not sent was not pulled by anybody, and shall not count.
        socket2::SockRef::from(&stream).set_tcp_notsent_lowat(NOT_SENT)?;
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let _counted = Counted::new(&seen);
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http2().max_concurrent_streams(1000);
            let service = service_fn(|request| {
                let seen = Arc::clone(&seen);
                async move { Ok::<_, Infallible>(answer(request, &seen).await) }
            });
            // A visitor who goes away is no news to a backend.
            let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, seen: &Seen) -> Response<AnyBody> {
    let value = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    if value(header::UPGRADE).is_some() {
        return streams::socket(request);
    }
    if value(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/grpc")) {
        return streams::call(request);
    }
    let (head, body) = request.into_parts();
    match head.uri.path().rsplit('/').next() {
        Some("small") => return Response::new(whole(Bytes::from_static(&SMALL))),
        Some("endless") => return streams::endless(seen, head.uri.query()),
        Some("seen") => return Response::new(whole(seen.json())),
        Some("wait") => {
            let wait = field(head.uri.query(), "ms").and_then(|n| n.parse().ok());
            tokio::time::sleep(Duration::from_millis(wait.unwrap_or(1000))).await;
            return Response::new(whole("waited\n"));
        }
        _ => {}
    }
    let Ok(body) = body.collect().await else {
        let mut cut = Response::new(whole(""));
        *cut.status_mut() = StatusCode::BAD_REQUEST;
        return cut;
    };
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let digest = digest(head.method.as_str(), target, &body.to_bytes());
    Response::new(whole(digest))
}

/// The SHA-256 of one request, in hexadecimal.
pub(crate) fn digest(method: &str, target: &str, body: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in [method.as_bytes(), b" ", target.as_bytes(), b"\n", body] {
        hash.update(part);
    }
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
