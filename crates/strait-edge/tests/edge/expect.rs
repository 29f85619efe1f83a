//! `Expect: 100-continue` between a visitor and a service, of either version of HTTP.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use http::StatusCode;
use http_body_util::BodyExt;
use strait_edge::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{
    Service, Visitor, door, full, http_service, raw_service, read_until, soon, until,
};

const ASKS: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// A time in which what must not happen would have happened.
const A_WHILE: Duration = Duration::from_millis(150);

fn waiting(wait: Duration) -> Settings {
    Settings { continue_wait: wait, ..Settings::default() }
}

const LONG: Duration = Duration::from_secs(60);

/// What a service has read of a body so far.
type Read = Arc<AtomicUsize>;

/// A service that says `first` when told to, and answers whatever body comes.
async fn says(first: &'static str, told: Arc<tokio::sync::Notify>) -> (Service, Read) {
    let read = Read::default();
    let count = read.clone();
    let service = raw_service(move |mut tcp, _| {
        let (count, told) = (count.clone(), told.clone());
        async move {
            let head = read_until(&mut tcp, "\r\n\r\n").await.to_ascii_lowercase();
            assert!(head.contains("\r\nexpect: 100-continue\r\n"), "{head}");
            let mut speaking = true;
            let mut buf = [0; 64];
            loop {
                tokio::select! {
                    () = told.notified(), if speaking => {
                        speaking = false;
                        let _ = tcp.write_all(first.as_bytes()).await;
                    }
                    n = tcp.read(&mut buf) => match n {
                        Ok(n) if n > 0 => {
                            if count.fetch_add(n, SeqCst) + n == 5 {
                                let _ = tcp.write_all(OK.as_bytes()).await;
                            }
                        }
                        _ => return,
                    }
                }
            }
        }
    });
    (service.await, read)
}

#[tokio::test]
async fn the_body_is_asked_for_when_the_service_says_so() {
    let told = Arc::<tokio::sync::Notify>::default();
    let (service, read) = says(CONTINUE, told.clone()).await;
    let door = door("http", &service, waiting(LONG)).await;
    let mut tcp = TcpStream::connect(door.address).await.unwrap();
    tcp.write_all(ASKS.as_bytes()).await.unwrap();
    let early = tokio::time::timeout(A_WHILE, tcp.read(&mut [0; 1])).await;
    assert!(early.is_err(), "nobody has asked for the body");
    told.notify_one();
    assert_eq!(read_until(&mut tcp, "\r\n\r\n").await, CONTINUE);
    assert_eq!(read.load(SeqCst), 0);
    tcp.write_all(b"hello").await.unwrap();
    assert!(read_until(&mut tcp, "ok").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn an_answer_instead_ends_the_wait_for_good() {
    let refusal = "HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno";
    let told = Arc::<tokio::sync::Notify>::default();
    let (service, read) = says(refusal, told.clone()).await;
    let wait = A_WHILE;
    let door = door("http", &service, waiting(wait)).await;
    for body in ["", "hello"] {
        let mut tcp = TcpStream::connect(door.address).await.unwrap();
        tcp.write_all(ASKS.as_bytes()).await.unwrap();
        // Whoever does not wait.
        tcp.write_all(body.as_bytes()).await.unwrap();
        told.notify_one();
        let answer = read_until(&mut tcp, "\r\n\r\nno").await.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 401 "), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert_eq!(soon(tcp.read(&mut [0; 1])).await.unwrap_or(0), 0, "it closes");
        until("the service's connection closes", || service.open.load(SeqCst) == 0).await;
    }
    tokio::time::sleep(wait).await;
    assert_eq!(read.load(SeqCst), 0, "the body was never sent");
    assert_eq!(service.connections.load(SeqCst), 2);
}

#[tokio::test]
async fn a_service_that_answers_and_reads_on_gets_the_body() {
    let echo = |request: http::Request<hyper::body::Incoming>| async move {
        let body = request.into_body().map_err(std::io::Error::other);
        http::Response::new(body.boxed_unsync())
    };
    let service = http_service(false, echo).await;
    let door = door("http", &service, waiting(A_WHILE)).await;
    let mut tcp = TcpStream::connect(door.address).await.unwrap();
    tcp.write_all(ASKS.as_bytes()).await.unwrap();
    let head = read_until(&mut tcp, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    tcp.write_all(b"hello").await.unwrap();
    read_until(&mut tcp, "hello").await;
}

#[tokio::test]
async fn a_service_that_says_nothing_gets_the_body_after_its_time() {
    let (service, _) = says("", Arc::default()).await;
    let wait = Duration::from_millis(300);
    let door = door("http", &service, waiting(wait)).await;
    let mut tcp = TcpStream::connect(door.address).await.unwrap();
    let began = Instant::now();
    tcp.write_all(ASKS.as_bytes()).await.unwrap();
    assert_eq!(read_until(&mut tcp, "\r\n\r\n").await, CONTINUE);
    assert!(began.elapsed() >= wait, "{:?}", began.elapsed());
    tcp.write_all(b"hello").await.unwrap();
    assert!(read_until(&mut tcp, "ok").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_service_by_http2_is_not_waited_for() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heads = seen.clone();
    let service = http_service(true, move |request| {
        heads.lock().unwrap().push(request.headers().get("expect").cloned());
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            http::Response::new(full(body))
        }
    })
    .await;
    let door = door("h2c", &service, waiting(LONG)).await;
    for http2 in [false, true] {
        let mut visitor = Visitor::new(door.address, http2).await;
        let mut request = visitor.request("POST", "/", full("hello"));
        request.headers_mut().insert("expect", http::HeaderValue::from_static("100-continue"));
        let answer = visitor.send(request).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "hello");
    }
    assert_eq!(*seen.lock().unwrap(), [None, None]);
}

#[tokio::test]
async fn a_visitor_by_http2_is_served_without_being_told() {
    let told = Arc::<tokio::sync::Notify>::default();
    let (service, read) = says(CONTINUE, told.clone()).await;
    let door = door("http", &service, waiting(LONG)).await;
    let mut visitor = Visitor::new(door.address, true).await;
    let mut request = visitor.request("POST", "/", full("hello"));
    request.headers_mut().insert("expect", http::HeaderValue::from_static("100-continue"));
    request.headers_mut().insert("content-length", http::HeaderValue::from_static("5"));
    let sending = visitor.try_send(request);
    let mut sending = std::pin::pin!(sending);
    assert!(tokio::time::timeout(A_WHILE, sending.as_mut()).await.is_err());
    assert_eq!(read.load(SeqCst), 0, "it was not asked for");
    told.notify_one();
    assert_eq!(soon(sending).await.unwrap().status(), StatusCode::OK);
}
