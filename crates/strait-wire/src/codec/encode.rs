//! The messages of requests, written straight from their heads and pieces: they are almost
//! all that travels, and structs in between would copy every header.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http::uri::Scheme;

use super::Apart;
use super::field::{self, envelope};
use crate::{Data, First, Opening, Protocol, RequestHead, StreamFrame, StreamNo};

/// What fields are written to.
trait Sink: Sized {
    fn varint(&mut self, value: u64);
    fn raw(&mut self, bytes: &[u8]);

    /// A message within a message.
    fn message(&mut self, number: u32, message: &impl Message) {
        self.pair(u64::from(number << 3 | 2), message.length() as u64);
        message.write(self);
    }

    /// Two numbers; most are one byte each.
    #[inline]
    fn pair(&mut self, first: u64, second: u64) {
        match (first, second) {
            (0..0x80, 0..0x80) => self.raw(&[first as u8, second as u8]),
            _ => {
                self.varint(first);
                self.varint(second);
            }
        }
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.pair(u64::from(number << 3 | 2), bytes.len() as u64);
            self.raw(bytes);
        }
    }

    /// Bytes that may be many.
    fn payload(&mut self, number: u32, payload: &Bytes) {
        self.bytes(number, payload);
    }

    fn number(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.pair(u64::from(number << 3), value);
        }
    }

    fn flag(&mut self, number: u32, value: bool) {
        self.number(number, u64::from(value));
    }

    fn headers(&mut self, number: u32, map: &HeaderMap) {
        use field::header as f;
        for (name, value) in map {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            // Almost all are so short that each length is one byte.
            if number < 16 && !value.is_empty() && name.len() + value.len() < 0x80 - 4 {
                let length = (4 + name.len() + value.len()) as u8;
                self.raw(&[(number << 3 | 2) as u8, length, f::NAME_KEY, name.len() as u8]);
                self.raw(name);
                self.raw(&[f::VALUE_KEY, value.len() as u8]);
                self.raw(value);
            } else {
                self.message(number, &Header(name, value));
            }
        }
    }
}

/// Something with fields. Lengths stand before contents on the wire, so it is written twice:
/// first to a [`Count`].
trait Message {
    fn write(&self, to: &mut impl Sink);

    fn length(&self) -> usize {
        let mut count = Count(0);
        self.write(&mut count);
        count.0
    }
}

/// Counts the bytes that would be written.
struct Count(usize);

impl Sink for Count {
    fn varint(&mut self, value: u64) {
        self.0 += (value | 1).ilog2() as usize / 7 + 1;
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn message(&mut self, number: u32, message: &impl Message) {
        let length = message.length();
        self.varint(u64::from(number << 3 | 2));
        self.varint(length as u64);
        self.0 += length;
    }
}

/// Writes all but the first payload of `from` bytes or more.
struct Writer<'a> {
    out: &'a mut BytesMut,
    from: usize,
    apart: Option<Apart>,
}

impl Sink for Writer<'_> {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.out.put_slice(bytes);
    }

    fn payload(&mut self, number: u32, payload: &Bytes) {
        if payload.len() < self.from || self.apart.is_some() {
            return self.bytes(number, payload);
        }
        self.pair(u64::from(number << 3 | 2), payload.len() as u64);
        self.apart = Some(Apart { at: self.out.len(), payload: payload.clone() });
    }
}

/// Appends a message of a request without its first payload of `from` bytes or more.
pub(super) fn stream(frame: &StreamFrame, from: usize, out: &mut BytesMut) -> Option<Apart> {
    let mut to = Writer { out, from, apart: None };
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
    to.message(payload, frame);
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
    to.message(envelope::CREDIT, &Credit(bytes));
    to.number(envelope::NUMBER, no.0);
}

fn direction(frame: &StreamFrame) -> u64 {
    if frame.is_request { 1 } else { 2 }
}

fn context(opening: &Opening, to: &mut impl Sink) {
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

impl Message for StreamFrame {
    fn write(&self, to: &mut impl Sink) {
        match (self.protocol, self.is_request) {
            (Protocol::Http, true) => http_request(self, to),
            (Protocol::Http, false) => http_response(self, to),
            (Protocol::Grpc, true) => grpc_request(self, to),
            (Protocol::Grpc, false) => grpc_response(self, to),
            (Protocol::WebSocket, _) => websocket(self, to),
        }
    }
}

fn http_request(frame: &StreamFrame, to: &mut impl Sink) {
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

fn http_response(frame: &StreamFrame, to: &mut impl Sink) {
    use field::http_response as f;
    to.flag(f::IS_FIRST, frame.first.is_some());
    to.flag(f::IS_LAST, frame.end);
    answer(frame, f::STATUS, f::HEADERS, to);
    body(frame, f::BODY, to);
    trailers(frame, f::TRAILERS, to);
}

fn grpc_request(frame: &StreamFrame, to: &mut impl Sink) {
    use field::grpc_request as f;
    to.flag(f::IS_FIRST, frame.first.is_some());
    to.flag(f::IS_LAST, frame.end);
    if let Some(First::Request(opening)) = &frame.first {
        target(&opening.head, [f::SCHEME, f::AUTHORITY, f::PATH], f::HEADERS, to);
    }
    frame.data.iter().for_each(|data| to.message(f::PIECES, &Piece(data)));
}

fn grpc_response(frame: &StreamFrame, to: &mut impl Sink) {
    use field::grpc_response as f;
    to.flag(f::IS_FIRST, frame.first.is_some());
    to.flag(f::IS_LAST, frame.end);
    answer(frame, f::STATUS, f::HEADERS, to);
    frame.data.iter().for_each(|data| to.message(f::PIECES, &Piece(data)));
    trailers(frame, f::TRAILERS, to);
}

/// A handshake, its answer, or a frame: heads of WebSockets travel alone.
fn websocket(frame: &StreamFrame, to: &mut impl Sink) {
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

fn ws_frame(frame: &StreamFrame, to: &mut impl Sink) {
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
fn target(head: &RequestHead, numbers: [u32; 3], headers: u32, to: &mut impl Sink) {
    let scheme = if head.scheme == Scheme::HTTPS { "https" } else { head.scheme.as_str() };
    for (number, text) in numbers.into_iter().zip([scheme.as_bytes(), &head.authority, &head.path])
    {
        to.bytes(number, text);
    }
    to.headers(headers, &head.headers);
}

fn answer(frame: &StreamFrame, status: u32, headers: u32, to: &mut impl Sink) {
    if let Some(First::Response(head)) = &frame.first {
        to.number(status, u64::from(head.status.as_u16()));
        to.headers(headers, &head.headers);
    }
}

/// The payload of a body without messages; the mux puts one piece in a frame.
fn body(frame: &StreamFrame, number: u32, to: &mut impl Sink) {
    debug_assert!(frame.data.len() <= 1, "plain bodies travel one piece a frame");
    if let Some(data) = frame.data.front() {
        to.payload(number, &data.bytes);
    }
}

fn trailers(frame: &StreamFrame, number: u32, to: &mut impl Sink) {
    if let Some(map) = &frame.trailers {
        to.headers(number, map);
    }
}

struct Header<'a>(&'a [u8], &'a [u8]);

impl Message for Header<'_> {
    fn write(&self, to: &mut impl Sink) {
        to.bytes(field::header::NAME, self.0);
        to.bytes(field::header::VALUE, self.1);
    }
}

struct Piece<'a>(&'a Data);

impl Message for Piece<'_> {
    fn write(&self, to: &mut impl Sink) {
        use field::piece as f;
        let Piece(data) = self;
        to.payload(f::DATA, &data.bytes);
        to.flag(f::IS_START, data.start.is_some());
        to.flag(f::IS_END, data.ends_message);
        if let Some(start) = data.start {
            to.flag(f::COMPRESSED, start.tag & 1 == 1);
            // A gRPC message has 32 bits of length.
            to.number(f::LENGTH, u64::from(start.length as u32));
        }
    }
}

struct Credit(u32);

impl Message for Credit {
    fn write(&self, to: &mut impl Sink) {
        to.number(field::credit::BYTES, u64::from(self.0));
    }
}
