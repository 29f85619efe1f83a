//! Bodies that the load generator sends.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

use crate::tally::Tally;

static PIECE: [u8; 64 * 1024] = [b'^'; 64 * 1024];

/// An upload without end. It counts what it was asked for, which is as much as buffers
/// on the way hold more than what arrived.
pub(crate) struct Upload {
    tally: Rc<Tally>,
}

impl Upload {
    /// An upload that is counted in `tally`.
    pub(crate) fn new(tally: Rc<Tally>) -> Upload {
        Upload { tally }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.tally.carried(PIECE.len());
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&PIECE)))))
    }
}

/// The messages of one streaming call, sent one at a time.
pub(crate) struct Messages(mpsc::Receiver<Bytes>);

impl Messages {
    /// Where to send them, and the body that carries them.
    pub(crate) fn new() -> (mpsc::Sender<Bytes>, Messages) {
        let (sender, receiver) = mpsc::channel(1);
        (sender, Messages(receiver))
    }
}

impl Body for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|message| message.map(|bytes| Ok(Frame::data(bytes))))
    }
}
