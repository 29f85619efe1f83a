//! Frames to protobuf and back: the only module that knows the generated types.
//!
//! Encoding never fails. Decoding fails only for bytes that are not a `TunnelMessage`,
//! which ends the session; content that is wrong within one request becomes
//! [`Frame::Malformed`](crate::Frame::Malformed) and costs that request alone.

mod control;
mod decode;
mod encode;
mod field;
mod map;
mod read;

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

use crate::Frame;
use crate::generated::tunnel as pb;

/// Largest encoded message that a receiver accepts, in bytes.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// Header fields that a head may have on the tunnel. Entries refuse far fewer; this bounds
/// what a hostile peer can make us allocate.
pub const MAX_FIELDS: usize = 1024;

/// Messages up to this many bytes are copied out of the receive buffer, and so are pieces of
/// larger ones: what is small and waits for its consumer must not keep a large block alive.
pub const COPY_BELOW: usize = 2048;

/// The bytes are not a `TunnelMessage`.
#[derive(Debug)]
pub struct DecodeError(&'static str);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a tunnel message: {}", self.0)
    }
}

impl std::error::Error for DecodeError {}

/// Appends the encoded `frame` to `out`.
pub fn encode(frame: Frame, out: &mut BytesMut) {
    let apart = encode_apart(frame, usize::MAX, out);
    debug_assert!(apart.is_none(), "no payload is that long");
}

/// A payload that was left out of an encoded message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apart {
    /// Where in the buffer it belongs.
    pub at: usize,
    /// The payload.
    pub payload: Bytes,
}

/// Appends the encoded `frame` to `out`, but for a payload of `from` bytes or more, which is not
/// copied: the message is complete with it in its place. Only one payload of a frame stays apart,
/// and never an empty one.
pub fn encode_apart(frame: Frame, from: usize, out: &mut BytesMut) -> Option<Apart> {
    match frame {
        Frame::Stream(frame) => return encode::stream(&frame, from, out),
        Frame::Credit(no, bytes) => encode::credit(no, bytes, out),
        frame => {
            let written = control::message(frame).encode(out);
            debug_assert!(written.is_ok(), "a buffer that grows cannot run out");
        }
    }
    None
}

/// Reads one frame from all of `input`.
///
/// # Errors
/// When the bytes are not a `TunnelMessage`.
pub fn decode(mut input: impl Buf) -> Result<Frame, DecodeError> {
    let length = input.remaining();
    let block = if length <= COPY_BELOW && input.chunk().len() == length {
        let copy = Bytes::copy_from_slice(input.chunk());
        input.advance(length);
        copy
    } else {
        input.copy_to_bytes(length)
    };
    match decode::frame(&block)? {
        Some(frame) => Ok(frame),
        None => pb::TunnelMessage::decode(block)
            .map(control::frame)
            .map_err(|_| DecodeError("a message of the tunnel itself is malformed")),
    }
}
