//! WebSocket (RFC 6455): the handshake by HTTP/1.1 or HTTP/2 (RFC 8441), then a relay of frames.

pub(crate) mod backend;
mod dial;
pub(crate) mod entry;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod read;
pub(crate) mod write;
