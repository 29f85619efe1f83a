//! Connections by HTTP/1.1: used by one request at a time, and kept for the next.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use strait_engine::{Fault, here};
use tokio::runtime::Id;

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
    home: Option<Id>,
}

impl Unused {
    /// The connection of the worker `here` that was used last, of those that serve.
    fn take(&self, here: Option<Id>, limit: Duration) -> Option<Connection> {
        loop {
            let Idle { mut connection, since, .. } = {
                let mut all = lock(&self.0);
                let last = all.iter().rposition(|idle| idle.home == here)?;
                all.remove(last)
            };
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
        let home = here();
        let unused = || self.http1.take(home, or_never(self.settings.backend_idle));
        let unused = if fresh { None } else { unused() };
        let reused = unused.is_some();
        let connection = match unused {
            Some(connection) => connection,
            None => Connection::new(self.dial().await?),
        };
        Ok(Lease { connection, reused, pool: Some((Arc::clone(self), home)) })
    }

    fn put(self: &Arc<Self>, connection: Connection, home: Option<Id>) {
        let mut all = lock(&self.http1.0);
        if all.len() < self.settings.max_idle_connections {
            all.push(Idle { connection, since: Instant::now(), home });
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
    /// Where it goes afterwards, and the worker that serves it.
    pool: Option<(Arc<Pool>, Option<Id>)>,
}

impl Lease {
    /// A connection that serves no other request.
    pub(crate) fn alone(conn: Conn) -> Lease {
        Lease { connection: Connection::new(conn), reused: false, pool: None }
    }

    /// The request and its answer have ended properly: the connection may serve another.
    pub(crate) fn done(self) {
        if let Some((pool, home)) = self.pool {
            pool.put(self.connection, home);
        }
    }
}
