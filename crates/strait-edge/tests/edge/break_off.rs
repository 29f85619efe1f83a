//! Whatever breaks off is seen as broken off, on both legs.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use strait_edge::{Backend, Settings};
use strait_engine::{
    Answer, Body, Carried, Data, Exchange, Fault, Part, Reason, ResponseHead, Upstream, next_part,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{
    Service, Visitor, backend, channel, door, door_to, full, raw_exchange, raw_service, read_until,
    soon, task, until,
};

/// A service that reads a request head, answers with these bytes and then closes.
async fn answers(bytes: &'static [u8]) -> Service {
    raw_service(move |mut tcp, _| async move {
        read_until(&mut tcp, "\r\n\r\n").await;
        let _ = tcp.write_all(bytes).await;
        let _ = tcp.shutdown().await;
        let _ = tcp.read(&mut [0; 16]).await;
    })
    .await
}

const CUTS: [&[u8]; 2] = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n",
];

#[tokio::test]
async fn a_cut_answer_is_seen_as_cut() {
    for bytes in CUTS {
        let service = answers(bytes).await;
        let door = door("http", &service, Settings::default()).await;
        for http2 in [false, true] {
            let mut visitor = Visitor::new(door.address, http2).await;
            let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
            assert_eq!(answer.status(), StatusCode::OK);
            let error = soon(answer.into_body().collect()).await.expect_err("cut");
            if http2 {
                let mut cause = std::error::Error::source(&error);
                let mut reason = None;
                while let Some(next) = cause {
                    reason =
                        reason.or(next.downcast_ref::<h2::Error>().and_then(h2::Error::reason));
                    cause = next.source();
                }
                assert_eq!(reason, Some(h2::Reason::INTERNAL_ERROR));
            }
        }
    }
}

#[tokio::test]
async fn a_cut_answer_to_http_1_0_is_a_reset() {
    let service = answers(CUTS[1]).await;
    let door = door("http", &service, Settings::default()).await;
    let mut tcp = TcpStream::connect(door.address).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    let error = soon(tcp.read_to_end(&mut seen)).await.expect_err("a clean end would be a lie");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn faults_before_the_head_are_answers() {
    let cases: [(&'static [u8], u16, &str); 8] = [
        (b"", 502, "backend_reset"),
        (b"HTTP/1.1 200", 502, "backend_reset"),
        (b"nonsense\r\n\r\n", 502, "backend_invalid"),
        (b"HTTP/1.1 099 No\r\n\r\n", 502, "backend_invalid"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            502,
            "backend_invalid",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
            502,
            "backend_invalid",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nx", 502, "backend_invalid"),
        (b"HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n", 502, "backend_invalid"),
    ];
    for (bytes, status, kind) in cases {
        let service = answers(bytes).await;
        let door = door("http", &service, Settings::default()).await;
        for http2 in [false, true] {
            let mut visitor = Visitor::new(door.address, http2).await;
            let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
            let what = String::from_utf8_lossy(bytes);
            assert_eq!(answer.status(), status, "{what}");
            assert_eq!(answer.headers()["x-strait-error"], kind, "{what}");
            let text = soon(answer.into_body().collect()).await.unwrap().to_bytes();
            let text = std::str::from_utf8(&text).unwrap();
            assert!(text.starts_with(&format!("{kind}: ")) && text.ends_with(")\n"), "{text}");
            assert!(!text.contains("127.0.0.1"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_refused_connection_gives_the_exchange_back() {
    struct Check(strait_edge::Backend);
    impl Upstream for Check {
        fn carry(&self, exchange: Exchange) -> Carried<'_> {
            Box::pin(async move {
                let result = self.0.carry(exchange).await;
                if let Err(failure) = &result {
                    assert!(failure.fault.retry_safe);
                    let back = failure.untouched.as_ref().expect("nothing was sent");
                    assert_eq!(back.body.size(), Some(4));
                }
                result
            })
        }
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let check = Check(backend(&address, Settings::default()));
    let door = door_to(Arc::new(check), Settings::default()).await;
    let mut visitor = Visitor::new(door.address, false).await;
    let answer = visitor.send(visitor.request("POST", "/", full("body"))).await;
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.headers()["x-strait-error"], "backend_refused");
}

#[tokio::test]
async fn a_silent_backend_is_a_timeout() {
    let service = raw_service(|mut tcp, _| async move {
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let settings = Settings { answer_head: Duration::from_millis(100), ..Settings::default() };
    let door = door("http", &service, settings).await;
    let mut visitor = Visitor::new(door.address, false).await;
    let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
    assert_eq!(answer.status(), 504);
    assert_eq!(answer.headers()["x-strait-error"], "backend_timeout");
    until("the backend is let go", || service.open.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn a_connection_that_the_backend_closed_unseen_is_replaced() {
    // Each connection serves one request and dies when the next one comes.
    let service = raw_service(|mut tcp, _| async move {
        read_until(&mut tcp, "\r\n\r\n").await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        let _ = tcp.read(&mut [0; 1]).await;
    })
    .await;
    let door = door("http", &service, Settings::default()).await;
    let mut visitor = Visitor::new(door.address, false).await;
    for _ in 0..5 {
        let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "ok");
    }
    // What is not safe to do twice is not done twice.
    let answer = visitor.send(visitor.request("POST", "/", full("once"))).await;
    assert_eq!(answer.status(), 502);
}

/// A backend whose service closes its connection at the moment in which the next request wants it,
/// so that nobody has heard of it.
struct Closes {
    backend: Backend,
    close: mpsc::SyncSender<()>,
    closed: Mutex<mpsc::Receiver<()>>,
    asked: AtomicUsize,
}

impl Closes {
    /// With `reset` the service closes as one does that has not read everything.
    fn new(reset: bool) -> Closes {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (close, closing) = mpsc::sync_channel(0);
        let (done, closed) = mpsc::sync_channel(0);
        thread::spawn(move || {
            for tcp in listener.incoming() {
                let mut tcp = tcp.unwrap();
                let mut seen = Vec::new();
                while !seen.ends_with(b"\r\n\r\n") && !seen.ends_with(b"once") {
                    let mut some = [0; 1024];
                    let read = tcp.read(&mut some).unwrap();
                    seen.extend_from_slice(&some[..read]);
                }
                tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
                if closing.recv().is_err() {
                    return;
                }
                if reset {
                    socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
                }
                drop(tcp);
                done.send(()).unwrap();
            }
        });
        let backend = backend(&address, Settings::default());
        Closes { backend, close, closed: Mutex::new(closed), asked: AtomicUsize::new(0) }
    }
}

impl Upstream for Closes {
    fn carry(&self, exchange: Exchange) -> Carried<'_> {
        if self.asked.fetch_add(1, SeqCst) > 0 {
            self.close.send(()).unwrap();
            self.closed.lock().unwrap().recv().unwrap();
        }
        self.backend.carry(exchange)
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_at_the_last_moment_is_replaced() {
    for (reset, method, body) in
        [(false, "GET", ""), (true, "GET", ""), (false, "POST", "once"), (true, "POST", "once")]
    {
        let door = door_to(Arc::new(Closes::new(reset)), Settings::default()).await;
        let mut visitor = Visitor::new(door.address, false).await;
        for _ in 0..3 {
            let answer = visitor.send(visitor.request(method, "/", full(body))).await;
            assert_eq!(answer.status(), 200, "{method}, closed with a reset: {reset}");
            assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "ok");
        }
    }
}

#[tokio::test]
async fn a_visitor_who_leaves_takes_the_backend_request_along() {
    for (http2, when) in [
        (false, "head"),
        (true, "head"),
        (false, "body"),
        (true, "body"),
        (false, "upload"),
        (true, "upload"),
    ] {
        let service = raw_service(move |mut tcp, _| async move {
            read_until(&mut tcp, "\r\n\r\n").await;
            if when == "body" {
                let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12").await;
            }
            // Until the connection is closed from the other side.
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let door = door("http", &service, Settings::default()).await;
        let mut visitor = Visitor::new(door.address, http2).await;
        let (tx, streamed) = channel();
        let body = if when == "upload" { streamed } else { full("") };
        let request = visitor.request("POST", "/", body);
        let mut sending = Box::pin(visitor.try_send(request));
        let held = match when {
            "body" => Some(soon(&mut sending).await.unwrap()),
            _ => {
                let _ = tx.try_send(Ok(Frame::data(Bytes::from_static(b"some"))));
                let _ = tokio::time::timeout(Duration::from_millis(100), &mut sending).await;
                None
            }
        };
        until("the backend has the request", || service.open.load(SeqCst) == 1).await;
        drop((sending, held));
        if !http2 {
            drop(visitor);
        }
        until(when, || service.open.load(SeqCst) == 0).await;
    }
}

#[tokio::test]
async fn a_visitor_who_stops_sending_is_not_waited_for() {
    let service = raw_service(|mut tcp, _| async move {
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let settings = Settings { body_idle: Duration::from_millis(100), ..Settings::default() };
    let door = door("http", &service, settings).await;
    let answer =
        raw_exchange(door.address, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
            .await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    until("the backend is let go", || service.open.load(SeqCst) == 0).await;
}

/// An upload without an end, counted for as long as somebody keeps it.
struct Endless(Arc<AtomicUsize>);

impl Body for Endless {
    fn poll_part(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        let piece = Bytes::from_static(&[b'x'; 16 << 10]);
        Poll::Ready(Some(Ok(Part::Data(Data::plain(piece)))))
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[tokio::test]
async fn a_backend_that_dies_or_stops_reading_keeps_no_upload() {
    struct Uploads(strait_edge::Backend, Arc<AtomicUsize>);
    impl Upstream for Uploads {
        fn carry(&self, mut exchange: Exchange) -> Carried<'_> {
            self.1.fetch_add(1, SeqCst);
            exchange.body = Box::new(Endless(self.1.clone()));
            self.0.carry(exchange)
        }
    }
    for (dies, answers) in [(true, false), (false, false), (false, true)] {
        let service = raw_service(move |mut tcp, _| async move {
            read_until(&mut tcp, "\r\n\r\n").await;
            if answers {
                let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12").await;
            }
            // Long enough for all buffers on the way to be full.
            tokio::time::sleep(Duration::from_millis(200)).await;
            if !dies {
                std::future::pending::<()>().await;
            }
        })
        .await;
        let held = Arc::new(AtomicUsize::new(0));
        let backend = backend(&format!("http://{}", service.address), Settings::default());
        let door = door_to(Arc::new(Uploads(backend, held.clone())), Settings::default()).await;
        let mut visitor = Visitor::new(door.address, false).await;
        // Without a body of its own, so that the entry sees the visitor leave.
        let request = visitor.request("DELETE", "/", full(""));
        let mut sending = Box::pin(visitor.try_send(request));
        let answer = match dies || answers {
            true => Some(soon(&mut sending).await.unwrap()),
            false => tokio::time::timeout(Duration::from_millis(400), &mut sending)
                .await
                .ok()
                .map(Result::unwrap),
        };
        let status = answer.as_ref().map(|answer| answer.status().as_u16());
        assert_eq!(status, if dies { Some(502) } else { answers.then_some(200) });
        if !dies {
            assert_eq!(held.load(SeqCst), 1, "the upload is under way");
        }
        drop((sending, answer));
        drop(visitor);
        until("the upload is let go", || held.load(SeqCst) == 0).await;
    }
}

/// Has the body of each request read by a task of its own, as a tunnel does, and tells what came.
struct Reads(tokio::sync::mpsc::UnboundedSender<Option<Result<Part, Fault>>>);

impl Upstream for Reads {
    fn carry(&self, exchange: Exchange) -> Carried<'_> {
        let (told, mut body) = (self.0.clone(), exchange.body);
        let reading = task(async move {
            loop {
                let part = next_part(&mut body).await;
                let goes_on = matches!(part, Some(Ok(Part::Data(_))));
                if told.send(part).is_err() || !goes_on {
                    return;
                }
            }
        });
        std::mem::forget(reading);
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn an_upload_that_its_visitor_takes_back_is_cut_whatever_the_code() {
    let (told, mut parts) = tokio::sync::mpsc::unbounded_channel();
    let door = door_to(Arc::new(Reads(told)), Settings::default()).await;
    let tcp = TcpStream::connect(door.address).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(tcp).await.unwrap();
    let _connection = task(async move { drop(connection.await) });
    for code in [h2::Reason::NO_ERROR, h2::Reason::CANCEL, h2::Reason::INTERNAL_ERROR] {
        let request = http::Request::post("http://a.example/").body(()).unwrap();
        let (_answer, mut upload) = sender.send_request(request, false).unwrap();
        upload.send_data(Bytes::from_static(b"half of it"), false).unwrap();
        let Some(Some(Ok(Part::Data(data)))) = soon(parts.recv()).await else { panic!("{code:?}") };
        assert_eq!(data.bytes, "half of it");
        upload.send_reset(code);
        let Some(Some(Err(fault))) = soon(parts.recv()).await else { panic!("{code:?}: an end") };
        assert_eq!(fault.reason, Reason::Cancelled, "{code:?}");
    }
}

/// Answers at once with a head, and never with more. It notes when nobody wants the rest.
#[derive(Clone, Default)]
struct Silent(Arc<AtomicUsize>);

impl Upstream for Silent {
    fn carry(&self, _: Exchange) -> Carried<'_> {
        let head = ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() };
        let body = Box::new(Held(self.clone()));
        Box::pin(async move { Ok(Answer { head, body }) })
    }
}

struct Held(Silent);

impl Body for Held {
    fn poll_part(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        Poll::Pending
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, SeqCst);
    }
}

#[tokio::test]
async fn a_visitor_who_takes_a_silent_answer_back_is_noticed() {
    let silent = Silent::default();
    let door = door_to(Arc::new(silent.clone()), Settings::default()).await;
    let mut visitor = Visitor::new(door.address, true).await;
    let answer = visitor.send(visitor.request("GET", "/", full(""))).await;
    assert_eq!(silent.0.load(SeqCst), 0);
    drop(answer);
    until("the answer is given up", || silent.0.load(SeqCst) == 1).await;
}
