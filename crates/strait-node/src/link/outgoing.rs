//! The frames that a session sends, as the body of the call.

use std::convert::Infallible;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use strait_engine::{Fatal, Refusal, Session};
use strait_wire::codec::{self, Apart};
use tonic::Status;

use super::near::Distance;
use super::{PACK, PREFIX};

/// The body of the call in one direction. It pulls from the session, so there is no queue
/// between the scheduler and HTTP/2. By default it is a body without content.
#[derive(Default)]
pub(crate) struct Outgoing {
    /// Until it has no more frames.
    session: Option<Session>,
    distance: Arc<Distance>,
    /// An answer ends with trailers, a request without.
    is_answer: bool,
    /// Messages that wait for others to share a write with.
    packed: BytesMut,
    trailers: Option<HeaderMap>,
}

impl Outgoing {
    /// What the caller sends.
    pub(crate) fn request(session: Session, distance: Arc<Distance>) -> Outgoing {
        Outgoing { session: Some(session), distance, ..Outgoing::default() }
    }

    /// What the called side sends: its call's status tells why it ended the session.
    pub(crate) fn answer(session: Session, distance: Arc<Distance>) -> Outgoing {
        Outgoing { is_answer: true, ..Outgoing::request(session, distance) }
    }

    /// Adds a message to those that wait; what of it stays apart.
    fn pack(&mut self, frame: strait_wire::Frame) -> Option<Apart> {
        if matches!(frame, strait_wire::Frame::Ping(_)) {
            self.distance.pinged();
        }
        let packed = &mut self.packed;
        if packed.capacity() - packed.len() < PREFIX {
            packed.reserve(PACK);
        }
        let start = packed.len();
        packed.put_bytes(0, PREFIX);
        let apart = codec::encode_apart(frame, PACK, packed);
        let inline = packed.len() - start - PREFIX;
        let length = inline + apart.as_ref().map_or(0, |apart| apart.payload.len());
        // The flag says "not compressed"; no message is near four GiB.
        packed[start + 1..start + PREFIX].copy_from_slice(&(length as u32).to_be_bytes());
        apart
    }

    fn taken(&mut self, apart: Option<Apart>) -> Blocks {
        let Some(Apart { at, payload }) = apart else {
            return Blocks { before: self.packed.split().freeze(), ..Blocks::default() };
        };
        let before = self.packed.split_to(at).freeze();
        Blocks { before, payload, after: self.packed.split().freeze() }
    }
}

/// How a caller is told that its session has ended, and why if this side ended it.
fn trailers(refusal: Option<Refusal>) -> HeaderMap {
    let status = refusal.map_or_else(|| Status::ok(""), status);
    let mut trailers = HeaderMap::new();
    // Our own words are always valid in a header.
    let _ = status.add_header(&mut trailers);
    trailers
}

fn status(refusal: Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::Protocol(Fatal::NoHello) => Status::unauthenticated(text),
        Refusal::Protocol(Fatal::SecondHello | Fatal::Version { .. }) => {
            Status::failed_precondition(text)
        }
        Refusal::Protocol(Fatal::NotReading) | Refusal::TooLarge(_) => {
            Status::resource_exhausted(text)
        }
        Refusal::Protocol(Fatal::Violations(_) | Fatal::PingTimeout) | Refusal::Malformed(_) => {
            Status::internal(text)
        }
    }
}

impl Body for Outgoing {
    type Data = Blocks;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Blocks>, Infallible>>> {
        let this = &mut *self;
        while let Some(session) = &this.session {
            match session.poll_frame(cx) {
                Poll::Ready(Some(frame)) => {
                    let apart = this.pack(frame);
                    if apart.is_some() || this.packed.len() >= PACK {
                        return Poll::Ready(Some(Ok(Frame::data(this.taken(apart)))));
                    }
                }
                Poll::Ready(None) => {
                    this.trailers = this.is_answer.then(|| trailers(session.refusal()));
                    this.session = None;
                }
                Poll::Pending if this.packed.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(match this.packed.is_empty() {
            true => this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
            false => Some(Ok(Frame::data(this.taken(None)))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.session.is_none() && self.packed.is_empty() && self.trailers.is_none()
    }
}

/// Messages on their way out. The payload of a large one is not copied behind the others: it
/// lies between two blocks.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    before: Bytes,
    payload: Bytes,
    after: Bytes,
}

impl Blocks {
    fn all(&self) -> [&Bytes; 3] {
        [&self.before, &self.payload, &self.after]
    }
}

impl Buf for Blocks {
    fn remaining(&self) -> usize {
        self.all().iter().map(|block| block.len()).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.all().into_iter().find(|block| !block.is_empty()).map_or(&[], |block| block)
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let blocks = self.all().into_iter().filter(|block| !block.is_empty());
        let slots = out.iter_mut().zip(blocks);
        slots.map(|(slot, block)| *slot = IoSlice::new(block)).count()
    }

    fn advance(&mut self, mut bytes: usize) {
        for block in [&mut self.before, &mut self.payload, &mut self.after] {
            let here = bytes.min(block.len());
            block.advance(here);
            bytes -= here;
        }
        assert_eq!(bytes, 0, "advanced past the end");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_one_after_the_other_however_they_are_taken() {
        for step in 1..=12 {
            let [before, payload, after] = [&b"abc"[..], b"", b"defgh"].map(Bytes::from_static);
            let mut blocks = Blocks { before, payload, after };
            let mut taken: Vec<u8> = Vec::new();
            while blocks.has_remaining() {
                let mut slots = [IoSlice::new(&[]); 4];
                let used = blocks.chunks_vectored(&mut slots);
                let all: Vec<u8> = slots[..used].iter().flat_map(|slot| slot.to_vec()).collect();
                assert_eq!(all.len(), blocks.remaining());
                assert!(all.starts_with(blocks.chunk()) && !blocks.chunk().is_empty());
                let now = step.min(all.len());
                taken.extend(&all[..now]);
                blocks.advance(now);
            }
            assert_eq!(taken, *b"abcdefgh");
        }
    }
}
