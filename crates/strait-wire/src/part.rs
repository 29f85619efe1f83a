//! What every protocol is cut into.

use bytes::{Buf, Bytes};
use http::HeaderMap;

/// Bytes of credit that a piece costs beside its payload, so that empty ones are not free.
pub const PIECE_WEIGHT: usize = 64;

/// The beginning of a message whose length is known in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageStart {
    /// The first byte of the protocol's own framing. gRPC: the compressed flag.
    /// WebSocket: FIN, RSV1-3 and opcode as in RFC 6455 5.2.
    pub tag: u8,
    /// Payload bytes of the whole message.
    pub length: u64,
}

/// A piece of a body, of a gRPC message or of a WebSocket frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// The payload of this piece.
    pub bytes: Bytes,
    /// Set on the first piece of a message; `None` on plain bodies.
    pub start: Option<MessageStart>,
    /// Set on the last piece of a message.
    pub ends_message: bool,
}

impl Data {
    /// A piece of a plain body, which has no messages.
    pub fn plain(bytes: Bytes) -> Data {
        Data { bytes, start: None, ends_message: false }
    }

    /// What flow control counts, in bytes.
    pub fn weight(&self) -> usize {
        self.bytes.len() + PIECE_WEIGHT
    }

    /// The same piece in memory of its own: a slice keeps all of the block alive that it was
    /// decoded from.
    #[must_use]
    pub fn detached(self) -> Data {
        Data { bytes: Bytes::copy_from_slice(&self.bytes), ..self }
    }

    /// Cuts off a first piece of at most `length` payload bytes and leaves the rest.
    /// The start stays with the first piece, the end with the last.
    pub fn split_to(&mut self, length: usize) -> Data {
        if length >= self.bytes.len() {
            return std::mem::take(self);
        }
        let bytes = self.bytes.split_to(length);
        Data { bytes, start: self.start.take(), ends_message: false }
    }
}

/// What a body is made of, in order: data, then perhaps trailers, then the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A piece of payload.
    Data(Data),
    /// The last part of a body that has trailers.
    Trailers(HeaderMap),
}

// A body of parts can be handed to an HTTP library without another copy.
impl Buf for Data {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }
    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }
    fn advance(&mut self, n: usize) {
        self.bytes.advance(n);
    }
    fn copy_to_bytes(&mut self, n: usize) -> Bytes {
        self.bytes.copy_to_bytes(n)
    }
}
