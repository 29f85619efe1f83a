//! Connections by HTTP/1.1: used by one request at a time, and kept for the next.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use strait_engine::Fault;

use crate::http1::connection::Connection;
use crate::io::Conn;
use crate::pool::{Pool, lock};
use crate::settings::or_never;

/// The unused HTTP/1.1 connections of a pool, the last one that was used at the end.
#[derive(Default)]
pub(super) struct Unused(Mutex<Vec<Idle>>);

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Unused {
    /// The connection that was used last, of those that serve.
    fn take(&self, limit: Duration) -> Option<Connection> {
        loop {
            let Idle { mut connection, since } = lock(&self.0).pop()?;
            if since.elapsed() <= limit && connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    /// Closes what is unused for `limit`, or was closed by the service; whether nothing is left.
    pub(super) fn clean(&self, limit: Duration) -> bool {
        let mut all = lock(&self.0);
        all.retain_mut(|idle| idle.since.elapsed() < limit && idle.connection.is_quiet());
        all.is_empty()
    }
}

impl Pool {
    /// A connection for one request; a new one when `fresh`.
    pub(crate) async fn http1(self: &Arc<Self>, fresh: bool) -> Result<Lease, Fault> {
        let unused = || self.http1.take(or_never(self.settings.backend_idle));
        let unused = if fresh { None } else { unused() };
        let reused = unused.is_some();
        let connection = match unused {
            Some(connection) => connection,
            None => Connection::new(self.dial().await?),
        };
        Ok(Lease { connection, reused, pool: Some(Arc::clone(self)) })
    }

    fn put(self: &Arc<Self>, connection: Connection) {
        let mut all = lock(&self.http1.0);
        if all.len() < self.settings.max_idle_connections {
            all.push(Idle { connection, since: Instant::now() });
            drop(all);
            self.reap();
        }
    }
}

/// A connection for one request. Dropping it before [`Lease::done`] closes it.
pub(crate) struct Lease {
    pub(crate) connection: Connection,
    /// Whether it served a request before: then the backend may have closed it unseen.
    pub(crate) reused: bool,
    /// Where it goes afterwards.
    pool: Option<Arc<Pool>>,
}

impl Lease {
    /// A connection that serves no other request.
    pub(crate) fn alone(conn: Conn) -> Lease {
        Lease { connection: Connection::new(conn), reused: false, pool: None }
    }

    /// The request and its answer have ended properly: the connection may serve another.
    pub(crate) fn done(self) {
        if let Some(pool) = self.pool {
            pool.put(self.connection);
        }
    }
}
