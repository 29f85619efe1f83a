//! The bytes of every kind of message, kept in `golden/`: what another implementation must
//! write and read. A change of these files is a change of the protocol.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, uri::Scheme};
use strait_wire::{
    Announced, Announcement, Data, First, Frame, GoAway, Hello, MessageStart, Opening, Pieces,
    Protocol, Reason, Refusal, RequestHead, Reset, ResponseHead, Service, Settings, StreamFrame,
    StreamNo, codec,
};

fn fields(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(*name, value.to_vec().try_into().expect("a header value"));
    }
    map
}

fn first(method: Method, path: &'static str, headers: HeaderMap) -> First {
    First::Request(Box::new(Opening {
        id: "0190d6f1-7b3a-7000-8000-000000000001".parse().ok(),
        client_id: "office".into(),
        trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        deadline: Some(Duration::from_millis(1_500)),
        hops: 1,
        urgency: 1,
        service: "web".into(),
        answer_credit: 262_144,
        awaits_continue: false,
        head: Arc::new(RequestHead {
            method,
            scheme: Scheme::HTTPS,
            authority: Bytes::from_static(b"example.org"),
            path: Bytes::from_static(path.as_bytes()),
            headers,
        }),
    }))
}

fn answer(status: u16, headers: HeaderMap) -> First {
    let status = StatusCode::from_u16(status).expect("a status");
    First::Response(Box::new(ResponseHead { status, headers }))
}

fn stream(protocol: Protocol, is_request: bool, sequence: u32) -> StreamFrame {
    StreamFrame {
        no: StreamNo(7),
        sequence,
        protocol,
        is_request,
        first: None,
        data: Pieces::default(),
        trailers: None,
        end: false,
    }
}

fn message(tag: u8, length: u64, bytes: &'static [u8], ends_message: bool) -> Data {
    let start = Some(MessageStart { tag, length });
    Data { bytes: Bytes::from_static(bytes), start, ends_message }
}

/// A request of one message, its answer in two, and a request whose body waits.
fn http() -> [(&'static str, Frame); 4] {
    use Protocol::Http;
    let cookies = fields(&[("set-cookie", b"a=1"), ("set-cookie", b"b=\xff")]);
    let request = StreamFrame {
        first: Some(first(Method::POST, "/a?b=1", fields(&[("accept", b"*/*")]))),
        data: Data::plain(Bytes::from_static(b"hello")).into(),
        trailers: Some(Box::new(fields(&[("x-sum", b"5")]))),
        end: true,
        ..stream(Http, true, 0)
    };
    let head = StreamFrame { first: Some(answer(200, cookies)), ..stream(Http, false, 0) };
    let data = Data::plain(Bytes::from_static(b"hi")).into();
    let last = StreamFrame { data, end: true, ..stream(Http, false, 1) };
    let mut opening = first(Method::PUT, "/a", HeaderMap::new());
    if let First::Request(opening) = &mut opening {
        opening.awaits_continue = true;
    }
    let waiting = StreamFrame { first: Some(opening), ..stream(Http, true, 0) };
    [
        ("http_request", Frame::Stream(request)),
        ("http_request_waiting", Frame::Stream(waiting)),
        ("http_response_first", Frame::Stream(head)),
        ("http_response_last", Frame::Stream(last)),
    ]
}

fn grpc() -> [(&'static str, Frame); 2] {
    use Protocol::Grpc;
    let request = StreamFrame {
        first: Some(first(Method::POST, "/pkg.Service/Do", fields(&[("x-bin", b"AAE=")]))),
        // A whole message, an empty one, and the first piece of a third.
        data: Pieces::from_iter([
            message(0, 3, b"abc", true),
            message(0, 0, b"", true),
            message(1, 1_000, b"de", false),
        ]),
        ..stream(Grpc, true, 0)
    };
    let rest = Data { bytes: Bytes::from_static(b"fg"), start: None, ends_message: true };
    let response = StreamFrame {
        first: Some(answer(200, fields(&[("content-type", b"application/grpc")]))),
        data: rest.into(),
        trailers: Some(Box::new(fields(&[("grpc-status", b"0")]))),
        end: true,
        ..stream(Grpc, false, 0)
    };
    [("grpc_request", Frame::Stream(request)), ("grpc_response", Frame::Stream(response))]
}

fn websocket() -> [(&'static str, Frame); 4] {
    use Protocol::WebSocket;
    let head = fields(&[("sec-websocket-protocol", b"chat")]);
    let request = StreamFrame {
        first: Some(first(Method::GET, "/ws", head.clone())),
        ..stream(WebSocket, true, 0)
    };
    let response = StreamFrame { first: Some(answer(101, head)), ..stream(WebSocket, false, 0) };
    // FIN, RSV1, text; five bytes.
    let data = message(0xC1, 5, b"hello", true).into();
    let frame = StreamFrame { data, ..stream(WebSocket, true, 1) };
    let end = StreamFrame { end: true, ..stream(WebSocket, false, 1) };
    [
        ("ws_request", Frame::Stream(request)),
        ("ws_response", Frame::Stream(response)),
        ("ws_frame", Frame::Stream(frame)),
        ("ws_frame_end", Frame::Stream(end)),
    ]
}

fn config() -> [(&'static str, Frame); 2] {
    let service = Service {
        name: "web".into(),
        protocols: vec![Protocol::Http, Protocol::WebSocket],
        hosts: vec!["*.example.org".into()],
        path_prefix: "/api".into(),
    };
    let refusal = Refusal { service: "web".into(), message: "taken".into() };
    let answer = Announced {
        revision: 3,
        refused: vec![refusal],
        addresses: vec!["http://example.org/api".into()],
    };
    let announcement = Announcement { revision: 3, services: vec![service] };
    [
        ("config_sync", Frame::Announce(announcement)),
        ("config_sync_answer", Frame::Announced(answer)),
    ]
}

fn control() -> [(&'static str, Frame); 8] {
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        features: vec!["later".into()],
        role: "client".into(),
        client_id: "office".into(),
        instance: Bytes::from_static(&[0xDE, 0xAD]),
        connection: 2,
        initial_credit: 65_536,
        max_piece: 65_536,
        max_requests: 16_384,
        software: "strait 0.1.0".into(),
        tunnel: 1,
    };
    let reset = Reset {
        no: StreamNo(7),
        reason: Reason::Overloaded,
        retry_safe: true,
        message: "too many requests are open".into(),
    };
    let goaway = |last, reason| GoAway { last, reason, message: String::new() };
    [
        ("hello", Frame::Hello(Box::new(hello))),
        ("credit", Frame::Credit(StreamNo(7), 131_072)),
        ("reset", Frame::Reset(reset)),
        ("ping", Frame::Ping(9)),
        ("pong", Frame::Pong(9)),
        ("goaway_asks", Frame::GoAway(goaway(None, Reason::Draining))),
        ("goaway_says", Frame::GoAway(goaway(Some(StreamNo(0)), Reason::None))),
        ("settings", Frame::Settings(Settings { initial_credit: 32_768, max_requests: 100 })),
    ]
}

/// The bytes of a golden file: hexadecimal, each line up to `#`.
fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/golden/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    text.lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits"))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_kind_of_message_has_its_bytes() {
    let all: Vec<_> = http()
        .into_iter()
        .chain(grpc())
        .chain(websocket())
        .chain(config())
        .chain(control())
        .collect();
    let mut wrong = Vec::new();
    for (name, frame) in all {
        let expected = format!("{frame:?}");
        let mut bytes = BytesMut::new();
        codec::encode(frame, &mut bytes);
        if bytes != golden(name) {
            wrong.push(format!("{name} {}", hex(&bytes)));
        }
        let read = codec::decode(Bytes::from(golden(name))).expect("a message");
        if golden(name) == bytes {
            assert_eq!(format!("{read:?}"), expected, "{name} is read as it was written");
        }
    }
    assert!(wrong.is_empty(), "other bytes than in tests/golden:\n{}", wrong.join("\n"));
}
