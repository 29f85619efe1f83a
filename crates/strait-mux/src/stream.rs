//! One request inside the mux: two halves and what is queued in them.

use std::collections::VecDeque;
use std::time::Instant;

use http::HeaderMap;
use strait_wire::{Data, First, Opening, PIECE_WEIGHT, Protocol, RequestHead, ResponseHead};

use crate::life::State;
use crate::schedule::Turn;
use crate::window::Window;
use crate::{Budget, Gone};

/// Bytes that may wait in the send half while its request has credit: enough to refill
/// while the transport writes, little enough to be cheap when it stalls.
const QUEUE: usize = 64 * 1024;

/// A reader that has more than this before it, in bytes, does not keep up.
const KEEPS_UP: usize = 64 * 1024;

/// Copying fewer bytes than this costs next to nothing.
const SMALL: usize = 4 * 1024;

/// What an entry of the table costs beside its head, in bytes.
const ENTRY: usize = 512;

/// One request.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) protocol: Protocol,
    /// Opened by this side.
    pub(crate) ours: bool,
    /// What the peer opened it with, until it is accepted.
    pub(crate) opening: Option<Box<Opening>>,
    pub(crate) send: SendHalf,
    pub(crate) recv: RecvHalf,
    /// Set once the request was cut.
    pub(crate) gone: Option<Gone>,
    /// The driver still holds a handle that reads, or writes.
    pub(crate) reader: bool,
    pub(crate) writer: bool,
    /// Bytes reserved for the entry and its head.
    pub(crate) fixed: usize,
}

/// What this side sends.
#[derive(Debug)]
pub(crate) struct SendHalf {
    /// Follows what was queued, not what was sent.
    pub(crate) state: State,
    pub(crate) first: Option<First>,
    pub(crate) queue: VecDeque<Data>,
    /// Weight of the queue, in bytes.
    pub(crate) queued: usize,
    /// The part of `queued` that could be reserved from the budget.
    pub(crate) reserved: usize,
    pub(crate) trailers: Option<Box<HeaderMap>>,
    pub(crate) credit: usize,
    pub(crate) sequence: u32,
    /// Something was handed to the transport.
    pub(crate) started: bool,
    /// The end was handed to the transport.
    pub(crate) finished: bool,
    pub(crate) turn: Turn,
    pub(crate) quantum: usize,
    /// Since when data waits for credit.
    pub(crate) blocked: Option<Instant>,
    /// The writer was told that there is no room and wants to hear when there is.
    pub(crate) wants_room: bool,
}

/// What this side receives.
#[derive(Debug)]
pub(crate) struct RecvHalf {
    pub(crate) state: State,
    pub(crate) first: Option<Box<ResponseHead>>,
    pub(crate) queue: VecDeque<Data>,
    pub(crate) trailers: Option<Box<HeaderMap>>,
    pub(crate) window: Window,
    pub(crate) sequence: u32,
    /// Credit to be told to the peer with the next control frames.
    pub(crate) credit_due: u32,
    /// The reader left before the end: what still comes is dropped.
    pub(crate) abandoned: bool,
}

impl Stream {
    pub(crate) fn new(protocol: Protocol, ours: bool, window: Window, fixed: usize) -> Stream {
        Stream {
            protocol,
            ours,
            opening: None,
            send: SendHalf {
                state: State::Idle,
                first: None,
                queue: VecDeque::new(),
                queued: 0,
                reserved: 0,
                trailers: None,
                credit: 0,
                sequence: 0,
                started: false,
                finished: false,
                turn: Turn::default(),
                quantum: 0,
                blocked: None,
                wants_room: false,
            },
            recv: RecvHalf {
                state: State::Idle,
                first: None,
                queue: VecDeque::new(),
                trailers: None,
                window,
                sequence: 0,
                credit_due: 0,
                abandoned: false,
            },
            gone: None,
            reader: true,
            writer: true,
            fixed,
        }
    }

    /// Whether nothing keeps the entry in the table.
    pub(crate) fn is_done(&self) -> bool {
        let over = self.gone.is_some()
            || (self.send.finished && (self.recv.state.is_over() || self.recv.abandoned));
        over && !self.reader && !self.writer
    }

    /// Cuts the request: everything queued goes, and its memory.
    pub(crate) fn cut(&mut self, gone: Gone, budget: &Budget) {
        self.gone.get_or_insert(gone);
        self.send.clear(budget);
        self.recv.clear(budget);
    }
}

impl SendHalf {
    /// Whether the next frame of this half could be made now.
    pub(crate) fn is_sendable(&self) -> bool {
        if self.first.is_some() {
            return true;
        }
        match self.queue.front() {
            Some(data) => self.piece_limit(data) > 0,
            None => self.state == State::Ended && !self.finished,
        }
    }

    /// Payload bytes of `data` plus one that credit allows now; 0 for none, so that an
    /// empty piece that is allowed differs from one that is not.
    fn piece_limit(&self, data: &Data) -> usize {
        match self.credit.checked_sub(PIECE_WEIGHT) {
            None => 0,
            Some(0) if !data.bytes.is_empty() => 0,
            Some(left) => left.saturating_add(1),
        }
    }

    /// Takes the next piece of at most `limit` payload bytes, as far as credit allows.
    pub(crate) fn take_piece(&mut self, limit: usize, budget: &Budget) -> Option<Data> {
        let front = self.queue.front_mut()?;
        let allowed = match self.credit.checked_sub(PIECE_WEIGHT) {
            Some(left) if left > 0 || front.bytes.is_empty() => left.min(limit.max(1)),
            _ => return None,
        };
        let whole = front.bytes.len() <= allowed;
        let piece = if whole { self.queue.pop_front()? } else { front.split_to(allowed) };
        self.credit -= piece.weight();
        // The rest of a split piece keeps its own weight.
        self.queued -= if whole { piece.weight() } else { piece.bytes.len() };
        self.settle(budget);
        Some(piece)
    }

    /// Queues a piece. What the budget does not have is still queued: the writer asked for
    /// room, and one piece is always allowed.
    pub(crate) fn push(&mut self, data: Data, budget: &Budget) {
        let weight = data.weight();
        if budget.reserve(weight) {
            self.reserved += weight;
        }
        self.queued += weight;
        self.queue.push_back(data);
    }

    /// Payload bytes that may be pushed now.
    pub(crate) fn room(&self, budget: &Budget) -> usize {
        let stalled = self.credit <= PIECE_WEIGHT || budget.free_sixteenths() == 0;
        if self.queue.is_empty() && self.first.is_none() {
            QUEUE
        } else if stalled && !self.queue.is_empty() {
            0
        } else {
            QUEUE.saturating_sub(self.queued)
        }
    }

    fn settle(&mut self, budget: &Budget) {
        if self.reserved > self.queued {
            budget.release(self.reserved - self.queued);
            self.reserved = self.queued;
        }
    }

    /// Gives up the rest of a request whose answer is complete.
    pub(crate) fn stop(&mut self, budget: &Budget) {
        self.clear(budget);
        self.finished = true;
    }

    /// Drops everything that is queued.
    pub(crate) fn clear(&mut self, budget: &Budget) {
        self.first = None;
        self.queue = VecDeque::new();
        self.trailers = None;
        self.queued = 0;
        self.settle(budget);
        self.state = State::Reset;
        self.blocked = None;
        self.turn.leave();
    }
}

impl RecvHalf {
    /// Queues a piece. One that will wait gets memory of its own, lest it keeps alive the
    /// block that it was decoded from, in which the pieces of other requests are too. What
    /// is taken at once is not copied, nor what is large and goes to a reader that keeps up.
    pub(crate) fn enqueue(&mut self, data: Data) {
        let waits = !self.queue.is_empty();
        let behind = self.window.buffered() > KEEPS_UP + data.weight();
        let detach = waits && (behind || data.bytes.len() < SMALL);
        self.queue.push_back(if detach { data.detached() } else { data });
    }

    /// Drops everything that is queued and gives the window back.
    pub(crate) fn clear(&mut self, budget: &Budget) {
        // An end that was not delivered up to its last part must not look like one.
        let delivered = self.first.is_none() && self.queue.is_empty() && self.trailers.is_none();
        if !(self.state == State::Ended && delivered) {
            self.state = State::Reset;
        }
        self.first = None;
        self.queue = VecDeque::new();
        self.trailers = None;
        self.window.close(budget);
        self.credit_due = 0;
    }
}

/// What a request head holds in memory, in bytes, its entry included.
pub(crate) fn fixed_cost(head: &RequestHead) -> usize {
    let fields: usize = head.headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 32).sum();
    ENTRY + head.path.len() + head.authority.len() + fields
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_waits_for_a_slow_reader_lives_in_memory_of_its_own() {
        let block = Bytes::from(vec![7; 1 << 20]);
        let shared = |length: usize| {
            let window = Window::new(1 << 20, 1 << 20);
            let mut recv = Stream::new(Protocol::Http, true, window, 0).recv;
            for at in 0..16 {
                let data = Data::plain(block.slice(at * length..(at + 1) * length));
                assert!(recv.window.receive(data.weight()));
                recv.enqueue(data);
            }
            assert!(recv.queue.iter().all(|data| data.bytes == block[..length]));
            recv.queue.iter().filter(|data| !data.bytes.is_unique()).count()
        };
        // The first may be taken at once; the next ones are large, and not yet many.
        assert_eq!(shared(16 * 1024), 4);
        assert_eq!(shared(100), 1);
    }
}
