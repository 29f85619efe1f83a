//! One request inside the mux: two halves and what is queued in them.

use std::time::Instant;

use http::HeaderMap;
use strait_wire::{
    Data, First, Opening, PIECE_WEIGHT, Pieces, Protocol, RequestHead, ResponseHead, StreamNo,
};

use crate::life::State;
use crate::schedule::{Schedule, Turn};
use crate::window::Window;
use crate::{Budget, Gone};

/// Bytes that may wait in the send half while its request has credit and half of the budget is free:
/// enough to refill while the transport writes, little enough to be cheap when it stalls.
const QUEUE: u32 = 64 * 1024;

/// A reader that has more than this before it, in bytes, does not keep up.
const KEEPS_UP: usize = 64 * 1024;

/// Copying fewer bytes than this costs next to nothing.
const SMALL: usize = 4 * 1024;

/// What an entry of the table costs beside heads, trailers and pieces, in bytes; the
/// tasks that carry it are outside.
pub(crate) const ENTRY: usize = 512;

/// Bytes that an opener sets aside for the answer's head, so that an answer of usual size
/// has a place even when the budget is used up meanwhile.
pub(crate) const ANSWER_HEAD: usize = 2 * 1024;

/// Bytes that an opener of a gRPC call sets aside for the trailers, which say how it ended: as above.
const ANSWER_TRAILERS: usize = 1024;

/// What the map of a head takes for each field that it has room for, in bytes, beside the
/// field's own text.
const FIELD: usize = 112;

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
    /// Bytes of the budget for its head: the request's until the answer has come, then the
    /// answer's while it waits.
    pub(crate) head: usize,
}

/// What this side sends.
#[derive(Debug)]
pub(crate) struct SendHalf {
    /// Follows what was queued, not what was sent.
    pub(crate) state: State,
    pub(crate) first: Option<First>,
    pub(crate) queue: Pieces,
    /// Weight of the queue, in bytes.
    pub(crate) queued: usize,
    pub(crate) trailers: Option<Box<HeaderMap>>,
    /// Bytes of the budget for them.
    pub(crate) trailers_cost: usize,
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
    /// The writer shall have nothing ready before the peer's first grant, which tells that the
    /// body is wanted.
    pub(crate) awaits_continue: bool,
}

/// What this side receives.
#[derive(Debug)]
pub(crate) struct RecvHalf {
    pub(crate) state: State,
    pub(crate) first: Option<Box<ResponseHead>>,
    pub(crate) queue: Pieces,
    pub(crate) trailers: Option<Box<HeaderMap>>,
    /// Bytes of the budget for them, or set aside for them.
    pub(crate) trailers_cost: usize,
    pub(crate) window: Window,
    pub(crate) sequence: u32,
    /// Credit to be told to the peer with the next control frames.
    pub(crate) credit_due: u32,
    /// The reader left before the end: what still comes is dropped.
    pub(crate) abandoned: bool,
    /// The peer is granted nothing before the reader asks for the first piece.
    pub(crate) awaits_continue: bool,
}

impl Stream {
    /// A request whose `window`, entry and `head` bytes are reserved, and what is
    /// [set aside](Stream::set_aside).
    pub(crate) fn new(protocol: Protocol, ours: bool, window: Window, head: usize) -> Stream {
        Stream {
            protocol,
            ours,
            opening: None,
            send: SendHalf {
                state: State::Idle,
                first: None,
                queue: Pieces::default(),
                queued: 0,
                trailers: None,
                trailers_cost: 0,
                credit: 0,
                sequence: 0,
                started: false,
                finished: false,
                turn: Turn::default(),
                quantum: 0,
                blocked: None,
                wants_room: false,
                awaits_continue: false,
            },
            recv: RecvHalf {
                state: State::Idle,
                first: None,
                queue: Pieces::default(),
                trailers: None,
                trailers_cost: if ours { Stream::set_aside(protocol) } else { 0 },
                window,
                sequence: 0,
                credit_due: 0,
                abandoned: false,
                awaits_continue: false,
            },
            gone: None,
            reader: true,
            writer: true,
            head,
        }
    }

    /// Bytes that an opener sets aside for the trailers of the answer.
    pub(crate) fn set_aside(protocol: Protocol) -> usize {
        if protocol == Protocol::Grpc { ANSWER_TRAILERS } else { 0 }
    }

    /// Bytes of the budget beside window and queue.
    pub(crate) fn fixed(&self) -> usize {
        ENTRY + self.head + self.send.trailers_cost + self.recv.trailers_cost
    }

    /// Takes the head that is to be sent. The memory of an answer's goes with it; a
    /// request's stays, because whoever waits for the answer may have to send it again.
    pub(crate) fn take_first(&mut self, budget: &Budget) -> Option<First> {
        let first = self.send.first.take();
        if matches!(first, Some(First::Response(_))) {
            self.release_head(budget);
        }
        first
    }

    /// Keeps an answer's head until it is taken. `false`: there is no memory for it.
    #[must_use]
    pub(crate) fn keep_head(&mut self, head: Box<ResponseHead>, budget: &Budget) -> bool {
        let more = map_cost(&head.headers).saturating_sub(ANSWER_HEAD);
        if !budget.reserve(more) {
            return false;
        }
        self.head += more;
        self.recv.first = Some(head);
        true
    }

    /// Gives the memory of a head back that has gone where it belongs.
    pub(crate) fn release_head(&mut self, budget: &Budget) {
        budget.release(std::mem::take(&mut self.head));
    }

    /// Puts this request, `no`, in line if it has something to send.
    pub(crate) fn enlist(&mut self, no: StreamNo, schedule: &mut Schedule) {
        if self.send.is_sendable() {
            schedule.enlist(no, &mut self.send.turn, self.send.quantum);
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
        let left = if whole { piece.weight() } else { piece.bytes.len() };
        self.queued -= left;
        budget.release(left);
        Some(piece)
    }

    /// Queues a piece. What the budget does not have is still queued: the writer asked for
    /// room.
    pub(crate) fn push(&mut self, data: Data, budget: &Budget) {
        let weight = data.weight();
        budget.charge(weight);
        self.queued += weight;
        self.queue.push_back(data);
    }

    /// How large the next piece may be; 0 for none now. While memory is plentiful it may be of any
    /// size, and a small one is always allowed, lest those that stall stop the others: thousands
    /// that wait for the transport, or for credit, have little more than that each.
    pub(crate) fn room(&self, budget: &Budget) -> usize {
        let share = budget.share_of(QUEUE, 2);
        let left = share.saturating_sub(self.queued);
        match self.queue.is_empty() {
            _ if self.awaits_continue => 0,
            false if self.credit <= PIECE_WEIGHT || left == 0 => 0,
            _ if share == QUEUE as usize => usize::MAX,
            // Many small pieces cost more than a few larger ones.
            false if left * 2 < share => 0,
            empty => left.max(if empty { SMALL } else { 0 }),
        }
    }

    /// Trailers to be sent after the queue.
    pub(crate) fn keep_trailers(&mut self, trailers: Box<HeaderMap>, budget: &Budget) {
        self.trailers_cost = map_cost(&trailers);
        budget.charge(self.trailers_cost);
        self.trailers = Some(trailers);
    }

    /// Takes the trailers, and with them their memory.
    pub(crate) fn take_trailers(&mut self, budget: &Budget) -> Option<Box<HeaderMap>> {
        budget.release(std::mem::take(&mut self.trailers_cost));
        self.trailers.take()
    }

    /// Gives up the rest of a request whose answer is complete.
    pub(crate) fn stop(&mut self, budget: &Budget) {
        self.clear(budget);
        self.finished = true;
    }

    /// Drops everything that is queued.
    pub(crate) fn clear(&mut self, budget: &Budget) {
        self.first = None;
        self.queue = Pieces::default();
        self.take_trailers(budget);
        budget.release(std::mem::take(&mut self.queued));
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

    /// The peer has ended: gives back the credit that it will not use, and keeps `trailers`
    /// until they are taken. `false`: there is no memory for them.
    #[must_use]
    pub(crate) fn end(&mut self, trailers: Option<Box<HeaderMap>>, budget: &Budget) -> bool {
        self.window.end(budget);
        self.credit_due = 0;
        let cost = trailers.as_deref().map_or(0, map_cost);
        if !budget.reserve(cost.saturating_sub(self.trailers_cost)) {
            return false;
        }
        budget.release(self.trailers_cost.saturating_sub(cost));
        self.trailers_cost = cost;
        self.trailers = trailers;
        true
    }

    /// Takes the trailers, and with them their memory.
    pub(crate) fn take_trailers(&mut self, budget: &Budget) -> Option<Box<HeaderMap>> {
        let trailers = self.trailers.take()?;
        budget.release(std::mem::take(&mut self.trailers_cost));
        Some(trailers)
    }

    /// Drops everything that is queued and gives the window back.
    pub(crate) fn clear(&mut self, budget: &Budget) {
        // An end that was not delivered up to its last part must not look like one.
        let delivered = self.first.is_none() && self.queue.is_empty() && self.trailers.is_none();
        if !(self.state == State::Ended && delivered) {
            self.state = State::Reset;
        }
        self.first = None;
        self.queue = Pieces::default();
        self.trailers = None;
        budget.release(std::mem::take(&mut self.trailers_cost));
        self.window.close(budget);
        self.credit_due = 0;
    }
}

/// What a request's head holds in memory, in bytes.
pub(crate) fn head_cost(head: &RequestHead) -> usize {
    head.path.len() + head.authority.len() + map_cost(&head.headers)
}

/// What a map of header fields holds in memory, in bytes.
pub(crate) fn map_cost(headers: &HeaderMap) -> usize {
    let text: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    headers.capacity() * FIELD + text
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
