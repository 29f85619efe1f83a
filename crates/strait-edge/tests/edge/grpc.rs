//! gRPC, entry to backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use strait_edge::Settings;
use strait_engine::{Answer, Carried, Exchange, Part, Protocol, Upstream, next_part};

use crate::world::{
    Body, Door, Service, Visitor, backend, channel, door, door_to, full, http_service, raw_service,
    soon, until,
};

pub fn message(bytes: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(bytes.len() as u32);
    framed.put_slice(bytes);
    framed.freeze()
}

pub fn call(visitor: &Visitor, path: &str, body: Body) -> Request<Body> {
    let mut request = visitor.request("POST", path, body);
    let headers = request.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    request
}

fn status(value: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(value));
    trailers.insert("detail-bin", HeaderValue::from_static("AAEC"));
    trailers
}

/// Echoes what it gets, piece by piece, then says OK; other paths misbehave.
pub async fn service() -> Service {
    http_service(true, |request: Request<Incoming>| async move {
        let (parts, mut body) = request.into_parts();
        assert_eq!(parts.headers["te"], "trailers");
        let path = parts.uri.path().to_owned();
        let (tx, out) = channel();
        let mut response = Response::new(out);
        response
            .headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc+proto"));
        if let Some(timeout) = parts.headers.get("grpc-timeout") {
            response.headers_mut().insert("seen-timeout", timeout.clone());
        }
        match path.as_str() {
            "/t/TrailersOnly" => {
                response.headers_mut().extend(status("5"));
                *response.body_mut() = full("");
                return response;
            }
            "/t/NotGrpc" => {
                response
                    .headers_mut()
                    .insert("content-type", HeaderValue::from_static("text/html"));
                *response.status_mut() = http::StatusCode::NOT_FOUND;
                *response.body_mut() = full("<html>");
                return response;
            }
            "/t/Hang" => std::future::pending().await,
            _ => {}
        }
        tokio::spawn(async move {
            let first = |bytes: Bytes| Ok(Frame::data(bytes));
            match path.as_str() {
                "/t/Reset" => {
                    let _ = tx.send(first(message(b"one"))).await;
                    let _ = tx.send(Err(std::io::Error::other("reset"))).await;
                }
                "/t/Cut" => {
                    let _ = tx.send(first(message(b"whole message").slice(..8))).await;
                    let _ = tx.send(Ok(Frame::trailers(status("0")))).await;
                }
                "/t/Flag" => {
                    let _ = tx.send(first(Bytes::from_static(&[2, 0, 0, 0, 0]))).await;
                    let _ = tx.send(Ok(Frame::trailers(status("0")))).await;
                }
                "/t/HangAfterHead" => {
                    let _ = tx.send(first(message(b"one"))).await;
                    let _ = body.frame().await;
                    tx.closed().await;
                }
                _ => {
                    while let Some(Ok(frame)) = body.frame().await {
                        let Ok(data) = frame.into_data() else { continue };
                        if tx.send(first(data)).await.is_err() {
                            return;
                        }
                    }
                    let _ = tx.send(Ok(Frame::trailers(status("0")))).await;
                }
            }
        });
        response
    })
    .await
}

async fn start(settings: Settings) -> (Service, Door, Visitor) {
    let service = service().await;
    let door = door("http", &service, settings).await;
    let visitor = Visitor::new(door.address, true).await;
    (service, door, visitor)
}

/// The status of a call, from trailers or from the head, and its body.
async fn outcome(visitor: &mut Visitor, request: Request<Body>) -> (u16, Option<String>, usize) {
    let answer = visitor.send(request).await;
    let http = answer.status().as_u16();
    let in_head = answer.headers().get("grpc-status").cloned();
    let collected = soon(answer.into_body().collect()).await.expect("never a reset");
    let in_trailers = collected.trailers().and_then(|t| t.get("grpc-status")).cloned();
    let status = in_head.or(in_trailers).map(|v| v.to_str().unwrap().to_owned());
    (http, status, collected.to_bytes().len())
}

#[tokio::test]
async fn calls_of_all_kinds_pass() {
    let (service, _door, mut visitor) = start(Settings::default()).await;
    // Unary.
    let answer = visitor.send(call(&visitor, "/t/Echo", full(message(b"hello")))).await;
    assert_eq!(answer.headers()["content-type"], "application/grpc+proto");
    let collected = soon(answer.into_body().collect()).await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(collected.trailers().unwrap()["detail-bin"], "AAEC");
    assert_eq!(collected.to_bytes(), message(b"hello"));
    // Bidirectional: each message is answered before the next is sent.
    let (tx, body) = channel();
    let mut answer = visitor.send(call(&visitor, "/t/Echo", body)).await;
    for size in [0, 1, 5, 1000, 100_000] {
        let sent = message(&vec![7; size]);
        tx.send(Ok(Frame::data(sent.clone()))).await.unwrap();
        let mut seen = BytesMut::new();
        while seen.len() < sent.len() {
            let frame = soon(answer.body_mut().frame()).await.unwrap().unwrap();
            seen.extend_from_slice(&frame.into_data().unwrap());
        }
        assert_eq!(seen, sent);
    }
    drop(tx);
    let trailers = soon(answer.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(trailers.into_trailers().unwrap()["grpc-status"], "0");
    // A stream of many small messages, cut wherever it happens to be cut.
    let many: Vec<u8> = (0..2000u32).flat_map(|i| message(&i.to_be_bytes()).to_vec()).collect();
    let (tx, body) = channel();
    let request = call(&visitor, "/t/Echo", body);
    let pieces: Vec<Bytes> = many.chunks(997).map(Bytes::copy_from_slice).collect();
    let sender = crate::world::task(async move {
        for piece in pieces {
            tx.send(Ok(Frame::data(piece))).await.unwrap();
        }
    });
    let answer = visitor.send(request).await;
    let collected = soon(answer.into_body().collect()).await.unwrap();
    assert!(collected.to_bytes() == many);
    drop(sender);
    assert_eq!(service.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn messages_arrive_cut_at_their_boundaries() {
    struct Look;
    impl Upstream for Look {
        fn carry(&self, mut exchange: Exchange) -> Carried<'_> {
            Box::pin(async move {
                assert_eq!(exchange.context.protocol, Protocol::Grpc);
                let mut lengths = Vec::new();
                while let Some(part) = next_part(&mut exchange.body).await {
                    if let Part::Data(data) = part? {
                        lengths.extend(data.start.map(|start| start.length.to_string()));
                    }
                }
                let mut headers = status("0");
                headers.insert("content-type", HeaderValue::from_static("application/grpc"));
                headers.insert("lengths", HeaderValue::from_str(&lengths.join(",")).unwrap());
                let head = strait_engine::ResponseHead { status: http::StatusCode::OK, headers };
                Ok(Answer { head, body: Box::new(strait_engine::EmptyBody) })
            })
        }
    }
    let door = door_to(Arc::new(Look), Settings::default()).await;
    let mut visitor = Visitor::new(door.address, true).await;
    let body = [message(b"abc"), message(b""), message(&[0; 300])].concat();
    let answer = visitor.send(call(&visitor, "/t/Look", full(body))).await;
    assert_eq!(answer.headers()["lengths"], "3,0,300");
    assert!(http_body::Body::is_end_stream(answer.body()), "trailers-only stays so");
}

#[tokio::test]
async fn faults_are_statuses_and_never_resets() {
    let settings = Settings { max_message: 1000, ..Settings::default() };
    let (_service, _door, mut visitor) = start(settings).await;
    let ok = || full(message(b"x"));
    for (path, body, expected) in [
        ("/t/TrailersOnly", ok(), "5"),
        ("/t/Reset", ok(), "13"),
        ("/t/Cut", ok(), "14"),
        ("/t/Flag", ok(), "14"),
        ("/t/Echo", full(Bytes::from_static(&[2, 0, 0, 0, 0])), "13"),
        ("/t/Echo", full(Bytes::from_static(&[0, 0, 0])), "13"),
        ("/t/Echo", full(message(b"cut").slice(..6)), "13"),
        ("/t/Echo", full(message(&[0; 1001])), "8"),
    ] {
        let request = call(&visitor, path, body);
        let (http, status, _) = outcome(&mut visitor, request).await;
        assert_eq!((http, status.as_deref()), (200, Some(expected)), "{path}");
    }
    let request = call(&visitor, "/t/NotGrpc", ok());
    assert_eq!(outcome(&mut visitor, request).await, (404, None, 0));
}

#[tokio::test]
async fn a_reset_before_the_head_is_the_status_of_its_code() {
    let service = raw_service(|tcp, _| async move {
        let mut served = h2::server::handshake(tcp).await.unwrap();
        while let Some(Ok((request, mut answer))) = served.accept().await {
            let code: u32 = request.uri().path()[3..].parse().unwrap();
            answer.send_reset(h2::Reason::from(code));
        }
    })
    .await;
    let door = door("http", &service, Settings::default()).await;
    let mut visitor = Visitor::new(door.address, true).await;
    // NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM,
    // INADEQUATE_SECURITY, and one that nobody knows (PROTOCOL-HTTP2.md, Errors).
    for (code, status) in
        [(0, "13"), (1, "13"), (2, "13"), (7, "14"), (8, "1"), (11, "8"), (12, "7"), (99, "13")]
    {
        let request = call(&visitor, &format!("/t/{code}"), full(message(b"x")));
        let answer = visitor.send(request).await;
        assert_eq!(
            (answer.status(), &answer.headers()["grpc-status"]),
            (200.try_into().unwrap(), &status.parse().unwrap()),
            "{code}"
        );
        assert!(http_body::Body::is_end_stream(answer.body()));
    }
    assert_eq!(service.connections.load(SeqCst), 1, "a reset costs its stream only");
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unavailable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let door = door_to(Arc::new(backend(&address, Settings::default())), Settings::default()).await;
    let mut visitor = Visitor::new(door.address, true).await;
    let answer = visitor.send(call(&visitor, "/t/Echo", full(message(b"x")))).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    assert_eq!(answer.headers()["x-strait-error"], "backend_refused");
    assert!(http_body::Body::is_end_stream(answer.body()));
}

#[tokio::test]
async fn deadlines_pass_on_and_pass() {
    let (service, _door, mut visitor) = start(Settings::default()).await;
    let with = |visitor: &Visitor, path: &str, timeout: &'static str| {
        let mut request = call(visitor, path, full(message(b"x")));
        request.headers_mut().insert("grpc-timeout", HeaderValue::from_static(timeout));
        request
    };
    let request = with(&visitor, "/t/Echo", "30S");
    let answer = visitor.send(request).await;
    let seen = answer.headers()["seen-timeout"].to_str().unwrap().to_owned();
    let (digits, unit) = seen.split_at(seen.len() - 1);
    assert_eq!(unit, "u", "what is left, finely: {seen}");
    assert!((20_000_000..=30_000_000).contains(&digits.parse::<u64>().unwrap()), "{seen}");
    drop(answer);
    for path in ["/t/Hang", "/t/HangAfterHead"] {
        let request = with(&visitor, path, "100m");
        assert_eq!(outcome(&mut visitor, request).await.1.as_deref(), Some("4"), "{path}");
    }
    let request = with(&visitor, "/t/Echo", "soon");
    assert_eq!(outcome(&mut visitor, request).await.1.as_deref(), Some("13"));
    assert_eq!(service.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn a_caller_who_cancels_is_seen_by_the_service() {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    for answered in [false, true] {
        let (began, gone) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (begins, seen) = (began.clone(), gone.clone());
        let service = http_service(true, move |request: Request<Incoming>| {
            begins.store(true, SeqCst);
            let flag = Flag(seen.clone());
            async move {
                let mut body = request.into_body();
                if !answered {
                    let _flag = flag;
                    while let Some(Ok(_)) = body.frame().await {}
                    return std::future::pending().await;
                }
                let (tx, out) = channel();
                tokio::spawn(async move {
                    let _flag = flag;
                    while let Some(Ok(_)) = body.frame().await {}
                    drop(tx);
                });
                let mut response = Response::new(out);
                let kind = HeaderValue::from_static("application/grpc");
                response.headers_mut().insert("content-type", kind);
                response
            }
        })
        .await;
        let door = door("http", &service, Settings::default()).await;
        // By h2 itself, which can reset a stream whose request has not ended.
        let tcp = tokio::net::TcpStream::connect(door.address).await.unwrap();
        let (mut client, conn) = h2::client::handshake(tcp).await.unwrap();
        let _conn = crate::world::task(async move { drop(conn.await) });
        let request = Request::builder()
            .method("POST")
            .uri("http://a.example/t/Any")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, mut stream) = client.send_request(request, false).unwrap();
        stream.send_data(message(b"one"), false).unwrap();
        until("the service has the call", || began.load(SeqCst)).await;
        let _answer = if answered { Some(soon(response).await.unwrap()) } else { None };
        stream.send_reset(h2::Reason::CANCEL);
        until(&format!("the service sees the cancel ({answered})"), || gone.load(SeqCst)).await;
    }
}

#[tokio::test]
async fn hundreds_of_streams_are_open_at_once() {
    let (service, door, _) = start(Settings::default()).await;
    let mut visitors = Vec::new();
    for _ in 0..2 {
        visitors.push(Visitor::new(door.address, true).await);
    }
    let mut open = Vec::new();
    for i in 0..300 {
        let visitor = &mut visitors[i % 2];
        let (tx, body) = channel();
        let request = call(visitor, "/t/Echo", body);
        let answer = visitor.send(request).await;
        open.push((tx, answer));
    }
    for (i, (tx, answer)) in open.iter_mut().enumerate() {
        let sent = message(i.to_string().as_bytes());
        tx.send(Ok(Frame::data(sent.clone()))).await.unwrap();
        let seen = soon(answer.body_mut().frame()).await.unwrap().unwrap();
        assert_eq!(seen.into_data().unwrap(), sent);
    }
    assert!(service.connections.load(SeqCst) <= 4);
}
