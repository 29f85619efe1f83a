//! Connections by HTTP/2: shared by many requests.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::SendStream;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::Request;
use strait_engine::{Budget, Fault, Reason, here};
use tokio::runtime::Id;

use crate::dial::connect;
use crate::http2::window;
use crate::pool::{Pool, lock};
use crate::settings::or_never;

/// Requests on one HTTP/2 connection, if the backend allows as many.
const MAX_STREAMS: usize = 128;
/// Enough for every stream's window, so that a stalled answer never stalls another.
const CONNECTION_WINDOW: u32 = window::MOST * MAX_STREAMS as u32;
/// Bytes of one stream that wait for the connection.
const SEND_BUFFER: usize = 128 << 10;

/// Streams that a backend allows before it has told anything in its SETTINGS (RFC 9113 6.5): a
/// number that hardly any tells. For one that does, [`Lease::takes_connect`] waits in vain and is
/// right anyway.
const UNTOLD: usize = 99;

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
        all.retain(|Shared { load, .. }| {
            let unused =
                load.active.load(Relaxed) == 0 && lock(&load.idle_since).elapsed() >= limit;
            !unused && !load.leaving.load(Relaxed)
        });
        all.is_empty()
    }
}

/// A connection; it closes when the last one who can send requests on it is gone.
struct Shared {
    sender: SendRequest<Bytes>,
    load: Arc<Load>,
    /// What the backend may send of each answer before it is taken.
    window: u32,
    /// The worker that moves its bytes.
    home: Option<Id>,
}

struct Load {
    active: AtomicUsize,
    idle_since: Mutex<Instant>,
    /// The connection ended or failed, or the backend is leaving it: no new requests.
    leaving: AtomicBool,
}

impl Shared {
    /// Whether one more request may use it.
    fn has_room(&self) -> bool {
        let active = self.load.active.load(Relaxed);
        active == 0 || active < self.sender.current_max_send_streams().min(MAX_STREAMS)
    }

    fn lease(&self, reused: bool, windows: &Budget) -> Lease {
        self.load.active.fetch_add(1, Relaxed);
        let window = window::Grant::new(windows, self.window);
        let share = Share { load: self.load.clone(), _window: window };
        Lease { sender: self.sender.clone(), reused, share }
    }
}

impl Pool {
    /// A share of an HTTP/2 connection.
    pub(crate) async fn http2(self: &Arc<Self>) -> Result<Lease, Fault> {
        match self.pick() {
            Some(lease) => Ok(lease),
            // Boxed, because most requests have no use for its room.
            None => Box::pin(self.dial_http2()).await,
        }
    }

    /// A share of a new connection, or of one that came meanwhile.
    async fn dial_http2(self: &Arc<Self>) -> Result<Lease, Fault> {
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
        let window = window::of_new(&self.windows);
        let (sender, connection) = Builder::new()
            .enable_push(false)
            .initial_max_send_streams(UNTOLD)
            .initial_window_size(window)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(u32::try_from(self.settings.head_buffer()).unwrap_or(u32::MAX))
            .handshake(conn)
            .await
            .map_err(|error| {
                let detail = format!("{}: {error}", self.address);
                Fault::because(Reason::BackendRefused, detail).retry_safe()
            })?;
        let load = Arc::new(Load {
            active: AtomicUsize::new(0),
            idle_since: Mutex::new(Instant::now()),
            leaving: AtomicBool::new(false),
        });
        let served = load.clone();
        tokio::spawn(async move {
            if let Err(error) = in_rounds(connection).await {
                tracing::debug!(%error, "a connection to a backend ended");
            }
            served.leaving.store(true, Relaxed);
        });
        let shared = Shared { sender, load, window, home: here() };
        let lease = shared.lease(false, &self.windows);
        lock(&self.http2.all).push(shared);
        self.reap();
        Ok(lease)
    }

    fn pick(&self) -> Option<Lease> {
        let mut all = lock(&self.http2.all);
        all.retain(|shared| !shared.load.leaving.load(Relaxed));
        let here = here();
        let share = window::share(&self.windows);
        let mut own = all.iter().filter(|shared| shared.home == here);
        let found = own.find(|shared| shared.has_room() && window::suits(shared.window, share));
        found.map(|shared| shared.lease(true, &self.windows))
    }
}

/// Polls `connection` one round of the runtime's queue after it is woken: whoever was woken
/// together with the one who woke it has its turn before, and its request goes in the same write.
async fn in_rounds<F: Future>(connection: F) -> F::Output {
    let mut connection = pin!(connection);
    let mut waited = false;
    poll_fn(|cx| {
        waited = !waited;
        if waited {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        connection.as_mut().poll(cx)
    })
    .await
}

/// A request's share of an HTTP/2 connection.
struct Share {
    load: Arc<Load>,
    /// Held for its drop.
    _window: window::Grant,
}

impl Drop for Share {
    fn drop(&mut self) {
        *lock(&self.load.idle_since) = Instant::now();
        self.load.active.fetch_sub(1, Relaxed);
    }
}

/// A share of a connection, for one request.
pub(crate) struct Lease {
    sender: SendRequest<Bytes>,
    /// Whether it served a request before: then the backend may have closed it unseen.
    pub(crate) reused: bool,
    share: Share,
}

impl Lease {
    /// The connection, not only the request, has failed: it takes no new requests.
    pub(crate) fn forsake(&self) {
        self.share.load.leaving.store(true, Relaxed);
    }

    /// Whether the backend takes extended CONNECT on this connection (RFC 8441 3). Waits for it to
    /// tell, for `limit` at most.
    pub(crate) async fn takes_connect(&self, limit: Duration) -> bool {
        let sender = &self.sender;
        // The library does not wake us when SETTINGS come.
        let told = async {
            let mut pause = Duration::from_millis(1);
            while !sender.is_extended_connect_protocol_enabled()
                && sender.current_max_send_streams() == UNTOLD
                && !self.share.load.leaving.load(Relaxed)
            {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        };
        let _ = tokio::time::timeout(limit, told).await;
        sender.is_extended_connect_protocol_enabled()
    }

    /// Opens a stream with this head, which `ends` the request if nothing follows.
    ///
    /// # Errors
    /// That of the connection; then nothing was sent.
    pub(crate) fn open(
        &mut self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        self.sender.send_request(request, ends)
    }
}
