//! Connections to one backend. Each is used by requests of one worker only: a connection is woken
//! by its runtime, and from elsewhere each of its bytes would wake two threads.

mod http1;
mod http2;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use strait_engine::{Budget, Fault};

use crate::dial::{BackendAddress, connect};
use crate::io::Conn;
use crate::settings::{Settings, or_never};

pub(crate) use http1::{Choice, Lease as Http1};
pub(crate) use http2::Lease as Http2;

/// How long a connection that is given up may take to close by itself: to send what it still
/// holds and a TLS goodbye. A backend that has stopped reading never lets it, and until then
/// the connection would keep the request's body, and with it an entry of a tunnel.
pub(crate) const GOODBYE: Duration = Duration::from_millis(500);

/// How often unused connections are looked at: nobody else notices that a backend has closed one.
const LOOK: Duration = Duration::from_secs(1);

/// The connections to one backend.
pub(crate) struct Pool {
    address: BackendAddress,
    settings: Arc<Settings>,
    /// What backends may send by HTTP/2 before it is taken.
    windows: Budget,
    tls: Tls,
    http1: http1::Unused,
    http2: http2::All,
    reaping: AtomicBool,
}

/// TLS towards the backend, if it wants it.
#[derive(Default)]
pub(crate) struct Tls {
    pub(crate) http1: Option<Arc<ClientConfig>>,
    pub(crate) http2: Option<Arc<ClientConfig>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    pub(crate) fn new(
        address: BackendAddress,
        settings: Arc<Settings>,
        windows: Budget,
        tls: Tls,
    ) -> Arc<Pool> {
        Arc::new(Pool {
            address,
            settings,
            windows,
            tls,
            http1: http1::Unused::default(),
            http2: http2::All::default(),
            reaping: AtomicBool::new(false),
        })
    }

    pub(crate) fn address(&self) -> &BackendAddress {
        &self.address
    }

    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// A new connection by HTTP/1.1, outside of the pool.
    pub(crate) async fn dial(&self) -> Result<Conn, Fault> {
        connect(&self.address, self.tls.http1.as_ref(), &self.settings).await
    }

    /// Closes what is unused for too long; one task for as long as there is something.
    fn reap(self: &Arc<Self>) {
        // Read first: nearly always there is one.
        if self.reaping.load(Relaxed) || self.reaping.swap(true, Relaxed) {
            return;
        }
        let limit = or_never(self.settings.backend_idle);
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep((limit / 2).clamp(Duration::from_millis(10), LOOK)).await;
                let Some(pool) = pool.upgrade() else { return };
                if pool.clean(limit) {
                    return;
                }
            }
        });
    }

    /// Closes what is not used, or does not serve any more. Whether nothing is left to watch;
    /// then the next connection starts a new reaper.
    fn clean(&self, limit: Duration) -> bool {
        let is_empty = || self.http1.clean(limit) & self.http2.clean(limit);
        if !is_empty() {
            return false;
        }
        self.reaping.store(false, Relaxed);
        // Whoever has added one before this looks has seen the flag set.
        is_empty() || self.reaping.swap(true, Relaxed)
    }
}
