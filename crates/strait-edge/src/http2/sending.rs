//! The body of a request on its way to a service.

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
}

impl Sending {
    pub(crate) fn new(stream: SendStream<Bytes>, body: Outgoing) -> Sending {
        Sending { stream, body }
    }

    /// Sends on. Ready when there is nothing more to do: all of it is handed over, it was cut, or
    /// the service takes no more; what that means is for whoever hears the answer.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // Nothing is taken before there is room for it.
            if !ready!(poll_room(&mut self.stream, 1, cx)) {
                return Poll::Ready(());
            }
            let sent = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
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
        // The task is woken when the stream is reset even while it waits for something else.
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
