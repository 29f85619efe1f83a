//! The samples, called as a visitor would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tonic::codegen::tokio_stream;

use super::caller::Caller;
use super::nodes::{Nodes, start_nodes, start_server};
use super::sampler::{Note, WatchRequest};
use super::samples::{Samples, start_samples};
use super::{direct, socket};

/// Far more than any test needs, so that one that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(20);

/// The samples behind one address, as the page sees them.
struct World {
    address: SocketAddr,
    samples: Arc<Samples>,
    nodes: Option<Nodes>,
}

/// The samples behind the real tunnel.
async fn tunnelled() -> World {
    let server = start_server(Some(0)).await.expect("a server");
    let address = server.entry;
    let samples = Arc::new(start_samples(address, Arc::new(|| None)).expect("samples"));
    let nodes = start_nodes(server, &samples).await.expect("a tunnel");
    World { address, samples, nodes: Some(nodes) }
}

async fn world() -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let status = Arc::new(|| Some(json!({ "known": true })));
    let samples = Arc::new(start_samples(address, status).expect("samples"));
    let serving = Arc::clone(&samples);
    tokio::spawn(async move { direct::serve(listener, &serving).await });
    World { address, samples, nodes: None }
}

impl World {
    async fn get(&self, path: &str) -> Response<Incoming> {
        let socket = TcpStream::connect(self.address).await.expect("a connection");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "demo.test");
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        sender.send_request(request).await.expect("an answer")
    }

    /// The first `count` events of an endless answer.
    async fn events(&self, path: &str, count: usize) -> Vec<Value> {
        let mut body = self.get(path).await.into_body();
        let mut text = Vec::new();
        while text.windows(2).filter(|pair| pair == b"\n\n").count() < count {
            let frame = timeout(PATIENCE, body.frame()).await.expect("in time");
            let frame = frame.expect("no end").expect("no cut");
            text.extend_from_slice(frame.data_ref().expect("data"));
        }
        let text = String::from_utf8(text).expect("UTF-8");
        let events = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        events.take(count).map(|event| serde_json::from_str(event).expect("JSON")).collect()
    }
}

async fn json_of(answer: Response<Incoming>) -> Value {
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    serde_json::from_slice(&body).expect("JSON")
}

#[tokio::test]
async fn hello_names_its_request() {
    let world = world().await;
    let first = json_of(world.get("/hello?n=41").await).await;
    let second = json_of(world.get("/hello?x=y&n=42").await).await;
    assert_eq!((&first["n"], &first["served"]), (&json!(41), &json!(1)));
    assert_eq!((&second["n"], &second["served"]), (&json!(42), &json!(2)));
}

#[tokio::test]
async fn page_and_all_that_it_asks_for_are_there() {
    let world = world().await;
    let page = world.get("/").await;
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let page = page.into_body().collect().await.expect("a page").to_bytes();
    let mut texts = vec![String::from_utf8(page.to_vec()).expect("UTF-8")];
    let mut seen = vec!["/".to_owned()];
    while let Some(text) = texts.pop() {
        // Whatever a file names in quotes with a slash in front and an ending we serve.
        for name in text.split('"').filter(|name| {
            name.starts_with('/') && (name.ends_with(".js") || name.ends_with(".css"))
        }) {
            if seen.iter().any(|known| known == name) {
                continue;
            }
            let answer = world.get(name).await;
            assert_eq!(answer.status(), 200, "{name}");
            let body = answer.into_body().collect().await.expect("a file").to_bytes();
            texts.push(String::from_utf8(body.to_vec()).expect("UTF-8"));
            seen.push(name.to_owned());
        }
    }
    assert!(seen.len() >= 6, "{seen:?}");
    assert_eq!(world.get("/nowhere").await.status(), 404);
    assert_eq!(json_of(world.get("/__demo/status").await).await, json!({ "known": true }));
}

#[tokio::test]
async fn clock_ticks_in_order() {
    let ticks = world().await.events("/clock", 4).await;
    let numbers: Vec<_> = ticks.iter().map(|tick| tick["n"].as_u64()).collect();
    assert_eq!(numbers, [Some(1), Some(2), Some(3), Some(4)]);
    assert!(ticks.is_sorted_by_key(|tick| tick["at_us"].as_u64()));
}

#[tokio::test]
async fn readings_come_from_the_grpc_sample_in_order() {
    let readings = world().await.events("/__demo/readings", 3).await;
    let numbers: Vec<_> = readings.iter().map(|reading| reading["n"].as_u64()).collect();
    assert_eq!(numbers, [Some(1), Some(2), Some(3)]);
    for reading in readings {
        assert!(reading["echo_us"].as_u64().is_some_and(|us| us > 0), "{reading}");
    }
}

#[tokio::test]
async fn download_has_its_length_and_upload_is_counted() {
    let world = world().await;
    let answer = world.get("/download?mb=3").await;
    assert_eq!(answer.headers()["content-length"], "3145728");
    let body = answer.into_body().collect().await.expect("all of it").to_bytes();
    assert_eq!(body.len(), 3 * 1024 * 1024);

    let mut socket = TcpStream::connect(world.samples.http).await.expect("a connection");
    let request = "POST /upload HTTP/1.1\r\nhost: demo.test\r\nconnection: close\r\n\
        transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.ends_with("{\"received\":7}\n"), "{answer}");
}

#[tokio::test]
async fn load_runs_only_while_somebody_listens() {
    let world = world().await;
    let mut body = world.get("/__demo/load").await.into_body();
    let mut moved = false;
    while !moved {
        let frame = timeout(PATIENCE, body.frame()).await.expect("in time");
        let frame = frame.expect("no end").expect("no cut").into_data().expect("data");
        let event = frame.strip_prefix(b"data: ").expect("an event");
        let event: Value = serde_json::from_slice(event).expect("JSON");
        assert_eq!((&event["downloads"], &event["stalled"]), (&json!(8), &json!(1)));
        moved = event["bytes"].as_u64().is_some_and(|bytes| bytes > 0);
    }
    drop(body);
    // A load that had gone on would be joined and tell of more than its first moment.
    let began = std::time::Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(600)).await;
        let first = world.events("/__demo/load", 1).await;
        if first[0]["seconds"].as_f64().is_some_and(|seconds| seconds < 0.5) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "the load goes on: {first:?}");
    }
}

#[tokio::test]
async fn grpc_watch_ends_when_asked_to_and_chat_counts() {
    let world = world().await;
    let mut caller = Caller::connect(world.address).await.expect("HTTP/2");
    let asked = WatchRequest { interval_ms: 10, count: 20 };
    let mut watch = caller.watch(asked).await.expect("a stream");
    let mut numbers = Vec::new();
    while let Some(reading) = watch.message().await.expect("a reading") {
        numbers.push(reading.sequence);
    }
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());

    let texts = ["one", "two", "three"];
    let notes = texts.map(|text| Note { text: text.to_owned(), sequence: 0 });
    let mut chat = caller.chat(tokio_stream::iter(notes)).await.expect("a stream");
    for (text, sequence) in texts.into_iter().zip(1..) {
        let note = chat.message().await.expect("a note").expect("no end");
        assert_eq!((note.text.as_str(), note.sequence), (text, sequence));
    }
    assert_eq!(chat.message().await.expect("an end"), None);
}

#[tokio::test]
async fn unknown_grpc_call_is_unimplemented() {
    let socket = TcpStream::connect(world().await.samples.grpc).await.expect("a connection");
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        TokioIo::new(socket),
    )
    .await
    .expect("HTTP/2");
    tokio::spawn(connection);
    let request = Request::post("http://demo.test/strait.demo.v1.Sampler/Nothing");
    let request = request.header("content-type", "application/grpc");
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(answer.headers()["grpc-status"], "12");
}

/// With the key that RFC 6455 1.3 has for an example.
const HANDSHAKE: &str = "GET /echo HTTP/1.1\r\nhost: demo.test\r\nupgrade: websocket\r\n\
    connection: Upgrade\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A frame as a visitor sends it (RFC 6455 5.2), with a mask that does something.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0xA5, 0x01, 0xFF, 0x3C];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        middle @ 126..=0xFFFF => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Sends `frames` to the echo and returns all that comes back until it hangs up.
async fn echoed(frames: Vec<u8>) -> Vec<u8> {
    let (visitor, sample) = tokio::io::duplex(1024);
    tokio::spawn(socket::echo(sample));
    let (mut read, mut write) = tokio::io::split(visitor);
    let writer = tokio::spawn(async move {
        let _ = write.write_all(&frames).await;
        write
    });
    let mut back = Vec::new();
    timeout(PATIENCE, read.read_to_end(&mut back)).await.expect("in time").expect("read");
    drop(writer.await);
    back
}

#[tokio::test]
async fn websocket_echo_gives_frames_of_every_size_back_in_order() {
    let large: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
    let mut sent = masked(0x01, b"be");
    sent.extend(masked(0x89, b"still there?"));
    sent.extend(masked(0x80, &[b'x'; 300]));
    sent.extend(masked(0x82, &large));
    sent.extend(masked(0x8A, b"a pong that nobody asked for"));
    sent.extend(masked(0x88, &[0x03, 0xE8]));

    let mut wanted = vec![0x01, 2, b'b', b'e', 0x8A, 12];
    wanted.extend(b"still there?");
    wanted.extend([0x80, 126, 0x01, 0x2C]);
    wanted.extend([b'x'; 300]);
    wanted.extend([0x82, 127, 0, 0, 0, 0, 0, 0x01, 0x86, 0xA0]);
    wanted.extend(&large);
    wanted.extend([0x88, 2, 0x03, 0xE8]);
    assert!(echoed(sent).await == wanted, "not what was sent");
}

#[tokio::test]
async fn websocket_echo_refuses_what_breaks_the_protocol() {
    let refusal = [0x88, 2, 0x03, 0xEA];
    let unmasked = vec![0x81, 2, b'h', b'i'];
    let reserved = masked(0xC1, b"compressed?");
    let unknown = masked(0x83, b"");
    let long_ping = masked(0x89, &[0; 126]);
    let cut_ping = masked(0x09, b"");
    for frame in [unmasked, reserved, unknown, long_ping, cut_ping] {
        assert_eq!(echoed(frame.clone()).await, refusal, "{:02x?}", &frame[..2]);
    }
}

#[tokio::test]
async fn websocket_handshake_is_answered_with_the_proof_of_the_rfc() {
    let mut socket = TcpStream::connect(world().await.address).await.expect("a connection");
    socket.write_all(HANDSHAKE.as_bytes()).await.expect("sent");
    socket.write_all(&masked(0x81, b"hello")).await.expect("sent");
    socket.write_all(&masked(0x88, b"")).await.expect("sent");
    let mut answer = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("in time").expect("read");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    assert!(answer.ends_with("\u{fffd}\u{5}hello\u{fffd}\0"), "{answer:?}");
}

#[tokio::test]
async fn all_protocols_cross_one_stream_at_once() {
    let world = tunnelled().await;
    // Bulk runs beside all of it.
    let mut load = world.get("/__demo/load").await.into_body();
    let mut bytes = 0;
    while bytes == 0 {
        let frame = timeout(PATIENCE, load.frame()).await.expect("in time");
        let frame = frame.expect("no end").expect("no cut").into_data().expect("data");
        let event = frame.strip_prefix(b"data: ").expect("an event");
        bytes = serde_json::from_slice::<Value>(event).expect("JSON")["bytes"].as_u64().expect("n");
    }
    let (hello, clock, readings, download) = tokio::join!(
        async { json_of(world.get("/hello?n=7").await).await },
        world.events("/clock", 5),
        world.events("/__demo/readings", 3),
        async { world.get("/download?mb=2").await.into_body().collect().await.expect("all") },
    );
    assert_eq!(hello["n"], json!(7));
    assert_eq!(clock.last().map(|tick| &tick["n"]), Some(&json!(5)));
    assert_eq!(readings.last().map(|reading| &reading["n"]), Some(&json!(3)));
    assert_eq!(download.to_bytes().len(), 2 * 1024 * 1024);

    let mut socket = TcpStream::connect(world.address).await.expect("a connection");
    let mut sent = HANDSHAKE.as_bytes().to_vec();
    sent.extend(masked(0x82, &[7; 70_000]));
    sent.extend(masked(0x88, b""));
    socket.write_all(&sent).await.expect("sent");
    let mut answer = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("in time").expect("read");
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer[..head]));
    let mut wanted = vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70];
    wanted.extend([7; 70_000]);
    wanted.extend([0x88, 0]);
    assert!(answer[head..] == wanted, "not what was sent");

    // Eight that read, one that does not, and the page's own: all on one stream.
    let live = &world.nodes.as_ref().expect("nodes").live;
    assert_eq!(live.snapshot().sessions.len(), 1);
    let asked = |what| live.snapshot().in_flight.iter().filter(|e| e.what.ends_with(what)).count();
    let all_there = async {
        while (asked("/download/unread"), asked("/__demo/load")) != (1, 1) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, all_there).await.expect("in time");
}
