//! Each limit and each timeout at its edge, over HTTP/1 and HTTP/2. Those of a visitor's
//! connection as such are in `life.rs`.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use strait_edge::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::grpc::{call, message};
use crate::websocket::{accept, open};
use crate::world::{
    Body, Service, Visitor, channel, door, full, http_service, raw_exchange, raw_service, soon,
    task, until,
};

const SHORT: Duration = Duration::from_millis(150);
/// Longer than [`SHORT`] by far.
const LONG: Duration = Duration::from_millis(500);

async fn fine() -> Service {
    http_service(false, |_| async { Response::new(full("fine")) }).await
}

/// Answers with the length of what it got.
async fn measures() -> Service {
    http_service(false, |request: Request<Incoming>| async {
        match request.into_body().collect().await {
            Ok(body) => Response::new(full(body.to_bytes().len().to_string())),
            Err(_) => Response::new(full("cut")),
        }
    })
    .await
}

/// Status and kind of an answer.
async fn outcome(visitor: &mut Visitor, request: Request<Body>) -> (u16, String) {
    let answer = visitor.send(request).await;
    let kind = answer.headers().get("x-strait-error").map(|kind| kind.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    let _ = soon(answer.into_body().collect()).await;
    (status, kind.unwrap_or_default())
}

fn refused(status: u16, kind: &str) -> (u16, String) {
    (status, kind.to_owned())
}

#[tokio::test]
async fn heads_pass_up_to_their_limits_and_no_further() {
    let service = fine().await;
    let settings = Settings {
        max_header_bytes: 2000,
        max_header_fields: 20,
        max_uri: 300,
        ..Settings::default()
    };
    let door = door("http", &service, settings).await;
    for http2 in [false, true] {
        // HTTP/1 has a Host field: "host: a.example\r\n".
        let (fields, bytes) = if http2 { (0, 0) } else { (1, 17) };
        for over in [0, 1] {
            let path = format!("/{}", "x".repeat(299 + over));
            let value = "y".repeat(2000 - bytes - "x: \r\n".len() + over);
            for (what, path, fields, value, kind) in [
                ((414, "uri_too_long"), path.as_str(), 0, "", "URI"),
                ((431, "header_too_large"), "/", 20 - fields + over, "y", "fields"),
                ((431, "header_too_large"), "/", 1, value.as_str(), "bytes"),
            ] {
                // A refusal ends an HTTP/1 connection.
                let mut visitor = Visitor::new(door.address, http2).await;
                let mut request = visitor.request("GET", path, full(""));
                for _ in 0..fields {
                    request.headers_mut().append("x", HeaderValue::from_str(value).unwrap());
                }
                let (status, reason) = if over == 1 { what } else { (200, "") };
                let seen = outcome(&mut visitor, request).await;
                assert_eq!(seen, refused(status, reason), "{kind}, HTTP/2 {http2}, {over} over");
            }
        }
    }
}

#[tokio::test]
async fn a_body_over_max_body_is_413_however_it_is_framed() {
    let service = measures().await;
    let door = door("http", &service, Settings { max_body: 1000, ..Settings::default() }).await;
    for (http2, announced) in [(false, true), (false, false), (true, true), (true, false)] {
        for (size, expected) in [(1000, (200, "")), (1001, (413, "body_too_large"))] {
            let mut visitor = Visitor::new(door.address, http2).await;
            let bytes = Bytes::from(vec![b'x'; size]);
            let body = if announced {
                full(bytes)
            } else {
                let (tx, body) = channel();
                let first = bytes.slice(..500);
                let rest = bytes.slice(500..);
                tokio::spawn(async move {
                    for piece in [first, rest] {
                        let _ = tx.send(Ok(Frame::data(piece))).await;
                    }
                });
                body
            };
            let reached = service.connections.load(SeqCst);
            let request = visitor.request("POST", "/", body);
            let shown = format!("HTTP/2 {http2}, announced {announced}, {size}");
            let expected_outcome = refused(expected.0, expected.1);
            assert_eq!(outcome(&mut visitor, request).await, expected_outcome, "{shown}");
            if announced && size > 1000 {
                let now = service.connections.load(SeqCst);
                assert_eq!(now, reached, "{shown}: what is refused does not reach the service");
            }
        }
    }
}

#[tokio::test]
async fn an_upload_that_stalls_is_a_408_and_costs_its_stream_only() {
    let service = measures().await;
    let door = door("http", &service, Settings { body_idle: SHORT, ..Settings::default() }).await;
    for http2 in [false, true] {
        let mut visitor = Visitor::new(door.address, http2).await;
        let (tx, body) = channel();
        tx.send(Ok(Frame::data("half".into()))).await.unwrap();
        let request = visitor.request("POST", "/", body);
        assert_eq!(outcome(&mut visitor, request).await, refused(408, "request_timeout"));
        if http2 {
            let request = visitor.request("GET", "/", full(""));
            assert_eq!(outcome(&mut visitor, request).await.0, 200, "the connection lives");
        }
    }
}

#[tokio::test]
async fn an_upload_that_nobody_wants_yet_is_not_idle() {
    let service = http_service(false, |request: Request<Incoming>| async {
        tokio::time::sleep(LONG).await;
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(full(body.len().to_string()))
    })
    .await;
    let door = door("http", &service, Settings { body_idle: SHORT, ..Settings::default() }).await;
    for http2 in [false, true] {
        let mut visitor = Visitor::new(door.address, http2).await;
        // More than all buffers on the way hold.
        let request = visitor.request("POST", "/", full(vec![b'x'; 16 << 20]));
        let answer = visitor.send(request).await;
        assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "16777216");
    }
}

#[tokio::test]
async fn an_http2_connection_without_a_request_is_told_to_go() {
    let service = fine().await;
    let settings = Settings { keep_alive_idle: SHORT, ..Settings::default() };
    let door = door("http", &service, settings).await;
    let tcp = tokio::net::TcpStream::connect(door.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(tcp).await.unwrap();
    let ended = tokio::spawn(connection);
    let request = Request::get("http://a.example/").body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 200);
    let ended = soon(ended).await.unwrap();
    assert!(ended.is_ok(), "GOAWAY without an error: {ended:?}");
    // A head that never ends is no request either: HEADERS without END_HEADERS.
    let mut tcp = tokio::net::TcpStream::connect(door.address).await.unwrap();
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    tcp.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    tcp.write_all(&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]).await.unwrap();
    soon(tcp.read_to_end(&mut Vec::new())).await.unwrap();
}

#[tokio::test]
async fn connecting_to_a_backend_has_its_time() {
    // TCP connects, and the TLS handshake is never answered.
    let service = raw_service(|mut tcp, _| async move {
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let settings = Settings { backend_connect: SHORT, ..Settings::default() };
    let door = door("https", &service, settings).await;
    for http2 in [false, true] {
        let mut visitor = Visitor::new(door.address, http2).await;
        let request = visitor.request("GET", "/", full(""));
        let expected = refused(504, "backend_connect_timeout");
        assert_eq!(outcome(&mut visitor, request).await, expected);
    }
    let mut visitor = Visitor::new(door.address, true).await;
    let answer = visitor.send(call(&visitor, "/t/Echo", full(message(b"x")))).await;
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert_eq!(answer.headers()["x-strait-error"], "backend_connect_timeout");
}

#[tokio::test]
async fn the_head_of_an_answer_has_its_time_on_either_backend() {
    for (http2, scheme) in [(false, "http"), (true, "h2c")] {
        let service = http_service(http2, |request: Request<Incoming>| async move {
            let slow = request.uri().path() == "/slow";
            let body = request.into_body().collect().await.unwrap().to_bytes();
            if slow {
                tokio::time::sleep(LONG * 20).await;
            }
            Response::new(full(body.len().to_string()))
        })
        .await;
        let settings = Settings { answer_head: SHORT, ..Settings::default() };
        let door = door(scheme, &service, settings).await;
        let mut visitor = Visitor::new(door.address, true).await;
        let request = visitor.request("GET", "/slow", full(""));
        assert_eq!(outcome(&mut visitor, request).await, refused(504, "backend_timeout"));
        // As long as the upload moves, the time has not begun.
        let (tx, body) = channel();
        let _sender = task(async move {
            for _ in 0..10 {
                tx.send(Ok(Frame::data("piece".into()))).await.unwrap();
                tokio::time::sleep(SHORT / 2).await;
            }
        });
        let answer = visitor.send(visitor.request("POST", "/", body)).await;
        assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "50");
    }
}

#[tokio::test]
async fn the_time_for_an_answer_is_not_for_grpc_and_websocket() {
    let settings = || Settings { answer_head: SHORT, ..Settings::default() };
    let service = http_service(true, |_| async {
        tokio::time::sleep(LONG).await;
        let mut answer = Response::new(full(""));
        answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        answer.headers_mut().insert("grpc-status", HeaderValue::from_static("0"));
        answer
    })
    .await;
    let gate = door("http", &service, settings()).await;
    let mut visitor = Visitor::new(gate.address, true).await;
    let answer = visitor.send(call(&visitor, "/t/Slow", full(message(b"x")))).await;
    assert_eq!(answer.headers()["grpc-status"], "0");
    let service = raw_service(|mut tcp, _| async move {
        tokio::time::sleep(LONG).await;
        accept(&mut tcp, "").await;
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let gate = door("http", &service, settings()).await;
    assert!(open(&gate, "").await.1.starts_with("HTTP/1.1 101 "));
}

#[tokio::test]
async fn a_websocket_handshake_and_its_close_have_their_times() {
    let service = raw_service(|mut tcp, _| async move {
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let gate = door("http", &service, Settings { handshake: SHORT, ..Settings::default() }).await;
    let (_, head) = open(&gate, "").await;
    assert!(head.starts_with("HTTP/1.1 504 ") && head.contains("backend_timeout"), "{head}");
    // A backend that never answers a close frame.
    let service = raw_service(|mut tcp, _| async move {
        accept(&mut tcp, "").await;
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let gate = door("http", &service, Settings { close_wait: SHORT, ..Settings::default() }).await;
    let (mut tcp, _) = open(&gate, "").await;
    tcp.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8]).await.unwrap();
    soon(tcp.read_to_end(&mut Vec::new())).await.unwrap();
    until("the backend is let go", || service.open.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn no_more_unused_connections_are_kept_than_allowed() {
    let service = http_service(false, |_| async {
        tokio::time::sleep(SHORT).await;
        Response::new(full("fine"))
    })
    .await;
    let settings = Settings { max_idle_connections: 2, ..Settings::default() };
    let door = door("http", &service, settings).await;
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let address = door.address;
        all.spawn(async move {
            let mut visitor = Visitor::new(address, false).await;
            let request = visitor.request("GET", "/", full(""));
            outcome(&mut visitor, request).await
        });
    }
    while let Some(done) = all.join_next().await {
        assert_eq!(done.unwrap().0, 200);
    }
    assert!(service.connections.load(SeqCst) > 2, "they did not overlap");
    until("two are left", || service.open.load(SeqCst) == 2).await;
}

#[tokio::test]
async fn a_head_of_an_answer_over_the_limit_is_invalid() {
    for (http2, scheme) in [(false, "http"), (true, "h2c")] {
        let service = http_service(http2, |request: Request<Incoming>| async move {
            let mut answer = Response::new(full("fine"));
            match request.uri().path() {
                "/many" => (0..30).for_each(|_| {
                    answer.headers_mut().append("x", HeaderValue::from_static("y"));
                }),
                path => {
                    let size = path[1..].parse().unwrap();
                    let value = HeaderValue::from_str(&"y".repeat(size)).unwrap();
                    answer.headers_mut().insert("x", value);
                }
            }
            answer
        })
        .await;
        let settings =
            Settings { max_header_bytes: 2000, max_header_fields: 20, ..Settings::default() };
        let door = door(scheme, &service, settings).await;
        let mut visitor = Visitor::new(door.address, true).await;
        for (path, expected) in [
            ("/1800", refused(200, "")),
            ("/2000", refused(502, "backend_invalid")),
            ("/9000", refused(502, "backend_invalid")),
            ("/many", refused(502, "backend_invalid")),
        ] {
            let request = visitor.request("GET", path, full(""));
            assert_eq!(outcome(&mut visitor, request).await, expected, "{scheme} {path}");
        }
    }
}

#[tokio::test]
async fn messages_pass_up_to_their_limit_in_both_directions() {
    let settings = || Settings { max_message: 1000, ..Settings::default() };
    // A service that answers any call with a message of the size that the path names.
    let service = http_service(true, |request: Request<Incoming>| async move {
        let size: usize = request.uri().path()[1..].parse().unwrap();
        let _ = request.into_body().collect().await;
        let (tx, body) = channel();
        tokio::spawn(async move {
            let _ = tx.send(Ok(Frame::data(message(&vec![0; size])))).await;
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let _ = tx.send(Ok(Frame::trailers(trailers))).await;
        });
        let mut answer = Response::new(body);
        answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        answer
    })
    .await;
    let gate = door("http", &service, settings()).await;
    let mut visitor = Visitor::new(gate.address, true).await;
    for (up, down, status) in [(1000, 1000, "0"), (1001, 1, "8"), (1, 1001, "8")] {
        let body = full(message(&vec![0; up]));
        let answer = visitor.send(call(&visitor, &format!("/{down}"), body)).await;
        let in_head = answer.headers().get("grpc-status").cloned();
        let rest = soon(answer.into_body().collect()).await.unwrap();
        let seen = in_head.unwrap_or_else(|| rest.trailers().unwrap()["grpc-status"].clone());
        assert_eq!(seen, status, "{up} up, {down} down");
    }
    // A WebSocket service that sends a message of 1000 bytes, and one of 1001.
    let service = raw_service(|mut tcp, _| async move {
        accept(&mut tcp, "").await;
        for size in [1000u16, 1001] {
            tcp.write_all(&[0x82, 126]).await.unwrap();
            tcp.write_u16(size).await.unwrap();
            tcp.write_all(&vec![0; size.into()]).await.unwrap();
        }
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let gate = door("http", &service, settings()).await;
    let (mut tcp, _) = open(&gate, "").await;
    let mut seen = Vec::new();
    soon(tcp.read_to_end(&mut seen)).await.unwrap();
    assert_eq!(seen.len(), 4 + 1000 + 4, "one message and a close frame");
    assert_eq!(&seen[1004..], [0x88, 2, 0x03, 0xF1], "1009");
}

#[tokio::test]
async fn a_visitor_reads_why_its_upload_was_refused_before_it_is_sent() {
    let service = measures().await;
    let door = door("http", &service, Settings { max_body: 10, ..Settings::default() }).await;
    // The answer must survive that the rest of the upload is never read.
    let mut request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n".to_vec();
    request.resize(request.len() + 400_000, b'x');
    let answer = raw_exchange(door.address, &request).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.contains("\r\n\r\nbody_too_large: the body is over the limit;"), "{answer}");
    let head = "X: y\r\n".repeat(200);
    let mut request =
        format!("POST / HTTP/1.1\r\nHost: a\r\n{head}Content-Length: 500000\r\n\r\n").into_bytes();
    request.resize(request.len() + 400_000, b'x');
    let answer = raw_exchange(door.address, &request).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}
