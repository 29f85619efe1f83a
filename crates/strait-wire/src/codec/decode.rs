//! From generated messages to frames.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::pb::{self, control::Kind, tunnel_message::Payload};
use super::{COPY_BELOW, MAX_FIELDS};
use crate::{
    Announced, Announcement, Data, First, Frame, GoAway, Hello, MessageStart, Opening, Protocol,
    Reason, Refusal, RequestHead, Reset, ResponseHead, Service, Settings, StreamFrame, StreamNo,
};

/// What is wrong with the content of one request.
type Wrong = &'static str;

pub(super) fn frame(mut message: pb::TunnelMessage) -> Frame {
    let no = StreamNo(message.number);
    let Some(payload) = message.payload.take() else { return Frame::Unknown };
    match payload {
        Payload::Hello(hello) => Frame::Hello(Box::new(self::hello(hello))),
        Payload::Credit(credit) => Frame::Credit(no, credit.bytes),
        Payload::Reset(reset) => Frame::Reset(Reset {
            no,
            reason: Reason::from_code(reset.reason),
            retry_safe: reset.retry_safe,
            message: cut(reset.message, 256),
        }),
        Payload::Control(control) => self::control(control),
        Payload::ConfigSync(sync) => config(sync),
        payload => {
            stream(no, &mut message, payload).unwrap_or_else(|wrong| Frame::Malformed(no, wrong))
        }
    }
}

fn hello(hello: pb::Hello) -> Hello {
    Hello {
        version_min: hello.version_min,
        version_max: hello.version_max,
        features: hello.features,
        role: cut(hello.role, 32),
        client_id: cut(hello.client_id, 128),
        instance: hello.instance,
        connection: hello.connection,
        initial_credit: hello.initial_credit,
        max_piece: hello.max_piece,
        max_requests: hello.max_requests,
        software: cut(hello.software, 128),
    }
}

fn control(control: pb::Control) -> Frame {
    match control.kind {
        Some(Kind::Ping(ping)) => Frame::Ping(ping.nonce),
        Some(Kind::Pong(ping)) => Frame::Pong(ping.nonce),
        Some(Kind::Goaway(goaway)) => Frame::GoAway(GoAway {
            last: goaway.last_number.map(StreamNo),
            reason: Reason::from_code(goaway.reason),
            message: cut(goaway.message, 256),
        }),
        Some(Kind::Settings(settings)) => Frame::Settings(Settings {
            initial_credit: settings.initial_credit,
            max_requests: settings.max_requests,
        }),
        None => Frame::Unknown,
    }
}

fn config(sync: pb::ConfigSync) -> Frame {
    if sync.is_answer {
        let refusal =
            |r: pb::Refusal| Refusal { service: cut(r.service, 64), message: cut(r.message, 256) };
        return Frame::Announced(Announced {
            revision: sync.revision,
            refused: sync.refused.into_iter().map(refusal).collect(),
            addresses: sync.addresses.into_iter().map(|a| cut(a, 256)).collect(),
        });
    }
    Frame::Announce(Announcement {
        revision: sync.revision,
        services: sync.services.into_iter().map(service).collect(),
    })
}

fn service(service: pb::Service) -> Service {
    Service {
        name: cut(service.name, 64),
        protocols: service.protocols.into_iter().filter_map(protocol).collect(),
        hosts: service.hosts,
        path_prefix: service.path_prefix,
    }
}

fn protocol(number: i32) -> Option<Protocol> {
    match pb::ProtocolType::try_from(number).ok()? {
        pb::ProtocolType::Http => Some(Protocol::Http),
        pb::ProtocolType::Grpc => Some(Protocol::Grpc),
        pb::ProtocolType::Websocket => Some(Protocol::WebSocket),
        pb::ProtocolType::Control | pb::ProtocolType::ProtocolUnspecified => None,
    }
}

fn stream(no: StreamNo, message: &mut pb::TunnelMessage, payload: Payload) -> Result<Frame, Wrong> {
    let (protocol, is_request) = match &payload {
        Payload::HttpRequest(_) => (Protocol::Http, true),
        Payload::HttpResponse(_) => (Protocol::Http, false),
        Payload::GrpcRequest(_) => (Protocol::Grpc, true),
        Payload::GrpcResponse(_) => (Protocol::Grpc, false),
        Payload::WsRequest(_) => (Protocol::WebSocket, true),
        Payload::WsResponse(_) => (Protocol::WebSocket, false),
        Payload::WsFrame(frame) => {
            (Protocol::WebSocket, frame.direction == pb::Direction::Request as i32)
        }
        _ => return Ok(Frame::Unknown),
    };
    let mut frame = StreamFrame {
        no,
        sequence: message.sequence,
        protocol,
        is_request,
        first: None,
        data: Vec::new(),
        trailers: None,
        end: false,
    };
    match payload {
        Payload::HttpRequest(request) => http_request(&mut frame, message, request)?,
        Payload::HttpResponse(response) => http_response(&mut frame, response)?,
        Payload::GrpcRequest(request) => grpc_request(&mut frame, message, request)?,
        Payload::GrpcResponse(response) => grpc_response(&mut frame, response)?,
        Payload::WsRequest(request) => {
            let target = (request.scheme, request.authority, request.path);
            frame.first = Some(opening(message, Method::GET, target, request.headers)?);
        }
        Payload::WsResponse(response) => {
            frame.first = Some(self::response(response.status, response.headers, true)?);
        }
        Payload::WsFrame(piece) => ws_frame(&mut frame, piece)?,
        _ => {}
    }
    Ok(Frame::Stream(frame))
}

fn http_request(
    frame: &mut StreamFrame,
    message: &mut pb::TunnelMessage,
    request: pb::HttpRequest,
) -> Result<(), Wrong> {
    if request.is_first_chunk {
        let method = Method::from_bytes(&request.method).map_err(|_| "not a method")?;
        let target = (request.scheme, request.authority, request.path);
        frame.first = Some(opening(message, method, target, request.headers)?);
    }
    frame.data.extend(plain(request.body));
    frame.trailers = trailers(request.trailers)?;
    frame.end = request.is_last_chunk;
    Ok(())
}

fn http_response(frame: &mut StreamFrame, response: pb::HttpResponse) -> Result<(), Wrong> {
    if response.is_first_chunk {
        frame.first = Some(self::response(response.status, response.headers, false)?);
    }
    frame.data.extend(plain(response.body));
    frame.trailers = trailers(response.trailers)?;
    frame.end = response.is_last_chunk;
    Ok(())
}

fn grpc_request(
    frame: &mut StreamFrame,
    message: &mut pb::TunnelMessage,
    request: pb::GrpcRequest,
) -> Result<(), Wrong> {
    if request.is_first_chunk {
        let target = (request.scheme, request.authority, request.path);
        frame.first = Some(opening(message, Method::POST, target, request.metadata)?);
    }
    frame.data = request.pieces.into_iter().map(piece).collect();
    frame.end = request.is_last_chunk;
    Ok(())
}

fn grpc_response(frame: &mut StreamFrame, response: pb::GrpcResponse) -> Result<(), Wrong> {
    if response.is_first_chunk {
        frame.first = Some(self::response(response.status, response.metadata, false)?);
    }
    frame.data = response.pieces.into_iter().map(piece).collect();
    frame.trailers = trailers(response.trailers)?;
    frame.end = response.is_last_chunk;
    Ok(())
}

fn ws_frame(frame: &mut StreamFrame, piece: pb::WebSocketFrame) -> Result<(), Wrong> {
    if piece.opcode > 15 || piece.reserved > 7 {
        return Err("not a WebSocket frame header");
    }
    let tag = u8::from(piece.fin) << 7 | (piece.reserved as u8) << 4 | piece.opcode as u8;
    let start = piece.is_first_piece.then_some(MessageStart { tag, length: piece.length });
    if start.is_some() || piece.is_last_piece || !piece.payload.is_empty() {
        frame.data.push(Data {
            bytes: own(piece.payload),
            start,
            ends_message: piece.is_last_piece,
        });
    }
    frame.end = piece.is_last_chunk;
    Ok(())
}

fn plain(body: Bytes) -> Option<Data> {
    (!body.is_empty()).then(|| Data::plain(own(body)))
}

fn piece(piece: pb::GrpcPiece) -> Data {
    let start =
        MessageStart { tag: u8::from(piece.compressed), length: u64::from(piece.message_length) };
    Data {
        bytes: own(piece.data),
        start: piece.is_message_start.then_some(start),
        ends_message: piece.is_message_end,
    }
}

fn own(bytes: Bytes) -> Bytes {
    if bytes.len() <= COPY_BELOW { Bytes::copy_from_slice(&bytes) } else { bytes }
}

fn opening(
    message: &mut pb::TunnelMessage,
    method: Method,
    (scheme, authority, path): (Bytes, Bytes, Bytes),
    headers: Vec<pb::Header>,
) -> Result<First, Wrong> {
    let scheme = match &*scheme {
        b"http" => Scheme::HTTP,
        b"https" => Scheme::HTTPS,
        _ => return Err("the scheme is neither http nor https"),
    };
    let head = RequestHead {
        method,
        scheme,
        authority: Bytes::copy_from_slice(&authority),
        path: Bytes::copy_from_slice(&path),
        headers: map(headers)?,
    };
    Ok(First::Request(Box::new(Opening {
        id: message.request_id.parse().ok(),
        client_id: cut(std::mem::take(&mut message.client_id), 128),
        trace: cut(std::mem::take(&mut message.trace_id), 128),
        deadline: (message.deadline_us > 0).then(|| Duration::from_micros(message.deadline_us)),
        hops: message.hop_count,
        urgency: message.urgency.checked_sub(1).map_or(3, |u| u.min(7) as u8),
        service: cut(std::mem::take(&mut message.service), 64),
        answer_credit: message.answer_credit,
        head: Arc::new(head),
    })))
}

/// An answer's head. 101 is the answer to a handshake and to nothing else (RFC 9110 15.2.2);
/// other interim answers do not travel. Backends in the wild answer with 600 to 999, and
/// what a backend says must never count as a violation of this side.
fn response(status: u32, headers: Vec<pb::Header>, handshake: bool) -> Result<First, Wrong> {
    let status = u16::try_from(status)
        .ok()
        .filter(|s| (200..1000).contains(s) || (handshake && *s == 101))
        .and_then(|s| StatusCode::from_u16(s).ok())
        .ok_or("not a final status")?;
    Ok(First::Response(Box::new(ResponseHead { status, headers: map(headers)? })))
}

fn trailers(fields: Vec<pb::Header>) -> Result<Option<Box<HeaderMap>>, Wrong> {
    if fields.is_empty() { Ok(None) } else { Ok(Some(Box::new(map(fields)?))) }
}

fn map(fields: Vec<pb::Header>) -> Result<HeaderMap, Wrong> {
    if fields.len() > MAX_FIELDS {
        return Err("too many header fields");
    }
    let mut map = HeaderMap::with_capacity(fields.len());
    // One block of their own for all values: a head that waits must not keep alive the block
    // that it was decoded from, in which the messages of other requests are too.
    let mut text = BytesMut::with_capacity(fields.iter().map(|field| field.value.len()).sum());
    for field in &fields {
        text.extend_from_slice(&field.value);
    }
    let mut text = text.freeze();
    for field in fields {
        let name = HeaderName::from_bytes(&field.name).map_err(|_| "not a header name")?;
        let value = text.split_to(field.value.len());
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| "not a header value")?;
        map.try_append(name, value).map_err(|_| "too many header fields")?;
    }
    Ok(map)
}

/// Cuts `text` to at most `limit` bytes, at a character's edge.
fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let at = (0..=limit).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(at);
    }
    text
}
