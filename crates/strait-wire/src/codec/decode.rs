//! The messages of requests, read straight into heads and pieces.
//!
//! What is wrong with the bytes is an error and ends the session. What is wrong with their
//! meaning is noted while the rest is read, and costs the request alone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, Method, StatusCode};

use super::control::{NAME, cut};
use super::field::{self, envelope};
use super::map::Map;
use super::read::{Fields, Value};
use super::{COPY_BELOW, DecodeError};
use crate::{
    Data, First, Frame, MessageStart, Opening, Pieces, Protocol, RequestHead, RequestId,
    ResponseHead, StreamFrame, StreamNo,
};

/// What is wrong with the content of one request.
pub(super) type Wrong = &'static str;

/// The frame in `block`, or `None` when it is one of the tunnel itself.
pub(super) fn frame(block: &Bytes) -> Result<Option<Frame>, DecodeError> {
    let envelope = Envelope::read(block)?;
    let no = StreamNo(envelope.number);
    Ok(Some(match envelope.payload {
        None => Frame::Unknown,
        Some((envelope::CREDIT, payload)) => Frame::Credit(no, credit(payload)?),
        Some((envelope::HTTP_REQUEST..=envelope::WS_FRAME, _)) => {
            match Content::read(block, &envelope)?.frame(&envelope) {
                Ok(frame) => Frame::Stream(frame),
                Err(wrong) => Frame::Malformed(no, wrong),
            }
        }
        Some(_) => return Ok(None),
    }))
}

fn credit(payload: &[u8]) -> Result<u32, DecodeError> {
    let (mut fields, mut bytes) = (Fields(payload), 0);
    while let Some((number, value)) = fields.next()? {
        if number == field::credit::BYTES {
            bytes = value.number()? as u32;
        }
    }
    Ok(bytes)
}

/// The fields around a payload.
#[derive(Default)]
struct Envelope<'a> {
    client_id: &'a str,
    request_id: &'a [u8],
    /// The last one, and its number.
    payload: Option<(u32, &'a [u8])>,
    trace: &'a str,
    number: u64,
    sequence: u32,
    hops: u32,
    deadline: u64,
    urgency: u32,
    service: &'a str,
    answer_credit: u32,
    awaits_continue: bool,
}

impl<'a> Envelope<'a> {
    fn read(message: &'a [u8]) -> Result<Envelope<'a>, DecodeError> {
        let (mut fields, mut of) = (Fields(message), Envelope::default());
        while let Some((number, value)) = fields.next()? {
            match number {
                envelope::CLIENT_ID => of.client_id = value.text()?,
                envelope::REQUEST_ID => of.request_id = value.text_bytes()?,
                // For readers of the wire only.
                envelope::DIRECTION | envelope::PROTOCOL => drop(value.number()?),
                envelope::HTTP_REQUEST..=envelope::CONFIG_SYNC => {
                    of.payload = Some((number, value.bytes()?));
                }
                envelope::TRACE_ID => of.trace = value.text()?,
                envelope::NUMBER => of.number = value.number()?,
                envelope::SEQUENCE => of.sequence = value.number()? as u32,
                envelope::HOPS => of.hops = value.number()? as u32,
                envelope::DEADLINE => of.deadline = value.number()?,
                envelope::URGENCY => of.urgency = value.number()? as u32,
                envelope::SERVICE => of.service = value.text()?,
                envelope::ANSWER_CREDIT => of.answer_credit = value.number()? as u32,
                envelope::AWAITS_CONTINUE => of.awaits_continue = value.flag()?,
                _ => {}
            }
        }
        Ok(of)
    }
}

/// What a field says, whatever payload it stands in.
#[derive(Clone, Copy)]
enum Meaning {
    First,
    Last,
    Method,
    Scheme,
    Authority,
    Path,
    Status,
    Headers,
    Body,
    Piece,
    Trailers,
}

/// The meaning of field `number` in a payload of `kind`, `None` for one of a newer peer. Frames of
/// WebSockets are read apart.
fn meaning(kind: u32, number: u32) -> Option<Meaning> {
    use Meaning::*;
    use field::*;
    Some(match (kind, number) {
        (envelope::HTTP_REQUEST, http_request::IS_FIRST) => First,
        (envelope::HTTP_REQUEST, http_request::IS_LAST) => Last,
        (envelope::HTTP_REQUEST, http_request::METHOD) => Method,
        (envelope::HTTP_REQUEST, http_request::SCHEME) => Scheme,
        (envelope::HTTP_REQUEST, http_request::AUTHORITY) => Authority,
        (envelope::HTTP_REQUEST, http_request::PATH) => Path,
        (envelope::HTTP_REQUEST, http_request::HEADERS) => Headers,
        (envelope::HTTP_REQUEST, http_request::BODY) => Body,
        (envelope::HTTP_REQUEST, http_request::TRAILERS) => Trailers,
        (envelope::HTTP_RESPONSE, http_response::IS_FIRST) => First,
        (envelope::HTTP_RESPONSE, http_response::IS_LAST) => Last,
        (envelope::HTTP_RESPONSE, http_response::STATUS) => Status,
        (envelope::HTTP_RESPONSE, http_response::HEADERS) => Headers,
        (envelope::HTTP_RESPONSE, http_response::BODY) => Body,
        (envelope::HTTP_RESPONSE, http_response::TRAILERS) => Trailers,
        (envelope::GRPC_REQUEST, grpc_request::IS_FIRST) => First,
        (envelope::GRPC_REQUEST, grpc_request::IS_LAST) => Last,
        (envelope::GRPC_REQUEST, grpc_request::SCHEME) => Scheme,
        (envelope::GRPC_REQUEST, grpc_request::AUTHORITY) => Authority,
        (envelope::GRPC_REQUEST, grpc_request::PATH) => Path,
        (envelope::GRPC_REQUEST, grpc_request::HEADERS) => Headers,
        (envelope::GRPC_REQUEST, grpc_request::PIECES) => Piece,
        (envelope::GRPC_RESPONSE, grpc_response::IS_FIRST) => First,
        (envelope::GRPC_RESPONSE, grpc_response::IS_LAST) => Last,
        (envelope::GRPC_RESPONSE, grpc_response::STATUS) => Status,
        (envelope::GRPC_RESPONSE, grpc_response::HEADERS) => Headers,
        (envelope::GRPC_RESPONSE, grpc_response::PIECES) => Piece,
        (envelope::GRPC_RESPONSE, grpc_response::TRAILERS) => Trailers,
        (envelope::WS_REQUEST, ws_request::SCHEME) => Scheme,
        (envelope::WS_REQUEST, ws_request::AUTHORITY) => Authority,
        (envelope::WS_REQUEST, ws_request::PATH) => Path,
        (envelope::WS_REQUEST, ws_request::HEADERS) => Headers,
        (envelope::WS_RESPONSE, ws_response::STATUS) => Status,
        (envelope::WS_RESPONSE, ws_response::HEADERS) => Headers,
        _ => return None,
    })
}

/// What a payload of a request says.
struct Content<'a> {
    block: &'a Bytes,
    kind: u32,
    is_first: bool,
    end: bool,
    /// Of a WebSocket frame, which has one payload type for both directions.
    is_request: bool,
    method: &'a [u8],
    scheme: &'a [u8],
    authority: &'a [u8],
    path: &'a [u8],
    status: u32,
    headers: Map,
    /// Few have any.
    trailers: Option<Box<Map>>,
    data: Pieces,
}

impl<'a> Content<'a> {
    fn read(block: &'a Bytes, envelope: &Envelope<'a>) -> Result<Content<'a>, DecodeError> {
        let (kind, payload) = envelope.payload.unwrap_or_default();
        let mut content = Content {
            block,
            kind,
            is_first: false,
            end: false,
            is_request: false,
            method: b"",
            scheme: b"",
            authority: b"",
            path: b"",
            status: 0,
            headers: if kind == envelope::GRPC_RESPONSE { Map::of_few() } else { Map::of_head() },
            trailers: None,
            data: Pieces::default(),
        };
        if kind == envelope::WS_FRAME {
            content.ws_frame(payload)?;
            return Ok(content);
        }
        let mut fields = Fields(payload);
        while let Some((number, value)) = fields.next()? {
            content.field(number, value)?;
        }
        Ok(content)
    }

    fn field(&mut self, number: u32, value: Value<'a>) -> Result<(), DecodeError> {
        match meaning(self.kind, number) {
            None => {}
            Some(Meaning::First) => self.is_first = value.flag()?,
            Some(Meaning::Last) => self.end = value.flag()?,
            Some(Meaning::Method) => self.method = value.bytes()?,
            Some(Meaning::Scheme) => self.scheme = value.bytes()?,
            Some(Meaning::Authority) => self.authority = value.bytes()?,
            Some(Meaning::Path) => self.path = value.bytes()?,
            Some(Meaning::Status) => self.status = value.number()? as u32,
            Some(Meaning::Headers) => self.headers.read(self.block, value)?,
            Some(Meaning::Body) => self.body(value)?,
            Some(Meaning::Piece) => self.piece(value)?,
            Some(Meaning::Trailers) => {
                let trailers = self.trailers.get_or_insert_with(|| Box::new(Map::of_few()));
                trailers.read(self.block, value)?;
            }
        }
        Ok(())
    }

    fn ws_frame(&mut self, payload: &'a [u8]) -> Result<(), DecodeError> {
        use field::ws_frame as f;
        let mut fields = Fields(payload);
        let (mut opcode, mut fin, mut reserved, mut length) = (0, false, 0, 0);
        let (mut bytes, mut is_first, mut is_last) = (&b""[..], false, false);
        while let Some((number, value)) = fields.next()? {
            match number {
                f::DIRECTION => self.is_request = value.number()? as u32 == 1,
                f::OPCODE => opcode = value.number()? as u32,
                f::FIN => fin = value.flag()?,
                f::RESERVED => reserved = value.number()? as u32,
                f::LENGTH => length = value.number()?,
                f::PAYLOAD => bytes = value.bytes()?,
                f::IS_FIRST => is_first = value.flag()?,
                f::IS_LAST => is_last = value.flag()?,
                f::END => self.end = value.flag()?,
                _ => {}
            }
        }
        if opcode > 15 || reserved > 7 {
            self.headers.wrong = Some("not a WebSocket frame header");
        }
        let tag = u8::from(fin) << 7 | (reserved as u8) << 4 | opcode as u8;
        let start = is_first.then_some(MessageStart { tag, length });
        if start.is_some() || is_last || !bytes.is_empty() {
            self.data.push_back(Data { bytes: self.own(bytes), start, ends_message: is_last });
        }
        Ok(())
    }

    /// The payload of a body without messages; the last one counts.
    fn body(&mut self, value: Value<'a>) -> Result<(), DecodeError> {
        let bytes = value.bytes()?;
        self.data = Pieces::default();
        if !bytes.is_empty() {
            self.data.push_back(Data::plain(self.own(bytes)));
        }
        Ok(())
    }

    fn piece(&mut self, value: Value<'a>) -> Result<(), DecodeError> {
        use field::piece as f;
        let mut fields = Fields(value.bytes()?);
        let (mut bytes, mut is_start, mut ends_message) = (&b""[..], false, false);
        let (mut compressed, mut length) = (false, 0);
        while let Some((number, value)) = fields.next()? {
            match number {
                f::DATA => bytes = value.bytes()?,
                f::IS_START => is_start = value.flag()?,
                f::IS_END => ends_message = value.flag()?,
                f::COMPRESSED => compressed = value.flag()?,
                f::LENGTH => length = value.number()? as u32,
                _ => {}
            }
        }
        let start = MessageStart { tag: u8::from(compressed), length: u64::from(length) };
        let start = is_start.then_some(start);
        self.data.push_back(Data { bytes: self.own(bytes), start, ends_message });
        Ok(())
    }

    fn own(&self, bytes: &'a [u8]) -> Bytes {
        own(self.block, bytes)
    }

    fn frame(self, envelope: &Envelope<'_>) -> Result<StreamFrame, Wrong> {
        let (protocol, is_request) = match self.kind {
            envelope::HTTP_REQUEST => (Protocol::Http, true),
            envelope::HTTP_RESPONSE => (Protocol::Http, false),
            envelope::GRPC_REQUEST => (Protocol::Grpc, true),
            envelope::GRPC_RESPONSE => (Protocol::Grpc, false),
            envelope::WS_REQUEST => (Protocol::WebSocket, true),
            envelope::WS_RESPONSE => (Protocol::WebSocket, false),
            _ => (Protocol::WebSocket, self.is_request),
        };
        let is_handshake = matches!(self.kind, envelope::WS_REQUEST | envelope::WS_RESPONSE);
        let mut frame = StreamFrame {
            no: StreamNo(envelope.number),
            sequence: envelope.sequence,
            protocol,
            is_request,
            first: None,
            data: self.data,
            trailers: match self.trailers {
                Some(trailers) => trailers.finish()?.map(Box::new),
                None => None,
            },
            end: self.end,
        };
        if self.kind == envelope::WS_FRAME {
            self.headers.finish()?;
        } else if self.is_first || is_handshake {
            let headers = self.headers.finish()?.unwrap_or_default();
            frame.first = Some(if is_request {
                let method = match protocol {
                    Protocol::Http => {
                        Method::from_bytes(self.method).map_err(|_| "not a method")?
                    }
                    Protocol::Grpc => Method::POST,
                    Protocol::WebSocket => Method::GET,
                };
                let scheme = match self.scheme {
                    b"http" => Scheme::HTTP,
                    b"https" => Scheme::HTTPS,
                    _ => return Err("the scheme is neither http nor https"),
                };
                let (authority, path) =
                    (own(self.block, self.authority), own(self.block, self.path));
                opening(envelope, RequestHead { method, scheme, authority, path, headers })
            } else {
                response(self.status, headers, is_handshake)?
            });
        }
        Ok(frame)
    }
}

fn opening(envelope: &Envelope<'_>, head: RequestHead) -> First {
    First::Request(Box::new(Opening {
        id: RequestId::from_text(envelope.request_id),
        client_id: cut(envelope.client_id, 128),
        trace: cut(envelope.trace, 128),
        deadline: (envelope.deadline > 0).then(|| Duration::from_micros(envelope.deadline)),
        hops: envelope.hops,
        urgency: envelope.urgency.checked_sub(1).map_or(3, |u| u.min(7) as u8),
        service: cut(envelope.service, NAME),
        answer_credit: envelope.answer_credit,
        awaits_continue: envelope.awaits_continue,
        head: Arc::new(head),
    }))
}

/// An answer's head. 101 is the answer to a handshake and to nothing else (RFC 9110 15.2.2);
/// other interim answers do not travel. Backends in the wild answer with 600 to 999, and
/// what a backend says must never count as a violation of this side.
fn response(status: u32, headers: HeaderMap, handshake: bool) -> Result<First, Wrong> {
    let status = u16::try_from(status)
        .ok()
        .filter(|s| (200..1000).contains(s) || (handshake && *s == 101))
        .and_then(|s| StatusCode::from_u16(s).ok())
        .ok_or("not a final status")?;
    Ok(First::Response(Box::new(ResponseHead { status, headers })))
}

/// A part of `block`: shared when the block is small and of one request only.
fn own(block: &Bytes, part: &[u8]) -> Bytes {
    if part.len() <= COPY_BELOW && block.len() > COPY_BELOW {
        Bytes::copy_from_slice(part)
    } else {
        block.slice_ref(part)
    }
}
