//! One write for the head of a request and the beginning of its body, by HTTP/2 to a backend.
//!
//! The HTTP library writes a head at once, and has another task send the body as soon as the
//! stream is open. So each call would be two writes, and a backend that is quick answers the head
//! alone, which makes two of its answer as well.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection by HTTP/2 on which a head that is not all of its request waits for one round of
/// the runtime's queue: whoever was woken together with it has its turn before.
pub(crate) struct Gather<T> {
    io: T,
    /// What is to be written next begins with a head that has waited.
    waited: bool,
}

impl<T> Gather<T> {
    /// Gathers what is written to `io`.
    pub(crate) fn new(io: T) -> Gather<T> {
        Gather { io, waited: false }
    }

    /// Whether `bytes`, which are to be written, wait.
    fn holds(&mut self, bytes: &[u8], cx: &Context<'_>) -> bool {
        let holds = !self.waited && is_open_head(bytes);
        if holds {
            self.waited = true;
            cx.waker().wake_by_ref();
        }
        holds
    }
}

/// Whether a HEADERS frame without END_STREAM begins here (RFC 9113 6.2).
fn is_open_head(bytes: &[u8]) -> bool {
    matches!(bytes, [_, _, _, 1, flags, ..] if flags & 1 == 0)
}

impl<T: AsyncRead + Unpin> AsyncRead for Gather<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gather<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.holds(buf, cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.first().is_some_and(|buf| self.holds(buf, cx)) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The library flushes when it has written all.
        self.waited = false;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn head(flags: u8) -> [u8; 10] {
        [0, 0, 1, 1, flags, 0, 0, 0, 1, 0x82]
    }

    #[tokio::test]
    async fn a_head_waits_once_for_its_body_and_nothing_else_waits() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Gather::new(near);
        let data = [0, 0, 1, 0, 0, 0, 0, 0, 1, 7];
        for (bytes, waits) in [(head(4), 1), (head(5), 0), (head(4), 1), (data, 0), (head(0), 1)] {
            for vectored in [false, true] {
                let mut polls = 0;
                let written = std::future::poll_fn(|cx| {
                    polls += 1;
                    match vectored {
                        true => {
                            Pin::new(&mut near).poll_write_vectored(cx, &[IoSlice::new(&bytes)])
                        }
                        false => Pin::new(&mut near).poll_write(cx, &bytes),
                    }
                });
                assert_eq!(written.await.unwrap(), bytes.len());
                near.flush().await.unwrap();
                assert_eq!(polls - 1, waits, "{bytes:?}");
                let mut came = [0; 10];
                far.read_exact(&mut came).await.unwrap();
                assert_eq!(came, bytes);
            }
        }
    }

    #[tokio::test]
    async fn what_was_written_in_part_does_not_wait_again() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut near = Gather::new(near);
        // The rest after the first four bytes looks like a head.
        let bytes = [0, 0, 9, 1, 4, 0, 0, 1, 0, 0, 0, 9];
        let (written, came) = tokio::join!(near.write_all(&bytes), async {
            let mut came = [0; 12];
            far.read_exact(&mut came).await.map(|_| came)
        });
        written.unwrap();
        assert_eq!(came.unwrap(), bytes);
        assert!(near.waited);
    }
}
