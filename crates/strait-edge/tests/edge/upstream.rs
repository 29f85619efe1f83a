//! An entry in front of upstreams that do what no good backend does: lost tunnels, and
//! peers that lie.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use strait_edge::Settings;
use strait_engine::{
    Answer, Body, Carried, Data, Exchange, Fault, MessageStart, Part, Protocol, Reason,
    ResponseHead, Upstream, fault::Reset,
};
use tokio::io::AsyncReadExt;

use crate::world::{Door, Visitor, door_to, full, read_until, soon};

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

#[tokio::test]
async fn what_an_entry_answers_itself_is_recorded_once() {
    struct Notes(Mutex<Vec<(u16, Reason, String)>>);
    impl Upstream for Notes {
        fn carry(&self, exchange: Exchange) -> Carried<'_> {
            let caller = &exchange.context.caller;
            assert!(caller.address.is_some() && caller.version.is_some(), "{caller:?}");
            Box::pin(async { Err(Fault::new(Reason::NoRoute).into()) })
        }
        fn refused(&self, exchange: &Exchange, status: StatusCode, fault: &Fault) {
            let what =
                format!("{} {}", exchange.head.method, exchange.head.path_only().escape_ascii());
            let caller = &exchange.context.caller;
            assert!(caller.address.is_some() && caller.version.is_some(), "{caller:?}");
            self.0.lock().unwrap().push((status.as_u16(), fault.reason, what));
        }
    }
    let notes = Arc::new(Notes(Mutex::default()));
    let settings = Settings { max_uri: 9, max_body: 3, ..Settings::default() };
    let door = door_to(notes.clone(), settings).await;
    let socket = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let socket = format!("GET /ws HTTP/1.1\r\nHost: a\r\n{socket}\r\n");
    for (request, status, reason, what) in [
        ("GET /a HTTP/1.1\r\nHost: b c\r\n\r\n", 400, Reason::BadRequest, "GET /a"),
        ("TRACE /b HTTP/1.1\r\nHost: a\r\n\r\n", 405, Reason::BadRequest, "TRACE /b"),
        ("GET /0123456789 HTTP/1.1\r\nHost: a\r\n\r\n", 414, Reason::UriTooLong, "GET /0123456789"),
        (
            "PUT /d HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n",
            413,
            Reason::BodyTooLarge,
            "PUT /d",
        ),
        (&socket, 426, Reason::BadRequest, "GET /ws"),
    ] {
        let request = request.replacen("Host", "X: y\r\nHost", 1);
        let mut tcp = tokio::net::TcpStream::connect(door.address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut tcp, request.as_bytes()).await.unwrap();
        let answer = read_until(&mut tcp, "\r\n\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let seen = std::mem::take(&mut *notes.0.lock().unwrap());
        assert_eq!(seen, [(status, reason, what.to_owned())]);
    }
    // gRPC, whose deadline is read later than its head; and what was carried is not noted.
    let mut visitor = Visitor::new(door.address, true).await;
    for timeout in ["soon", "1S"] {
        let mut call = visitor.request("POST", "/t/M", full(""));
        call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        call.headers_mut().insert("grpc-timeout", HeaderValue::from_static(timeout));
        assert_eq!(visitor.send(call).await.status(), 200);
    }
    let seen = std::mem::take(&mut *notes.0.lock().unwrap());
    assert_eq!(seen, [(400, Reason::BadRequest, "POST /t/M".to_owned())]);
}

#[tokio::test]
async fn a_cut_over_http2_has_the_code_of_the_table() {
    for face in strait_engine::fault::faces() {
        // A head that was carried, and a body that breaks once the head is out.
        let parts = vec![data(b"some"), Err(face.reason)];
        let door = door(Says { status: 200, headers: vec![], parts }).await;
        let tcp = tokio::net::TcpStream::connect(door.address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(tcp).await.unwrap();
        let _connection = crate::world::task(async move { drop(connection.await) });
        let request = http::Request::get("http://a.example/").body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        let error = match soon(answer).await {
            Err(error) => error,
            Ok(answer) => {
                let mut body = answer.into_body();
                loop {
                    match soon(body.data()).await.expect("a clean end would be a lie") {
                        Ok(_) => {}
                        Err(error) => break error,
                    }
                }
            }
        };
        let expected = match face.reset {
            Reset::Cancel => h2::Reason::CANCEL,
            Reset::InternalError => h2::Reason::INTERNAL_ERROR,
        };
        assert_eq!(error.reason(), Some(expected), "{}: {error}", face.reason);
    }
}
