//! Connections by HTTP/2: shared by many requests.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use strait_engine::{Fault, Reason};
use tokio::sync::watch;

use crate::dial::connect;
use crate::gather::Gather;
use crate::http::outgoing::Outgoing;
use crate::http::pipe::Pipes;
use crate::io::Conn;
use crate::pool::{Pool, lock};
use crate::settings::or_never;

/// Window of one HTTP/2 stream in bytes.
const STREAM_WINDOW: u32 = 256 << 10;
/// Requests on one HTTP/2 connection, if the backend allows as many.
const MAX_STREAMS: usize = 128;
/// Enough for every stream's window, so that a stalled answer never stalls another.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS as u32;

/// The HTTP/2 connections of a pool.
#[derive(Default)]
pub(super) struct All {
    all: Mutex<Vec<Shared>>,
    /// Held while connecting, so that a burst shares one new connection.
    dialling: tokio::sync::Mutex<()>,
}

impl All {
    /// Closes what is unused for `limit` or broken; whether nothing is left.
    pub(super) fn clean(&self, limit: Duration) -> bool {
        let mut all = lock(&self.all);
        all.retain(|one| {
            let load = &one.load;
            let unused =
                load.active.load(Relaxed) == 0 && lock(&load.idle_since).elapsed() >= limit;
            !unused && !one.sender.is_closed() && !load.leaving.load(Relaxed)
        });
        all.is_empty()
    }
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

impl Pool {
    /// A share of an HTTP/2 connection.
    pub(crate) async fn http2(self: &Arc<Self>) -> Result<Lease, Fault> {
        if let Some(lease) = self.pick() {
            return Ok(lease);
        }
        // Behind a backend that does not answer, nobody waits for more than his own time.
        let limit = or_never(self.settings.backend_connect);
        let Ok(_one) = tokio::time::timeout(limit, self.http2.dialling.lock()).await else {
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
            .map_err(|error| {
                let detail = format!("{}: {error}", self.address);
                Fault::because(Reason::BackendRefused, detail).retry_safe()
            })?;
        let (tell, told) = watch::channel(Told::by(&served));
        let load = Arc::new(Load {
            active: AtomicUsize::new(1),
            told,
            idle_since: Mutex::new(Instant::now()),
            leaving: AtomicBool::new(false),
        });
        tokio::spawn(serve(served, tell));
        lock(&self.http2.all).push(Shared { sender: sender.clone(), load: load.clone() });
        self.reap();
        Ok(Lease { sender, reused: false, share: Share(load) })
    }

    fn pick(&self) -> Option<Lease> {
        let mut all = lock(&self.http2.all);
        all.retain(|shared| !shared.sender.is_closed() && !shared.load.leaving.load(Relaxed));
        let shared = all.iter().find(|shared| {
            let most = shared.load.told.borrow().most.clamp(1, MAX_STREAMS);
            shared.load.active.load(Relaxed) < most
        })?;
        shared.load.active.fetch_add(1, Relaxed);
        let (sender, load) = (shared.sender.clone(), shared.load.clone());
        drop(all);
        Some(Lease { sender, reused: true, share: Share(load) })
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

/// A share of a connection, for one request.
pub(crate) struct Lease {
    sender: http2::SendRequest<Outgoing>,
    /// Whether it served a request before: then the backend may have closed it unseen.
    pub(crate) reused: bool,
    share: Share,
}

impl Lease {
    /// The connection, not only the request, has failed: it takes no new requests.
    pub(crate) fn forsake(&self) {
        self.share.0.leaving.store(true, Relaxed);
    }

    /// Whether the backend takes extended CONNECT on this connection. Waits for it to tell,
    /// for `limit` at most.
    pub(crate) async fn takes_connect(&self, limit: Duration) -> bool {
        let Share(load) = &self.share;
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
        self.sender.try_send_request(request).await
    }
}
