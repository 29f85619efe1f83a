//! Exchanges that are under way, for people who ask what is going on.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use strait_mux::NumberMap;
use strait_wire::{Protocol, RequestId};

use crate::Caller;

/// One exchange under way, later its record's. Its counters are live.
#[derive(Debug)]
pub struct Flight {
    /// The request's id.
    pub id: RequestId,
    /// W3C traceparent.
    pub trace: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it came from.
    pub caller: Caller,
    /// The route that was chosen, by the name of its service; empty when none matched.
    pub route: Arc<str>,
    /// Request method.
    pub method: http::Method,
    /// What was asked for.
    pub asked: Asked,
    /// When it arrived.
    pub since: Instant,
    /// What has passed.
    pub counters: Counters,
}

/// The host of a request and its path without the query, which may hold secrets.
#[derive(Debug)]
pub struct Asked {
    /// One after the other.
    text: Box<[u8]>,
    host: usize,
}

impl Asked {
    /// What a request asks for, in memory of its own: its head is not kept for as long.
    pub fn new(host: &[u8], path: &[u8]) -> Asked {
        Asked { text: [host, path].concat().into(), host: host.len() }
    }

    /// The host, as text.
    pub fn host(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.text[..self.host])
    }

    /// The path, as text.
    pub fn path(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.text[self.host..])
    }
}

/// What has passed of one exchange.
#[derive(Debug, Default)]
pub struct Counters {
    /// Payload bytes of the request.
    pub bytes_in: AtomicU64,
    /// Payload bytes of the answer.
    pub bytes_out: AtomicU64,
    /// Messages of the request.
    pub messages_in: AtomicU64,
    /// Messages of the answer.
    pub messages_out: AtomicU64,
}

/// The exchanges under way on this node.
#[derive(Debug, Default)]
pub struct Flights {
    next: AtomicU64,
    open: Mutex<NumberMap<u64, Arc<Flight>>>,
}

impl Flights {
    /// Enters an exchange and returns its key.
    pub(crate) fn enter(&self, flight: Arc<Flight>) -> u64 {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(key, flight);
        key
    }

    /// Removes an exchange.
    pub(crate) fn leave(&self, key: u64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// How many exchanges are under way.
    pub fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Up to `limit` exchanges under way, the oldest first.
    pub fn list(&self, limit: usize) -> Vec<Arc<Flight>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<(u64, Arc<Flight>)> =
            open.iter().map(|(k, f)| (*k, Arc::clone(f))).collect();
        drop(open);
        all.sort_unstable_by_key(|(key, _)| *key);
        all.truncate(limit);
        all.into_iter().map(|(_, flight)| flight).collect()
    }
}
