//! The body of an answer, read from the connection that it comes by.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use strait_engine::{Body, BoxBody, Data, EmptyBody, Fault, Part, Reason};
use tokio::task::JoinHandle;

use crate::http::body::{Plain, is_malformed};
use crate::http::upload::{AbortUpload, Upload};
use crate::http1::chunked::{Chunked, Step};
use crate::http1::framing::Framing;
use crate::http1::sending::{Sending, Sent};
use crate::pool::{GOODBYE, Http1 as Lease};

/// What an answer holds on to until its body ends.
pub(crate) struct Held {
    pub(crate) lease: Lease,
    /// Both sides may use the connection for another request.
    pub(crate) keep: bool,
    /// The rest of the request's body.
    pub(crate) rest: Option<Rest>,
}

/// The rest of a request's body, which is sent by a task. Dropped, it is given up.
pub(crate) struct Rest {
    task: JoinHandle<Result<Sent, Fault>>,
    upload: AbortUpload,
}

impl Rest {
    /// Sends what is left of `sending` on the connection of `lease`.
    pub(crate) fn start(sending: Sending<Plain>, lease: &mut Lease, upload: Arc<Upload>) -> Rest {
        let half = lease.connection.half().clone();
        let task = tokio::spawn(sending.rest(half, upload.clone()));
        Rest { task, upload: AbortUpload(upload) }
    }
}

impl Held {
    /// The answer has ended. The connection is kept if the request has, too; the rest of an upload
    /// whose answer is complete is not wanted. What was taken from it already is still written.
    fn end(mut self) {
        let keep = self.keep && self.lease.connection.input.is_empty();
        match self.rest.take() {
            None if keep => self.lease.done(),
            Some(rest) if rest.upload.0.ended() => drop(tokio::spawn(async move {
                let Rest { task, upload } = rest;
                let sent = tokio::time::timeout(GOODBYE, task).await;
                if let (Ok(Ok(Ok(Sent::Whole))), true) = (sent, keep) {
                    self.lease.done();
                }
                drop(upload);
            })),
            _ => {}
        }
    }

    /// Notes how the rest of the upload went.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        if let Some(rest) = &mut self.rest
            && let Poll::Ready(sent) = Pin::new(&mut rest.task).poll(cx)
        {
            self.rest = None;
            self.keep &= matches!(sent, Ok(Ok(Sent::Whole)));
            if let Ok(Err(fault)) = sent {
                return Err(fault);
            }
        }
        Ok(())
    }
}

/// The body of an answer that is framed like this.
pub(crate) fn body(framing: Framing, max_fields: usize, held: Held) -> BoxBody {
    if framing == Framing::Length(0) {
        held.end();
        return Box::new(EmptyBody);
    }
    let decoder = Decoder::new(framing, max_fields);
    Box::new(AnswerBody { held: Some(held), decoder, ahead: None, cut: None })
}

/// Takes a body out of what comes on its connection.
pub(crate) enum Decoder {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(Box<Chunked>),
    UntilClose,
}

impl Decoder {
    /// For a body that is framed like this, with at most `max_fields` trailer fields.
    pub(crate) fn new(framing: Framing, max_fields: usize) -> Decoder {
        match framing {
            Framing::Length(left) => Decoder::Length(left),
            Framing::Chunked => Decoder::Chunked(Box::new(Chunked::new(max_fields))),
            Framing::UntilClose => Decoder::UntilClose,
        }
    }

    /// The next step; `None` when it needs more of the connection.
    ///
    /// # Errors
    /// What is wrong with the framing.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Step>, &'static str> {
        match self {
            Decoder::Chunked(chunked) => chunked.next(input),
            Decoder::Length(0) => Ok(Some(Step::End(None))),
            _ if input.is_empty() => Ok(None),
            Decoder::UntilClose => Ok(Some(Step::Data(input.split().freeze()))),
            Decoder::Length(left) => {
                let room = usize::try_from(*left).unwrap_or(usize::MAX);
                let data = input.split_to(room.min(input.len())).freeze();
                *left -= data.len() as u64;
                Ok(Some(Step::Data(data)))
            }
        }
    }
}

struct AnswerBody {
    /// Until the end.
    held: Option<Held>,
    decoder: Decoder,
    /// What follows what was given out: an end is known with the last piece.
    ahead: Option<Result<Step, &'static str>>,
    /// The fault that comes next.
    cut: Option<Fault>,
}

impl AnswerBody {
    /// The next step, waiting for the service if need be.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, Fault>> {
        if let Some(step) = self.ahead.take() {
            return Poll::Ready(step.map_err(invalid));
        }
        let Some(held) = &mut self.held else { return Poll::Ready(Ok(Step::End(None))) };
        held.poll_rest(cx)?;
        loop {
            let input = &mut held.lease.connection.input;
            if let Some(step) = self.decoder.next(input).map_err(invalid)? {
                return Poll::Ready(Ok(step));
            }
            match ready!(held.lease.connection.poll_read(cx)) {
                Ok(0) if matches!(self.decoder, Decoder::UntilClose) => {
                    return Poll::Ready(Ok(Step::End(None)));
                }
                Ok(0) => {
                    let detail = "the service closed the connection within its answer";
                    return Poll::Ready(Err(Fault::because(Reason::BackendReset, detail)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(broken(&error))),
            }
        }
    }

    /// A cut at once would overtake what was given out before it: who writes it forgets what is not
    /// written yet, were it the head.
    fn cut(&mut self, fault: Fault, cx: &Context<'_>) {
        // A cut of our own is the cause of whatever came after it.
        let ours = self.held.take().and_then(|held| held.rest?.upload.0.fault());
        self.cut = Some(ours.unwrap_or(fault));
        cx.waker().wake_by_ref();
    }

    fn end(&mut self) {
        if let Some(held) = self.held.take() {
            held.end();
        }
    }

    /// Looks at what follows the data that was just taken.
    fn look_ahead(&mut self) {
        let Some(held) = &mut self.held else { return };
        match self.decoder.next(&mut held.lease.connection.input).transpose() {
            Some(Ok(Step::End(None))) => self.end(),
            ahead => self.ahead = ahead,
        }
    }
}

impl Body for AnswerBody {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        if let Some(fault) = self.cut.take() {
            return Poll::Ready(Some(Err(fault)));
        }
        Poll::Ready(match ready!(self.poll_step(cx)) {
            Ok(Step::Data(bytes)) => {
                self.look_ahead();
                Some(Ok(Part::Data(Data::plain(bytes))))
            }
            Ok(Step::End(trailers)) => {
                self.end();
                trailers.map(|trailers| Ok(Part::Trailers(trailers)))
            }
            Err(fault) => {
                self.cut(fault, cx);
                return Poll::Pending;
            }
        })
    }

    fn is_end(&self) -> bool {
        self.held.is_none() && self.ahead.is_none() && self.cut.is_none()
    }

    fn size(&self) -> Option<u64> {
        match self.decoder {
            Decoder::Length(left) => Some(left),
            _ => self.is_end().then_some(0),
        }
    }

    fn at_most(&mut self, bytes: usize) {
        if let Some(held) = &mut self.held {
            held.lease.connection.at_most(bytes);
        }
    }
}

fn invalid(what: &'static str) -> Fault {
    Fault::because(Reason::BackendInvalid, what)
}

/// The fault behind an error of a connection.
pub(crate) fn broken(error: &io::Error) -> Fault {
    let reason = if is_malformed(error) { Reason::BackendInvalid } else { Reason::BackendReset };
    Fault::because(reason, format!("the connection to the service broke: {error}"))
}
