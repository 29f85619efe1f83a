//! What an entry makes of the requests of one connection by HTTP/1.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use strait_edge::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{Body, door, full, http_service, raw_exchange, read_until, soon};

/// Answers with the method, the path and the body.
async fn echo(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
    let text = format!("<{} {} {}>", parts.method, parts.uri, String::from_utf8_lossy(&body));
    Response::new(full(text))
}

const SEVERAL: &str = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
    \r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n\
    POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nwo\r\n3;x\r\nrld\r\n0\r\nx: y\r\n\r\n\
    PUT /d HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n\
    GET /e HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// What the bodies of the answers are, in their order.
fn bodies(answer: &str) -> Vec<&str> {
    answer.split('<').skip(1).filter_map(|rest| rest.split('>').next()).collect()
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_order() {
    let service = http_service(false, echo).await;
    let door = door("http", &service, Settings::default()).await;
    let wire = format!("{SEVERAL}GET /never HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = raw_exchange(door.address, wire.as_bytes()).await;
    assert_eq!(
        bodies(&answer),
        ["POST /a hello", "GET /b ", "POST /c world", "PUT /d ", "GET /e "]
    );
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 5, "{answer}");
    assert_eq!(answer.matches("connection: close\r\n").count(), 1, "{answer}");
}

#[tokio::test]
async fn requests_are_the_same_however_they_are_cut() {
    let service = http_service(false, echo).await;
    let door = door("http", &service, Settings::default()).await;
    for step in [1, 2, 7] {
        let mut tcp = TcpStream::connect(door.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let (mut read, mut write) = tcp.split();
        let mut answer = String::new();
        let send = async {
            for piece in SEVERAL.as_bytes().chunks(step) {
                write.write_all(piece).await.unwrap();
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        };
        let (_, read) = soon(async { tokio::join!(send, read.read_to_string(&mut answer)) }).await;
        read.unwrap();
        let wanted = ["POST /a hello", "GET /b ", "POST /c world", "PUT /d ", "GET /e "];
        assert_eq!(bodies(&answer), wanted, "{step} at a time");
    }
}

#[tokio::test]
async fn what_is_left_of_a_body_is_no_request() {
    // Answers without a look at the body.
    let service = http_service(false, |_| async { Response::new(full("<early>")) }).await;
    let door = door("http", &service, Settings::default()).await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    // All of it is there, so the next request is found behind it.
    let mut tcp = TcpStream::connect(door.address).await.unwrap();
    let request = |length: usize| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{hidden}")
    };
    for _ in 0..3 {
        tcp.write_all(request(hidden.len()).as_bytes()).await.unwrap();
        let answer = read_until(&mut tcp, "<early>").await;
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
    // It is not, so nothing behind it is a request.
    let mut request = request(1 << 20);
    request.push_str(&hidden.repeat(100));
    let answer = raw_exchange(door.address, request.as_bytes()).await;
    assert!(answer.matches("HTTP/1.1").count() <= 1, "{answer}");
}

#[tokio::test]
async fn http_1_0_closes_unless_asked_not_to() {
    let service = http_service(false, echo).await;
    let door = door("http", &service, Settings::default()).await;
    let get = |fields: &str| format!("GET / HTTP/1.0\r\nHost: a\r\n{fields}\r\n");
    let twice = get("").repeat(2);
    let answer = raw_exchange(door.address, twice.as_bytes()).await;
    assert_eq!(bodies(&answer), ["GET / "], "{answer}");
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    let kept = [get("Connection: keep-alive\r\n"), get("")].concat();
    let answer = raw_exchange(door.address, kept.as_bytes()).await;
    assert_eq!(bodies(&answer), ["GET / ", "GET / "], "{answer}");
    assert_eq!(answer.matches("connection: keep-alive\r\n").count(), 1, "{answer}");
}

#[tokio::test]
async fn what_is_no_request_is_told_so_and_closes() {
    let service = http_service(false, echo).await;
    let door = door("http", &service, Settings::default()).await;
    let mut wire = "GET /fine HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    wire.push_str("nonsense\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = raw_exchange(door.address, wire.as_bytes()).await;
    assert_eq!(bodies(&answer), ["GET /fine "], "{answer}");
    assert!(answer.contains("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.contains("x-strait-error: bad_request\r\n"), "{answer}");
    assert_eq!(answer.matches("connection: close\r\n").count(), 1, "{answer}");
}
