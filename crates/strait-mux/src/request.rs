//! What the driver does with one request: open it, answer it, write, read, cut.

use std::collections::VecDeque;
use std::time::Instant;

use http::HeaderMap;
use strait_wire::codec::MAX_FIELDS;
use strait_wire::{Data, First, Frame, Opening, Protocol, Reason, Reset, ResponseHead, StreamNo};

use crate::life::{Happening, State};
use crate::mux::{Leaving, Mux, NumberMap};
use crate::stream::{ANSWER_HEAD, ENTRY, Stream, head_cost, map_cost};
use crate::window::Window;
use crate::{Event, Gone, Refused, Taken};

impl Mux {
    /// Opens a request. `opening.answer_credit` is chosen here. With `end` the request has
    /// no body; otherwise [`push`](Mux::push) and [`finish`](Mux::finish) follow. There is no
    /// [`room`](Mux::room) for one that `awaits_continue` before the peer asks for its body,
    /// unless the peer is one that does not know how to wait.
    ///
    /// # Errors
    /// Why it cannot be opened now; nothing was sent, so it may be tried elsewhere.
    pub fn open(
        &mut self,
        mut opening: Opening,
        protocol: Protocol,
        end: bool,
    ) -> Result<StreamNo, Refused> {
        let peer = self.peer.ok_or(Refused::NotReady)?;
        if self.peer_leaving || self.leaving == Leaving::Said {
            return Err(Refused::Leaving);
        }
        if self.stats.opened >= peer.max_requests as usize {
            return Err(Refused::TooMany);
        }
        let head = head_cost(&opening.head) + ANSWER_HEAD;
        let set_aside = Stream::set_aside(protocol);
        let window = Window::size_for(protocol, &self.settings, &self.budget);
        let Some(window) = [window, self.settings.window_min as usize]
            .into_iter()
            .find(|size| self.budget.reserve(size + ENTRY + head + set_aside))
        else {
            return Err(Refused::NoBudget);
        };
        opening.answer_credit = window as u32;
        opening.awaits_continue &= peer.continues && !end;
        let awaits_continue = opening.awaits_continue;
        let no = self.next_no;
        self.next_no = StreamNo(no.0 + 2);
        let urgency = opening.urgency;
        let mut stream = Stream::new(protocol, true, Window::new(window, window), head);
        stream.send.awaits_continue = awaits_continue;
        if !awaits_continue {
            stream.send.credit = window.min(peer.initial_credit as usize);
        }
        stream.send.quantum = self.quantum(urgency);
        stream.send.state = if end { State::Ended } else { State::Open };
        stream.send.first = Some(First::Request(Box::new(opening)));
        self.schedule.enlist(no, &mut stream.send.turn, stream.send.quantum);
        self.table.insert(no, stream);
        self.stats.opened += 1;
        Ok(no)
    }

    /// Counts a request that is given up because it could not be [opened](Mux::open).
    pub fn give_up(&mut self, why: Refused) {
        match why {
            Refused::TooMany => self.stats.refusals.ours_requests += 1,
            Refused::NoBudget => self.stats.refusals.ours_budget += 1,
            Refused::NotReady | Refused::Leaving => {}
        }
    }

    /// What the peer opened `no` with; once, after [`Event::Accepted`].
    pub fn accept(&mut self, no: StreamNo) -> Option<(Protocol, Box<Opening>)> {
        let stream = self.table.get_mut(&no)?;
        Some((stream.protocol, stream.opening.take()?))
    }

    /// Queues the answer's head. One that the peer would have to take for a violation cuts
    /// the request instead: no backend shall be able to end a session.
    ///
    /// # Errors
    /// The request is gone.
    pub fn respond(&mut self, no: StreamNo, head: ResponseHead) -> Result<(), Gone> {
        let stream = sending(&mut self.table, no)?;
        let upgrades = stream.protocol == Protocol::WebSocket && head.status == 101;
        if (head.status.is_informational() && !upgrades) || head.headers.len() > MAX_FIELDS {
            return self.invalid(no, "an answer with an interim status or too many fields");
        }
        if let Ok(state) = stream.send.state.after(Happening::Head) {
            stream.send.state = state;
            // Whoever answers has done with the request's head.
            stream.release_head(&self.budget);
            stream.head = map_cost(&head.headers);
            self.budget.charge(stream.head);
            stream.send.first = Some(First::Response(Box::new(head)));
        }
        stream.enlist(no, &mut self.schedule);
        Ok(())
    }

    /// Payload bytes that the next piece may have; 0 means wait for [`Event::Writable`].
    ///
    /// # Errors
    /// The request is gone.
    pub fn room(&mut self, no: StreamNo) -> Result<usize, Gone> {
        let stream = sending(&mut self.table, no)?;
        let room = stream.send.room(&self.budget);
        stream.send.wants_room = room == 0;
        Ok(room)
    }

    /// Queues a piece; ask for [`room`](Mux::room) first. One that says nothing, without
    /// payload and without a mark of its protocol, is not sent.
    ///
    /// # Errors
    /// The request is gone.
    pub fn push(&mut self, no: StreamNo, data: Data) -> Result<(), Gone> {
        let stream = sending(&mut self.table, no)?;
        // A writer that pushes out of turn is a bug on this side; the wire stays correct.
        debug_assert!(stream.send.state == State::Open);
        // Plain bodies have no marks on the wire. A piece that leaves no trace there must not
        // cost credit here: the peer would never grant it back.
        let marked =
            stream.protocol != Protocol::Http && (data.start.is_some() || data.ends_message);
        if stream.send.state == State::Open && (marked || !data.bytes.is_empty()) {
            stream.send.push(data, &self.budget);
        }
        stream.enlist(no, &mut self.schedule);
        Ok(())
    }

    /// Ends this side's half. Trailers that the peer would not accept cut the request.
    ///
    /// # Errors
    /// The request is gone.
    pub fn finish(&mut self, no: StreamNo, trailers: Option<HeaderMap>) -> Result<(), Gone> {
        let stream = sending(&mut self.table, no)?;
        if trailers.as_ref().is_some_and(|map| map.len() > MAX_FIELDS) {
            return self.invalid(no, "trailers with too many fields");
        }
        if let Ok(state) = stream.send.state.after(Happening::End) {
            stream.send.state = state;
            if let Some(trailers) = trailers.filter(|map| !map.is_empty()) {
                stream.send.keep_trailers(Box::new(trailers), &self.budget);
            }
        }
        stream.enlist(no, &mut self.schedule);
        Ok(())
    }

    /// The next thing that was received. Taking a piece is what grants the peer more
    /// credit, and asking for the first one what grants some to a peer that waits for it:
    /// take it when there is a place to put it. Few have to know the time.
    pub fn take(&mut self, no: StreamNo, now: impl FnOnce() -> Instant) -> Taken {
        let Some(stream) = self.table.get_mut(&no) else {
            return Taken::Gone(Gone {
                reason: Reason::Internal,
                retry_safe: false,
                by_peer: false,
            });
        };
        if let Some(head) = stream.recv.first.take() {
            stream.release_head(&self.budget);
            return Taken::Head(head);
        }
        let recv = &mut stream.recv;
        if let Some(data) = recv.queue.pop_front() {
            let weight = data.weight();
            recv.window.consume(weight);
            if recv.state.is_over() {
                recv.window.end(&self.budget);
            } else {
                let rtt = self.ping.rtt.unwrap_or_default();
                if let Some(credit) = recv.window.grant(now(), rtt, &self.settings, &self.budget) {
                    grant(&mut self.credits, no, &mut recv.credit_due, credit);
                }
            }
            return Taken::Data(data);
        }
        if let Some(trailers) = recv.take_trailers(&self.budget) {
            return Taken::Trailers(trailers);
        }
        match (recv.state, stream.gone) {
            (State::Ended, _) => Taken::End,
            (_, Some(gone)) => Taken::Gone(gone),
            _ => {
                if std::mem::take(&mut recv.awaits_continue) {
                    let credit = recv.window.open(stream.protocol, &self.settings, &self.budget);
                    grant(&mut self.credits, no, &mut recv.credit_due, credit);
                }
                Taken::Pending
            }
        }
    }

    /// Whether everything was taken up to the proper end, which has come.
    pub fn is_drained(&self, no: StreamNo) -> bool {
        self.table.get(&no).is_some_and(|stream| {
            let recv = &stream.recv;
            let taken = recv.first.is_none() && recv.queue.is_empty() && recv.trailers.is_none();
            recv.state == State::Ended && taken
        })
    }

    /// Why `no` was cut, if it was. A half that was only stopped, because the answer is
    /// complete, is not: [`room`](Mux::room) tells its writer.
    pub fn gone(&self, no: StreamNo) -> Option<Gone> {
        let Some(stream) = self.table.get(&no) else {
            return Some(Gone { reason: Reason::Internal, retry_safe: false, by_peer: false });
        };
        stream.gone
    }

    /// Cuts a request, both halves, and tells the peer.
    pub fn reset(&mut self, no: StreamNo, reason: Reason, retry_safe: bool, message: &str) {
        let Some(stream) = self.table.get_mut(&no) else { return };
        if stream.gone.is_some() || (stream.send.finished && stream.recv.state.is_over()) {
            return;
        }
        let told = !stream.ours || stream.send.started;
        stream.cut(Gone { reason, retry_safe, by_peer: false }, &self.budget);
        if told {
            let message = message.to_owned();
            self.control.push_back(Frame::Reset(Reset { no, reason, retry_safe, message }));
        }
        self.wake(no);
        // Whoever cuts what nobody holds any more leaves nothing behind.
        self.settle(no);
    }

    /// The driver drops its reading handle. An opener that leaves before the answer's end
    /// cancels the request; an answering side that leaves only stops the rest of it.
    pub fn drop_reader(&mut self, no: StreamNo) {
        let Some(stream) = self.table.get_mut(&no) else { return };
        stream.reader = false;
        if stream.gone.is_none() {
            if stream.recv.state == State::Ended {
                stream.recv.clear(&self.budget);
            } else if stream.ours {
                self.reset(no, Reason::Cancelled, false, "");
            } else {
                stream.recv.clear(&self.budget);
                stream.recv.abandoned = true;
                self.stop_rest(no);
            }
        }
        self.settle(no);
    }

    /// The driver drops its writing handle. Without [`finish`](Mux::finish) that cancels
    /// the request.
    pub fn drop_writer(&mut self, no: StreamNo) {
        let Some(stream) = self.table.get_mut(&no) else { return };
        stream.writer = false;
        if stream.gone.is_none() && !stream.send.state.is_over() {
            self.reset(no, Reason::Cancelled, false, "");
        }
        self.settle(no);
    }

    /// Cuts a request because of what this side was given to send.
    fn invalid(&mut self, no: StreamNo, message: &str) -> Result<(), Gone> {
        let ours = self.table.get(&no).is_some_and(|stream| stream.ours);
        let reason = if ours { Reason::HeaderTooLarge } else { Reason::BackendInvalid };
        self.reset(no, reason, false, message);
        Err(Gone { reason, retry_safe: false, by_peer: false })
    }

    /// Tells both handles that something happened to `no`.
    pub(crate) fn wake(&mut self, no: StreamNo) {
        self.events.push_back(Event::Readable(no));
        self.events.push_back(Event::Writable(no));
    }

    /// Once the answer is out, gives up the rest of a request that nobody reads.
    pub(crate) fn stop_rest(&mut self, no: StreamNo) {
        if let Some(stream) = self.table.get(&no)
            && stream.recv.abandoned
            && stream.send.finished
        {
            let message = String::new();
            self.control.push_back(Frame::Reset(Reset {
                no,
                reason: Reason::None,
                retry_safe: false,
                message,
            }));
        }
    }

    /// Removes the entry of `no` once nothing keeps it.
    pub(crate) fn settle(&mut self, no: StreamNo) {
        if self.table.get(&no).is_some_and(Stream::is_done)
            && let Some(mut stream) = self.table.remove(&no)
        {
            stream.send.clear(&self.budget);
            stream.recv.clear(&self.budget);
            self.budget.release(stream.fixed());
            let count = if stream.ours { &mut self.stats.opened } else { &mut self.stats.accepted };
            *count -= 1;
        }
    }
}

/// The request whose half is written, unless it was cut.
fn sending(table: &mut NumberMap<StreamNo, Stream>, no: StreamNo) -> Result<&mut Stream, Gone> {
    let internal = Gone { reason: Reason::Internal, retry_safe: false, by_peer: false };
    let stream = table.get_mut(&no).ok_or(internal)?;
    if let Some(gone) = stream.gone {
        return Err(gone);
    }
    if stream.send.state == State::Reset {
        // Only this half was cut: the answer is complete, the rest is not wanted.
        return Err(Gone { reason: Reason::None, retry_safe: false, by_peer: true });
    }
    Ok(stream)
}

/// Notes credit to be told to the peer; one entry for each request at most.
pub(crate) fn grant(credits: &mut VecDeque<StreamNo>, no: StreamNo, due: &mut u32, bytes: u32) {
    if bytes > 0 {
        if *due == 0 {
            credits.push_back(no);
        }
        *due = due.saturating_add(bytes);
    }
}
