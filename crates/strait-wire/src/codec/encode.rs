//! From frames to generated messages.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::pb::{self, control::Kind, tunnel_message::Payload};
use crate::{Data, First, Frame, Hello, Opening, Protocol, RequestHead, ResponseHead, StreamFrame};

pub(super) fn message(frame: Frame) -> pb::TunnelMessage {
    match frame {
        Frame::Stream(frame) => stream(frame),
        Frame::Credit(no, bytes) => about(no.0, Payload::Credit(pb::Credit { bytes })),
        Frame::Reset(reset) => about(
            reset.no.0,
            Payload::Reset(pb::Reset {
                reason: reset.reason as i32,
                retry_safe: reset.retry_safe,
                message: reset.message,
            }),
        ),
        Frame::Hello(hello) => about(0, Payload::Hello(self::hello(*hello))),
        Frame::Ping(nonce) => control(Kind::Ping(pb::Ping { nonce })),
        Frame::Pong(nonce) => control(Kind::Pong(pb::Ping { nonce })),
        Frame::GoAway(goaway) => control(Kind::Goaway(pb::GoAway {
            last_number: goaway.last.map(|no| no.0),
            reason: goaway.reason as i32,
            message: goaway.message,
        })),
        Frame::Settings(settings) => control(Kind::Settings(pb::Settings {
            initial_credit: settings.initial_credit,
            max_requests: settings.max_requests,
        })),
        Frame::Announce(announcement) => about(
            0,
            Payload::ConfigSync(pb::ConfigSync {
                revision: announcement.revision,
                services: announcement.services.into_iter().map(service).collect(),
                ..Default::default()
            }),
        ),
        Frame::Announced(answer) => about(
            0,
            Payload::ConfigSync(pb::ConfigSync {
                revision: answer.revision,
                is_answer: true,
                refused: answer
                    .refused
                    .into_iter()
                    .map(|r| pb::Refusal { service: r.service, message: r.message })
                    .collect(),
                addresses: answer.addresses,
                ..Default::default()
            }),
        ),
        Frame::Malformed(..) | Frame::Unknown => pb::TunnelMessage::default(),
    }
}

fn about(number: u64, payload: Payload) -> pb::TunnelMessage {
    pb::TunnelMessage {
        number,
        protocol_type: pb::ProtocolType::Control as i32,
        payload: Some(payload),
        ..Default::default()
    }
}

fn control(kind: Kind) -> pb::TunnelMessage {
    about(0, Payload::Control(pb::Control { kind: Some(kind) }))
}

fn hello(hello: Hello) -> pb::Hello {
    pb::Hello {
        version_min: hello.version_min,
        version_max: hello.version_max,
        features: hello.features,
        role: hello.role,
        client_id: hello.client_id,
        instance: hello.instance,
        connection: hello.connection,
        initial_credit: hello.initial_credit,
        max_piece: hello.max_piece,
        max_requests: hello.max_requests,
        software: hello.software,
    }
}

fn service(service: crate::Service) -> pb::Service {
    pb::Service {
        name: service.name,
        protocols: service.protocols.into_iter().map(|p| protocol(p) as i32).collect(),
        hosts: service.hosts,
        path_prefix: service.path_prefix,
    }
}

fn protocol(protocol: Protocol) -> pb::ProtocolType {
    match protocol {
        Protocol::Http => pb::ProtocolType::Http,
        Protocol::Grpc => pb::ProtocolType::Grpc,
        Protocol::WebSocket => pb::ProtocolType::Websocket,
    }
}

fn stream(frame: StreamFrame) -> pb::TunnelMessage {
    let mut message = pb::TunnelMessage {
        number: frame.no.0,
        sequence: frame.sequence,
        direction: direction(frame.is_request) as i32,
        protocol_type: protocol(frame.protocol) as i32,
        ..Default::default()
    };
    let (request, response) = match frame.first {
        Some(First::Request(opening)) => (Some(context(&mut message, *opening)), None),
        Some(First::Response(head)) => (None, Some(*head)),
        None => (None, None),
    };
    let body =
        Body { data: frame.data, trailers: frame.trailers.map(|t| fields(&t)), end: frame.end };
    message.payload = Some(match (frame.protocol, frame.is_request) {
        (Protocol::Http, true) => Payload::HttpRequest(http_request(request, body)),
        (Protocol::Http, false) => Payload::HttpResponse(http_response(response, body)),
        (Protocol::Grpc, true) => Payload::GrpcRequest(grpc_request(request, body)),
        (Protocol::Grpc, false) => Payload::GrpcResponse(grpc_response(response, body)),
        (Protocol::WebSocket, is_request) => websocket(request, response, body, is_request),
    });
    message
}

struct Body {
    data: Vec<Data>,
    trailers: Option<Vec<pb::Header>>,
    end: bool,
}

impl Body {
    /// The payload of a body without messages; the mux puts one piece in a frame.
    fn plain(&mut self) -> Bytes {
        debug_assert!(self.data.len() <= 1, "plain bodies travel one piece a frame");
        self.data.pop().map(|data| data.bytes).unwrap_or_default()
    }
}

fn direction(is_request: bool) -> pb::Direction {
    if is_request { pb::Direction::Request } else { pb::Direction::Response }
}

/// Moves the context of an opening into the envelope and returns the head.
fn context(message: &mut pb::TunnelMessage, opening: Opening) -> std::sync::Arc<RequestHead> {
    message.client_id = opening.client_id;
    message.request_id = opening.id.map(|id| id.to_string()).unwrap_or_default();
    message.trace_id = opening.trace;
    message.hop_count = opening.hops;
    message.deadline_us = opening
        .deadline
        // A deadline that has just passed is still a deadline: 0 would mean none.
        .map_or(0, |left| u64::try_from(left.as_micros()).unwrap_or(u64::MAX).max(1));
    message.urgency = if opening.urgency == 3 { 0 } else { u32::from(opening.urgency) + 1 };
    message.service = opening.service;
    message.answer_credit = opening.answer_credit;
    opening.head
}

type RequestOf = Option<std::sync::Arc<RequestHead>>;

fn http_request(head: RequestOf, mut body: Body) -> pb::HttpRequest {
    let mut request = pb::HttpRequest {
        is_first_chunk: head.is_some(),
        is_last_chunk: body.end,
        body: body.plain(),
        trailers: body.trailers.unwrap_or_default(),
        ..Default::default()
    };
    if let Some(head) = head {
        request.method = Bytes::copy_from_slice(head.method.as_str().as_bytes());
        request.scheme = scheme(&head);
        request.authority = head.authority.clone();
        request.path = head.path.clone();
        request.headers = fields(&head.headers);
    }
    request
}

fn http_response(head: Option<ResponseHead>, mut body: Body) -> pb::HttpResponse {
    let is_first_chunk = head.is_some();
    let (status, headers) = response(head);
    pb::HttpResponse {
        is_first_chunk,
        is_last_chunk: body.end,
        status,
        headers,
        body: body.plain(),
        trailers: body.trailers.unwrap_or_default(),
    }
}

fn grpc_request(head: RequestOf, body: Body) -> pb::GrpcRequest {
    let mut request = pb::GrpcRequest {
        is_first_chunk: head.is_some(),
        is_last_chunk: body.end,
        pieces: body.data.into_iter().map(piece).collect(),
        ..Default::default()
    };
    if let Some(head) = head {
        request.scheme = scheme(&head);
        request.authority = head.authority.clone();
        request.path = head.path.clone();
        request.metadata = fields(&head.headers);
    }
    request
}

fn grpc_response(head: Option<ResponseHead>, body: Body) -> pb::GrpcResponse {
    let is_first_chunk = head.is_some();
    let (status, metadata) = response(head);
    pb::GrpcResponse {
        is_first_chunk,
        is_last_chunk: body.end,
        status,
        metadata,
        pieces: body.data.into_iter().map(piece).collect(),
        trailers: body.trailers.unwrap_or_default(),
    }
}

fn piece(data: Data) -> pb::GrpcPiece {
    pb::GrpcPiece {
        is_message_start: data.start.is_some(),
        is_message_end: data.ends_message,
        compressed: data.start.is_some_and(|start| start.tag & 1 == 1),
        message_length: data.start.map_or(0, |start| start.length as u32),
        data: data.bytes,
    }
}

/// A handshake, its answer, or a frame: heads of WebSockets travel alone.
fn websocket(
    request: RequestOf,
    response: Option<ResponseHead>,
    mut body: Body,
    is_request: bool,
) -> Payload {
    debug_assert!((request.is_none() && response.is_none()) || (body.data.is_empty() && !body.end));
    if let Some(head) = request {
        return Payload::WsRequest(pb::WebSocketRequest {
            scheme: scheme(&head),
            authority: head.authority.clone(),
            path: head.path.clone(),
            headers: fields(&head.headers),
        });
    }
    if response.is_some() {
        let (status, headers) = self::response(response);
        return Payload::WsResponse(pb::WebSocketResponse { status, headers });
    }
    let data = body.data.pop().unwrap_or_default();
    let tag = data.start.map_or(0, |start| start.tag);
    Payload::WsFrame(pb::WebSocketFrame {
        direction: direction(is_request) as i32,
        opcode: u32::from(tag & 0x0F),
        fin: tag & 0x80 != 0,
        reserved: u32::from(tag >> 4 & 0x07),
        length: data.start.map_or(0, |start| start.length),
        is_first_piece: data.start.is_some(),
        is_last_piece: data.ends_message,
        payload: data.bytes,
        is_last_chunk: body.end,
    })
}

fn scheme(head: &RequestHead) -> Bytes {
    match head.scheme.as_str() {
        "http" => Bytes::from_static(b"http"),
        "https" => Bytes::from_static(b"https"),
        other => Bytes::copy_from_slice(other.as_bytes()),
    }
}

fn response(head: Option<ResponseHead>) -> (u32, Vec<pb::Header>) {
    head.map_or((0, Vec::new()), |head| (u32::from(head.status.as_u16()), fields(&head.headers)))
}

fn fields(map: &HeaderMap) -> Vec<pb::Header> {
    map.iter().map(|(name, value)| field(name, value)).collect()
}

fn field(name: &HeaderName, value: &HeaderValue) -> pb::Header {
    pb::Header {
        name: Bytes::copy_from_slice(name.as_str().as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}
