//! What a short message waits for on a link that bulk keeps busy: what lies below the
//! scheduler, whatever else is under way.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use socket2::{Domain, SockRef, Socket, Type};
use strait_engine::{
    Answer, Body, BoxBody, Budget, Carried, Context, Data, EmptyBody, Exchange, Fault, News,
    Origin, Part, Protocol, RequestHead, ResponseHead, Session, Settings, Turns, Upstream, Workers,
    drive, next_part, serve,
};
use strait_wire::{Hello, RequestId, Side};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::{Gate, Refused, listen};
use super::dial::Dialer;
use super::{NOT_SENT, PACK, Received, SEND_BUFFER};
use crate::config::ServerUrl;

/// Bytes per second: few, so that a busy machine keeps up. What is judged is the bytes that
/// the link sends while a message waits, which are its delay times this rate.
const RATE: f64 = 0.5e6;
/// Bytes that the relay takes at once, and holds while it sends them.
const HELD: usize = 2 * 1024;
/// Bytes asked of the kernel for the relay's receive buffer; it makes them twice as many.
const BUFFER: usize = 8 * 1024;
/// Of the segments, as on most links. Those of loopback are larger than the buffer.
const SEGMENT: u32 = 1460;
/// How late the relay's sleep may be without costing rate.
const CATCH_UP: Duration = Duration::from_millis(3);
/// Requests that keep the link busy.
const BULK: usize = 6;
/// Short messages, one after the other.
const SHORT: usize = 20;
/// Bytes of heads, and what threads that are late count too much.
const TOLERANCE: usize = 8 * 1024;

/// What may lie below the scheduler is a promise of ARCHITECTURE.md.
const _: () = assert!(SEND_BUFFER + PACK + NOT_SENT as usize <= 48 * 1024);

/// A TCP relay to `target`, for one connection: towards the target it is a link of
/// [`RATE`]. Its threads end with the connection.
fn relay(target: SocketAddr, sent: Arc<AtomicU64>) -> (SocketAddr, usize) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Before it listens, so that the connection announces small windows from the start.
    socket.set_recv_buffer_size(BUFFER).unwrap();
    socket.set_tcp_mss(SEGMENT).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(1).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let held = HELD + SockRef::from(&listener).recv_buffer_size().unwrap();
    std::thread::spawn(move || {
        let (near, _) = listener.accept().unwrap();
        let far = TcpStream::connect(target).unwrap();
        far.set_nodelay(true).unwrap();
        near.set_nodelay(true).unwrap();
        let (from, to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        std::thread::spawn(move || carry(from, to, f64::INFINITY, &AtomicU64::new(0)));
        let _ = carry(near, far, RATE, &sent);
    });
    (address, held)
}

fn carry(mut from: TcpStream, mut to: TcpStream, rate: f64, sent: &AtomicU64) -> io::Result<()> {
    let mut piece = [0; HELD];
    let mut free = Instant::now();
    loop {
        let count = from.read(&mut piece)?;
        if count == 0 {
            return to.shutdown(std::net::Shutdown::Write);
        }
        let now = Instant::now();
        free = free.max(now - CATCH_UP) + Duration::from_secs_f64(count as f64 / rate);
        std::thread::sleep(free.saturating_duration_since(now));
        to.write_all(&piece[..count])?;
        sent.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// A body without end.
struct Endless(Bytes);

impl Body for Endless {
    fn poll_part(&mut self, _: &mut TaskContext<'_>) -> Poll<Option<Result<Part, Fault>>> {
        Poll::Ready(Some(Ok(Part::Data(Data::plain(self.0.clone())))))
    }
}

/// Bytes, up to some moment: what the link has sent, and what has come of bulk.
#[derive(Clone, Copy)]
struct Passed(u64, u64);

/// Counts bytes, and tells how many had passed when a short message came.
struct Sink {
    sent: Arc<AtomicU64>,
    bulk: AtomicU64,
    arrived: mpsc::UnboundedSender<Passed>,
}

impl Sink {
    fn passed(&self) -> Passed {
        Passed(self.sent.load(Ordering::Relaxed), self.bulk.load(Ordering::Relaxed))
    }
}

impl Passed {
    /// What went ahead of a message that was ready `before`. Each count has too much when a
    /// thread is late, and not the same.
    fn since(self, before: Passed) -> u64 {
        (self.0 - before.0).min(self.1 - before.1)
    }
}

impl Upstream for Sink {
    fn carry(&self, mut exchange: Exchange) -> Carried<'_> {
        let passed = self.passed();
        Box::pin(async move {
            if &exchange.head.path[..] == b"/short" {
                let _ = self.arrived.send(passed);
            }
            while let Some(part) = next_part(&mut exchange.body).await {
                if let Part::Data(data) = part? {
                    self.bulk.fetch_add(data.bytes.len() as u64, Ordering::Relaxed);
                }
            }
            let head = ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() };
            Ok(Answer { head, body: Box::new(EmptyBody) })
        })
    }
}

fn session(name: &str, side: Side) -> Session {
    let (budget, turns) = (Budget::new(64 << 20), Turns::start(&Handle::current()));
    Session::new(name.into(), side, Settings::default(), budget, Hello::default(), turns)
}

/// Lets everybody in and answers with the sink.
struct Open(Arc<Sink>);

impl Gate for Open {
    fn tls(&self) -> Option<Arc<rustls::ServerConfig>> {
        None
    }

    fn admit(&self, _: Option<&HeaderValue>, _: SocketAddr) -> Result<Session, Refused> {
        Ok(session("dialler", Side::Listener))
    }

    fn attach(&self, session: Session, incoming: Received, _: SocketAddr) {
        let sink = Arc::clone(&self.0);
        tokio::spawn(serve(session.clone(), sink, TaskTracker::new()));
        tokio::spawn(async move { drive(&session, incoming).await });
    }
}

fn request(path: &'static str, body: BoxBody) -> Exchange {
    let head = RequestHead {
        method: Method::POST,
        scheme: Scheme::HTTP,
        authority: Bytes::from_static(b"test"),
        path: Bytes::from_static(path.as_bytes()),
        headers: HeaderMap::new(),
    };
    let context =
        Context::new(RequestId::new(), Protocol::Http, Origin::Entry("test".into()), None);
    Exchange { head: Arc::new(head), context, body }
}

/// A session through the relay to `sink`, and what the relay may hold in bytes.
async fn connect(sink: Arc<Sink>, stop: CancellationToken) -> (Session, usize) {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, held) = relay(listener.local_addr().unwrap(), Arc::clone(&sink.sent));
    tokio::spawn(listen(listener, Arc::new(Open(sink)), Workers::start(1).unwrap().0, stop));
    let (host, port) = (address.ip().to_string(), address.port());
    let server = ServerUrl { tls: false, host, port };
    let session = session("listener", Side::Dialer);
    let incoming = Dialer { server, tls: None, credential: None }.dial(&session).await.unwrap();
    let driven = session.clone();
    tokio::spawn(async move { drive(&driven, incoming).await });
    while !matches!(session.news().await.unwrap(), News::Ready(_)) {}
    (session, held)
}

#[tokio::test]
async fn a_short_message_waits_for_what_lies_below_the_scheduler_and_no_more() {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let sink = Arc::new(Sink { sent: Arc::default(), bulk: AtomicU64::new(0), arrived });
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let (session, held) = connect(Arc::clone(&sink), stop).await;
    for _ in 0..BULK {
        let session = session.clone();
        let body = Endless(Bytes::from(vec![b'~'; 64 * 1024]));
        tokio::spawn(
            async move { session.carry(request("/bulk", Box::new(body))).await.map(drop) },
        );
    }
    // Until all buffers are full and no bulk request is new.
    sleep(Duration::from_secs(1)).await;
    let (began, first) = (Instant::now(), sink.passed());
    let mut ahead = Vec::new();
    for i in 0..SHORT {
        sleep(Duration::from_millis(5 + i as u64 % 7)).await;
        let before = sink.passed();
        let answer = session.carry(request("/short", Box::new(EmptyBody)));
        timeout(Duration::from_secs(10), answer).await.unwrap().map(drop).ok().unwrap();
        ahead.push(arrivals.recv().await.unwrap().since(before));
    }
    let rate = sink.passed().since(first) as f64 / began.elapsed().as_secs_f64();
    assert!(rate > RATE / 8.0, "the link was not busy: {rate:.0} bytes per second");
    // Each stage asks for more until it is full, and takes what it gets whole: a pack one
    // piece more than it has room for, and so does the socket. No other new request is
    // ahead, and the relay is next door: half a round trip is nothing.
    let piece = Settings::default().piece as usize;
    let most = (SEND_BUFFER + PACK + NOT_SENT as usize + held + 2 * piece + TOLERANCE) as u64;
    ahead.sort_unstable();
    // All of them on a machine with nothing else to do.
    let found = ahead[SHORT * 3 / 4];
    let time = |bytes: u64| Duration::from_secs_f64(bytes as f64 / RATE);
    println!("{found} bytes ahead, {:?}; at most {most}, {:?}", time(found), time(most));
    assert!(found <= most, "{found} bytes went ahead, not {most}: {ahead:?}");
}
