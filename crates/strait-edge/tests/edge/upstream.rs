//! An entry in front of upstreams that do what no good backend does: lost tunnels, and
//! peers that lie.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use strait_edge::Settings;
use strait_engine::{
    Answer, Body, Carried, Data, Exchange, Fault, MessageStart, Part, Protocol, Reason,
    ResponseHead, Upstream,
};
use tokio::io::AsyncReadExt;

use crate::world::{Door, Visitor, door_to, full, soon};

/// Answers with this head and these parts.
#[derive(Clone)]
struct Says {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    parts: Vec<Result<Part, Reason>>,
}

struct Parts(Vec<Result<Part, Reason>>);

impl Body for Parts {
    fn poll_part(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        let next = (!self.0.is_empty()).then(|| self.0.remove(0));
        Poll::Ready(next.map(|part| part.map_err(Fault::new)))
    }
}

impl Upstream for Says {
    fn carry(&self, _: Exchange) -> Carried<'_> {
        Box::pin(async {
            let mut headers = HeaderMap::new();
            for (name, value) in &self.headers {
                let name = HeaderName::from_static(name);
                headers.append(name, HeaderValue::from_static(value));
            }
            let status = StatusCode::from_u16(self.status).unwrap();
            let head = ResponseHead { status, headers };
            Ok(Answer { head, body: Box::new(Parts(self.parts.clone())) })
        })
    }
}

fn data(bytes: &'static [u8]) -> Result<Part, Reason> {
    Ok(Part::Data(Data::plain(Bytes::from_static(bytes))))
}

fn framed(tag: u8, length: u64, bytes: &'static [u8]) -> Result<Part, Reason> {
    let ends_message = length == bytes.len() as u64;
    let start = Some(MessageStart { tag, length });
    Ok(Part::Data(Data { bytes: Bytes::from_static(bytes), start, ends_message }))
}

/// Whether the answer is seen to be cut: within the body or, when the cut overtakes it,
/// before the head.
async fn cut(visitor: &mut Visitor) -> bool {
    match soon(visitor.try_send(visitor.request("GET", "/", full("")))).await {
        Ok(answer) => soon(answer.into_body().collect()).await.is_err(),
        Err(_) => true,
    }
}

/// What an upstream says in its body, and the bytes that a visitor then sees.
type Case = (Vec<Result<Part, Reason>>, Vec<u8>);

async fn door(says: Says) -> Door {
    door_to(Arc::new(says), Settings::default()).await
}

#[tokio::test]
async fn a_tunnel_lost_after_the_head_is_a_cut() {
    for headers in [vec![], vec![("content-length", "10")]] {
        let parts = vec![data(b"some"), Err(Reason::ClientLost)];
        let door = door(Says { status: 200, headers, parts }).await;
        for http2 in [false, true] {
            let mut visitor = Visitor::new(door.address, http2).await;
            assert!(cut(&mut visitor).await, "a clean end would be a lie");
        }
    }
}

#[tokio::test]
async fn heads_that_lie_are_refused_or_cut() {
    let some = || vec![data(b"some")];
    for (status, headers, parts, expected) in [
        (101, vec![], vec![], Some(502)),
        (150, vec![], vec![], Some(502)),
        (600, vec![], vec![], Some(502)),
        (200, vec![("content-length", "x")], some(), Some(502)),
        (200, vec![("content-length", "4"), ("content-length", "5")], some(), Some(502)),
        // Lies that are seen later are cuts.
        (200, vec![("content-length", "5")], some(), None),
        (200, vec![("content-length", "3")], some(), None),
    ] {
        let shown = format!("{status} {headers:?}");
        let door = door(Says { status, headers, parts }).await;
        for http2 in [false, true] {
            let mut visitor = Visitor::new(door.address, http2).await;
            let Some(expected) = expected else {
                assert!(cut(&mut visitor).await, "{shown}, HTTP/2: {http2}");
                continue;
            };
            let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
            assert_eq!(answer.status(), expected, "{shown}");
        }
    }
}

#[tokio::test]
async fn framing_and_hop_by_hop_of_the_peer_do_not_reach_the_visitor() {
    let headers = vec![
        ("transfer-encoding", "gzip, chunked"),
        ("content-length", "4"),
        ("content-length", "4"),
        ("connection", "x-secret"),
        ("x-secret", "1"),
        ("upgrade", "h2c"),
    ];
    let door = door(Says { status: 200, headers, parts: vec![data(b"some")] }).await;
    for http2 in [false, true] {
        let mut visitor = Visitor::new(door.address, http2).await;
        let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
        for name in ["transfer-encoding", "connection", "x-secret", "upgrade"] {
            assert!(!answer.headers().contains_key(name), "{name}");
        }
        let lengths: Vec<_> = answer.headers().get_all("content-length").iter().collect();
        assert_eq!(lengths, ["4"]);
        assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "some");
    }
}

#[tokio::test]
async fn answers_without_a_body_have_none_whatever_the_peer_sends() {
    // A body that a peer sends all the same makes the answer invalid, except of a HEAD, whose
    // answer is the same as that of a GET but for the body.
    for (method, status, body, shown) in [
        ("HEAD", 200, "some", 200),
        ("GET", 204, "", 204),
        ("GET", 304, "", 304),
        ("GET", 204, "some", 502),
        ("GET", 304, "some", 502),
    ] {
        let parts = if body.is_empty() { vec![] } else { vec![data(b"some")] };
        let door = door(Says { status, headers: vec![], parts }).await;
        for http2 in [false, true] {
            let mut visitor = Visitor::new(door.address, http2).await;
            for _ in 0..2 {
                let answer = visitor.send(visitor.request(method, "/", full(""))).await;
                assert_eq!(answer.status(), shown);
                let body = soon(answer.into_body().collect()).await.unwrap().to_bytes();
                assert!(!body.starts_with(b"some"), "{method} {status}");
            }
        }
    }
}

#[tokio::test]
async fn a_tunnel_lost_in_a_grpc_answer_is_a_status() {
    let cuts = [
        (vec![framed(0, 3, b"one"), Err(Reason::ClientLost)], "14"),
        (vec![framed(0, 300, b"one"), Err(Reason::ClientLost)], "14"),
        (vec![Err(Reason::Overloaded)], "14"),
        (vec![framed(0, 3, b"one"), Err(Reason::Deadline)], "4"),
        // Pieces that make no messages.
        (vec![data(b"no message")], "13"),
        (vec![framed(7, 3, b"one")], "13"),
        (vec![framed(0, 3, b"one"), framed(0, 300, b"x")], "13"),
    ];
    for (parts, expected) in cuts {
        let headers = vec![("content-type", "application/grpc")];
        let door = door(Says { status: 200, headers, parts }).await;
        let mut visitor = Visitor::new(door.address, true).await;
        let mut request = visitor.request("POST", "/t/M", full(""));
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        let answer = visitor.send(request).await;
        let collected = soon(answer.into_body().collect()).await.expect("never a reset");
        assert_eq!(collected.trailers().unwrap()["grpc-status"], expected);
    }
}

#[tokio::test]
async fn a_tunnel_lost_under_a_websocket_is_a_close_code() {
    let text = || framed(0x81, 2, b"hi");
    let hi: &[u8] = &[0x81, 2, b'h', b'i'];
    let cases: [Case; 5] = [
        (vec![text(), Err(Reason::ClientLost)], [hi, &[0x88, 2, 0x03, 0xF6]].concat()),
        (vec![Err(Reason::Draining)], vec![0x88, 2, 0x03, 0xE9]),
        // Within a frame no other can be sent: the cut is all that can be seen.
        (vec![framed(0x81, 9, b"hi"), Err(Reason::ClientLost)], vec![0x81, 9, b'h', b'i']),
        // Frames that are none.
        (vec![text(), framed(0x83, 0, b"")], [hi, &[0x88, 2, 0x03, 0xF3]].concat()),
        (vec![framed(0xC1, 2, b"hi")], vec![0x88, 2, 0x03, 0xF3]),
    ];
    for (parts, expected) in cases {
        let door = door(Says { status: 101, headers: vec![], parts }).await;
        let mut tcp = tokio::net::TcpStream::connect(door.address).await.unwrap();
        let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut tcp, request.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        soon(tcp.read_to_end(&mut all)).await.unwrap();
        let head_end = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(&all[head_end..], expected);
    }
}

#[tokio::test]
async fn every_fault_before_the_head_has_its_face() {
    struct Fails(Reason);
    impl Upstream for Fails {
        fn carry(&self, exchange: Exchange) -> Carried<'_> {
            assert_ne!(exchange.context.protocol, Protocol::WebSocket);
            Box::pin(async { Err(Fault::because(self.0, "secret 10.0.0.1").into()) })
        }
    }
    for face in strait_engine::fault::faces() {
        let door = door_to(Arc::new(Fails(face.reason)), Settings::default()).await;
        let mut visitor = Visitor::new(door.address, true).await;
        let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
        assert_eq!(answer.status().as_u16(), face.http);
        assert_eq!(answer.headers()["x-strait-error"], face.reason.as_str());
        assert_eq!(answer.headers().contains_key("retry-after"), matches!(face.http, 429 | 503));
        let text = soon(answer.into_body().collect()).await.unwrap().to_bytes();
        assert!(!std::str::from_utf8(&text).unwrap().contains("secret"));
        let mut call = visitor.request("POST", "/", full(""));
        call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        let answer = visitor.send(call).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["grpc-status"], face.grpc.to_string().as_str());
        assert!(!answer.headers()["grpc-message"].to_str().unwrap().contains("secret"));
    }
}
