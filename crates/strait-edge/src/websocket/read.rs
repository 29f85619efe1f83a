//! The direction from a socket into an exchange.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use strait_engine::{Body, Fault, Part, Reason};
use tokio::sync::oneshot;

use crate::half::{Half, poll_read_into};
use crate::websocket::frame::Cutter;

/// What the two directions of a socket tell each other.
#[derive(Default)]
pub(crate) struct Link(Mutex<LinkState>);

#[derive(Default)]
struct LinkState {
    /// Why reading ended, if not by a close frame.
    fault: Option<Fault>,
    /// The other direction has written a close frame.
    closed: bool,
    waker: Option<Waker>,
}

impl Link {
    fn set(&self, change: impl FnOnce(&mut LinkState)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll<T>(&self, cx: &Context<'_>, get: impl FnOnce(&LinkState) -> Option<T>) -> Poll<T> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match get(&state) {
            Some(value) => Poll::Ready(value),
            None => {
                if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                    state.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// Reading failed.
    pub(crate) fn fail(&self, fault: &Fault) {
        self.set(|state| state.fault = Some(fault.clone()));
    }

    /// A close frame was written.
    pub(crate) fn close(&self) {
        self.set(|state| state.closed = true);
    }

    /// Waits until reading has failed.
    pub(crate) async fn failed(&self) -> Fault {
        std::future::poll_fn(|cx| self.poll(cx, |state| state.fault.clone())).await
    }

    /// Ready when a close frame was written.
    pub(crate) fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        self.poll(cx, |state| state.closed.then_some(()))
    }
}

/// The frames that come from a socket.
pub(crate) struct Frames {
    source: Source,
    input: BytesMut,
    link: Arc<Link>,
    /// The fault when the socket ends without a close frame.
    vanished: Reason,
}

enum Source {
    /// The handshake is not over.
    Waiting(oneshot::Receiver<(Half, Cutter)>),
    Open(Half, Cutter),
    Over,
}

impl Frames {
    /// The frames of a visitor, whose socket comes when the handshake is over.
    pub(crate) fn of_visitor(socket: oneshot::Receiver<(Half, Cutter)>, link: Arc<Link>) -> Frames {
        let source = Source::Waiting(socket);
        Frames { source, input: BytesMut::new(), link, vanished: Reason::Cancelled }
    }

    /// The frames of a backend.
    pub(crate) fn of_backend(half: Half, cutter: Cutter, link: Arc<Link>) -> Frames {
        let source = Source::Open(half, cutter);
        Frames { source, input: BytesMut::new(), link, vanished: Reason::BackendReset }
    }

    fn fail(&mut self, fault: Fault) -> Poll<Option<Result<Part, Fault>>> {
        self.source = Source::Over;
        self.link.fail(&fault);
        Poll::Ready(Some(Err(fault)))
    }
}

impl Body for Frames {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        loop {
            let (half, cutter) = match &mut self.source {
                Source::Waiting(socket) => match ready!(Pin::new(socket).poll(cx)) {
                    Ok((half, cutter)) => {
                        self.source = Source::Open(half, cutter);
                        continue;
                    }
                    // The handshake failed, or the backend refused it.
                    Err(_) => {
                        self.source = Source::Over;
                        return Poll::Ready(None);
                    }
                },
                Source::Open(half, cutter) => (half, cutter),
                Source::Over => return Poll::Ready(None),
            };
            if cutter.is_over() {
                self.source = Source::Over;
                return Poll::Ready(None);
            }
            match cutter.next(&mut self.input) {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(Part::Data(data)))),
                Ok(None) => {}
                Err(fault) => return self.fail(fault),
            }
            match ready!(poll_read_into(half, &mut self.input, usize::MAX, cx)) {
                Ok(0) => {
                    let fault =
                        Fault::because(self.vanished, "a socket ended without a close frame");
                    return self.fail(fault);
                }
                Ok(_) => {}
                Err(error) => {
                    let fault = Fault::because(self.vanished, error.to_string());
                    return self.fail(fault);
                }
            }
        }
    }

    fn is_end(&self) -> bool {
        matches!(self.source, Source::Over)
    }
}
