//! Heads of requests and answers, in the vocabulary of the `http` crate.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, uri::Scheme};

/// The protocol of a request; it never changes within one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1 or HTTP/2, whatever the two legs speak.
    Http,
    /// gRPC over HTTP/2.
    Grpc,
    /// WebSocket, from its handshake on.
    WebSocket,
}

impl Protocol {
    /// All protocols, in the order of the wire's enum.
    pub const ALL: [Protocol; 3] = [Protocol::Http, Protocol::Grpc, Protocol::WebSocket];

    /// The lower-case name used in logs, metrics and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Grpc => "grpc",
            Protocol::WebSocket => "websocket",
        }
    }

    /// Whether a head may share its message with pieces of the body: the handshakes of
    /// WebSockets have a payload type of their own.
    pub fn head_travels_alone(self) -> bool {
        self == Protocol::WebSocket
    }

    /// Whether several small messages may share one frame.
    pub fn packs_messages(self) -> bool {
        self == Protocol::Grpc
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The head of a request. Hop-by-hop fields (RFC 9110 7.6.1), `Host` and each leg's own
/// framing fields are not in `headers`.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method; gRPC is always POST, a WebSocket handshake always GET.
    pub method: Method,
    /// The scheme that the caller used.
    pub scheme: Scheme,
    /// `host[:port]`, parsed once at the entry; what routes is what the backend gets.
    pub authority: Bytes,
    /// Path and query in origin form.
    pub path: Bytes,
    /// End-to-end header fields.
    pub headers: HeaderMap,
}

impl RequestHead {
    /// The host of the authority without its port.
    pub fn host(&self) -> &[u8] {
        let authority = &self.authority[..];
        if authority.first() == Some(&b'[')
            && let Some(end) = authority.iter().position(|byte| *byte == b']')
        {
            return &authority[..=end];
        }
        let end = authority.iter().rposition(|byte| *byte == b':');
        &authority[..end.unwrap_or(authority.len())]
    }

    /// The path without its query.
    pub fn path_only(&self) -> &[u8] {
        let end = self.path.iter().position(|byte| *byte == b'?');
        &self.path[..end.unwrap_or(self.path.len())]
    }
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The status; 101 accepts a WebSocket handshake.
    pub status: StatusCode,
    /// End-to-end header fields.
    pub headers: HeaderMap,
}
