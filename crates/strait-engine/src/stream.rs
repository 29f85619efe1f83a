//! The two handles of one request on a tunnel.

use std::task::{Context, Poll, ready};

use http::HeaderMap;
use strait_mux::{Gone, Taken};
use strait_wire::{Data, Part, Reason, ResponseHead, StreamNo};

use crate::clock::now;
use crate::session::Core;
use crate::{Body, Fault, Session, Share, Turns};

/// What the peer sends for one request. Dropped before the end, it cancels.
pub(crate) struct StreamReader {
    session: Session,
    /// [`StreamNo::NONE`] once everything was taken and the handle is given back.
    no: StreamNo,
    size: Option<u64>,
    share: Share,
}

/// What this side sends for one request. Dropped before the end, it cancels.
pub(crate) struct StreamWriter {
    session: Session,
    /// [`StreamNo::NONE`] once everything is queued and the handle is given back.
    no: StreamNo,
}

/// The fault of a request that is gone.
pub(crate) fn fault(gone: Gone) -> Fault {
    let detail = if gone.by_peer { "said by the other end of the tunnel" } else { "" };
    let fault = Fault::because(gone.reason, detail);
    if gone.retry_safe { fault.retry_safe() } else { fault }
}

impl StreamReader {
    pub(crate) fn new(session: Session, no: StreamNo) -> StreamReader {
        StreamReader { session, no, size: None, share: Share::of_body() }
    }

    /// Waits for the answer's head.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Fault>> {
        self.session.with(|core| match core.mux.take(self.no, now) {
            Taken::Head(head) => Poll::Ready(Ok(*head)),
            Taken::Gone(gone) => Poll::Ready(Err(fault(gone))),
            Taken::Pending => {
                core.wait_readable(self.no, cx);
                Poll::Pending
            }
            // The life of a half begins with its head.
            Taken::Data(_) | Taken::Trailers(_) | Taken::End => {
                Poll::Ready(Err(Fault::because(Reason::Protocol, "an answer without a head")))
            }
        })
    }

    /// The request, whose handle is given back by whoever takes its number.
    pub(crate) fn into_parts(mut self) -> (Session, StreamNo) {
        let no = std::mem::replace(&mut self.no, StreamNo::NONE);
        (self.session.clone(), no)
    }

    /// Notes the length that the head promised, as a hint for whoever frames the body.
    pub(crate) fn with_size(mut self, size: Option<u64>) -> StreamReader {
        self.size = size;
        self
    }
}

/// Ends a direction, and gives the handle back with that.
fn end(core: &mut Core, no: &mut StreamNo, trailers: Option<HeaderMap>) -> Result<(), Fault> {
    core.mux.finish(*no, trailers).map_err(fault)?;
    core.drop_writer(std::mem::replace(no, StreamNo::NONE));
    Ok(())
}

/// Gives the handle back when everything was taken.
fn give_back(core: &mut Core, no: &mut StreamNo) {
    if core.end_reading(*no) {
        *no = StreamNo::NONE;
    }
}

impl Body for StreamReader {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        let StreamReader { session, no, share, .. } = self;
        if *no == StreamNo::NONE {
            return Poll::Ready(None);
        }
        ready!(share.poll_turn(session.turns(), cx));
        session.with(|core| match core.mux.take(*no, now) {
            Taken::Data(data) => {
                share.spend(data.weight());
                give_back(core, no);
                Poll::Ready(Some(Ok(Part::Data(data))))
            }
            Taken::End => {
                give_back(core, no);
                Poll::Ready(None)
            }
            Taken::Trailers(map) => {
                give_back(core, no);
                Poll::Ready(Some(Ok(Part::Trailers(*map))))
            }
            Taken::Gone(gone) => Poll::Ready(Some(Err(fault(gone)))),
            Taken::Head(_) => {
                Poll::Ready(Some(Err(Fault::because(Reason::Protocol, "a second head"))))
            }
            Taken::Pending => {
                share.rest();
                core.wait_readable(*no, cx);
                Poll::Pending
            }
        })
    }

    fn is_end(&self) -> bool {
        self.no == StreamNo::NONE || self.session.look(|core| core.mux.is_drained(self.no))
    }

    fn size(&self) -> Option<u64> {
        self.size
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        if self.no != StreamNo::NONE {
            self.session.with(|core| core.drop_reader(self.no));
        }
    }
}

impl StreamWriter {
    /// The line in which whoever fills this writer takes turns.
    pub(crate) fn turns(&self) -> &Turns {
        self.session.turns()
    }

    pub(crate) fn new(session: Session, no: StreamNo) -> StreamWriter {
        StreamWriter { session, no }
    }

    /// The request's number, whose handle is given back by whoever takes it.
    pub(crate) fn into_no(mut self) -> StreamNo {
        std::mem::replace(&mut self.no, StreamNo::NONE)
    }

    /// Queues the answer's head together with what is already known of its body, so that a
    /// small answer is one message.
    pub(crate) fn respond(
        &mut self,
        head: ResponseHead,
        first: Option<Part>,
        ends: bool,
    ) -> Result<(), Fault> {
        self.session.with(|core| {
            core.mux.respond(self.no, head).map_err(fault)?;
            let trailers = match first {
                Some(Part::Data(data)) => {
                    core.mux.push(self.no, data).map_err(fault)?;
                    None
                }
                Some(Part::Trailers(map)) => Some(map),
                None => None,
            };
            if ends || trailers.is_some() {
                end(core, &mut self.no, trailers)?;
            }
            Ok(())
        })
    }

    /// Waits until a piece may be pushed, and says how large. The task is woken when the request
    /// is cut even while it waits for something else.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        self.session.with(|core| {
            core.wait_writable(self.no, cx);
            match core.mux.room(self.no) {
                Ok(0) => Poll::Pending,
                Ok(room) => Poll::Ready(Ok(room)),
                Err(gone) => Poll::Ready(Err(fault(gone))),
            }
        })
    }

    /// Waits until the request is cut.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<Fault> {
        self.session.look(|core| match core.mux.gone(self.no) {
            Some(gone) => Poll::Ready(fault(gone)),
            None => {
                core.wait_writable(self.no, cx);
                Poll::Pending
            }
        })
    }

    /// Queues a piece, and the end of this direction when `ends` says so.
    pub(crate) fn push(&mut self, data: Data, ends: bool) -> Result<(), Fault> {
        self.session.with(|core| {
            core.mux.push(self.no, data).map_err(fault)?;
            if ends { end(core, &mut self.no, None) } else { Ok(()) }
        })
    }

    /// Ends this direction.
    pub(crate) fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), Fault> {
        self.session.with(|core| end(core, &mut self.no, trailers))
    }

    /// Cuts the request because of `fault`.
    pub(crate) fn abort(&self, fault: &Fault) {
        self.session.with(|core| core.mux.reset(self.no, fault.reason, fault.retry_safe, ""));
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if self.no != StreamNo::NONE {
            self.session.with(|core| core.drop_writer(self.no));
        }
    }
}
