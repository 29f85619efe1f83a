//! Plain HTTP, entry to backend: what goes in comes out.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use strait_edge::Settings;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::world::{self, Body, Visitor, channel, door, full, http_service, read_until, soon};

/// Says what it saw, and answers with all that makes answers difficult.
async fn mirror(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut response = Response::new(full(""));
    for (name, value) in &parts.headers {
        let seen = http::HeaderName::try_from(format!("seen-{name}")).unwrap();
        response.headers_mut().append(seen, value.clone());
    }
    let target = HeaderValue::from_str(&parts.uri.to_string()).unwrap();
    response.headers_mut().insert("seen-target", target);
    let headers = response.headers_mut();
    headers.append("set-cookie", HeaderValue::from_static("a=1"));
    headers.append("set-cookie", HeaderValue::from_static("b=2"));
    headers.append("connection", HeaderValue::from_static("x-hop"));
    headers.append("x-hop", HeaderValue::from_static("1"));
    headers.append("keep-alive", HeaderValue::from_static("timeout=5"));
    headers.append("x-raw", HeaderValue::from_bytes(&[0x80, 0xFF]).unwrap());
    // Streams the request back as it comes.
    *response.body_mut() = body.map_err(std::io::Error::other).boxed_unsync();
    response
}

#[tokio::test]
async fn heads_pass_in_both_versions_on_both_legs() {
    for (service_http2, scheme) in [(false, "http"), (true, "h2c")] {
        let service = http_service(service_http2, mirror).await;
        let door = door(scheme, &service, Settings::default()).await;
        for http2 in [false, true] {
            let mut visitor = Visitor::new(door.address, http2).await;
            let mut request = visitor.request("GET", "/p%20q?x=1&y", full(""));
            let headers = request.headers_mut();
            headers.append("x-twice", HeaderValue::from_static("1"));
            headers.append("x-twice", HeaderValue::from_static("2"));
            headers.append("x-raw", HeaderValue::from_bytes(&[0x80, 0xFF]).unwrap());
            headers.append("x-forwarded-for", HeaderValue::from_static("6.6.6.6"));
            headers.append("forwarded", HeaderValue::from_static("for=6.6.6.6"));
            if !http2 {
                headers.append("connection", HeaderValue::from_static("x-mine"));
                headers.append("x-mine", HeaderValue::from_static("1"));
                headers.append("proxy-authorization", HeaderValue::from_static("secret"));
            }
            let answer = visitor.send(request).await;
            let seen = answer.headers();
            assert_eq!(answer.status(), StatusCode::OK);
            let target =
                if service_http2 { "http://a.example/p%20q?x=1&y" } else { "/p%20q?x=1&y" };
            assert_eq!(seen["seen-target"], target);
            if !service_http2 {
                assert_eq!(seen["seen-host"], "a.example");
            }
            let all = |name: &str| seen.get_all(name).iter().cloned().collect::<Vec<_>>();
            assert_eq!(all("seen-x-twice"), ["1", "2"]);
            assert_eq!(seen["seen-x-raw"].as_bytes(), [0x80, 0xFF]);
            assert_eq!(seen["x-raw"].as_bytes(), [0x80, 0xFF]);
            assert_eq!(seen["seen-x-forwarded-for"], "127.0.0.1");
            assert_eq!(seen["seen-x-forwarded-proto"], "http");
            assert_eq!(seen["seen-x-forwarded-host"], "a.example");
            assert_eq!(seen["seen-traceparent"].len(), 55);
            for gone in [
                "seen-forwarded",
                "seen-x-mine",
                "seen-connection",
                "seen-proxy-authorization",
                "x-hop",
                "keep-alive",
            ] {
                assert!(!seen.contains_key(gone), "{gone}");
            }
            assert_eq!(all("set-cookie"), ["a=1", "b=2"]);
        }
        assert_eq!(service.connections.load(SeqCst), 1, "the connection is kept");
    }
}

fn pattern(size: usize) -> Bytes {
    (0..size).map(|i| (i * 31 + i / 251) as u8).collect::<Vec<u8>>().into()
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let sent = pattern(3_000_000);
    for (service_http2, scheme) in [(false, "http"), (true, "h2c")] {
        let service = http_service(service_http2, mirror).await;
        let door = door(scheme, &service, Settings::default()).await;
        for http2 in [false, true] {
            for chunked in [false, true] {
                let mut visitor = Visitor::new(door.address, http2).await;
                let (tx, streamed) = channel();
                let body = if chunked { streamed } else { full(sent.clone()) };
                let request = visitor.request("POST", "/", body);
                let bytes = sent.clone();
                let sender = world::task(async move {
                    for piece in bytes.chunks(50_000) {
                        let frame = Frame::data(Bytes::copy_from_slice(piece));
                        if tx.send(Ok(frame)).await.is_err() {
                            return;
                        }
                    }
                });
                let answer = visitor.send(request).await;
                let length = answer.headers().get("seen-content-length").cloned();
                assert_eq!(length.is_some(), !chunked, "{http2} {scheme}");
                let got = soon(answer.into_body().collect()).await.unwrap().to_bytes();
                assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
                drop(sender);
            }
        }
    }
}

/// Answers with known lengths.
async fn sizes(request: Request<Incoming>) -> Response<Body> {
    let mut response = Response::new(full(""));
    match request.uri().path() {
        "/head" => {
            response.headers_mut().insert("content-length", HeaderValue::from_static("12345"));
        }
        "/204" => *response.status_mut() = StatusCode::NO_CONTENT,
        "/304" => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().insert("etag", HeaderValue::from_static("\"x\""));
        }
        "/range" => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = HeaderValue::from_static("bytes 0-4/10");
            response.headers_mut().insert("content-range", range);
            *response.body_mut() = full("01234");
        }
        _ => *response.body_mut() = full("hello"),
    }
    response
}

#[tokio::test]
async fn lengths_are_exact() {
    for (service_http2, scheme) in [(false, "http"), (true, "h2c")] {
        let service = http_service(service_http2, sizes).await;
        let door = door(scheme, &service, Settings::default()).await;
        for http2 in [false, true] {
            let mut visitor = Visitor::new(door.address, http2).await;
            for (method, path, status, length, body) in [
                ("HEAD", "/head", 200, Some("12345"), ""),
                ("GET", "/204", 204, None, ""),
                ("GET", "/304", 304, None, ""),
                ("GET", "/range", 206, Some("5"), "01234"),
                ("GET", "/", 200, Some("5"), "hello"),
                ("OPTIONS", "*", 200, Some("5"), "hello"),
            ] {
                if http2 && path == "*" {
                    continue;
                }
                let answer = visitor.send(visitor.request(method, path, full(""))).await;
                assert_eq!(answer.status(), status, "{method} {path}");
                let seen = answer.headers().get("content-length").cloned();
                assert_eq!(seen.as_ref().map(|v| v.to_str().unwrap()), length, "{method} {path}");
                let got = soon(answer.into_body().collect()).await.unwrap().to_bytes();
                assert_eq!(got, body, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    async fn with_trailers(request: Request<Incoming>) -> Response<Body> {
        let collected = request.into_body().collect().await.unwrap();
        let seen = collected.trailers().and_then(|t| t.get("x-sum").cloned());
        let (tx, body) = channel();
        tokio::spawn(async move {
            let _ = tx.send(Ok(Frame::data(Bytes::from_static(b"body")))).await;
            let mut trailers = HeaderMap::new();
            trailers.insert("x-end", seen.unwrap_or_else(|| HeaderValue::from_static("missing")));
            let _ = tx.send(Ok(Frame::trailers(trailers))).await;
        });
        Response::builder().header("trailer", "x-end").body(body).unwrap()
    }
    for (service_http2, scheme) in [(false, "http"), (true, "h2c")] {
        let service = http_service(service_http2, with_trailers).await;
        let door = door(scheme, &service, Settings::default()).await;
        for http2 in [false, true] {
            let mut visitor = Visitor::new(door.address, http2).await;
            let (tx, body) = channel();
            let mut request = visitor.request("POST", "/", body);
            request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
            request.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
            let sender = world::task(async move {
                let _ = tx.send(Ok(Frame::data(Bytes::from_static(b"up")))).await;
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", HeaderValue::from_static("42"));
                let _ = tx.send(Ok(Frame::trailers(trailers))).await;
            });
            let answer = visitor.send(request).await;
            let collected = soon(answer.into_body().collect()).await.unwrap();
            let end = collected.trailers().and_then(|t| t.get("x-end")).cloned();
            assert_eq!(end.unwrap(), "42", "visitor by HTTP/2: {http2}, service: {scheme}");
            drop(sender);
        }
    }
}

#[tokio::test]
async fn events_are_not_buffered() {
    let (tx, body) = channel();
    let body = std::sync::Arc::new(std::sync::Mutex::new(Some(body)));
    let service = http_service(false, move |_| {
        let body = body.lock().unwrap().take().unwrap();
        async move {
            Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
        }
    })
    .await;
    let door = door("http", &service, Settings::default()).await;
    let mut visitor = Visitor::new(door.address, false).await;
    let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
    let mut body = answer.into_body();
    for i in 0..5 {
        // The next event is sent only when this one was seen.
        let event = format!("data: {i}\n\n");
        tx.send(Ok(Frame::data(event.clone().into()))).await.unwrap();
        let seen = soon(body.frame()).await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(seen, event);
    }
}

#[tokio::test]
async fn a_visitor_that_waits_for_100_gets_it_when_the_backend_reads() {
    let reads = |request: Request<Incoming>| async move {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut response = Response::new(full(body));
        response.headers_mut().insert("seen-expect", parts.headers["expect"].clone());
        response
    };
    let service = http_service(false, reads).await;
    let door = door("http", &service, Settings::default()).await;
    let mut tcp = TcpStream::connect(door.address).await.unwrap();
    tcp.write_all(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
    )
    .await
    .unwrap();
    read_until(&mut tcp, "100 Continue\r\n\r\n").await;
    tcp.write_all(b"body").await.unwrap();
    let answer = read_until(&mut tcp, "body").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("seen-expect: 100-continue"), "{answer}");
}

#[tokio::test]
async fn an_early_answer_stops_the_upload() {
    let service = http_service(false, |_| async {
        Response::builder().status(413).body(full("too much")).unwrap()
    })
    .await;
    let door = door("http", &service, Settings::default()).await;
    for http2 in [false, true] {
        let mut visitor = Visitor::new(door.address, http2).await;
        let (tx, body) = channel();
        let request = visitor.request("POST", "/", body);
        let sender = world::task(async move {
            let piece = pattern(64 << 10);
            // Ends when the upload is given up.
            while tx.send(Ok(Frame::data(piece.clone()))).await.is_ok() {}
        });
        let answer = visitor.send(request).await;
        assert_eq!(answer.status(), 413);
        assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "too much");
        if http2 {
            let mut sender = sender;
            soon(&mut sender.0).await.unwrap();
        }
    }
    world::until("the backend's connections end", || service.open.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn a_stalled_visitor_stalls_the_backend_and_nobody_else() {
    let pulled = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = pulled.clone();
    let service = http_service(false, move |request: Request<Incoming>| {
        let count = count.clone();
        async move {
            if request.uri().path() == "/small" {
                return Response::new(full("small"));
            }
            let piece = pattern(64 << 10);
            let body = world::futures_body(move |_| {
                count.fetch_add(piece.len(), SeqCst);
                std::task::Poll::Ready(Some(Ok(Frame::data(piece.clone()))))
            });
            Response::new(body.boxed_unsync())
        }
    })
    .await;
    let door = door("http", &service, Settings::default()).await;
    let mut stalled = TcpStream::connect(door.address).await.unwrap();
    stalled.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut before = 0;
    // Until it moves no more.
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = pulled.load(SeqCst);
        if now > 0 && now == before {
            break;
        }
        before = now;
        assert!(now < 64 << 20, "a stalled visitor pulled {now} bytes");
    }
    let mut visitor = Visitor::new(door.address, false).await;
    let answer = visitor.send(visitor.request("GET", "/small", full(""))).await;
    assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "small");
}
