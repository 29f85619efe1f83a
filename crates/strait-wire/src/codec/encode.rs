//! The messages of requests, written straight from their heads and pieces: they are almost
//! all that travels, and structs in between would copy every header.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http::uri::Scheme;

use super::Apart;
use super::field::{self, envelope};
use crate::{First, Opening, Protocol, RequestHead, StreamFrame, StreamNo};

/// What fields are written to: all but the first payload of `from` bytes or more.
struct Writer<'a> {
    out: &'a mut BytesMut,
    from: usize,
    apart: Option<Apart>,
}

impl Writer<'_> {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
    }

    /// Two numbers; most are one byte each.
    fn pair(&mut self, first: u64, second: u64) {
        match (first, second) {
            (0..0x80, 0..0x80) => self.out.put_slice(&[first as u8, second as u8]),
            _ => {
                self.varint(first);
                self.varint(second);
            }
        }
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.pair(u64::from(number << 3 | 2), bytes.len() as u64);
            self.out.put_slice(bytes);
        }
    }

    /// Bytes that may be many.
    fn payload(&mut self, number: u32, payload: &Bytes) {
        if payload.len() < self.from || self.apart.is_some() {
            return self.bytes(number, payload);
        }
        self.pair(u64::from(number << 3 | 2), payload.len() as u64);
        self.apart = Some(Apart { at: self.out.len(), payload: payload.clone() });
    }

    fn number(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.pair(u64::from(number << 3), value);
        }
    }

    fn flag(&mut self, number: u32, value: bool) {
        self.number(number, u64::from(value));
    }

    /// A message within a message, whose length stands before it and is known behind it. Room is
    /// left for that of one with `about` so many bytes; where it is another, the content moves.
    fn message(&mut self, number: u32, about: usize, content: impl FnOnce(&mut Self)) {
        self.varint(u64::from(number << 3 | 2));
        let (begin, room) = (self.out.len(), width(about));
        self.out.put_bytes(0, room);
        let apart_before = self.apart.is_some();
        content(self);
        let end = self.out.len();
        let mut apart = self.apart.as_mut().filter(|_| !apart_before);
        let inline = end - begin - room;
        let mut length = inline + apart.as_ref().map_or(0, |apart| apart.payload.len());
        let width = width(length);
        if width != room {
            let moved = begin + width;
            self.out.resize(end.max(moved + inline), 0);
            self.out.copy_within(begin + room..end, moved);
            self.out.truncate(moved + inline);
            if let Some(apart) = &mut apart {
                apart.at = apart.at - room + width;
            }
        }
        for byte in &mut self.out[begin..begin + width] {
            *byte = length as u8 | 0x80;
            length >>= 7;
        }
        self.out[begin + width - 1] &= 0x7F;
    }

    fn headers(&mut self, number: u32, map: &HeaderMap) {
        use field::header as f;
        for (name, value) in map {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            let length = 4 + name.len() + value.len();
            // Almost all are so short that each length is one byte.
            if number < 16 && !value.is_empty() && length < 0x80 {
                let (key, length) = ((number << 3 | 2) as u8, length as u8);
                self.out.put_slice(&[key, length, f::NAME_KEY, name.len() as u8]);
                self.out.put_slice(name);
                self.out.put_slice(&[f::VALUE_KEY, value.len() as u8]);
                self.out.put_slice(value);
            } else {
                self.message(number, length, |to| {
                    to.bytes(f::NAME, name);
                    to.bytes(f::VALUE, value);
                });
            }
        }
    }
}

/// Bytes that a number takes.
fn width(value: usize) -> usize {
    (value | 1).ilog2() as usize / 7 + 1
}

/// Appends a message of a request without its first payload of `from` bytes or more.
pub(super) fn stream(frame: &StreamFrame, from: usize, out: &mut BytesMut) -> Option<Apart> {
    // An empty payload has no field, and so no place to be put back in.
    let mut to = Writer { out, from: from.max(1), apart: None };
    let opening = match &frame.first {
        Some(First::Request(opening)) => Some(&**opening),
        _ => None,
    };
    // In the order of the numbers, as every encoder writes them.
    if let Some(opening) = opening {
        to.bytes(envelope::CLIENT_ID, opening.client_id.as_bytes());
        if let Some(id) = &opening.id {
            to.bytes(envelope::REQUEST_ID, &id.text());
        }
    }
    to.number(envelope::DIRECTION, direction(frame));
    let (protocol, payload) = match frame.protocol {
        Protocol::Http if frame.is_request => (1, envelope::HTTP_REQUEST),
        Protocol::Http => (1, envelope::HTTP_RESPONSE),
        Protocol::Grpc if frame.is_request => (2, envelope::GRPC_REQUEST),
        Protocol::Grpc => (2, envelope::GRPC_RESPONSE),
        Protocol::WebSocket => match frame.first {
            Some(First::Request(_)) => (3, envelope::WS_REQUEST),
            Some(First::Response(_)) => (3, envelope::WS_RESPONSE),
            None => (3, envelope::WS_FRAME),
        },
    };
    to.number(envelope::PROTOCOL, protocol);
    to.message(payload, about(frame), |to| content(frame, to));
    if let Some(opening) = opening {
        to.bytes(envelope::TRACE_ID, opening.trace.as_bytes());
    }
    to.number(envelope::NUMBER, frame.no.0);
    to.number(envelope::SEQUENCE, u64::from(frame.sequence));
    if let Some(opening) = opening {
        context(opening, &mut to);
    }
    to.apart
}

/// Appends a grant of credit.
pub(super) fn credit(no: StreamNo, bytes: u32, out: &mut BytesMut) {
    let mut to = Writer { out, from: usize::MAX, apart: None };
    to.number(envelope::PROTOCOL, 4);
    to.message(envelope::CREDIT, 1, |to| to.number(field::credit::BYTES, u64::from(bytes)));
    to.number(envelope::NUMBER, no.0);
}

fn direction(frame: &StreamFrame) -> u64 {
    if frame.is_request { 1 } else { 2 }
}

fn context(opening: &Opening, to: &mut Writer<'_>) {
    to.number(envelope::HOPS, u64::from(opening.hops));
    // A deadline that has just passed is still a deadline: 0 would mean none.
    let left = opening
        .deadline
        .map_or(0, |left| u64::try_from(left.as_micros()).unwrap_or(u64::MAX).max(1));
    to.number(envelope::DEADLINE, left);
    let urgency = if opening.urgency == 3 { 0 } else { u64::from(opening.urgency) + 1 };
    to.number(envelope::URGENCY, urgency);
    to.bytes(envelope::SERVICE, opening.service.as_bytes());
    to.number(envelope::ANSWER_CREDIT, u64::from(opening.answer_credit));
    to.flag(envelope::AWAITS_CONTINUE, opening.awaits_continue);
}

/// How long the payload is, so far as that can be told without a look at its header fields.
fn about(frame: &StreamFrame) -> usize {
    let head = if frame.first.is_some() { 0x80 } else { 0 };
    head + frame.data.iter().map(|data| data.bytes.len()).sum::<usize>()
}

fn content(frame: &StreamFrame, to: &mut Writer<'_>) {
    match (frame.protocol, frame.is_request) {
        (Protocol::Http, true) => http_request(frame, to),
        (Protocol::Http, false) => http_response(frame, to),
        (Protocol::Grpc, true) => grpc_request(frame, to),
        (Protocol::Grpc, false) => grpc_response(frame, to),
        (Protocol::WebSocket, _) => websocket(frame, to),
    }
}

fn http_request(frame: &StreamFrame, to: &mut Writer<'_>) {
    use field::http_request as f;
    to.flag(f::IS_FIRST, frame.first.is_some());
    to.flag(f::IS_LAST, frame.end);
    if let Some(First::Request(opening)) = &frame.first {
        to.bytes(f::METHOD, opening.head.method.as_str().as_bytes());
        target(&opening.head, [f::SCHEME, f::AUTHORITY, f::PATH], f::HEADERS, to);
    }
    body(frame, f::BODY, to);
    trailers(frame, f::TRAILERS, to);
}

fn http_response(frame: &StreamFrame, to: &mut Writer<'_>) {
    use field::http_response as f;
    to.flag(f::IS_FIRST, frame.first.is_some());
    to.flag(f::IS_LAST, frame.end);
    answer(frame, f::STATUS, f::HEADERS, to);
    body(frame, f::BODY, to);
    trailers(frame, f::TRAILERS, to);
}

fn grpc_request(frame: &StreamFrame, to: &mut Writer<'_>) {
    use field::grpc_request as f;
    to.flag(f::IS_FIRST, frame.first.is_some());
    to.flag(f::IS_LAST, frame.end);
    if let Some(First::Request(opening)) = &frame.first {
        target(&opening.head, [f::SCHEME, f::AUTHORITY, f::PATH], f::HEADERS, to);
    }
    pieces(frame, f::PIECES, to);
}

fn grpc_response(frame: &StreamFrame, to: &mut Writer<'_>) {
    use field::grpc_response as f;
    to.flag(f::IS_FIRST, frame.first.is_some());
    to.flag(f::IS_LAST, frame.end);
    answer(frame, f::STATUS, f::HEADERS, to);
    pieces(frame, f::PIECES, to);
    trailers(frame, f::TRAILERS, to);
}

/// A handshake, its answer, or a frame: heads of WebSockets travel alone.
fn websocket(frame: &StreamFrame, to: &mut Writer<'_>) {
    debug_assert!(frame.first.is_none() || (frame.data.is_empty() && !frame.end));
    match &frame.first {
        Some(First::Request(opening)) => {
            use field::ws_request as f;
            target(&opening.head, [f::SCHEME, f::AUTHORITY, f::PATH], f::HEADERS, to);
        }
        Some(First::Response(_)) => {
            use field::ws_response as f;
            answer(frame, f::STATUS, f::HEADERS, to);
        }
        None => ws_frame(frame, to),
    }
}

fn ws_frame(frame: &StreamFrame, to: &mut Writer<'_>) {
    use field::ws_frame as f;
    to.number(f::DIRECTION, direction(frame));
    if let Some(data) = frame.data.front() {
        if let Some(start) = data.start {
            to.number(f::OPCODE, u64::from(start.tag & 0x0F));
            to.flag(f::FIN, start.tag & 0x80 != 0);
            to.number(f::RESERVED, u64::from(start.tag >> 4 & 0x07));
            to.number(f::LENGTH, start.length);
        }
        to.payload(f::PAYLOAD, &data.bytes);
        to.flag(f::IS_FIRST, data.start.is_some());
        to.flag(f::IS_LAST, data.ends_message);
    }
    to.flag(f::END, frame.end);
}

/// Scheme, authority and path, and the header fields.
fn target(head: &RequestHead, numbers: [u32; 3], headers: u32, to: &mut Writer<'_>) {
    let scheme = if head.scheme == Scheme::HTTPS { "https" } else { head.scheme.as_str() };
    for (number, text) in numbers.into_iter().zip([scheme.as_bytes(), &head.authority, &head.path])
    {
        to.bytes(number, text);
    }
    to.headers(headers, &head.headers);
}

fn answer(frame: &StreamFrame, status: u32, headers: u32, to: &mut Writer<'_>) {
    if let Some(First::Response(head)) = &frame.first {
        to.number(status, u64::from(head.status.as_u16()));
        to.headers(headers, &head.headers);
    }
}

/// The payload of a body without messages; the mux puts one piece in a frame.
fn body(frame: &StreamFrame, number: u32, to: &mut Writer<'_>) {
    debug_assert!(frame.data.len() <= 1, "plain bodies travel one piece a frame");
    if let Some(data) = frame.data.front() {
        to.payload(number, &data.bytes);
    }
}

fn trailers(frame: &StreamFrame, number: u32, to: &mut Writer<'_>) {
    if let Some(map) = &frame.trailers {
        to.headers(number, map);
    }
}

fn pieces(frame: &StreamFrame, number: u32, to: &mut Writer<'_>) {
    use field::piece as f;
    for data in frame.data.iter() {
        to.message(number, data.bytes.len(), |to| {
            to.payload(f::DATA, &data.bytes);
            to.flag(f::IS_START, data.start.is_some());
            to.flag(f::IS_END, data.ends_message);
            if let Some(start) = data.start {
                to.flag(f::COMPRESSED, start.tag & 1 == 1);
                // A gRPC message has 32 bits of length.
                to.number(f::LENGTH, u64::from(start.length as u32));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};
    use prost::Message;

    use super::*;
    use crate::codec::pb;
    use crate::{Data, MessageStart, ResponseHead};

    fn answer(protocol: Protocol, value: usize, payload: usize) -> StreamFrame {
        let value = HeaderValue::from_bytes(&vec![b'v'; value]).unwrap();
        let headers = HeaderMap::from_iter([(http::header::ETAG, value)]);
        let head = ResponseHead { status: StatusCode::OK, headers };
        let bytes = Bytes::from(vec![b'p'; payload]);
        let start = Some(MessageStart { tag: 0, length: payload as u64 });
        StreamFrame {
            no: StreamNo(1),
            sequence: 0,
            protocol,
            is_request: false,
            first: Some(First::Response(Box::new(head))),
            data: Data { bytes, start, ends_message: true }.into(),
            trailers: None,
            end: true,
        }
    }

    #[test]
    fn an_empty_payload_is_never_apart() {
        for protocol in [Protocol::Http, Protocol::Grpc] {
            let mut bytes = BytesMut::new();
            assert_eq!(stream(&answer(protocol, 1, 0), 0, &mut bytes), None, "{protocol}");
        }
    }

    #[test]
    fn lengths_are_as_short_as_prost_writes_them() {
        let lengths = (1..0x90).chain(0x3F00..0x4010);
        for length in lengths {
            for protocol in [Protocol::Http, Protocol::Grpc] {
                for frame in [answer(protocol, 1, length), answer(protocol, length, 1)] {
                    let mut bytes = BytesMut::new();
                    assert_eq!(stream(&frame, usize::MAX, &mut bytes), None);
                    let read = pb::TunnelMessage::decode(&bytes[..]).unwrap();
                    assert!(read.encode_to_vec() == bytes, "{protocol} {length}");
                }
            }
        }
    }
}
