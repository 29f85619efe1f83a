//! What one end of a tunnel allows, with the defaults that the reference documents.

use std::time::Duration;

/// Limits and times of a [`Mux`](crate::Mux).
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes that the peer may send on a new request before it is granted more.
    pub initial_credit: u32,
    /// Credit that a request gets at first, in bytes, while no memory is used: times
    /// the fourth power of the share of the budget that is free, and never less than
    /// [`Settings::window_min`].
    pub window: u32,
    /// Credit to which the window of a busy request may grow, in bytes.
    pub window_max: u32,
    /// Credit below which no request is opened, in bytes; also what a WebSocket starts
    /// with, because most of them are idle.
    pub window_min: u32,
    /// Requests of the peer that may be open at once.
    pub max_requests: u32,
    /// Largest piece that is accepted and sent, in bytes.
    pub max_piece: u32,
    /// Piece while several requests have something to send, in bytes, when the link is slow or
    /// not known yet. It decides how long a short message waits for a long one.
    pub piece: u32,
    /// On a faster link a piece is what the link carries in this time, up to
    /// [`Settings::max_piece`].
    pub piece_time: Duration,
    /// Time between two pings, also on an idle tunnel.
    pub ping_interval: Duration,
    /// Time after which an unanswered ping means that the tunnel is lost.
    pub ping_timeout: Duration,
    /// Violations of the protocol, each of which costs one request, that end the session.
    pub max_violations: u32,
    /// Control frames that may wait at once; a peer that makes us queue more and does not
    /// read is hostile or dead.
    pub max_control: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            initial_credit: 64 * 1024,
            window: 256 * 1024,
            window_max: 4 * 1024 * 1024,
            window_min: 4 * 1024,
            max_requests: 16_384,
            max_piece: 64 * 1024,
            piece: 16 * 1024,
            piece_time: Duration::from_micros(250),
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(10),
            max_violations: 64,
            max_control: 65_536,
        }
    }
}
