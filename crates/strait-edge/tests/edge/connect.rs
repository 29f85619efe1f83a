//! WebSocket by HTTP/2 (RFC 8441): extended CONNECT at the entry, towards the backend, or both.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use strait_edge::Settings;
use strait_engine::{
    Answer, Carried, Data, Exchange, Fault, MessageStart, Part, ResponseHead, Upstream,
};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::websocket::{Frame, accept, echo, frame, open, read_frame, receive, send};
use crate::world::{
    Body, Door, Service, Visitor, door, door_to, full, raw_service, read_until, soon, task, until,
};

type Socket = TokioIo<Upgraded>;

/// A handshake by HTTP/2.
fn handshake(protocol: &'static str, version: &str) -> Request<Body> {
    Request::builder()
        .method(Method::CONNECT)
        .uri("http://a.example/chat?x=1")
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-version", version)
        .body(full(""))
        .unwrap()
}

async fn connect(visitor: &mut Visitor, extra: &[(&'static str, &'static str)]) -> Connected {
    let mut request = handshake("websocket", "13");
    for (name, value) in extra {
        request.headers_mut().append(*name, http::HeaderValue::from_static(value));
    }
    let answer = visitor.send(request).await;
    assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
    let headers = answer.headers().clone();
    let socket = TokioIo::new(soon(hyper::upgrade::on(answer)).await.unwrap());
    Connected { headers, socket }
}

/// A visitor who grants `window` bytes to each stream.
async fn h2_visitor(tcp: tokio::net::TcpStream, window: u32) -> Visitor {
    let (sender, served) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .handshake(TokioIo::new(tcp))
        .await
        .unwrap();
    Visitor::Http2(sender, task(async move { drop(served.await) }))
}

struct Connected {
    headers: HeaderMap,
    socket: Socket,
}

/// What a service saw of a handshake.
type Seen = mpsc::UnboundedSender<HeaderMap>;

/// A service by HTTP/2 that takes sockets, does with each what `handle` says, and counts
/// those that are open. It chooses the last of the offered subprotocols.
async fn h2_service<F, Fut>(announces: bool, seen: Seen, handle: F) -> (Service, Arc<AtomicUsize>)
where
    F: Fn(Socket) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let sockets = Arc::new(AtomicUsize::new(0));
    let counter = sockets.clone();
    let service = raw_service(move |tcp, _| {
        let (handle, seen, counter) = (handle.clone(), seen.clone(), counter.clone());
        let answer = service_fn(move |request: Request<Incoming>| {
            let (handle, seen, counter) = (handle.clone(), seen.clone(), counter.clone());
            async move { Ok::<_, Infallible>(answer_connect(request, seen, counter, handle)) }
        });
        async move {
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            if announces {
                server.enable_connect_protocol();
            }
            let _ = server.serve_connection(TokioIo::new(tcp), answer).await;
        }
    })
    .await;
    (service, sockets)
}

fn answer_connect<F, Fut>(
    request: Request<Incoming>,
    seen: Seen,
    sockets: Arc<AtomicUsize>,
    handle: F,
) -> Response<Body>
where
    F: FnOnce(Socket) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    assert_eq!(request.method(), Method::CONNECT);
    assert_eq!(request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
    assert_eq!(request.uri(), "http://a.example/chat?x=1");
    let headers = request.headers().clone();
    let _ = seen.send(headers.clone());
    let refusal = headers.get("refuse-with").and_then(|v| v.to_str().ok()?.parse::<u16>().ok());
    if let Some(status) = refusal {
        let answer = Response::builder().status(status).header("x-why", "no").body(full("long"));
        return answer.unwrap();
    }
    sockets.fetch_add(1, SeqCst);
    tokio::spawn(async move {
        handle(TokioIo::new(hyper::upgrade::on(request).await.unwrap())).await;
        sockets.fetch_sub(1, SeqCst);
    });
    let mut answer = Response::new(full(""));
    if let Some(offered) = headers.get("sec-websocket-protocol") {
        let last = offered.to_str().unwrap().rsplit(", ").next().unwrap().to_owned();
        answer.headers_mut().insert("sec-websocket-protocol", last.parse().unwrap());
    }
    answer
}

/// Echoes frames as they are until a close frame, which it answers.
async fn echo_frames(mut socket: Socket) {
    while let Some((frame, masked)) = read_frame(&mut socket).await {
        assert!(masked, "frames towards a server are masked");
        socket.write_all(&frame.bytes(None)).await.unwrap();
        if frame.tag == 0x88 {
            let _ = socket.shutdown().await;
            return;
        }
    }
}

/// An entry before an echo by HTTP/2.
async fn h2_world(settings: Settings) -> (Service, Arc<AtomicUsize>, Door) {
    let (seen, _) = mpsc::unbounded_channel();
    let (service, sockets) = h2_service(true, seen, echo_frames).await;
    let door = door("h2c", &service, settings).await;
    (service, sockets, door)
}

async fn echoes<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(socket: &mut T) {
    for one in [
        frame(0x81, "text"),
        frame(0x01, "frag"),
        frame(0x89, "ping between fragments"),
        frame(0x80, "mented"),
        frame(0x82, vec![11; 300_000]),
        frame(0x88, [0x0F, 0xA0, b'b', b'y', b'e']),
    ] {
        soon(send(socket, &one)).await;
        assert_eq!(receive(socket).await, Some(one));
    }
    assert_eq!(receive(socket).await, None);
}

#[tokio::test]
async fn either_entry_reaches_either_backend() {
    let agreed = "Sec-WebSocket-Protocol: v2\r\n";
    let offer = [("sec-websocket-protocol", "v1, v2")];
    let (seen, mut heads) = mpsc::unbounded_channel();
    let (announcing, sockets) = h2_service(true, seen, echo_frames).await;
    let plain = echo(agreed).await;
    for (service, scheme) in [(&plain, "http"), (&announcing, "h2c")] {
        let door = door(scheme, service, Settings::default()).await;
        let mut visitor = Visitor::new(door.address, true).await;
        let Connected { headers, mut socket } = connect(&mut visitor, &offer).await;
        assert_eq!(headers["sec-websocket-protocol"], "v2", "by HTTP/2 to {scheme}");
        assert!(!headers.contains_key("sec-websocket-accept"), "{headers:?}");
        echoes(&mut socket).await;
        let (mut tcp, head) = open(&door, "Sec-WebSocket-Protocol: v1, v2\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "by HTTP/1.1 to {scheme}: {head}");
        assert!(head.contains("sec-websocket-protocol: v2\r\n"), "{head}");
        echoes(&mut tcp).await;
    }
    for _ in 0..2 {
        let head = soon(heads.recv()).await.unwrap();
        assert_eq!(head["sec-websocket-version"], "13");
        assert!(!head.contains_key("sec-websocket-key"), "{head:?}");
    }
    until("the sockets of HTTP/2 are let go", || sockets.load(SeqCst) == 0).await;
    until("the sockets of HTTP/1.1 are let go", || plain.open.load(SeqCst) == 0).await;
    assert_eq!(announcing.connections.load(SeqCst), 1, "its sockets share a connection");
}

#[tokio::test]
async fn a_backend_without_extended_connect_gets_an_upgrade() {
    // One that speaks HTTP/2 on some connections and HTTP/1.1 on others, as servers do that
    // look at the first bytes.
    let service = raw_service(|mut tcp, _| async move {
        let mut first = [0; 3];
        while tcp.peek(&mut first).await.is_ok_and(|n| n > 0 && n < 3) {}
        if &first == b"PRI" {
            let refuse = service_fn(|_| async { Ok::<_, Infallible>(Response::new(full("h2"))) });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(tcp), refuse).await;
            return;
        }
        accept(&mut tcp, "").await;
        while let Some((frame, _)) = read_frame(&mut tcp).await {
            tcp.write_all(&frame.bytes(None)).await.unwrap();
            if frame.tag == 0x88 {
                return;
            }
        }
    })
    .await;
    let door = door("h2c", &service, Settings::default()).await;
    let mut visitor = Visitor::new(door.address, true).await;
    echoes(&mut connect(&mut visitor, &[]).await.socket).await;
    let (mut tcp, _) = open(&door, "").await;
    echoes(&mut tcp).await;
}

#[tokio::test]
async fn handshakes_that_are_none_are_statuses_and_the_connection_lives() {
    let (_service, _, door) = h2_world(Settings::default()).await;
    let mut visitor = Visitor::new(door.address, true).await;
    let mut plain = Request::connect("a.example:80").body(full("")).unwrap();
    *plain.version_mut() = http::Version::HTTP_2;
    for (request, status) in
        [(handshake("websocket", "8"), 400), (handshake("connect-udp", "13"), 501), (plain, 405)]
    {
        let answer = visitor.send(request).await;
        assert_eq!(answer.status().as_u16(), status);
        assert_eq!(answer.headers()["x-strait-error"], "bad_request");
        assert_eq!(status == 400, answer.headers().contains_key("sec-websocket-version"));
        let text = soon(answer.into_body().collect()).await.unwrap().to_bytes();
        assert!(text.starts_with(b"bad_request: "), "{text:?}");
    }
    echoes(&mut connect(&mut visitor, &[]).await.socket).await;
}

#[tokio::test]
async fn a_refusal_by_the_backend_passes_and_never_reads_as_consent() {
    let (_service, _, door) = h2_world(Settings::default()).await;
    let mut visitor = Visitor::new(door.address, true).await;
    let mut refused = handshake("websocket", "13");
    refused.headers_mut().insert("refuse-with", http::HeaderValue::from_static("403"));
    let answer = visitor.send(refused).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-why"]),
        (403, &"no".parse().unwrap())
    );
    assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "long");
    let (_tcp, head) = open(&door, "Refuse-With: 403\r\n").await;
    assert!(head.starts_with("HTTP/1.1 403 ") && head.contains("x-why: no\r\n"), "{head}");
    let (_tcp, head) = open(&door, "Refuse-With: 204\r\n").await;
    assert!(head.starts_with("HTTP/1.1 502 ") && head.contains("backend_invalid"), "{head}");
    // By HTTP/1.1 an ordinary 200 refuses; by HTTP/2 it would accept.
    let page = raw_service(|mut tcp, _| async move {
        read_until(&mut tcp, "\r\n\r\n").await;
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage";
        tcp.write_all(answer.as_bytes()).await.unwrap();
        let _ = tokio::io::AsyncReadExt::read(&mut tcp, &mut [0; 1]).await;
    })
    .await;
    let door = crate::world::door("http", &page, Settings::default()).await;
    let mut visitor = Visitor::new(door.address, true).await;
    let answer = visitor.send(handshake("websocket", "13")).await;
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.headers()["x-strait-error"], "backend_invalid");
}

#[tokio::test]
async fn a_side_that_vanishes_is_no_clean_close() {
    let (tx, mut rx) = mpsc::unbounded_channel();
    let (seen, _) = mpsc::unbounded_channel();
    let (service, sockets) = h2_service(true, seen, move |mut socket: Socket| {
        let tx = tx.clone();
        async move {
            // Until "leave" comes, or the visitor leaves.
            let next = read_frame(&mut socket).await;
            let _ = tx.send(next.map(|(frame, _)| frame));
        }
    })
    .await;
    let door = door("h2c", &service, Settings::default()).await;
    let mut visitor = Visitor::new(door.address, true).await;
    // Dropping both halves resets the stream; the connection has another.
    let one = connect(&mut visitor, &[]).await;
    let mut two = connect(&mut visitor, &[]).await.socket;
    drop(one);
    assert_eq!(soon(rx.recv()).await.unwrap(), None, "no close frame that nobody sent");
    until("the socket is let go", || sockets.load(SeqCst) == 1).await;
    send(&mut two, &frame(0x81, "leave")).await;
    assert_eq!(soon(rx.recv()).await.unwrap(), Some(frame(0x81, "leave")));
    assert_eq!(receive(&mut two).await, None, "no close frame that nobody sent");
    // The whole connection goes.
    let tcp = std::net::TcpStream::connect(door.address).unwrap();
    tcp.set_nonblocking(true).unwrap();
    let line = tcp.try_clone().unwrap();
    let mut visitor = h2_visitor(tokio::net::TcpStream::from_std(tcp).unwrap(), 1 << 20).await;
    let _three = connect(&mut visitor, &[]).await;
    line.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(soon(rx.recv()).await.unwrap(), None, "no close frame that nobody sent");
}

#[tokio::test]
async fn broken_frames_close_that_socket_with_the_right_code() {
    let settings = Settings { max_message: 1000, ..Settings::default() };
    let (_service, sockets, door) = h2_world(settings).await;
    let mut visitor = Visitor::new(door.address, true).await;
    let mut other = connect(&mut visitor, &[]).await.socket;
    for (bytes, code) in [
        (frame(0x81, "x").bytes(None), 1002),
        (frame(0x83, "").bytes(Some([1, 2, 3, 4])), 1002),
        (vec![0x82, 0xFF, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4], 1009),
    ] {
        let mut socket = connect(&mut visitor, &[]).await.socket;
        socket.write_all(&bytes).await.unwrap();
        let close = receive(&mut socket).await;
        assert_eq!(close, Some(frame(0x88, u16::to_be_bytes(code))), "{bytes:?}");
        assert_eq!(receive(&mut socket).await, None);
    }
    send(&mut other, &frame(0x81, "still here")).await;
    assert_eq!(receive(&mut other).await, Some(frame(0x81, "still here")));
    until("the broken sockets' backends are let go", || sockets.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn a_drain_tells_sockets_that_we_go_away() {
    let (_service, sockets, mut door) = h2_world(Settings::default()).await;
    let mut visitor = Visitor::new(door.address, true).await;
    let mut socket = connect(&mut visitor, &[]).await.socket;
    door.drain.cancel();
    assert_eq!(receive(&mut socket).await, Some(frame(0x88, [0x03, 0xE9])));
    drop(socket);
    soon(&mut door.served.0).await.unwrap();
    until("the backend is let go", || sockets.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn a_connection_with_a_silent_socket_is_not_idle() {
    let idle = Duration::from_millis(50);
    let settings = Settings { keep_alive_idle: idle, ..Settings::default() };
    let (_service, _, door) = h2_world(settings).await;
    let mut visitor = Visitor::new(door.address, true).await;
    let mut socket = connect(&mut visitor, &[]).await.socket;
    // An idle connection is told to go after this time and is ended two seconds later.
    tokio::time::sleep(idle * 4 + Duration::from_secs(2)).await;
    echoes(&mut socket).await;
    let Visitor::Http2(sender, _task) = visitor else { unreachable!() };
    until("an idle connection ends", || sender.is_closed()).await;
}

/// Answers each handshake with frames without end, and counts their bytes.
struct Flood(Arc<AtomicUsize>);

const PIECE: usize = 16 << 10;

impl Upstream for Flood {
    fn carry(&self, _: Exchange) -> Carried<'_> {
        let body = Box::new(Flood(self.0.clone()));
        let head =
            ResponseHead { status: StatusCode::SWITCHING_PROTOCOLS, headers: HeaderMap::new() };
        Box::pin(async move { Ok(Answer { head, body }) })
    }
}

impl strait_engine::Body for Flood {
    fn poll_part(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        self.0.fetch_add(PIECE, SeqCst);
        let start = Some(MessageStart { tag: 0x82, length: PIECE as u64 });
        let data = Data { bytes: Bytes::from(vec![0; PIECE]), start, ends_message: true };
        Poll::Ready(Some(Ok(Part::Data(data))))
    }
}

#[tokio::test]
async fn a_visitor_who_does_not_read_is_not_written_for() {
    let pulled = Arc::new(AtomicUsize::new(0));
    let door = door_to(Arc::new(Flood(pulled.clone())), Settings::default()).await;
    let tcp = tokio::net::TcpStream::connect(door.address).await.unwrap();
    const WINDOW: usize = 64 << 10;
    let mut visitor = h2_visitor(tcp, WINDOW as u32).await;
    let mut socket = connect(&mut visitor, &[]).await.socket;
    let frames = |pulled: usize| pulled / PIECE;
    until("the window is full", || pulled.load(SeqCst) >= WINDOW).await;
    // It stands still: whatever was pulled has been pulled.
    let mut last = 0;
    until("it stands still", || {
        std::thread::sleep(Duration::from_millis(50));
        std::mem::replace(&mut last, pulled.load(SeqCst)) == pulled.load(SeqCst)
    })
    .await;
    assert!(last <= WINDOW + 2 * PIECE, "{last} bytes for a visitor who reads nothing");
    // And goes on when it is read, in whole frames.
    for _ in 0..frames(last) + 100 {
        let Some(Frame { tag, payload }) = receive(&mut socket).await else { unreachable!() };
        assert_eq!((tag, payload.len()), (0x82, PIECE));
    }
}
