//! WebSocket, entry to backend, frame by frame.

use std::sync::atomic::Ordering::SeqCst;

use strait_edge::Settings;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{Door, SOON, Service, door, raw_exchange, raw_service, read_until, soon, until};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A frame as it is on the wire.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Frame {
    pub tag: u8,
    pub payload: Vec<u8>,
}

pub fn frame(tag: u8, payload: impl AsRef<[u8]>) -> Frame {
    Frame { tag, payload: payload.as_ref().to_vec() }
}

impl Frame {
    pub fn bytes(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let masked = if mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![self.tag];
        match self.payload.len() {
            n @ 0..126 => bytes.push(masked | n as u8),
            n @ 126..65536 => {
                bytes.push(masked | 126);
                bytes.extend_from_slice(&(n as u16).to_be_bytes());
            }
            n => {
                bytes.push(masked | 127);
                bytes.extend_from_slice(&(n as u64).to_be_bytes());
            }
        }
        let mask_bytes = mask.unwrap_or_default();
        if mask.is_some() {
            bytes.extend_from_slice(&mask_bytes);
        }
        bytes.extend(self.payload.iter().zip(mask_bytes.iter().cycle()).map(|(b, m)| b ^ m));
        bytes
    }
}

/// One frame, and whether it was masked; `None` at the end of the connection.
pub async fn read_frame<T: AsyncRead + Unpin>(tcp: &mut T) -> Option<(Frame, bool)> {
    let mut head = [0; 2];
    tcp.read_exact(&mut head).await.ok()?;
    let masked = head[1] & 0x80 != 0;
    let length = match head[1] & 0x7F {
        126 => u64::from(tcp.read_u16().await.ok()?),
        127 => tcp.read_u64().await.ok()?,
        n => u64::from(n),
    };
    let mut mask = [0; 4];
    if masked {
        tcp.read_exact(&mut mask).await.ok()?;
    }
    let mut payload = vec![0; length as usize];
    tcp.read_exact(&mut payload).await.ok()?;
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Some((Frame { tag: head[0], payload }, masked))
}

/// Accepts the handshake as a service; returns the request's head.
pub async fn accept(tcp: &mut TcpStream, extra: &str) -> String {
    let head = read_until(tcp, "\r\n\r\n").await;
    let key = head
        .lines()
        .find_map(|line| line.strip_prefix("sec-websocket-key: "))
        .expect("a key of the backend's leg")
        .to_owned();
    assert_ne!(key, KEY, "the key belongs to one leg");
    let mut sha1 = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key.as_bytes());
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    use base64::Engine;
    let accept = base64::engine::general_purpose::STANDARD.encode(sha1.finish());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{extra}\r\n"
    );
    tcp.write_all(answer.as_bytes()).await.unwrap();
    head
}

/// Echoes frames as they are until a close frame, which it answers.
pub async fn echo(extra: &'static str) -> Service {
    raw_service(move |mut tcp, _| async move {
        accept(&mut tcp, extra).await;
        while let Some((frame, masked)) = read_frame(&mut tcp).await {
            assert!(masked, "frames towards a server are masked");
            tcp.write_all(&frame.bytes(None)).await.unwrap();
            if frame.tag == 0x88 {
                return;
            }
        }
    })
    .await
}

pub async fn open(door: &Door, extra: &str) -> (TcpStream, String) {
    let mut tcp = TcpStream::connect(door.address).await.unwrap();
    let request = format!(
        "GET /chat?x=1 HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{extra}\r\n"
    );
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    soon(async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await.unwrap());
        }
    })
    .await;
    (tcp, String::from_utf8(head).unwrap())
}

pub async fn send<T: AsyncWrite + Unpin>(tcp: &mut T, frame: &Frame) {
    tcp.write_all(&frame.bytes(Some([1, 2, 3, 4]))).await.unwrap();
}

pub async fn receive<T: AsyncRead + Unpin>(tcp: &mut T) -> Option<Frame> {
    let (frame, masked) = soon(read_frame(tcp)).await?;
    assert!(!masked, "frames towards a client are not masked");
    Some(frame)
}

/// One socket through `door` to an echo, from handshake to close.
pub async fn echoes(door: &Door) {
    let (mut tcp, _) = open(door, "").await;
    for one in [frame(0x81, "text"), frame(0x82, vec![1; 100_000]), frame(0x88, [0x03, 0xE8])] {
        send(&mut tcp, &one).await;
        assert_eq!(receive(&mut tcp).await, Some(one));
    }
    assert_eq!(receive(&mut tcp).await, None);
}

#[tokio::test]
async fn frames_pass_exactly_and_a_close_ends_both_legs() {
    let service = echo("").await;
    let door = door("http", &service, Settings::default()).await;
    let (mut tcp, head) = open(&door, "").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains(&format!("sec-websocket-accept: {ACCEPT}\r\n")), "{head}");
    let frames = [
        frame(0x81, "text"),
        frame(0x82, ""),
        frame(0x01, "frag"),
        frame(0x89, "ping between fragments"),
        frame(0x00, "men"),
        frame(0x80, "ted"),
        frame(0x8A, "pong"),
        frame(0x82, vec![7; 125]),
        frame(0x82, vec![8; 126]),
        frame(0x82, vec![9; 65535]),
        frame(0x82, vec![10; 65536]),
        frame(0x82, vec![11; 1_000_000]),
    ];
    for one in &frames {
        send(&mut tcp, one).await;
        assert_eq!(receive(&mut tcp).await.as_ref(), Some(one));
    }
    // All at once: order is kept.
    let (mut reader, mut writer) = tcp.split();
    let all: Vec<u8> = frames.iter().flat_map(|f| f.bytes(Some([9, 8, 7, 6]))).collect();
    let wanted: Vec<u8> = frames.iter().flat_map(|f| f.bytes(None)).collect();
    let mut got = vec![0; wanted.len()];
    let (wrote, read) =
        soon(async { tokio::join!(writer.write_all(&all), reader.read_exact(&mut got)) }).await;
    wrote.unwrap();
    read.unwrap();
    assert!(got == wanted);
    let close = frame(0x88, [0x0F, 0xA0, b'b', b'y', b'e']);
    send(&mut tcp, &close).await;
    assert_eq!(receive(&mut tcp).await, Some(close));
    assert_eq!(receive(&mut tcp).await, None);
    until("the backend is let go", || service.open.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn extensions_and_subprotocols_are_negotiated_end_to_end() {
    let service =
        echo("Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: v2\r\n")
            .await;
    let door = door("http", &service, Settings::default()).await;
    let offer =
        "Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: v1, v2\r\n";
    let (mut tcp, head) = open(&door, offer).await;
    assert!(head.contains("sec-websocket-extensions: permessage-deflate\r\n"), "{head}");
    assert!(head.contains("sec-websocket-protocol: v2\r\n"), "{head}");
    let compressed = frame(0xC1, [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]);
    send(&mut tcp, &compressed).await;
    assert_eq!(receive(&mut tcp).await, Some(compressed));
}

#[tokio::test]
async fn a_backend_that_closes_first_gets_the_visitors_close() {
    let (tx, mut rx) = tokio::sync::mpsc::channel(1);
    let service = raw_service(move |mut tcp, _| {
        let tx = tx.clone();
        async move {
            accept(&mut tcp, "").await;
            tcp.write_all(&frame(0x88, [0x03, 0xE9]).bytes(None)).await.unwrap();
            let _ = tx.send(read_frame(&mut tcp).await).await;
        }
    })
    .await;
    let door = door("http", &service, Settings::default()).await;
    let (mut tcp, _) = open(&door, "").await;
    assert_eq!(receive(&mut tcp).await, Some(frame(0x88, [0x03, 0xE9])));
    send(&mut tcp, &frame(0x88, [0x03, 0xE9])).await;
    assert_eq!(receive(&mut tcp).await, None);
    let seen = soon(rx.recv()).await.unwrap();
    assert_eq!(seen, Some((frame(0x88, [0x03, 0xE9]), true)));
}

#[tokio::test]
async fn a_side_that_vanishes_is_no_clean_close() {
    // The visitor vanishes.
    let (tx, mut rx) = tokio::sync::mpsc::channel(1);
    let service = raw_service(move |mut tcp, _| {
        let tx = tx.clone();
        async move {
            accept(&mut tcp, "").await;
            let _ = tx.send(read_frame(&mut tcp).await).await;
        }
    })
    .await;
    let gate = door("http", &service, Settings::default()).await;
    let (tcp, _) = open(&gate, "").await;
    drop(tcp);
    assert_eq!(soon(rx.recv()).await.unwrap(), None, "no close frame that nobody sent");
    // The backend vanishes.
    let service = raw_service(|mut tcp, _| async move {
        accept(&mut tcp, "").await;
    })
    .await;
    let gate = door("http", &service, Settings::default()).await;
    let (mut tcp, _) = open(&gate, "").await;
    assert_eq!(receive(&mut tcp).await, None, "no close frame that nobody sent");
}

#[tokio::test]
async fn broken_frames_close_that_socket_with_the_right_code() {
    let service = echo("").await;
    let settings = Settings { max_message: 1000, ..Settings::default() };
    let door = door("http", &service, settings).await;
    let (mut other, _) = open(&door, "").await;
    let unmasked = frame(0x81, "x").bytes(None);
    let masked = |f: Frame| f.bytes(Some([1, 2, 3, 4]));
    for (bytes, code) in [
        (unmasked, 1002),
        (masked(frame(0x83, "")), 1002),
        (masked(frame(0xC1, "x")), 1002),
        (masked(frame(0x09, "")), 1002),
        (masked(frame(0x89, [0; 126])), 1002),
        (masked(frame(0x80, "")), 1002),
        (masked(frame(0x88, [0x03, 0xED])), 1002),
        (vec![0x82, 0xFF, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4], 1009),
    ] {
        let (mut tcp, _) = open(&door, "").await;
        tcp.write_all(&bytes).await.unwrap();
        let close = receive(&mut tcp).await;
        assert_eq!(close, Some(frame(0x88, u16::to_be_bytes(code))), "{bytes:?}");
        assert_eq!(receive(&mut tcp).await, None);
    }
    send(&mut other, &frame(0x81, "still here")).await;
    assert_eq!(receive(&mut other).await, Some(frame(0x81, "still here")));
    until("the broken sockets' backends are let go", || service.open.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn a_close_without_a_code_passes_as_it_is() {
    let service = echo("").await;
    let door = door("http", &service, Settings::default()).await;
    let (mut tcp, _) = open(&door, "").await;
    send(&mut tcp, &frame(0x88, "")).await;
    assert_eq!(receive(&mut tcp).await, Some(frame(0x88, "")));
    assert_eq!(receive(&mut tcp).await, None);
}

#[tokio::test]
async fn broken_frames_of_a_backend_are_a_bad_gateway() {
    let service = raw_service(|mut tcp, number| async move {
        accept(&mut tcp, "").await;
        let broken = [
            frame(0x81, "masked").bytes(Some([1, 2, 3, 4])),
            frame(0x83, "").bytes(None),
            frame(0xC1, "x").bytes(None),
            frame(0x8A, [0; 126]).bytes(None),
            frame(0x88, u16::to_be_bytes(1006)).bytes(None),
            frame(0x88, u16::to_be_bytes(2999)).bytes(None),
        ];
        tcp.write_all(&broken[number]).await.unwrap();
        while read_frame(&mut tcp).await.is_some() {}
    })
    .await;
    let door = door("http", &service, Settings::default()).await;
    for number in 0..6 {
        let (mut tcp, _) = open(&door, "").await;
        assert_eq!(receive(&mut tcp).await, Some(frame(0x88, u16::to_be_bytes(1014))), "{number}");
        assert_eq!(receive(&mut tcp).await, None);
    }
    until("the backends are let go", || service.open.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn handshakes_that_are_none_are_refused_at_the_entry() {
    let service = echo("").await;
    let door = door("http", &service, Settings::default()).await;
    let request = |method: &str, version: &str, key: &str, ws: &str| {
        format!(
            "{method} / HTTP/{version}\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: {ws}\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        )
    };
    for (text, status) in [
        (request("GET", "1.1", KEY, "8"), "426"),
        (request("GET", "1.1", "short", "13"), "400"),
        (request("GET", "1.1", "", "13"), "400"),
        (request("POST", "1.1", KEY, "13"), "400"),
    ] {
        let mut tcp = TcpStream::connect(door.address).await.unwrap();
        tcp.write_all(text.as_bytes()).await.unwrap();
        let answer = read_until(&mut tcp, "\r\n\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!(status == "426", answer.contains("sec-websocket-version: 13\r\n"), "{answer}");
    }
    let old = request("GET", "1.0", KEY, "13");
    let answer = raw_exchange(door.address, old.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.0 400") || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(service.connections.load(SeqCst), 0);
}

#[tokio::test]
async fn a_refusal_by_the_backend_passes_with_its_body() {
    let service = raw_service(|mut tcp, _| async move {
        read_until(&mut tcp, "\r\n\r\n").await;
        let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\nx-why: no\r\n\r\nlong";
        tcp.write_all(answer.as_bytes()).await.unwrap();
        let _ = tcp.read(&mut [0; 1]).await;
    })
    .await;
    let door = door("http", &service, Settings::default()).await;
    let (mut tcp, head) = open(&door, "").await;
    assert!(head.starts_with("HTTP/1.1 403 ") && head.contains("x-why: no\r\n"), "{head}");
    let mut body = [0; 4];
    soon(tcp.read_exact(&mut body)).await.unwrap();
    assert_eq!(&body, b"long");
    until("the backend is let go", || service.open.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn a_backend_with_the_wrong_accept_is_invalid() {
    let service = raw_service(|mut tcp, _| async move {
        read_until(&mut tcp, "\r\n\r\n").await;
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Accept: AAAA\r\n\r\n";
        tcp.write_all(answer.as_bytes()).await.unwrap();
        let _ = tcp.read(&mut [0; 1]).await;
    })
    .await;
    let door = door("http", &service, Settings::default()).await;
    let (_tcp, head) = open(&door, "").await;
    assert!(head.starts_with("HTTP/1.1 502 ") && head.contains("backend_invalid"), "{head}");
}

#[tokio::test]
async fn a_drain_tells_sockets_that_we_go_away() {
    let service = echo("").await;
    let mut door = door("http", &service, Settings::default()).await;
    let (mut tcp, _) = open(&door, "").await;
    send(&mut tcp, &frame(0x81, "hello")).await;
    assert_eq!(receive(&mut tcp).await, Some(frame(0x81, "hello")));
    door.drain.cancel();
    assert_eq!(receive(&mut tcp).await, Some(frame(0x88, [0x03, 0xE9])));
    drop(tcp);
    soon(&mut door.served.0).await.unwrap();
    until("the backend is let go", || service.open.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn the_relay_agrees_with_a_client_that_we_did_not_write() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    let service = raw_service(|tcp, _| async move {
        let mut socket = tokio_tungstenite::accept_async(tcp).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.unwrap();
            }
        }
    })
    .await;
    let door = door("ws", &service, Settings::default()).await;
    let url = format!("ws://{}/x", door.address);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    for size in [0, 10, 1000, 300_000] {
        let sent = Message::binary(vec![5; size]);
        socket.send(sent.clone()).await.unwrap();
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), sent);
    }
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::Pong("are you there".into()));
    socket.close(None).await.unwrap();
    let end = tokio::time::timeout(SOON, async { while let Some(Ok(_)) = socket.next().await {} });
    end.await.unwrap();
    until("the backend is let go", || service.open.load(SeqCst) == 0).await;
}
