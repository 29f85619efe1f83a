//! The backend.

use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::Failure;

static SMALL: [u8; 1024] = [b's'; 1024];

/// Serves for ever at the address in `words`.
pub(crate) async fn serve(words: &[String]) -> Result<(), Failure> {
    let [address] = words else { return Err(crate::HELP.into()) };
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http2().max_concurrent_streams(1000);
            // A visitor who goes away is no news to a backend.
            let _ = builder.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if head.uri.path().ends_with("/small") {
        return Ok(Response::new(Full::new(Bytes::from_static(&SMALL))));
    }
    if head.uri.path().ends_with("/wait") {
        let wait =
            head.uri.query().and_then(|q| q.strip_prefix("ms=")).and_then(|n| n.parse().ok());
        tokio::time::sleep(Duration::from_millis(wait.unwrap_or(1000))).await;
        return Ok(Response::new(Full::new(Bytes::from_static(b"waited\n"))));
    }
    let Ok(body) = body.collect().await else {
        let mut cut = Response::new(Full::default());
        *cut.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(cut);
    };
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let digest = digest(head.method.as_str(), target, &body.to_bytes());
    Ok(Response::new(Full::new(Bytes::from(digest))))
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
