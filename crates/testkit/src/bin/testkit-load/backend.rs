//! The backend of the bench: as little work as it can be, so that the tunnel is what is
//! measured. HTTP/1.1 and HTTP/2 without TLS on one port.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::Failure;
use crate::frames;

/// Bytes of a download.
const DOWNLOAD: u64 = 1 << 30;
static SMALL: [u8; 1024] = [b's'; 1024];
static PIECE: [u8; 64 * 1024] = [b'~'; 64 * 1024];

type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

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
            // One upload must not wait for the window of its connection.
            builder.http2().initial_connection_window_size(16 << 20);
            let served = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
            // A visitor who goes away is no news to a backend.
            let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), served).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Answer {
    match request.uri().path() {
        "/small" => Response::new(whole(&SMALL)),
        "/bulk" => Response::new(Download { left: DOWNLOAD }.map_err(never).boxed_unsync()),
        "/up" => drained(request.into_body()).await,
        "/socket" => socket(request),
        path if path.starts_with("/bench.Bench/") => {
            let mut answer = Response::new(Echo { call: Some(request.into_body()) }.boxed_unsync());
            let grpc = HeaderValue::from_static("application/grpc");
            answer.headers_mut().insert(header::CONTENT_TYPE, grpc);
            answer
        }
        _ => with_status(StatusCode::NOT_FOUND),
    }
}

fn never(never: Infallible) -> hyper::Error {
    match never {}
}

fn whole(bytes: &'static [u8]) -> UnsyncBoxBody<Bytes, hyper::Error> {
    Full::new(Bytes::from_static(bytes)).map_err(never).boxed_unsync()
}

fn with_status(status: StatusCode) -> Answer {
    let mut answer = Response::new(Empty::new().map_err(never).boxed_unsync());
    *answer.status_mut() = status;
    answer
}

/// Reads all of an upload and keeps none of it.
async fn drained(mut body: Incoming) -> Answer {
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            return with_status(StatusCode::BAD_REQUEST);
        }
    }
    Response::new(whole(b"read\n"))
}

/// A body that is made as it is asked for.
struct Download {
    left: u64,
}

impl Body for Download {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let size = self.left.min(PIECE.len() as u64);
        self.left -= size;
        let piece = Bytes::from_static(&PIECE[..size as usize]);
        Poll::Ready((size > 0).then(|| Ok(Frame::data(piece))))
    }
}

/// The messages of a gRPC call as they come, then its status: unary and streaming alike.
struct Echo {
    call: Option<Incoming>,
}

impl Body for Echo {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(call) = &mut self.call else { return Poll::Ready(None) };
        loop {
            return match Pin::new(&mut *call).poll_frame(context) {
                // The end of a stream may come as an empty frame. h2 ends connections on which
                // a hundred of these come back.
                Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(Bytes::is_empty) => {
                    continue;
                }
                Poll::Ready(None) => {
                    self.call = None;
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                }
                other => other,
            };
        }
    }
}

/// Accepts a WebSocket and echoes it (RFC 6455 4.2.2 and 5.3).
fn socket(mut request: Request<Incoming>) -> Answer {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        return with_status(StatusCode::UPGRADE_REQUIRED);
    };
    let proof = [key.as_bytes(), b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    let proof = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &proof));
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        // The end of a connection is how most of them end.
        let _ = echo(TokioIo::new(upgraded)).await;
    });
    let mut answer = with_status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(proof) = HeaderValue::from_str(&proof) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, proof);
    }
    answer
}

async fn echo(mut socket: impl AsyncReadExt + AsyncWriteExt + Unpin) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(1024);
    loop {
        if socket.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        let (answers, used) = frames::unmasked(&buffer)?;
        buffer.drain(..used);
        if !answers.is_empty() {
            socket.write_all(&answers).await?;
            socket.flush().await?;
        }
    }
}
