//! Frames to bytes and back; and bytes that no encoder would write.
#![allow(clippy::panic)] // how a test fails

mod common;

use bytes::{Bytes, BytesMut};
use common::{config, frame};
use proptest::prelude::*;
use strait_wire::{Frame, StreamNo, codec};

fn encode(frame: Frame) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    codec::encode(frame, &mut bytes);
    bytes.into()
}

/// Frames have no equality of their own; their debug text has everything in them.
fn text(frame: &Frame) -> String {
    format!("{frame:?}")
}

proptest! {
    #![proptest_config(config(1_500))]

    #[test]
    fn what_is_written_is_what_is_read(frame in frame()) {
        let bytes = encode(frame.clone());
        prop_assert!(bytes.len() <= codec::MAX_MESSAGE);
        let read = codec::decode(Bytes::from(bytes)).expect("a message");
        prop_assert_eq!(text(&read), text(&frame));
    }

    #[test]
    fn a_message_is_read_to_its_end(frame in frame()) {
        let mut bytes = Bytes::from(encode(frame));
        codec::decode(&mut bytes).expect("a message");
        prop_assert_eq!(bytes.len(), 0);
    }

    #[test]
    fn a_message_in_several_buffers_is_the_same(frame in frame(), at in any::<prop::sample::Index>()) {
        let mut front = Bytes::from(encode(frame.clone()));
        let back = front.split_off(at.index(front.len() + 1));
        let read = codec::decode(bytes::Buf::chain(front, back)).expect("a message");
        prop_assert_eq!(text(&read), text(&frame));
    }

    #[test]
    fn a_payload_apart_belongs_where_it_was_left_out(frame in frame(), from in 0usize..64) {
        let mut bytes = BytesMut::from(&b"earlier"[..]);
        if let Some(apart) = codec::encode_apart(frame.clone(), from, &mut bytes) {
            prop_assert!(apart.payload.len() >= from);
            let after = bytes.split_off(apart.at);
            bytes.extend_from_slice(&apart.payload);
            bytes.unsplit(after);
        }
        prop_assert_eq!(&bytes[7..], &encode(frame)[..]);
    }

    #[test]
    fn bytes_of_any_kind_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = codec::decode(Bytes::from(bytes));
    }

    #[test]
    fn damaged_messages_do_not_panic(
        frame in frame(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut bytes = encode(frame);
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        // What can be read is a frame like any other: it can be written, and read again.
        if let Ok(read) = codec::decode(Bytes::from(bytes))
            && !matches!(read, Frame::Malformed(..) | Frame::Unknown)
        {
            let again = codec::decode(Bytes::from(encode(read.clone()))).expect("a message");
            prop_assert_eq!(text(&again), text(&read));
        }
    }
}

/// A field of a message, by hand.
fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = varint(u64::from(number << 3 | 2));
    bytes.extend(varint(content.len() as u64));
    bytes.extend_from_slice(content);
    bytes
}

fn scalar(number: u32, value: u64) -> Vec<u8> {
    let mut bytes = varint(u64::from(number << 3));
    bytes.extend(varint(value));
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn header(name: &[u8], value: &[u8]) -> Vec<u8> {
    [field(1, name), field(2, value)].concat()
}

/// An answer's head, for request 7.
fn response(status: u64, headers: &[Vec<u8>]) -> Vec<u8> {
    let headers: Vec<u8> = headers.iter().flat_map(|header| field(4, header)).collect();
    let payload = [scalar(1, 1), scalar(3, status), headers].concat();
    [field(6, &payload), scalar(18, 7)].concat()
}

fn read(bytes: Vec<u8>) -> Frame {
    codec::decode(Bytes::from(bytes)).expect("a message")
}

fn is_malformed(bytes: Vec<u8>) -> bool {
    matches!(read(bytes), Frame::Malformed(StreamNo(7), _))
}

#[test]
fn heads_that_are_wrong_cost_their_request() {
    for status in [0, 1, 99, 100, 101, 103, 199, 1000, 65_535, 65_736, u64::from(u32::MAX)] {
        assert!(is_malformed(response(status, &[])), "{status}");
    }
    for status in [200, 204, 304, 599, 999] {
        assert!(!is_malformed(response(status, &[])), "{status}");
    }
    for name in ["", "a b", "a:", "a\r\n", "a\0", "\u{e9}"] {
        assert!(is_malformed(response(200, &[header(name.as_bytes(), b"v")])), "{name:?}");
    }
    for value in ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "\x7f"] {
        assert!(is_malformed(response(200, &[header(b"n", value.as_bytes())])), "{value:?}");
    }
    let long = header(&[b'n'; 70_000], b"v");
    assert!(is_malformed(response(200, &[long])));
    let many = |count| vec![header(b"n", b"v"); count];
    assert!(!is_malformed(response(200, &many(codec::MAX_FIELDS))));
    assert!(is_malformed(response(200, &many(codec::MAX_FIELDS + 1))));
    assert!(is_malformed(response(200, &many(10_000))));
    // The same in trailers.
    let trailers = [scalar(2, 1), field(6, &header(b"a b", b"v"))].concat();
    assert!(is_malformed([field(6, &trailers), scalar(18, 7)].concat()));
}

/// The opening of request 7, with fields of the envelope and a method and scheme of its own.
fn request(envelope: &[u8], method: &[u8], scheme: &[u8]) -> Vec<u8> {
    let payload = [scalar(1, 1), field(3, method), field(4, scheme)].concat();
    [envelope, &field(5, &payload), &scalar(18, 7)].concat()
}

#[test]
fn openings_that_are_wrong() {
    assert!(is_malformed(request(b"", b"", b"http")));
    assert!(is_malformed(request(b"", b"GE T", b"http")));
    assert!(is_malformed(request(b"", b"GET", b"")));
    assert!(is_malformed(request(b"", b"GET", b"file")));
    assert!(!is_malformed(request(b"", b"GET", b"http")));
    let long = "0".repeat(10_240);
    let nul = "0190d6f1-7b3a-7000-8000-00000000000\0";
    for id in ["", "x", "not-a-uuid", nul, "0190d6f17b3a70008000000000000001", &long] {
        let frame = read(request(&field(2, id.as_bytes()), b"GET", b"http"));
        let Frame::Stream(frame) = frame else { panic!("{frame:?}") };
        let Some(strait_wire::First::Request(opening)) = frame.first else { panic!("{id}") };
        assert_eq!(opening.id, None, "{id:?}");
    }
}

#[test]
fn texts_are_cut_and_only_utf8_is_text() {
    let trace = "é".repeat(500_000);
    let frame = read(request(&field(17, trace.as_bytes()), b"GET", b"http"));
    let Frame::Stream(frame) = frame else { panic!("{frame:?}") };
    let Some(strait_wire::First::Request(opening)) = frame.first else { panic!("no head") };
    assert_eq!(*opening.trace, "é".repeat(64), "128 bytes");
    // Text that is not UTF-8 is no message at all: nothing that comes from visitors or
    // backends is text.
    let wrong = request(&field(17, b"\xff"), b"GET", b"http");
    let error = codec::decode(Bytes::from(wrong)).expect_err("not a message");
    assert!(error.to_string().starts_with("not a tunnel message: "), "{error}");
    assert!(!is_malformed(request(b"", b"GET", b"http")));
    assert!(!is_malformed(response(200, &[header(b"n", b"\xff\x80")])));
}

#[test]
fn what_a_newer_peer_may_say_is_ignored() {
    for bytes in [
        vec![],
        scalar(18, 7),
        // A payload that this version does not have.
        [field(99, b"new"), scalar(18, 7)].concat(),
        // A control message without a kind, or of a new one.
        field(15, b""),
        field(15, &field(9, b"")),
    ] {
        assert!(matches!(read(bytes.clone()), Frame::Unknown), "{bytes:?}");
    }
    // Unknown fields beside known ones, unknown enum values.
    let ping = [field(15, &field(1, &scalar(1, 3))), scalar(4, 99), scalar(3, 77), scalar(200, 1)];
    assert!(matches!(read(ping.concat()), Frame::Ping(3)));
    let reset = [field(14, &scalar(1, 4_000)), scalar(18, 7)].concat();
    let Frame::Reset(reset) = read(reset) else { panic!("a reset") };
    assert_eq!(reset.reason, strait_wire::Reason::Internal);
}

#[test]
fn what_is_no_message_is_an_error() {
    let mut nested = Vec::new();
    for _ in 0..1_000 {
        nested = field(5, &nested);
    }
    // Unknown groups, one in another: the depth is limited.
    let groups = varint(99 << 3 | 3).repeat(1_000);
    for (what, bytes) in [
        ("a cut varint", vec![0x80]),
        ("a length beyond the end", vec![0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]),
        ("field 0", vec![0x02, 0x00]),
        ("wire type 7", vec![0x0F]),
        ("a number as text", field(18, b"7")),
        ("a text as number", scalar(2, 7)),
        ("groups without an end", groups),
    ] {
        assert!(codec::decode(Bytes::from(bytes)).is_err(), "{what}");
    }
    let _ = codec::decode(Bytes::from(nested));
}

#[test]
fn frame_headers_of_websockets() {
    let frame = |opcode, reserved| {
        let piece = [scalar(2, opcode), scalar(4, reserved), scalar(7, 1)].concat();
        [field(11, &piece), scalar(18, 7)].concat()
    };
    assert!(!is_malformed(frame(15, 7)), "what it means is for the two ends");
    assert!(is_malformed(frame(16, 0)));
    assert!(is_malformed(frame(99, 0)));
    assert!(is_malformed(frame(1, 8)));
}
