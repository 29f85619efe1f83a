//! Bulk: visitors that download through the entry as fast as they can, and one that
//! opened a download and never reads.
//!
//! They run in this process and not in the browser, because a browser opens six
//! connections to one host and no more: eight downloads would hold up the page itself
//! before a byte of it reached the tunnel.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, header};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Visitors that read as fast as they can.
pub(crate) const DOWNLOADS: usize = 8;
/// Visitors that never read.
pub(crate) const STALLED: usize = 1;
/// What each of them asks for; then it asks again.
const READ: &str = "/download?mb=1024";
/// The same by another name, to be told apart among what is in flight.
const UNREAD: &str = "/download/unread?mb=1024";
/// How long a visitor waits after a failure.
const PAUSE: Duration = Duration::from_millis(250);

/// What all visitors of a load share.
#[derive(Default)]
struct Shared {
    /// Bytes of body that arrived.
    bytes: AtomicU64,
    /// Bits per second that they all take together; 0: whatever comes.
    pace: AtomicU64,
}

/// A running load; it ends when the last one who holds it lets go.
pub(crate) struct Load {
    began: Instant,
    shared: Arc<Shared>,
    _visitors: JoinSet<()>,
}

impl Load {
    /// Joins the load that is running against `entry`, or starts one with visitors that
    /// run `on` a thread of their own: two pages share it. All visitors together take
    /// `pace` bits per second from now on; 0: as much as they get.
    pub(crate) fn join(
        running: &Mutex<Weak<Load>>,
        entry: SocketAddr,
        on: &Handle,
        pace: u64,
    ) -> Arc<Load> {
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(load) = running.upgrade() {
            load.shared.pace.store(pace, Ordering::Relaxed);
            return load;
        }
        let shared = Arc::new(Shared { pace: AtomicU64::new(pace), ..Shared::default() });
        let mut visitors = JoinSet::new();
        for _ in 0..DOWNLOADS {
            visitors.spawn_on(read_on(entry, Arc::clone(&shared)), on);
        }
        for _ in 0..STALLED {
            visitors.spawn_on(never_read(entry), on);
        }
        let load = Arc::new(Load { began: Instant::now(), shared, _visitors: visitors });
        *running = Arc::downgrade(&load);
        load
    }

    /// Bytes of body that have arrived at the visitors so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Time since the load began.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }
}

async fn read_on(entry: SocketAddr, shared: Arc<Shared>) {
    loop {
        // A cut download is not counted as anything but the bytes that came.
        if read_once(entry, &shared).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn read_once(entry: SocketAddr, shared: &Shared) -> io::Result<()> {
    let mut body = open(entry, READ).await?;
    let mut due = Instant::now();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        if let Some(data) = frame.data_ref() {
            shared.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
            let pace = shared.pace.load(Ordering::Relaxed) / DOWNLOADS as u64;
            if pace > 0 {
                // What was missed is not caught up with: that would be a burst.
                let share = data.len() as f64 * 8.0 / pace as f64;
                due = due.max(Instant::now()) + Duration::from_secs_f64(share);
                tokio::time::sleep_until(due.into()).await;
            }
        }
    }
    Ok(())
}

async fn never_read(entry: SocketAddr) {
    loop {
        if let Ok(_body) = open(entry, UNREAD).await {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Opens a download of `path` and returns its body, unread.
///
/// # Errors
/// When it cannot be had, or is answered with anything but success.
pub(crate) async fn open(entry: SocketAddr, path: &str) -> io::Result<Incoming> {
    let socket = TcpStream::connect(entry).await?;
    // What one read may bring: a reader that keeps to a rate shall not get it in bursts.
    let mut client = Builder::new();
    client.max_buf_size(PIECE.len());
    let (mut sender, connection) =
        client.handshake(TokioIo::new(socket)).await.map_err(io::Error::other)?;
    // Ends by itself when the body is dropped.
    tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, entry.to_string());
    let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    if !answer.status().is_success() {
        return Err(io::Error::other(format!("the download was answered {}", answer.status())));
    }
    Ok(answer.into_body())
}

/// The body of a download: `left` bytes, made as they are asked for.
pub(crate) struct Bulk {
    left: u64,
}

static PIECE: [u8; 64 * 1024] = [b'~'; 64 * 1024];

impl Bulk {
    /// A body of `size` bytes.
    pub(crate) fn new(size: u64) -> Bulk {
        Bulk { left: size }
    }
}

impl http_body::Body for Bulk {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let size = self.left.min(PIECE.len() as u64);
        self.left -= size;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&PIECE[..size as usize])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
