//! The transport of a tunnel: one gRPC call over one HTTP/2 connection.
//!
//! The call's body pulls its frames from the session, so there is no queue between the
//! scheduler and HTTP/2, and what lies below is kept small: a buffer that the scheduler
//! cannot reorder is delay for everybody.

pub(crate) mod accept;
#[cfg(test)]
mod delay;
pub(crate) mod dial;
mod stranger;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use socket2::SockRef;
use strait_engine::{Fatal, Incoming, LinkError, Refusal, Session, Share, Turns};
use strait_wire::{Frame, codec};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream::Stream;
use tonic::{Code, Status, Streaming};

/// The one method of the service `strait.v1.Tunnel`.
pub(crate) const PATH: &str = "/strait.v1.Tunnel/Proxy";

/// HTTP/2 flow control shall never be what stops a tunnel: the reader always drains, and
/// credit bounds what can be sent. h2 also ends connections whose window is small when
/// many small frames wait unread.
pub(crate) const WINDOW: u32 = 16 * 1024 * 1024;

/// Largest HTTP/2 frame: one write each, so bulk wants it large.
pub(crate) const FRAME: u32 = 64 * 1024;

/// Bytes that HTTP/2 may hold back for writing.
pub(crate) const SEND_BUFFER: usize = 16 * 1024;

/// Bytes that the encoder packs into one HTTP/2 write.
const PACK: usize = 16 * 1024;

/// Bytes of a message around its piece, most of the time.
const HEAD: usize = 256;

/// Bytes in the socket that the kernel has not sent: beyond this it reports "full".
const NOT_SENT: u32 = 16 * 1024;

/// Unacknowledged data for so long means that the path is dead.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Sets up a tunnel's socket. None of the options is essential.
pub(crate) fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let outcomes = [
        socket.set_tcp_nodelay(true),
        socket.set_tcp_notsent_lowat(NOT_SENT),
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT)),
    ];
    for error in outcomes.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "a socket option is not available");
    }
}

/// A connection that hands out its bytes in shares: what HTTP/2 reads in one go keeps every
/// other task of its thread waiting.
pub(crate) struct Shared<T> {
    io: T,
    share: Share,
}

impl<T> Shared<T> {
    pub(crate) fn new(io: T) -> Shared<T> {
        Shared { io, share: Share::of_tunnel() }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Shared<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.share.poll_turn(&Turns::NONE, cx));
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        match read {
            Poll::Ready(_) => self.share.spend(buf.filled().len() - before),
            Poll::Pending => self.share.rest(),
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Shared<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Frames as gRPC messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FrameCodec;

impl Codec for FrameCodec {
    type Encode = Frame;
    type Decode = Frame;
    type Encoder = FrameCodec;
    type Decoder = FrameCodec;

    fn encoder(&mut self) -> FrameCodec {
        FrameCodec
    }

    fn decoder(&mut self) -> FrameCodec {
        FrameCodec
    }
}

impl Encoder for FrameCodec {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // At once what a piece and its head take, lest the buffer grows by copying.
        out.reserve(frame.weight() + HEAD);
        codec::encode(frame, out);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(PACK, PACK)
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Frame>, Status> {
        debug_assert!(input.remaining() <= codec::MAX_MESSAGE);
        codec::decode(input).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

/// The frames that a session sends, pulled by the call's body.
pub(crate) struct Outgoing(pub(crate) Session);

impl Outgoing {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        self.0.poll_frame(cx)
    }
}

impl Stream for Outgoing {
    type Item = Frame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        self.poll(cx)
    }
}

/// The same, as a server's answer wants it: an error becomes the call's status.
pub(crate) struct OutgoingAnswer {
    frames: Outgoing,
    over: bool,
}

impl OutgoingAnswer {
    pub(crate) fn new(session: Session) -> OutgoingAnswer {
        OutgoingAnswer { frames: Outgoing(session), over: false }
    }

    /// The end of the answer: the call's status tells why this side ended the session.
    fn last(&mut self) -> Option<Result<Frame, Status>> {
        if std::mem::replace(&mut self.over, true) {
            return None;
        }
        let refusal = self.frames.0.refusal()?;
        let text = refusal.to_string();
        Some(Err(match refusal {
            Refusal::Protocol(Fatal::NoHello) => Status::unauthenticated(text),
            Refusal::Protocol(Fatal::SecondHello | Fatal::Version { .. }) => {
                Status::failed_precondition(text)
            }
            Refusal::Protocol(Fatal::NotReading) | Refusal::TooLarge(_) => {
                Status::resource_exhausted(text)
            }
            Refusal::Protocol(Fatal::Violations(_) | Fatal::PingTimeout)
            | Refusal::Malformed(_) => Status::internal(text),
        }))
    }
}

impl Stream for OutgoingAnswer {
    type Item = Result<Frame, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, Status>>> {
        self.frames.poll(cx).map(|frame| match frame {
            Some(frame) => Some(Ok(frame)),
            None => self.last(),
        })
    }
}

/// The frames that a session receives.
pub(crate) struct Received(pub(crate) Streaming<Frame>);

impl Incoming for Received {
    async fn next(&mut self) -> Result<Option<Frame>, LinkError> {
        self.0.message().await.map_err(|status| {
            let text = status.message().to_owned();
            match status.code() {
                _ if is_broken(&status) => LinkError::Broken(describe(&status)),
                // What tonic says of a message over the limit, and we of one we cannot read.
                Code::OutOfRange => LinkError::Unreadable(Refusal::TooLarge(text)),
                Code::Internal => LinkError::Unreadable(Refusal::Malformed(text)),
                _ => LinkError::Broken(describe(&status)),
            }
        })
    }
}

/// A gRPC status for a log line: its code and message, or the deepest cause when it stands
/// for a broken connection.
pub(crate) fn describe(status: &Status) -> String {
    use std::error::Error as _;
    let mut deepest = status.source();
    while let Some(deeper) = deepest.and_then(|error| error.source()) {
        deepest = Some(deeper);
    }
    match deepest {
        None => format!("{:?}: {}", status.code(), status.message()),
        Some(cause) => {
            // Libraries append addresses of their manuals, which help nobody here.
            let cause = cause.to_string();
            cause.split(": https://").next().unwrap_or_default().to_owned()
        }
    }
}

/// Whether a status stands for a broken connection rather than for the peer's word.
pub(crate) fn is_broken(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}
