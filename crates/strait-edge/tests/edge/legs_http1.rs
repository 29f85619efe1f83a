//! What services by HTTP/1.1 may do to a connection, and what becomes of it.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use strait_edge::Settings;
use strait_engine::{Body, Carried, Data, Exchange, Fault, Part, Reason, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::world::{
    Service, Visitor, backend, channel, door, door_to, full, raw_service, read_until, soon, until,
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A service that answers each head with these bytes, and never closes by itself.
async fn always(bytes: &'static [u8]) -> Service {
    raw_service(move |mut tcp, _| async move {
        loop {
            read_until(&mut tcp, "\r\n\r\n").await;
            let _ = tcp.write_all(bytes).await;
        }
    })
    .await
}

async fn asked(visitor: &mut Visitor, method: &str, body: &'static str) -> (u16, Bytes) {
    let answer = visitor.send(visitor.request(method, "/", full(body))).await;
    let status = answer.status().as_u16();
    (status, soon(answer.into_body().collect()).await.expect("whole").to_bytes())
}

#[tokio::test]
async fn an_answer_that_can_be_read_in_two_ways_is_invalid() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5",
    ] {
        let service = always(format!("{head}\r\n\r\n0\r\n\r\n").leak().as_bytes()).await;
        let door = door("http", &service, Settings::default()).await;
        let mut visitor = Visitor::new(door.address, false).await;
        let answer = visitor.send(visitor.request("POST", "/", full(""))).await;
        assert_eq!(answer.status(), 502, "{head}");
        assert_eq!(answer.headers()["x-strait-error"], "backend_invalid", "{head}");
        until("the connection is closed", || service.open.load(SeqCst) == 0).await;
    }
}

#[tokio::test]
async fn what_follows_an_answer_answers_nobody() {
    for more in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 500 No\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
    ] {
        let service = always(more.as_bytes()).await;
        let door = door("http", &service, Settings::default()).await;
        let mut visitor = Visitor::new(door.address, false).await;
        for turn in 1..4 {
            assert_eq!(asked(&mut visitor, "GET", "").await, (200, "ok".into()), "{more}");
            assert_eq!(service.connections.load(SeqCst), turn, "{more}");
        }
    }
}

#[tokio::test]
async fn a_service_that_speaks_or_closes_while_unused_is_met_on_a_new_connection() {
    for late in [&b""[..], b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"] {
        let service = raw_service(move |mut tcp, _| async move {
            read_until(&mut tcp, "\r\n\r\n").await;
            let _ = tcp.write_all(OK).await;
            let _ = tcp.write_all(late).await;
            if late.is_empty() {
                let _ = tcp.shutdown().await;
            }
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let door = door("http", &service, Settings::default()).await;
        let mut visitor = Visitor::new(door.address, false).await;
        for turn in 1..6 {
            // What is not safe is not tried twice: it must not meet the old connection at all.
            assert_eq!(asked(&mut visitor, "POST", "").await, (200, "ok".into()));
            assert_eq!(service.connections.load(SeqCst), turn);
            // Until the service has said it, and mostly before anybody looks by himself.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Nobody asks again, and it is noticed.
        until("the connections are let go", || service.open.load(SeqCst) == 0).await;
    }
}

#[tokio::test]
async fn neither_direction_waits_for_the_other() {
    const MUCH: usize = 8 << 20;
    for answer_first in [true, false] {
        let service = raw_service(move |mut tcp, _| async move {
            loop {
                // By bytes: what follows the head is counted.
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = tcp.read_u8().await else { return };
                    head.push(byte);
                }
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n");
                tcp.write_all(head.as_bytes()).await.unwrap();
                // All but the last byte, before which the upload has to be over.
                let begin = if answer_first { MUCH - 1 } else { 0 };
                tcp.write_all(&vec![b'a'; begin]).await.unwrap();
                tcp.read_exact(&mut vec![0; MUCH]).await.unwrap();
                tcp.write_all(&vec![b'a'; MUCH - begin]).await.unwrap();
            }
        })
        .await;
        let door = door("http", &service, Settings::default()).await;
        let mut visitor = Visitor::new(door.address, false).await;
        for _ in 0..2 {
            let (tx, body) = channel();
            let mut request = visitor.request("POST", "/", body);
            request.headers_mut().insert("content-length", MUCH.into());
            let upload = async move {
                for _ in 0..MUCH >> 16 {
                    tx.send(Ok(Frame::data(Bytes::from_static(&[b'u'; 1 << 16])))).await.unwrap();
                }
            };
            let mut answer = None;
            let download = async {
                let taken = soon(visitor.try_send(request)).await.unwrap();
                answer = Some(taken.into_body().collect().await.unwrap().to_bytes());
            };
            soon(async { tokio::join!(upload, download) }).await;
            assert_eq!(answer.unwrap(), vec![b'a'; MUCH]);
        }
    }
}

/// Says a piece, and breaks when it is told to.
struct Breaks(Arc<Notify>, Option<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>>, bool);

impl Body for Breaks {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        if !std::mem::replace(&mut self.2, true) {
            let piece = Data::plain(Bytes::from_static(b"piece"));
            return Poll::Ready(Some(Ok(Part::Data(piece))));
        }
        let told = self.0.clone();
        let told = self.1.get_or_insert_with(|| Box::pin(async move { told.notified().await }));
        std::task::ready!(told.as_mut().poll(cx));
        Poll::Ready(Some(Err(Fault::because(Reason::RequestTimeout, "it stopped"))))
    }
}

#[tokio::test]
async fn an_upload_that_breaks_after_the_head_cuts_the_answer_and_never_ends_for_the_service() {
    struct Broken(strait_edge::Backend, Arc<Notify>);
    impl Upstream for Broken {
        fn carry(&self, mut exchange: Exchange) -> Carried<'_> {
            exchange.body = Box::new(Breaks(self.1.clone(), None, false));
            self.0.carry(exchange)
        }
    }
    let seen = Arc::<Mutex<String>>::default();
    let all = seen.clone();
    let service = raw_service(move |mut tcp, _| {
        let all = all.clone();
        async move {
            let mut seen = read_until(&mut tcp, "\r\npiece\r\n").await;
            tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome").await.unwrap();
            let _ = tcp.read_to_string(&mut seen).await;
            *all.lock().unwrap() = seen;
        }
    })
    .await;
    let told = Arc::<Notify>::default();
    let backend = backend(&format!("http://{}", service.address), Settings::default());
    let door = door_to(Arc::new(Broken(backend, told.clone())), Settings::default()).await;
    let mut visitor = Visitor::new(door.address, false).await;
    let answer = visitor.send(visitor.request("DELETE", "/", full(""))).await;
    assert_eq!(answer.status(), 200);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(service.open.load(SeqCst), 1, "both go on");
    told.notify_one();
    soon(answer.into_body().collect()).await.expect_err("a clean end would be a lie");
    until("the service is let go", || service.open.load(SeqCst) == 0).await;
    let seen = seen.lock().unwrap();
    assert!(seen.ends_with("\r\npiece\r\n"), "a cut must not look like an end: {seen}");
}

#[tokio::test]
async fn an_answer_may_end_with_its_connection_and_then_it_does() {
    for (head, kept) in [
        ("HTTP/1.1 200 OK\r\n\r\nok", false),
        ("HTTP/1.0 200 OK\r\n\r\nok", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", false),
    ] {
        let closes = !head.contains("Content-Length");
        let service = raw_service(move |mut tcp, _| async move {
            loop {
                read_until(&mut tcp, "\r\n\r\n").await;
                tcp.write_all(head.as_bytes()).await.unwrap();
                if closes {
                    return;
                }
            }
        })
        .await;
        let door = door("http", &service, Settings::default()).await;
        let mut visitor = Visitor::new(door.address, true).await;
        for _ in 0..2 {
            assert_eq!(asked(&mut visitor, "GET", "").await, (200, "ok".into()), "{head}");
        }
        assert_eq!(service.connections.load(SeqCst), if kept { 1 } else { 2 }, "{head}");
    }
}
