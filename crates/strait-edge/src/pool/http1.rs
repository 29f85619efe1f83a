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

/// Which connection a request may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// An unused one, if there is one.
    Kept,
    /// The same, of which the kernel does not know that it was closed: for what cannot be sent again.
    Looked,
    /// A new one.
    Fresh,
}

impl Unused {
    /// The connection of the worker `here` that was used last, of those that serve.
    fn take(&self, here: Option<Id>, limit: Duration, look: bool) -> Option<Connection> {
        loop {
            let Idle { mut connection, since, .. } = {
                let mut all = lock(&self.0);
                let last = all.iter().rposition(|idle| idle.home == here)?;
                all.remove(last)
            };
            let serves = if look { connection.is_silent() } else { connection.is_quiet() };
            if serves && since.elapsed() <= limit {
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
    /// A connection for one request.
    pub(crate) async fn http1(self: &Arc<Self>, choice: Choice) -> Result<Lease, Fault> {
        let home = here();
        let limit = or_never(self.settings.backend_idle);
        let unused = match choice {
            Choice::Kept => self.http1.take(home, limit, false),
            Choice::Looked => self.http1.take(home, limit, true),
            Choice::Fresh => None,
        };
        let reused = unused.is_some();
        let connection = match unused {
            Some(connection) => connection,
            // Boxed, because most requests have no use for its room.
            None => Connection::new(Box::pin(self.dial()).await?),
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
