//! The byte streams that entries accept and backends dial.

use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;

use crate::activity::Activity;
use crate::allowance::Allowance;
use crate::half_close::{self, HalfClose, Next};
use crate::http2::socket::Socket;

/// How long a connection that is closed before its request was read whole is kept
/// reading. Closing at once would make the kernel send a reset, which can destroy the
/// answer on its way to the visitor.
const LINGER: Duration = Duration::from_secs(2);

/// How often a visitor is looked for whose bytes nobody reads.
const LOOK: Duration = Duration::from_millis(250);

/// What carries the bytes.
pub(crate) enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<tokio_rustls::TlsStream<TcpStream>>),
    /// One stream of an HTTP/2 connection, of an extended CONNECT (RFC 8441 5).
    Http2(Box<Socket>),
}

impl Stream {
    /// The socket of the kernel's underneath, if it has one to itself.
    fn socket(&self) -> Option<SockRef<'_>> {
        match self {
            Stream::Tcp(tcp) => Some(SockRef::from(tcp)),
            Stream::Tls(tls) => Some(SockRef::from(tls.get_ref().0)),
            Stream::Unix(unix) => Some(SockRef::from(unix)),
            Stream::Http2(_) => None,
        }
    }
}

macro_rules! each {
    ($self:expr, $io:ident => $body:expr) => {
        match $self {
            Stream::Tcp($io) => $body,
            Stream::Unix($io) => $body,
            Stream::Tls($io) => $body,
            Stream::Http2($io) => $body,
        }
    };
}

/// A connection, with bytes that were read ahead.
pub(crate) struct Conn {
    stream: Stream,
    replay: Bytes,
    /// The visitor's end was read.
    ended: bool,
    activity: Option<Arc<Activity>>,
    allowance: Option<Box<Allowance>>,
    half_close: Option<Box<HalfClose>>,
    /// Whoever writes holds bytes that there was no room for.
    unwritten: bool,
    /// Somebody waits for what comes, and so for the visitor's end.
    reads: bool,
    look: Option<Pin<Box<Sleep>>>,
    linger: Option<Pin<Box<Sleep>>>,
}

impl Conn {
    /// A connection whose next bytes are `replay`.
    pub(crate) fn new(stream: Stream, replay: Bytes) -> Conn {
        Conn {
            stream,
            replay,
            ended: false,
            activity: None,
            allowance: None,
            half_close: None,
            unwritten: false,
            reads: false,
            look: None,
            linger: None,
        }
    }

    /// The same connection, which reports to `activity`.
    pub(crate) fn watched(mut self, activity: Arc<Activity>) -> Conn {
        self.activity = Some(activity);
        self
    }

    /// The same connection, whose frames of HTTP/2 are counted.
    pub(crate) fn counted(mut self, allowance: Allowance) -> Conn {
        self.allowance = Some(Box::new(allowance));
        self
    }

    /// The same connection, whose next bytes are `bytes`.
    pub(crate) fn unread(mut self, bytes: Bytes) -> Conn {
        self.replay = bytes;
        self
    }

    /// Whether it is a connection of TLS.
    pub(crate) fn is_secure(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Whoever waits for what comes may stop at any time, so a visitor who leaves is looked for.
    pub(crate) fn unattended(&mut self) {
        self.reads = false;
    }

    fn writes(&mut self) {
        self.unwritten = true;
        if let Some(activity) = &self.activity {
            activity.write();
        }
    }

    /// The same connection, which no longer reports.
    pub(crate) fn unwatched(mut self) -> Conn {
        self.activity = None;
        self
    }

    /// A stream that an extended CONNECT has opened.
    pub(crate) fn connected(socket: Socket) -> Conn {
        Conn::new(Stream::Http2(Box::new(socket)), Bytes::new())
    }

    /// The host that a visitor asked for in its TLS handshake (RFC 6066 3).
    pub(crate) fn server_name(&self) -> Option<String> {
        match &self.stream {
            Stream::Tls(tls) => match &**tls {
                tokio_rustls::TlsStream::Server(tls) => tls.get_ref().1.server_name(),
                tokio_rustls::TlsStream::Client(_) => None,
            },
            Stream::Tcp(_) | Stream::Unix(_) | Stream::Http2(_) => None,
        }
        .map(str::to_owned)
    }

    /// Whether nothing has come that is not read yet, and no end. It asks the kernel, who may know
    /// more than its last report.
    pub(crate) fn is_silent(&self) -> bool {
        let peek = |socket: SockRef<'_>| socket.peek(&mut [MaybeUninit::uninit()]);
        let peeked = self.stream.socket().map(peek);
        peeked.is_none_or(|peeked| peeked.is_err_and(|e| e.kind() == ErrorKind::WouldBlock))
    }

    /// The TCP socket underneath, if there is one.
    fn tcp(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Tcp(tcp) => Some(tcp),
            Stream::Tls(tls) => Some(tls.get_ref().0),
            Stream::Unix(_) | Stream::Http2(_) => None,
        }
    }

    fn is_http1(&self) -> bool {
        self.allowance.is_none()
    }

    /// The visitor has shut its side: ready when whoever reads shall know.
    fn poll_half_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(activity) = self.activity.as_ref().filter(|_| self.is_http1()) else {
            return Poll::Ready(Ok(()));
        };
        // An answer is over when all of it is written.
        let busy = activity.is_busy() || self.unwritten;
        if !busy && self.half_close.is_none() {
            return Poll::Ready(Ok(()));
        }
        let half_close = self.half_close.get_or_insert_with(|| Box::new(HalfClose::new(activity)));
        loop {
            let next = ready!(half_close.poll(activity, busy, cx));
            was_reset(&self.stream)?;
            match next {
                Next::Look => {}
                Next::End => return Poll::Ready(Ok(())),
                Next::Ask => {
                    let stream = &mut self.stream;
                    let interim = half_close::INTERIM;
                    let wrote = each!(stream, io => Pin::new(io).poll_write(cx, interim));
                    if !half_close::is_whole(&wrote) {
                        return Poll::Ready(Ok(()));
                    }
                    let _ = each!(stream, io => Pin::new(io).poll_flush(cx))?;
                }
            }
        }
    }

    /// Fails when a visitor by HTTP/1 has gone while nobody reads what it sends: its upload is
    /// not wanted at the moment, so that nothing else would tell.
    fn look(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let reads = std::mem::take(&mut self.reads);
        // On HTTP/2 the library always reads.
        let watched = self.activity.as_ref().filter(|a| !reads && self.is_http1() && a.is_busy());
        let Some(awaits) = watched.map(|a| a.awaits_continue()) else { return Ok(()) };
        if awaits && (self.half_close.is_some() || self.is_shut(cx)?) {
            return match self.poll_half_close(cx) {
                Poll::Ready(result) => result,
                Poll::Pending => Ok(()),
            };
        }
        if self.half_close.is_some() {
            return Ok(());
        }
        let look = self.look.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK)));
        while look.as_mut().poll(cx).is_ready() {
            was_reset(&self.stream)?;
            look.as_mut().reset(tokio::time::Instant::now() + LOOK);
        }
        Ok(())
    }

    /// Whether a visitor who has sent nothing after its request's head has shut its side. Under
    /// TLS that is told only to whoever reads.
    fn is_shut(&self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        match &self.stream {
            Stream::Tcp(tcp) => match tcp.poll_peek(cx, &mut byte) {
                Poll::Ready(length) => Ok(length? == 0),
                Poll::Pending => Ok(false),
            },
            Stream::Unix(_) | Stream::Tls(_) | Stream::Http2(_) => Ok(false),
        }
    }

    /// Reads on after the write side was shut, until the visitor has seen it.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut scratch = [0; 4096];
        // Bounded per poll, so that a fast sender cannot hold the thread.
        for _ in 0..64 {
            if sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut buf = ReadBuf::new(&mut scratch);
            match each!(&mut self.stream, io => Pin::new(io).poll_read(cx, &mut buf)) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The error that a socket has, if it has one: of a reset, mostly.
fn was_reset(stream: &Stream) -> io::Result<()> {
    // A reset of a stream of HTTP/2 is read as an error, and its connection is watched elsewhere.
    let Some(socket) = stream.socket() else { return Ok(()) };
    socket.take_error()?.map_or(Ok(()), Err)
}

impl Drop for Conn {
    fn drop(&mut self) {
        // An HTTP/1.0 answer without a length ends with the connection: only a reset
        // lets the visitor tell a cut from the end.
        if self.activity.as_ref().is_some_and(|a| a.must_reset())
            && let Some(tcp) = self.tcp()
        {
            let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if !this.replay.is_empty() {
            let n = this.replay.len().min(buf.remaining());
            buf.put_slice(&this.replay[..n]);
            this.replay.advance(n);
            if this.replay.is_empty() {
                this.replay = Bytes::new();
            }
        } else {
            if this.half_close.is_some() {
                return this.poll_half_close(cx);
            }
            let read = each!(&mut this.stream, io => Pin::new(io).poll_read(cx, buf));
            this.reads = read.is_pending();
            let read = ready!(read);
            if read.is_ok() && buf.filled().len() == before && this.activity.is_some() {
                ready!(this.poll_half_close(cx))?;
                this.ended = true;
            }
            if read.is_err() || buf.filled().len() == before {
                return Poll::Ready(read);
            }
        }
        if let Some(activity) = &this.activity {
            activity.bytes_came();
        }
        Poll::Ready(match &mut this.allowance {
            Some(allowance) => allowance.read(&buf.filled()[before..], Instant::now()),
            None => Ok(()),
        })
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes();
        each!(&mut self.stream, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes();
        each!(&mut self.stream, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(&self.stream, io => io.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Who flushes has written all.
        self.unwritten = false;
        self.look(cx)?;
        each!(&mut self.stream, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ended && this.activity.is_some() && matches!(this.stream, Stream::Tcp(_)) {
            // It is let go of next, and closing says the same: nothing is left unread
            // that would make a reset of it.
            return Poll::Ready(Ok(()));
        }
        if this.linger.is_none() {
            ready!(each!(&mut this.stream, io => Pin::new(io).poll_shutdown(cx)))?;
        }
        if this.activity.as_ref().is_some_and(|a| a.must_linger()) {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
