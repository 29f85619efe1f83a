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
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Visitors that read as fast as they can.
pub(crate) const DOWNLOADS: usize = 8;
/// Visitors that never read.
pub(crate) const STALLED: usize = 1;
/// What each of them asks for; then it asks again.
const PATH: &str = "/download?mb=1024";
/// How long a visitor waits after a failure.
const PAUSE: Duration = Duration::from_millis(250);

/// A running load; it ends when the last one who holds it lets go.
pub(crate) struct Load {
    began: Instant,
    bytes: Arc<AtomicU64>,
    _visitors: JoinSet<()>,
}

impl Load {
    /// Joins the load that is running against `entry`, or starts one with visitors that
    /// run `on` a thread of their own: two pages share it.
    pub(crate) fn join(running: &Mutex<Weak<Load>>, entry: SocketAddr, on: &Handle) -> Arc<Load> {
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(load) = running.upgrade() {
            return load;
        }
        let bytes = Arc::new(AtomicU64::new(0));
        let mut visitors = JoinSet::new();
        for _ in 0..DOWNLOADS {
            visitors.spawn_on(read_on(entry, Arc::clone(&bytes)), on);
        }
        for _ in 0..STALLED {
            visitors.spawn_on(never_read(entry), on);
        }
        let load = Arc::new(Load { began: Instant::now(), bytes, _visitors: visitors });
        *running = Arc::downgrade(&load);
        load
    }

    /// Bytes of body that have arrived at the visitors so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Time since the load began.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }
}

async fn read_on(entry: SocketAddr, bytes: Arc<AtomicU64>) {
    loop {
        // A cut download is not counted as anything but the bytes that came.
        if read_once(entry, &bytes).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn read_once(entry: SocketAddr, bytes: &AtomicU64) -> io::Result<()> {
    let mut body = open(entry).await?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        if let Some(data) = frame.data_ref() {
            bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
    }
    Ok(())
}

async fn never_read(entry: SocketAddr) {
    loop {
        if let Ok(_body) = open(entry).await {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn open(entry: SocketAddr) -> io::Result<Incoming> {
    let socket = TcpStream::connect(entry).await?;
    let (mut sender, connection) =
        handshake(TokioIo::new(socket)).await.map_err(io::Error::other)?;
    // Ends by itself when the body is dropped.
    tokio::spawn(connection);
    let request = Request::get(PATH).header(header::HOST, entry.to_string());
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
