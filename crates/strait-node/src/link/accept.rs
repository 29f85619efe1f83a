//! The listening end of a tunnel's transport.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming as HttpBody;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use strait_edge::Arriving;
use strait_engine::{Session, Workers};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::near::{Distance, OverTcp};
use super::{CONTENT_TYPE, FRAME, Outgoing, PATH, Received, SEND_BUFFER, Shared, WINDOW, tune};

/// A connection must have become a tunnel within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Whoever decides about callers and gets their sessions.
pub(crate) trait Gate: Send + Sync + 'static {
    /// How a new connection is encrypted; `None`: not at all.
    fn tls(&self) -> Option<Arc<ServerConfig>>;

    /// A session for the holder of `credential`, or the refusal.
    fn admit(
        &self,
        credential: Option<&HeaderValue>,
        address: SocketAddr,
    ) -> Result<Session, Refused>;

    /// The session's frames begin to arrive.
    fn attach(&self, session: Session, incoming: Received, address: SocketAddr);
}

/// A call that is not let in.
pub(crate) struct Refused {
    pub(crate) status: Status,
    /// Time before the caller hears of it.
    pub(crate) pause: Duration,
}

/// Accepts tunnels until `stop`, each on one of the `workers`. Accept errors are waited out: they
/// never end the loop.
pub(crate) async fn listen(
    listener: TcpListener,
    gate: Arc<dyn Gate>,
    workers: Workers,
    stop: CancellationToken,
) {
    let mut pause = Duration::from_millis(50);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let placed = accepted
            .and_then(|(stream, address)| Ok((Arriving::new(stream, workers.tunnel())?, address)));
        match placed {
            Ok((arriving, address)) => {
                pause = Duration::from_millis(50);
                let gate = Arc::clone(&gate);
                arriving.runtime().spawn(async move {
                    let Ok((stream, _seat)) = arriving.arrive() else { return };
                    connection(stream, address, gate).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a tunnel connection could not be accepted; trying again");
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

async fn connection(stream: TcpStream, address: SocketAddr, gate: Arc<dyn Gate>) {
    tune(&stream);
    let Some(tls) = gate.tls() else { return serve(stream, address, gate).await };
    match timeout(HANDSHAKE, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, address, gate).await,
        Ok(Err(error)) => tracing::debug!(%address, %error, "a TLS handshake failed"),
        Err(_) => tracing::debug!(%address, "a TLS handshake took too long"),
    }
}

async fn serve(
    io: impl AsyncRead + AsyncWrite + OverTcp + Unpin + Send + 'static,
    address: SocketAddr,
    gate: Arc<dyn Gate>,
) {
    let admitted = Arc::new(AtomicBool::new(false));
    let is_admitted = Arc::clone(&admitted);
    let distance = Arc::<Distance>::default();
    let io = Shared::new(io, &distance);
    let service = hyper::service::service_fn(move |request| {
        let (gate, admitted) = (Arc::clone(&gate), Arc::clone(&admitted));
        let distance = Arc::clone(&distance);
        async move { Ok::<_, Infallible>(call(request, gate, address, admitted, distance).await) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(32 * 1024)
        // One call is a tunnel; the rest is for health checks and mistakes.
        .max_concurrent_streams(16)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let outcome = match timeout(HANDSHAKE, connection.as_mut()).await {
        Ok(outcome) => outcome,
        // From its first call on, a tunnel's pings tell whether anybody is there.
        Err(_) if is_admitted.load(Ordering::Relaxed) => connection.await,
        Err(_) => return tracing::debug!(%address, "a connection without a tunnel was closed"),
    };
    if let Err(error) = outcome {
        tracing::debug!(%address, %error, "a tunnel connection ended");
    }
}

async fn call(
    request: Request<HttpBody>,
    gate: Arc<dyn Gate>,
    address: SocketAddr,
    admitted: Arc<AtomicBool>,
    distance: Arc<Distance>,
) -> Response<Outgoing> {
    if request.uri().path() != PATH {
        let mut response = Response::new(Outgoing::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        response.headers_mut().insert(
            header::WARNING,
            HeaderValue::from_static(
                "299 - \"this port takes Strait tunnels; visitors go to an entry\"",
            ),
        );
        return response;
    }
    match gate.admit(request.headers().get(header::AUTHORIZATION), address) {
        Ok(session) => {
            admitted.store(true, Ordering::Relaxed);
            let received = Received::new(request.into_body(), Arc::clone(&distance));
            gate.attach(session.clone(), received, address);
            let mut response = Response::new(Outgoing::answer(session, distance));
            response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
            response
        }
        Err(Refused { status, pause }) => {
            sleep(pause).await;
            status.into_http()
        }
    }
}
