//! The backend of a bench, in a process of its own: small answers, endless downloads and
//! a WebSocket that echoes.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::demo::load::Bulk;
use crate::demo::samples::accept;
use crate::demo::site::{Body, text};
use crate::demo::socket;

/// A request that is answered with [`SMALL_SIZE`] bytes.
pub(crate) const SMALL: &str = "/small";
/// Bytes of a small answer.
pub(crate) const SMALL_SIZE: usize = 1024;
/// A download of 1 GiB.
pub(crate) const BULK: &str = "/bulk";
/// A WebSocket that echoes.
pub(crate) const SOCKET: &str = "/socket";

static SMALL_BODY: [u8; SMALL_SIZE] = [b'.'; SMALL_SIZE];

/// Serves at `address` until standard input ends: so it never outlives who started it.
///
/// # Errors
/// When the address cannot be had.
pub(crate) async fn serve(address: SocketAddr) -> io::Result<()> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let started = json!({ "message": "started", "entries": listener.local_addr()?.to_string() });
    crate::tell(started);
    let (ended, end) = oneshot::channel::<()>();
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        drop(ended);
    })?;
    tokio::select! {
        () = accept(listener, connection) => {}
        _ = end => {}
    }
    Ok(())
}

async fn connection(socket: TcpStream) {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(request)) });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).max_buf_size(64 * 1024);
    // A visitor who leaves in the middle is an error to hyper and daily bread here.
    let _ = server.serve_connection(TokioIo::new(socket), service).with_upgrades().await;
}

fn answer(request: Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        SMALL => Response::new(Full::new(Bytes::from_static(&SMALL_BODY)).boxed_unsync()),
        BULK => Response::new(Bulk::new(1 << 30).boxed_unsync()),
        SOCKET => socket::accept(request),
        _ => text(StatusCode::NOT_FOUND, "There is /small, /bulk and /socket.\n"),
    }
}
