//! The sample backends: what somebody would have running behind a firewall.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinSet;

use super::sampler;
use super::site::{Site, Status};

/// The running sample backends; dropping them ends them.
pub(crate) struct Samples {
    /// HTTP/1.1 with server-sent events and a WebSocket.
    pub(crate) http: SocketAddr,
    /// gRPC: HTTP/2 without TLS.
    pub(crate) grpc: SocketAddr,
    _tasks: JoinSet<()>,
}

/// Starts the sample backends on free ports of the loopback. `entry` is the public side
/// of the tunnel, to which the HTTP sample sends its gRPC calls.
///
/// # Errors
/// When no port can be had.
pub(crate) fn start_samples(entry: SocketAddr, status: Status) -> io::Result<Samples> {
    let mut tasks = JoinSet::new();
    let services = aside("services")?;
    let site = Arc::new(Site::new(entry, status, aside("visitors")?));
    let (http, listener) = bind()?;
    let serve = move |socket| serve_http(socket, Arc::clone(&site));
    tasks.spawn_on(accept(listener, serve), &services);
    let (grpc, listener) = bind()?;
    tasks.spawn_on(accept(listener, serve_grpc), &services);
    Ok(Samples { http, grpc, _tasks: tasks })
}

/// A thread of its own for one role of the demo or a bench. In the world these are on
/// other machines: they must not wait in the queues of the nodes, nor the nodes in theirs.
pub(crate) fn aside(name: &str) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    // Lives as long as the program: roles do not come and go.
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

/// A free port of the loopback. Its listener becomes one of tokio's where it is served.
fn bind() -> io::Result<(SocketAddr, std::net::TcpListener)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    Ok((listener.local_addr()?, listener))
}

/// Accepts for ever; every connection has a task of its own, which ends with this one.
pub(crate) async fn accept<F>(listener: std::net::TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let _ = socket.set_nodelay(true);
                    connections.spawn(serve(socket));
                }
                // Out of descriptors, most likely: it passes, and so must this loop.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_http(socket: TcpStream, site: Arc<Site>) {
    let service = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.answer(request).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).max_buf_size(64 * 1024);
    // A visitor who leaves in the middle is an error to hyper and daily bread here.
    let _ = server.serve_connection(TokioIo::new(socket), service).with_upgrades().await;
}

async fn serve_grpc(socket: TcpStream) {
    let mut server = http2::Builder::new(TokioExecutor::new());
    server.timer(TokioTimer::new());
    let service = service_fn(sampler::answer);
    let _ = server.serve_connection(TokioIo::new(socket), service).await;
}
