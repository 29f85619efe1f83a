//! Connections to one backend: HTTP/1 ones are used by one request at a time and kept for
//! the next, HTTP/2 ones are shared.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use strait_engine::{Fault, Reason};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::dial::{BackendAddress, connect};
use crate::gather::Gather;
use crate::http::outgoing::Outgoing;
use crate::http::pipe::Pipes;
use crate::io::Conn;
use crate::settings::{Settings, or_never};

/// Window of one HTTP/2 stream in bytes.
const STREAM_WINDOW: u32 = 256 << 10;
/// Requests on one HTTP/2 connection, if the backend allows as many.
const MAX_STREAMS: usize = 128;
/// Enough for every stream's window, so that a stalled answer never stalls another.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS as u32;

/// How long a connection that is given up may take to close by itself: to send what it still
/// holds and a TLS goodbye. A backend that has stopped reading never lets it, and until then
/// the connection would keep the request's body, and with it an entry of a tunnel.
const GOODBYE: Duration = Duration::from_millis(500);

/// The connections to one backend.
pub(crate) struct Pool {
    address: BackendAddress,
    settings: Arc<Settings>,
    tls: Tls,
    http1: Mutex<Vec<Idle>>,
    http2: Mutex<Vec<Shared>>,
    /// Held while connecting by HTTP/2, so that a burst shares one new connection.
    dialling: tokio::sync::Mutex<()>,
    reaping: AtomicBool,
}

/// TLS towards the backend, if it wants it.
#[derive(Default)]
pub(crate) struct Tls {
    pub(crate) http1: Option<Arc<ClientConfig>>,
    pub(crate) http2: Option<Arc<ClientConfig>>,
}

struct Idle {
    one: One,
    since: Instant,
}

/// An HTTP/1 connection. Dropped, it closes: politely, within [`GOODBYE`].
struct One {
    sender: http1::SendRequest<Outgoing>,
    #[allow(dead_code, reason = "held for its drop, which ends the connection's task")]
    end: DropGuard,
}

struct Shared {
    sender: http2::SendRequest<Outgoing>,
    load: Arc<Load>,
}

struct Load {
    active: AtomicUsize,
    told: watch::Receiver<Told>,
    idle_since: Mutex<Instant>,
    /// The connection failed, or the backend is leaving it: no new requests.
    leaving: AtomicBool,
}

/// What the backend has told of a connection in its SETTINGS (RFC 9113 6.5).
#[derive(Clone, Copy, PartialEq)]
struct Told {
    /// Streams that it allows at once.
    most: usize,
    /// It takes extended CONNECT (RFC 8441 3).
    connect: bool,
}

impl Told {
    /// What `most` is before the backend has told anything: a number that hardly any backend
    /// tells. For one that does, [`Lease::takes_connect`] waits in vain and is right anyway.
    const UNTOLD: usize = 99;

    fn is_known(self) -> bool {
        self.connect || self.most != Told::UNTOLD
    }

    fn by(served: &Served) -> Told {
        Told {
            most: served.current_max_send_streams(),
            connect: served.is_extended_connect_protocol_enabled(),
        }
    }
}

/// The task of an HTTP/2 connection.
type Served = http2::Connection<TokioIo<Gather<Conn>>, Outgoing, Pipes>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    pub(crate) fn new(address: BackendAddress, settings: Arc<Settings>, tls: Tls) -> Arc<Pool> {
        Arc::new(Pool {
            address,
            settings,
            tls,
            http1: Mutex::default(),
            http2: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
            reaping: AtomicBool::new(false),
        })
    }

    pub(crate) fn address(&self) -> &BackendAddress {
        &self.address
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// A new connection for a WebSocket, outside of the pool.
    pub(crate) async fn dial(&self) -> Result<Conn, Fault> {
        connect(&self.address, self.tls.http1.as_ref(), &self.settings).await
    }

    /// A connection for one HTTP/1 request; a new one when `fresh`.
    pub(crate) async fn http1(self: &Arc<Self>, fresh: bool) -> Result<Lease, Fault> {
        if !fresh {
            while let Some(mut one) = self.unused() {
                // The connection's task may need a turn to be ready again.
                let ready = one.sender.is_ready() || {
                    let ready = one.sender.ready();
                    let ready = tokio::time::timeout(Duration::from_millis(100), ready).await;
                    matches!(ready, Ok(Ok(())))
                };
                if ready {
                    return Ok(self.lease(Sender::Http1(one), true, None));
                }
            }
        }
        let conn = connect(&self.address, self.tls.http1.as_ref(), &self.settings).await?;
        let (sender, served) = http1::Builder::new()
            .max_buf_size(self.settings.head_buffer())
            .max_headers(self.settings.max_header_fields.max(100))
            .handshake(TokioIo::new(conn.reading_on()))
            .await
            .map_err(|error| self.refused(&error))?;
        let end = CancellationToken::new();
        tokio::spawn(until_given_up(served, end.clone()));
        let one = One { sender, end: end.drop_guard() };
        Ok(self.lease(Sender::Http1(one), false, None))
    }

    /// The HTTP/1 connection that was used last, unless it waits for too long.
    fn unused(&self) -> Option<One> {
        let mut idle = lock(&self.http1);
        let limit = or_never(self.settings.backend_idle);
        while let Some(Idle { one, since }) = idle.pop() {
            if since.elapsed() <= limit && !one.sender.is_closed() {
                return Some(one);
            }
        }
        None
    }

    /// A share of an HTTP/2 connection.
    pub(crate) async fn http2(self: &Arc<Self>) -> Result<Lease, Fault> {
        if let Some(lease) = self.pick() {
            return Ok(lease);
        }
        // Behind a backend that does not answer, nobody waits for more than his own time.
        let limit = or_never(self.settings.backend_connect);
        let Ok(_one) = tokio::time::timeout(limit, self.dialling.lock()).await else {
            let detail = format!("{}: no connection within {limit:?}", self.address);
            return Err(Fault::because(Reason::BackendConnectTimeout, detail).retry_safe());
        };
        if let Some(lease) = self.pick() {
            return Ok(lease);
        }
        let conn = connect(&self.address, self.tls.http2.as_ref(), &self.settings).await?;
        // No keep-alive pings: gRPC servers end connections that ping more often than every
        // five minutes. TCP's own probes find a backend that vanished.
        let (sender, served) = http2::Builder::new(Pipes)
            .timer(TokioTimer::new())
            .initial_max_send_streams(Told::UNTOLD)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(128 << 10)
            .max_header_list_size(u32::try_from(self.settings.head_buffer()).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(Gather::new(conn)))
            .await
            .map_err(|error| self.refused(&error))?;
        let (tell, told) = watch::channel(Told::by(&served));
        let load = Arc::new(Load {
            active: AtomicUsize::new(1),
            told,
            idle_since: Mutex::new(Instant::now()),
            leaving: AtomicBool::new(false),
        });
        tokio::spawn(serve(served, tell));
        lock(&self.http2).push(Shared { sender: sender.clone(), load: load.clone() });
        self.reap();
        Ok(self.lease(Sender::Http2(sender), false, Some(Share(load))))
    }

    fn pick(self: &Arc<Self>) -> Option<Lease> {
        let mut all = lock(&self.http2);
        all.retain(|shared| !shared.sender.is_closed() && !shared.load.leaving.load(Relaxed));
        let shared = all.iter().find(|shared| {
            let most = shared.load.told.borrow().most.clamp(1, MAX_STREAMS);
            shared.load.active.load(Relaxed) < most
        })?;
        shared.load.active.fetch_add(1, Relaxed);
        let (sender, load) = (shared.sender.clone(), shared.load.clone());
        drop(all);
        Some(self.lease(Sender::Http2(sender), true, Some(Share(load))))
    }

    fn lease(self: &Arc<Self>, sender: Sender, reused: bool, share: Option<Share>) -> Lease {
        Lease { sender, reused, pool: Arc::downgrade(self), share }
    }

    fn refused(&self, error: &hyper::Error) -> Fault {
        Fault::because(Reason::BackendRefused, format!("{}: {error}", self.address)).retry_safe()
    }

    fn put(self: &Arc<Self>, one: One) {
        if one.sender.is_closed() {
            return;
        }
        let mut idle = lock(&self.http1);
        if idle.len() < self.settings.max_idle_connections {
            idle.push(Idle { one, since: Instant::now() });
            drop(idle);
            self.reap();
        }
    }

    /// Closes what is unused for too long; one task for as long as there is something.
    fn reap(self: &Arc<Self>) {
        if self.reaping.swap(true, Relaxed) {
            return;
        }
        let limit = or_never(self.settings.backend_idle);
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep((limit / 2).max(Duration::from_millis(10))).await;
                let Some(pool) = pool.upgrade() else { return };
                if pool.drop_unused(limit) {
                    return;
                }
            }
        });
    }

    /// Whether nothing is left to watch; then the next connection starts a new reaper.
    fn drop_unused(&self, limit: Duration) -> bool {
        let mut idle = lock(&self.http1);
        let mut shared = lock(&self.http2);
        idle.retain(|idle| idle.since.elapsed() < limit && !idle.one.sender.is_closed());
        shared.retain(|one| {
            let unused =
                one.load.active.load(Relaxed) == 0 && lock(&one.load.idle_since).elapsed() >= limit;
            !unused && !one.sender.is_closed() && !one.load.leaving.load(Relaxed)
        });
        let empty = idle.is_empty() && shared.is_empty();
        if empty {
            // Under both locks: whoever adds one after this sees the flag cleared.
            self.reaping.store(false, Relaxed);
        }
        empty
    }
}

/// A request's share of an HTTP/2 connection.
struct Share(Arc<Load>);

impl Drop for Share {
    fn drop(&mut self) {
        *lock(&self.0.idle_since) = Instant::now();
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// Serves an HTTP/1 connection until it ends, or shortly after it was given up.
async fn until_given_up<E: std::fmt::Display>(
    served: impl Future<Output = Result<(), E>>,
    end: CancellationToken,
) {
    let mut served = std::pin::pin!(served);
    let served = tokio::select! {
        served = &mut served => served,
        () = end.cancelled() => match tokio::time::timeout(GOODBYE, served).await {
            Ok(served) => served,
            Err(_) => return,
        },
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to a backend ended");
    }
}

/// Serves an HTTP/2 connection until it ends, and tells what its backend tells.
async fn serve(mut served: Served, tell: watch::Sender<Told>) {
    let told = tell.subscribe();
    let mut served = std::pin::pin!(std::future::poll_fn(|cx| {
        let done = Pin::new(&mut served).poll(cx);
        let now = Told::by(&served);
        tell.send_if_modified(|told| std::mem::replace(told, now) != now);
        done
    }));
    // The library does not wake us when SETTINGS come.
    let mut pause = Duration::from_millis(1);
    let end = loop {
        if told.borrow().is_known() {
            break served.await;
        }
        match tokio::time::timeout(pause, served.as_mut()).await {
            Ok(end) => break end,
            Err(_) => pause = (pause * 2).min(Duration::from_secs(1)),
        }
    };
    if let Err(error) = end {
        tracing::debug!(%error, "a connection to a backend ended");
    }
}

enum Sender {
    Http1(One),
    Http2(http2::SendRequest<Outgoing>),
}

/// A connection, or a share of one, for one request. Dropping it before [`Lease::done`]
/// closes an HTTP/1 connection.
pub(crate) struct Lease {
    sender: Sender,
    /// Whether it served a request before: then the backend may have closed it unseen.
    pub(crate) reused: bool,
    pool: Weak<Pool>,
    share: Option<Share>,
}

impl Lease {
    /// The connection, not only the request, has failed: it takes no new requests.
    pub(crate) fn forsake(&self) {
        if let Some(Share(load)) = &self.share {
            load.leaving.store(true, Relaxed);
        }
    }

    /// Whether the backend takes extended CONNECT on this connection. Waits for it to tell,
    /// for `limit` at most; never on HTTP/1.
    pub(crate) async fn takes_connect(&self, limit: Duration) -> bool {
        let Some(Share(load)) = &self.share else { return false };
        let mut told = load.told.clone();
        let has_told = told.wait_for(|told| told.is_known());
        let _ = tokio::time::timeout(limit, has_told).await;
        load.told.borrow().connect
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The library's error, with the request when nothing of it was written.
    pub(crate) async fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        match &mut self.sender {
            Sender::Http1(one) => one.sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        }
    }

    /// The request and its answer have ended properly: the connection may serve another.
    pub(crate) fn done(self) {
        if let (Sender::Http1(one), Some(pool)) = (self.sender, self.pool.upgrade()) {
            pool.put(one);
        }
    }
}
