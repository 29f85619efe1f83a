//! WebSocket (RFC 6455): the handshake by HTTP/1.1, then a relay of frames.

pub(crate) mod backend;
pub(crate) mod entry;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod read;
pub(crate) mod write;
