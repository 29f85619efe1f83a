//! The wire: any bytes decode, or are refused, and what decodes means the same again.

use bytes::{Bytes, BytesMut};
use strait_wire::{Frame, codec};

/// Decodes any bytes. What they decode to is not larger than they are, and encodes to bytes
/// that decode to the same.
pub fn wire_decode(bytes: &[u8]) {
    let Ok(frame) = codec::decode(Bytes::copy_from_slice(bytes)) else { return };
    if let Frame::Stream(stream) = &frame {
        let payload: usize = stream.data.iter().map(|data| data.bytes.len()).sum();
        assert!(payload <= bytes.len() && stream.data.len() <= bytes.len(), "more than came");
    }
    // These two are what a reader makes of what it does not understand.
    if matches!(frame, Frame::Malformed(..) | Frame::Unknown) {
        return;
    }
    let text = format!("{frame:?}");
    let mut encoded = BytesMut::new();
    codec::encode(frame, &mut encoded);
    let again = codec::decode(encoded.clone().freeze()).expect("what we encode can be decoded");
    assert_eq!(text, format!("{again:?}"));
    let mut twice = BytesMut::new();
    codec::encode(again, &mut twice);
    assert_eq!(encoded, twice, "encoding is a function of the frame");
}
