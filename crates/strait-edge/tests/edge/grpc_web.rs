//! gRPC-Web at the entry, gRPC at the backend.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use strait_edge::Settings;
use strait_engine::Protocol;

use crate::grpc::{message, service};
use crate::world::{
    Body, Door, PAGE, SOON, Service, Visitor, channel, door, door_for, full, http_service, soon,
};

const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";

fn call(visitor: &Visitor, path: &str, kind: &'static str, body: Body) -> Request<Body> {
    let mut request = visitor.request("POST", path, body);
    request.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    request.headers_mut().insert("x-grpc-web", HeaderValue::from_static("1"));
    request
}

/// What an answer says: the status where it is told, and the messages.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    status: String,
    messages: Vec<Vec<u8>>,
}

fn told(status: &str, messages: &[&[u8]]) -> Told {
    Told { status: status.into(), messages: messages.iter().map(|m| m.to_vec()).collect() }
}

/// Base64 in pieces, each of which may be padded.
fn decode(text: &[u8]) -> Vec<u8> {
    text.chunks(4).flat_map(|group| STANDARD.decode(group).unwrap()).collect()
}

/// The messages of a whole body, and the lines of its last frame.
fn parse(mut body: &[u8]) -> (Vec<Vec<u8>>, Option<String>) {
    let mut messages = Vec::new();
    while let [flag, a, b, c, d, rest @ ..] = body {
        let (payload, rest) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        body = rest;
        match flag {
            0 => messages.push(payload.to_vec()),
            0x80 => {
                assert!(body.is_empty(), "{body:?} after the trailers");
                return (messages, Some(String::from_utf8(payload.to_vec()).unwrap()));
            }
            _ => unreachable!("flag {flag}"),
        }
    }
    assert!(body.is_empty(), "{body:?} is no frame");
    (messages, None)
}

async fn outcome(answer: Response<Incoming>, text: bool) -> Told {
    assert_eq!(answer.status(), 200, "{answer:?}");
    let (head, body) = answer.into_parts();
    let kind = head.headers["content-type"].to_str().unwrap();
    let wanted = if text { "application/grpc-web-text" } else { "application/grpc-web" };
    assert!(kind == wanted || kind == format!("{wanted}+proto"), "{kind}");
    let body = soon(body.collect()).await.expect("a whole body");
    assert!(body.trailers().is_none());
    let bytes = body.to_bytes();
    let (messages, lines) = parse(&if text { decode(&bytes) } else { bytes.to_vec() });
    let in_head = head.headers.get("grpc-status").map(|v| v.to_str().unwrap().to_owned());
    let line = |lines: &String| {
        lines.split("\r\n").find_map(|l| l.strip_prefix("grpc-status: ").map(str::to_owned))
    };
    let in_body = lines.as_ref().and_then(line);
    assert!(in_head.is_none() || in_body.is_none(), "the status comes once");
    Told { status: in_head.or(in_body).expect("a status"), messages }
}

async fn start(settings: Settings) -> (Service, Door) {
    let service = service().await;
    let door = door("http", &service, settings).await;
    (service, door)
}

#[tokio::test]
async fn calls_pass_in_both_encodings_by_both_versions_of_http() {
    let (_service, door) = start(Settings::default()).await;
    let long = vec![7; 100_000];
    for http2 in [false, true] {
        let mut visitor = Visitor::new(door.address, http2).await;
        for messages in [&[b"one".as_slice()][..], &[b"", b"two", &long, b"4"]] {
            let wire: Vec<u8> = messages.iter().flat_map(|m| message(m)).collect();
            let request = call(&visitor, "/t/Echo", BINARY, full(wire.clone()));
            let answer = visitor.send(request).await;
            assert_eq!(outcome(answer, false).await, told("0", messages), "HTTP/2: {http2}");
            // Each message a padded piece of its own, which arrive cut anywhere.
            let text: String = messages.iter().map(|m| STANDARD.encode(message(m))).collect();
            let (tx, body) = channel();
            let request = call(&visitor, "/t/Echo", TEXT, body);
            let sending = async move {
                for piece in text.as_bytes().chunks(30_001) {
                    tx.send(Ok(Frame::data(Bytes::copy_from_slice(piece)))).await.unwrap();
                }
            };
            let (answer, ()) = tokio::join!(visitor.send(request), sending);
            assert_eq!(outcome(answer, true).await, told("0", messages), "HTTP/2: {http2}");
        }
    }
}

#[tokio::test]
async fn the_answer_is_in_the_encoding_that_was_asked_for() {
    let (_service, door) = start(Settings::default()).await;
    let mut visitor = Visitor::new(door.address, false).await;
    let mut request = call(&visitor, "/t/Echo", BINARY, full(message(b"x")));
    let accept = HeaderValue::from_static("application/grpc-web-text");
    request.headers_mut().insert("accept", accept);
    let answer = visitor.send(request).await;
    assert_eq!(outcome(answer, true).await, told("0", &[b"x"]));
}

#[tokio::test]
async fn a_message_arrives_while_the_call_goes_on() {
    let (_service, door) = start(Settings::default()).await;
    for http2 in [false, true] {
        for (kind, wanted) in
            [(BINARY, message(b"one")), (TEXT, Bytes::from(STANDARD.encode(message(b"one"))))]
        {
            let mut visitor = Visitor::new(door.address, http2).await;
            let request = call(&visitor, "/t/HangAfterHead", kind, full(""));
            let mut answer = visitor.send(request).await;
            let first = soon(answer.body_mut().frame()).await.unwrap().unwrap();
            assert_eq!(first.into_data().unwrap(), wanted);
        }
    }
}

#[tokio::test]
async fn what_the_service_does_wrong_is_a_status() {
    let (_service, door) = start(Settings::default()).await;
    for http2 in [false, true] {
        let mut visitor = Visitor::new(door.address, http2).await;
        for (path, text, status, messages) in [
            ("/t/TrailersOnly", false, "5", &[][..]),
            ("/t/TrailersOnly", true, "5", &[]),
            ("/t/Reset", false, "13", &[b"one".as_slice()]),
            ("/t/Reset", true, "13", &[b"one"]),
            ("/t/Flag", false, "14", &[]),
        ] {
            let request = call(&visitor, path, if text { TEXT } else { BINARY }, full(""));
            let answer = visitor.send(request).await;
            assert_eq!(outcome(answer, text).await, told(status, messages), "{path}");
        }
        // Neither gRPC nor gRPC-Web: callers make a status of the HTTP status.
        let request = call(&visitor, "/t/NotGrpc", BINARY, full(""));
        assert_eq!(visitor.send(request).await.status(), 404);
    }
}

#[tokio::test]
async fn an_answer_without_a_status_gets_one_that_is_no_success() {
    let service = http_service(true, |_| async {
        let answer = Response::builder().header("content-type", "application/grpc");
        answer.body(full(message(b"one"))).unwrap()
    })
    .await;
    let door = door("http", &service, Settings::default()).await;
    let mut visitor = Visitor::new(door.address, false).await;
    let request = call(&visitor, "/t/Echo", BINARY, full(""));
    assert_eq!(outcome(visitor.send(request).await, false).await, told("13", &[b"one"]));
}

#[tokio::test]
async fn an_answer_cut_within_a_message_has_no_status() {
    let (_service, door) = start(Settings::default()).await;
    for http2 in [false, true] {
        let mut visitor = Visitor::new(door.address, http2).await;
        let request = call(&visitor, "/t/Cut", BINARY, full(""));
        // Its status would be taken for what is missing of the message.
        let whole = soon(async { visitor.try_send(request).await?.into_body().collect().await });
        assert!(whole.await.is_err(), "HTTP/2: {http2}");
    }
}

#[tokio::test]
async fn what_the_caller_does_wrong_is_a_status() {
    let settings = Settings { max_message: 1000, ..Settings::default() };
    let (_service, door) = start(settings).await;
    let bad_timeout = |mut request: Request<Body>| {
        request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("1x"));
        request
    };
    for http2 in [false, true] {
        for (what, text, body, status) in [
            ("an unknown flag", false, Bytes::from_static(&[2, 0, 0, 0, 0]), "13"),
            ("trailers", false, Bytes::from_static(&[0x80, 0, 0, 0, 0]), "13"),
            ("a cut message", false, message(b"whole message").slice(..8), "13"),
            ("a long message", false, message(&[0; 1001]), "8"),
            ("no base64", true, Bytes::from_static(b"!!!!"), "13"),
            ("cut base64", true, Bytes::from(STANDARD.encode(message(b"x")) + "AA"), "13"),
            ("a bad timeout", false, message(b"x"), "13"),
        ] {
            let mut visitor = Visitor::new(door.address, http2).await;
            let kind = if text { TEXT } else { BINARY };
            let mut request = call(&visitor, "/t/Echo", kind, full(body));
            if what == "a bad timeout" {
                request = bad_timeout(request);
            }
            let began = Instant::now();
            let answer = visitor.send(request).await;
            let found = outcome(answer, text).await;
            assert_eq!(found.status, status, "{what}, HTTP/2: {http2}");
            assert!(began.elapsed() < SOON);
        }
    }
}

#[tokio::test]
async fn deadlines_pass_on_and_pass() {
    let (_service, door) = start(Settings::default()).await;
    let mut visitor = Visitor::new(door.address, false).await;
    let timed = |visitor: &Visitor, path, text| {
        let mut request = call(visitor, path, BINARY, full(""));
        request.headers_mut().insert("grpc-timeout", HeaderValue::from_static(text));
        request
    };
    let answer = visitor.send(timed(&visitor, "/t/Echo", "20S")).await;
    let seen = answer.headers()["seen-timeout"].to_str().unwrap().to_owned();
    assert!(seen.starts_with("19") && seen.ends_with('u'), "{seen}");
    assert_eq!(outcome(answer, false).await.status, "0");
    for path in ["/t/Hang", "/t/HangAfterHead"] {
        let request = timed(&visitor, path, "100m");
        let answer = visitor.send(request).await;
        assert_eq!(outcome(answer, false).await.status, "4", "{path}");
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unavailable() {
    let service = service().await;
    let nobody = crate::world::raw_service(|tcp, _| async move { drop(tcp) }).await;
    let closed = door("http", &nobody, Settings::default()).await;
    let mut visitor = Visitor::new(closed.address, false).await;
    let request = call(&visitor, "/t/Echo", TEXT, full(""));
    assert_eq!(outcome(visitor.send(request).await, true).await.status, "14");
    // Services of neither gRPC nor HTTP: no route, told in the caller's own protocol.
    let sockets = vec![Protocol::WebSocket];
    let other = door_for(sockets, "http", &service, Settings::default()).await;
    let mut visitor = Visitor::new(other.address, false).await;
    let request = call(&visitor, "/t/Echo", BINARY, full(""));
    let answer = visitor.send(request).await;
    assert_eq!(answer.headers()["x-strait-error"], "no_route");
    assert_eq!(outcome(answer, false).await.status, "12");
}

#[tokio::test]
async fn a_service_of_http_that_speaks_it_gets_it_as_it_is() {
    let service = http_service(false, |request: Request<Incoming>| async move {
        assert_eq!(request.headers()["content-type"], BINARY);
        assert_eq!(request.headers()["x-grpc-web"], "1");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::builder().header("content-type", BINARY).body(full(body)).unwrap()
    })
    .await;
    let door = door_for(vec![Protocol::Http], "http", &service, Settings::default()).await;
    let mut visitor = Visitor::new(door.address, false).await;
    let odd = Bytes::from_static(b"\x02no gRPC");
    let request = call(&visitor, "/t/Echo", BINARY, full(odd.clone()));
    let answer = visitor.send(request).await;
    assert_eq!(answer.headers()["content-type"], BINARY);
    assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), odd);
}

#[tokio::test]
async fn pages_of_granted_origins_may_call_and_read() {
    let (_service, door) = start(Settings::default()).await;
    let mut visitor = Visitor::new(door.address, false).await;
    let preflight = |visitor: &Visitor, origin: &'static str, headers: &'static str| {
        let mut request = visitor.request("OPTIONS", "/t/Echo", full(""));
        let fields = request.headers_mut();
        fields.insert("origin", HeaderValue::from_static(origin));
        fields.insert("access-control-request-method", HeaderValue::from_static("POST"));
        fields.insert("access-control-request-headers", HeaderValue::from_static(headers));
        request
    };
    let wanted = "content-type,x-grpc-web,x-user-agent";
    let request = preflight(&visitor, PAGE, wanted);
    let answer = visitor.send(request).await;
    assert_eq!(answer.status(), 204);
    for (name, value) in [
        ("access-control-allow-origin", PAGE),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", wanted),
        ("vary", "origin"),
    ] {
        assert_eq!(answer.headers()[name], value);
    }
    assert!(!answer.headers().contains_key("access-control-allow-credentials"));
    for (path, status) in [("/t/Echo", "0"), ("/t/TrailersOnly", "5")] {
        for (origin, granted) in [(PAGE, true), ("https://other.example", false)] {
            let mut request = call(&visitor, path, BINARY, full(""));
            request.headers_mut().insert("origin", HeaderValue::from_static(origin));
            let answer = visitor.send(request).await;
            let headers = answer.headers().clone();
            assert_eq!(outcome(answer, false).await.status, status);
            assert_eq!(headers.get("access-control-allow-origin").is_some(), granted, "{origin}");
            if granted {
                let exposed = headers["access-control-expose-headers"].to_str().unwrap();
                assert!(exposed.starts_with("grpc-status,grpc-message,"), "{exposed}");
            }
        }
    }
    // What is no question of gRPC-Web is the service's to answer.
    for (origin, headers) in [("https://other.example", wanted), (PAGE, "content-type")] {
        let asked = http_service(false, |_| async { Response::new(full("its own")) }).await;
        let door =
            door_for(vec![Protocol::Http, Protocol::Grpc], "http", &asked, Settings::default())
                .await;
        let mut visitor = Visitor::new(door.address, false).await;
        let request = preflight(&visitor, origin, headers);
        let answer = visitor.send(request).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "its own");
    }
}

#[tokio::test]
async fn a_caller_who_leaves_is_seen_by_the_service() {
    let left = std::sync::Arc::new(tokio::sync::Notify::new());
    let tell = left.clone();
    let service = http_service(true, move |_| {
        let tell = tell.clone();
        async move {
            let (tx, body) = channel();
            tokio::spawn(async move {
                let _ = tx.send(Ok(Frame::data(message(b"one")))).await;
                tx.closed().await;
                tell.notify_one();
            });
            let answer = Response::builder().header("content-type", "application/grpc");
            answer.body(body).unwrap()
        }
    })
    .await;
    let door = door("http", &service, Settings::default()).await;
    let mut visitor = Visitor::new(door.address, false).await;
    let request = call(&visitor, "/t/Watch", BINARY, full(message(b"")));
    let mut answer = visitor.send(request).await;
    soon(answer.body_mut().frame()).await.unwrap().unwrap();
    drop((answer, visitor));
    tokio::time::timeout(Duration::from_secs(5), left.notified()).await.unwrap();
}
