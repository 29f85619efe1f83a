//! Requests that must not pass.

use strait_edge::Settings;

use crate::world::{Service, Visitor, door, full, http_service, raw_exchange};
use http::Response;

async fn fine() -> Service {
    http_service(false, |_| async { Response::new(full("fine")) }).await
}

#[tokio::test]
async fn malformed_requests_are_refused_and_do_not_reach_the_backend() {
    let service = fine().await;
    let door = door("http", &service, Settings::default()).await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(17 << 10));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(101));
    let big = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "y".repeat(70 << 10));
    let huge = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "y".repeat(300 << 10));
    let cases: &[(&str, u16)] = &[
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nx: 1\r\n 2\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nx: 1\r2\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nx: \0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405),
        (&long, 414),
        (&many, 431),
        (&big, 431),
        (&huge, 431),
    ];
    for (request, status) in cases {
        let shown = &request[..request.len().min(60)];
        let request = request.replacen("Host", "Connection: close\r\nHost", 1);
        let answer = raw_exchange(door.address, request.as_bytes()).await;
        let line = answer.replacen("HTTP/1.0", "HTTP/1.1", 1);
        assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {answer}");
        assert!(answer.contains("\r\nx-strait-error: "), "{shown:?}: {answer}");
    }
    assert_eq!(service.connections.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn two_lengths_for_one_body_never_smuggle_a_request() {
    let service = fine().await;
    let door = door("http", &service, Settings::default()).await;
    let smuggled = "0\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n";
    for head in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked", smuggled.len()),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {}", smuggled.len()),
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{smuggled}");
        let answer = raw_exchange(door.address, request.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "the connection ends: {answer}");
    }
}

#[tokio::test]
async fn refusals_over_http2_cost_the_stream_only() {
    let service = fine().await;
    let door = door("http", &service, Settings::default()).await;
    let mut visitor = Visitor::new(door.address, true).await;
    let mut request = visitor.request("GET", "/", full(""));
    request.headers_mut().insert("host", "b.example".parse().unwrap());
    let answer = visitor.send(request).await;
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.headers()["x-strait-error"], "bad_request");
    let answer = visitor.send(visitor.request("TRACE", "/", full(""))).await;
    assert_eq!(answer.status(), 405);
    let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn bad_chunks_are_the_visitors_fault() {
    let service = http_service(false, |request: http::Request<hyper::body::Incoming>| async {
        use http_body_util::BodyExt;
        let _ = request.into_body().collect().await;
        Response::new(full("fine"))
    })
    .await;
    let door = door("http", &service, Settings::default()).await;
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    let answer = raw_exchange(door.address, request).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}
