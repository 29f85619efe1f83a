//! What runs beside the small requests: downloads, readers that never read, and
//! WebSockets that say nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::backend::{BULK, SOCKET};
use super::units::Rate;
use crate::demo::load::open;

/// How far behind its rate a reader may fall and still catch up: more than a timer is
/// late, less than what anybody would call a burst.
const CATCH_UP: Duration = Duration::from_millis(20);
/// How long a reader waits after a failure.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the answer to one handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Handshakes that are on their way at once.
const AT_ONCE: usize = 32;

/// The load beside the small requests; dropping it ends it.
pub(crate) struct Bulk {
    bytes: Arc<AtomicU64>,
    failures: Arc<AtomicU64>,
    _idle: Vec<TcpStream>,
    _tasks: JoinSet<()>,
}

/// How many of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) downloads: usize,
    /// Of one download; `None`: as fast as it goes.
    pub(crate) rate: Option<Rate>,
    pub(crate) stalled: usize,
    pub(crate) websockets: usize,
}

impl Bulk {
    /// Starts a load against `entry`, its readers on `runtime`.
    ///
    /// # Errors
    /// When a WebSocket is refused.
    pub(crate) async fn start(
        entry: SocketAddr,
        runtime: &Handle,
        sizes: Sizes,
    ) -> io::Result<Bulk> {
        let idle = websockets(entry, sizes.websockets).await?;
        let (bytes, failures) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let mut tasks = JoinSet::new();
        for _ in 0..sizes.downloads {
            let (bytes, failures) = (Arc::clone(&bytes), Arc::clone(&failures));
            let rate = sizes.rate;
            let reader = async move {
                loop {
                    if read(entry, rate, &bytes).await.is_err() {
                        failures.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            };
            tasks.spawn_on(reader, runtime);
        }
        for _ in 0..sizes.stalled {
            let failures = Arc::clone(&failures);
            let reader = async move {
                loop {
                    if let Ok(_unread) = open(entry, BULK).await {
                        std::future::pending::<()>().await;
                    }
                    failures.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
            };
            tasks.spawn_on(reader, runtime);
        }
        Ok(Bulk { bytes, failures, _idle: idle, _tasks: tasks })
    }

    /// Bytes of body that all downloads together have received.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Downloads that were refused or cut.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

async fn read(entry: SocketAddr, rate: Option<Rate>, bytes: &AtomicU64) -> io::Result<()> {
    let mut body = open(entry, BULK).await?;
    let mut due = Instant::now();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        let Some(data) = frame.data_ref() else { continue };
        bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        let Some(Rate(rate)) = rate else { continue };
        due += Duration::from_secs_f64(data.len() as f64 / rate);
        let now = Instant::now();
        due = due.max(now.checked_sub(CATCH_UP).unwrap_or(now));
        if due > now {
            tokio::time::sleep_until(due.into()).await;
        }
    }
    Ok(())
}

async fn websockets(entry: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    let (mut sockets, mut opening, mut begun) = (Vec::new(), JoinSet::new(), 0);
    while sockets.len() < count {
        while begun < count && opening.len() < AT_ONCE {
            opening.spawn(tokio::time::timeout(PATIENCE, websocket(entry)));
            begun += 1;
        }
        let Some(opened) = opening.join_next().await else { break };
        let opened = opened.map_err(io::Error::other)?;
        let socket = opened.unwrap_or_else(|_| Err(io::Error::other("no answer in time")));
        sockets.push(socket.map_err(|error| {
            let open = sockets.len();
            io::Error::other(format!(
                "only {open} of {count} idle WebSockets could be opened: {error}; ask for \
                 fewer, or allow more open files (ulimit -n)"
            ))
        })?);
    }
    Ok(sockets)
}

/// A WebSocket that is open and says nothing. It needs no more than its handshake.
async fn websocket(entry: SocketAddr) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(entry).await?;
    let request = format!(
        "GET {SOCKET} HTTP/1.1\r\nHost: {entry}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    while !answer.ends_with(b"\r\n\r\n") && answer.len() < 16 * 1024 {
        answer.push(socket.read_u8().await?);
    }
    if !answer.starts_with(b"HTTP/1.1 101 ") {
        let first: String = String::from_utf8_lossy(&answer).lines().take(1).collect();
        return Err(io::Error::other(format!("the handshake was answered {first:?}")));
    }
    Ok(socket)
}
