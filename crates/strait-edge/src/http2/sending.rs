//! The body of a request on its way to a service, or of an answer to a visitor.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::SendStream;
use http_body::Body as _;

use crate::http::outgoing::Outgoing;
use crate::http::upload::Upload;

/// A body that is sent on its stream.
pub(crate) struct Sending {
    stream: SendStream<Bytes>,
    body: Outgoing,
    /// The head was handed over just now. There is room only once it is written, and what there is
    /// of the body goes with it.
    with_head: bool,
}

impl Sending {
    /// Of a request.
    pub(crate) fn request(stream: SendStream<Bytes>, body: Outgoing) -> Sending {
        Sending { stream, body, with_head: true }
    }

    /// Of an answer: there is room at once if the visitor has some.
    pub(crate) fn answer(stream: SendStream<Bytes>, body: Outgoing) -> Sending {
        Sending { stream, body, with_head: false }
    }

    /// Sends on. Ready when there is nothing more to do: all of it is handed over, it was cut, or
    /// the other side takes no more; of a request, what that means is for whoever hears the answer.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // Else nothing is taken before there is room for it.
            let with_head = std::mem::take(&mut self.with_head);
            if !with_head && !ready!(poll_room(&mut self.stream, 1, cx)) {
                return Poll::Ready(());
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                // The task is woken when the stream is reset meanwhile.
                return self.stream.poll_reset(cx).map(|_| ());
            };
            let sent = match frame {
                None => self.stream.send_data(Bytes::new(), true).map(|()| true),
                Some(Err(cut)) => {
                    self.stream.send_reset(cut.code());
                    return Poll::Ready(());
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let ends = self.body.is_end_stream();
                        self.stream.send_data(data, ends).map(|()| ends)
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        self.stream.send_trailers(trailers).map(|()| true)
                    }
                },
            };
            if sent.unwrap_or(true) {
                return Poll::Ready(());
            }
        }
    }

    /// Sends the rest in a task of its own, until nobody wants it.
    pub(crate) async fn rest(mut self, upload: Arc<Upload>) {
        poll_fn(|cx| {
            if upload.is_aborted(cx) {
                // It tells its source. The stream is reset when the last handle to it is dropped.
                let noop = &mut Context::from_waker(Waker::noop());
                let _ = Pin::new(&mut self.body).poll_frame(noop);
                return Poll::Ready(());
            }
            self.poll(cx)
        })
        .await;
    }
}

/// Waits until some of `bytes` may be sent on `stream`; `false` when nothing may any more.
pub(crate) fn poll_room(
    stream: &mut SendStream<Bytes>,
    bytes: usize,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    if stream.capacity() > 0 {
        return Poll::Ready(stream.poll_reset(cx).is_pending());
    }
    stream.reserve_capacity(bytes);
    loop {
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(0)) => {}
            Some(Ok(_)) => return Poll::Ready(true),
            Some(Err(_)) | None => return Poll::Ready(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::io;
    use std::sync::{Mutex, PoisonError};

    use http::Request;
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::*;

    /// A service that says nothing, and what is written to it, write by write.
    #[derive(Clone, Default)]
    struct Silent(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Silent {
        /// The types of the frames of each write (RFC 9113 4.1).
        fn frames(&self) -> Vec<Vec<u8>> {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let frames = |write: &Vec<u8>| {
                let (mut rest, mut kinds) = (&write[..], Vec::new());
                while let [a, b, c, kind, _, _, _, _, _, more @ ..] = rest {
                    kinds.push(*kind);
                    rest = &more[u32::from_be_bytes([0, *a, *b, *c]) as usize..];
                }
                kinds
            };
            all.iter().filter(|write| !write.starts_with(b"PRI")).map(frames).collect()
        }
    }

    impl AsyncRead for Silent {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Silent {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buf.to_vec());
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_head_and_the_body_that_is_there_are_one_write() {
        let silent = Silent::default();
        let (mut sender, connection) = h2::client::handshake(silent.clone()).await.unwrap();
        let mut connection = std::pin::pin!(connection);
        let mut cx = Context::from_waker(Waker::noop());
        // The connection's own first words.
        assert!(connection.as_mut().poll(&mut cx).is_pending());
        let before = silent.frames().len();
        let mut unanswered = Vec::new();
        for turn in 1..4 {
            let request = Request::get("http://a.example/").body(()).unwrap();
            let (response, stream) = sender.send_request(request, false).unwrap();
            let mut sending = Sending::request(stream, Outgoing::full("all of it"));
            assert!(sending.poll(&mut cx).is_ready());
            assert!(connection.as_mut().poll(&mut cx).is_pending());
            // HEADERS and DATA.
            assert_eq!(silent.frames()[before..], vec![vec![1, 0]; turn]);
            // Dropped, it would be reset.
            unanswered.push(response);
        }
    }
}
