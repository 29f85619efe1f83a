//! Limits and timeouts of entries and backends, by name.

use std::time::Duration;

/// Limits and timeouts of entries and backends. A duration of zero turns that timeout off.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// From accepting a connection to its first byte.
    pub first_byte: Duration,
    /// For the TLS handshake, and from the first byte of a request head to its last.
    pub headers: Duration,
    /// How long a visitor may pause within a plain HTTP request's body while the body is
    /// wanted. Does not apply to gRPC and WebSocket, which may be silent for hours.
    pub body_idle: Duration,
    /// How long a visitor may leave a plain HTTP answer untaken while there is more of it and
    /// nothing else moves on its connection. Does not apply to gRPC and WebSocket.
    pub answer_idle: Duration,
    /// How long a visitor's connection may stay open without a request on it.
    pub keep_alive_idle: Duration,
    /// For connecting to a backend, its TLS handshake included.
    pub backend_connect: Duration,
    /// How long a backend's unused connection is kept for the next request.
    pub backend_idle: Duration,
    /// How long a backend by HTTP/1 may take to say `100 Continue` to a visitor who waits for it;
    /// then the body is sent without (RFC 9110 10.1.1).
    pub continue_wait: Duration,
    /// From the last piece of a plain HTTP request to the head of its answer. Does not
    /// apply to gRPC, whose callers bring their own deadline.
    pub answer_head: Duration,
    /// For a WebSocket handshake with a backend.
    pub handshake: Duration,
    /// How long one side of a WebSocket waits for the other's close frame.
    pub close_wait: Duration,
    /// Bytes of all header fields of a message.
    pub max_header_bytes: usize,
    /// Number of header fields of a message.
    pub max_header_fields: usize,
    /// Bytes of a request target.
    pub max_uri: usize,
    /// Bytes of a plain HTTP request's body.
    pub max_body: u64,
    /// Frames of HTTP/2 that serve no request, as pings, and that a visitor may send at once. A
    /// tenth of them is allowed anew each second. A request that is taken back counts as ten.
    pub max_control_frames: u32,
    /// Bytes of a gRPC message or of a WebSocket message.
    pub max_message: u64,
    /// Unused HTTP/1 connections kept to one backend.
    pub max_idle_connections: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            first_byte: Duration::from_secs(10),
            headers: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
            answer_idle: Duration::from_secs(300),
            keep_alive_idle: Duration::from_secs(75),
            backend_connect: Duration::from_secs(5),
            backend_idle: Duration::from_secs(20),
            continue_wait: Duration::from_secs(1),
            answer_head: Duration::from_secs(60),
            handshake: Duration::from_secs(10),
            close_wait: Duration::from_secs(10),
            max_header_bytes: 64 << 10,
            max_header_fields: 100,
            max_uri: 16 << 10,
            max_body: u64::MAX,
            max_control_frames: 20_000,
            max_message: 16 << 20,
            max_idle_connections: 256,
        }
    }
}

impl Settings {
    /// Bytes of an answer's head that may be held: more than is allowed, so that
    /// it is refused for what it says.
    pub(crate) fn head_buffer(&self) -> usize {
        self.max_header_bytes.saturating_mul(2).max(128 << 10)
    }
}

/// A duration of far more than any timeout, for those that are turned off.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// `duration`, or practically never when it is zero.
pub(crate) fn or_never(duration: Duration) -> Duration {
    if duration.is_zero() { NEVER } else { duration }
}
