//! What comes in. Nothing here waits for anything, and every frame has one outcome.

use std::time::Instant;

use strait_wire::{
    Data, First, Frame, GoAway, Hello, Opening, Reason, Reset, StreamFrame, StreamNo,
};

use crate::life::{Happening, State};
use crate::mux::{Leaving, Mux, PeerLimits};
use crate::request::grant;
use crate::stream::{ENTRY, Stream, head_cost};
use crate::window::Window;
use crate::{Event, Fatal, Gone};

/// Largest sum of credit that a sender may be granted, in bytes: more is an overflow
/// (as in RFC 9113 6.9.1).
const CREDIT_MAX: usize = i32::MAX as usize;

/// Why a frame cuts its request.
struct Wrong {
    reason: Reason,
    message: &'static str,
}

impl Wrong {
    const fn new(message: &'static str) -> Wrong {
        Wrong { reason: Reason::Protocol, message }
    }

    /// Nobody's mistake: a head or trailers for which no memory is left.
    const fn no_memory(message: &'static str) -> Wrong {
        Wrong { reason: Reason::Overloaded, message }
    }
}

impl Mux {
    /// Takes a frame from the transport. Few have to know the time.
    ///
    /// # Errors
    /// The session must end.
    pub fn receive(&mut self, frame: Frame, now: impl FnOnce() -> Instant) -> Result<(), Fatal> {
        self.stats.frames_in += 1;
        if self.peer.is_none() && !matches!(frame, Frame::Hello(_)) {
            return Err(Fatal::NoHello);
        }
        if self.control.len() + self.credits.len() > self.settings.max_control {
            return Err(Fatal::NotReading);
        }
        match frame {
            Frame::Hello(hello) => return self.on_hello(hello),
            Frame::Stream(frame) => return self.on_stream(frame, now),
            Frame::Credit(no, bytes) => return self.on_credit(no, bytes, now),
            Frame::Reset(reset) => self.on_reset(reset),
            Frame::Ping(nonce) => self.ping.pong = Some(nonce),
            Frame::Pong(nonce) => {
                if nonce == self.ping.nonce
                    && let Some(sent) = self.ping.sent.take()
                {
                    self.ping.rtt = now().checked_duration_since(sent);
                }
            }
            Frame::GoAway(goaway) => self.on_goaway(goaway),
            Frame::Settings(settings) => {
                if let Some(peer) = &mut self.peer {
                    let keep = |old: u32, new: u32| if new == 0 { old } else { new };
                    peer.initial_credit = keep(peer.initial_credit, settings.initial_credit);
                    peer.max_requests = keep(peer.max_requests, settings.max_requests);
                }
            }
            Frame::Announce(announcement) => self.events.push_back(Event::Announce(announcement)),
            Frame::Announced(answer) => self.events.push_back(Event::Announced(answer)),
            Frame::Malformed(no, message) => return self.on_malformed(no, message),
            Frame::Unknown => self.stats.ignored += 1,
        }
        Ok(())
    }

    fn on_hello(&mut self, hello: Box<Hello>) -> Result<(), Fatal> {
        if self.peer.is_some() {
            return Err(Fatal::SecondHello);
        }
        if hello.version_min > 1 || hello.version_max < 1 {
            return Err(Fatal::Version { min: hello.version_min, max: hello.version_max });
        }
        self.peer = Some(PeerLimits {
            initial_credit: hello.initial_credit,
            max_piece: hello.max_piece.max(1024),
            max_requests: hello.max_requests,
            continues: hello.features.iter().any(|name| name == Hello::CONTINUE),
        });
        self.events.push_back(Event::Ready(hello));
        Ok(())
    }

    fn on_stream(
        &mut self,
        frame: StreamFrame,
        now: impl FnOnce() -> Instant,
    ) -> Result<(), Fatal> {
        let no = frame.no;
        match self.table.get_mut(&no) {
            None if matches!(frame.first, Some(First::Request(_))) => self.on_open(frame),
            None => self.on_unknown(no),
            Some(stream) if stream.gone.is_some() || stream.recv.abandoned => {
                self.stats.ignored += 1;
                Ok(())
            }
            Some(_) => match self.continue_stream(frame) {
                Ok(()) => Ok(()),
                Err(wrong) => {
                    self.unblock(no, now);
                    self.reset(no, wrong.reason, false, wrong.message);
                    self.settle(no);
                    self.blame(&wrong)
                }
            },
        }
    }

    fn on_open(&mut self, frame: StreamFrame) -> Result<(), Fatal> {
        let no = frame.no;
        if no.0 == 0 || self.side.opens(no) {
            return self.violation("a request opened with a number of the other side");
        }
        if no <= self.highest {
            // Numbers increase, so this one is finished: a late frame of it.
            self.stats.ignored += 1;
            return Ok(());
        }
        self.highest = no;
        let Some(First::Request(opening)) = frame.first else { return Ok(()) };
        if opening.id.is_none() {
            self.refuse(no, Reason::Protocol, "a malformed request_id");
            return self.violation("a malformed request_id");
        }
        if self.leaving == Leaving::Said {
            self.refuse(no, Reason::Draining, "this side is leaving");
            return Ok(());
        }
        if self.stats.accepted >= self.settings.max_requests as usize {
            self.stats.refusals.theirs_requests += 1;
            self.refuse(no, Reason::Overloaded, "too many requests are open");
            return Ok(());
        }
        let rest = StreamFrame { first: None, ..frame };
        self.admit(rest, opening)
    }

    /// Enters an opened request into the table, if there is memory for it.
    fn admit(&mut self, rest: StreamFrame, opening: Box<Opening>) -> Result<(), Fatal> {
        let no = rest.no;
        let head = head_cost(&opening.head);
        // What the opener may already have sent; it must be held even under pressure.
        let implied = match opening.awaits_continue {
            true => 0,
            false => opening.answer_credit.min(self.settings.initial_credit) as usize,
        };
        let sent: usize = rest.data.iter().map(Data::weight).sum();
        if sent > implied || opening.answer_credit as usize > CREDIT_MAX {
            let message = "data beyond the credit, or a grant of too much";
            self.refuse(no, Reason::FlowControl, message);
            return self.violation(message);
        }
        // An open body gets a window that can grow again, or is refused: one that was
        // granted next to nothing would wait for ever.
        let least = if rest.end { sent } else { implied.max(self.settings.window_min as usize) };
        if !self.budget.reserve(least + ENTRY + head) {
            self.stats.refusals.theirs_budget += 1;
            self.refuse(no, Reason::Overloaded, "no memory is left for another request");
            return Ok(());
        }
        let mut window = Window::new(least, if rest.end { sent } else { implied });
        let awaits_continue = opening.awaits_continue && !rest.end;
        let more = match rest.end || awaits_continue {
            true => 0,
            false => window.open(rest.protocol, &self.settings, &self.budget),
        };
        let mut stream = Stream::new(rest.protocol, false, window, head);
        stream.recv.awaits_continue = awaits_continue;
        grant(&mut self.credits, no, &mut stream.recv.credit_due, more);
        stream.recv.state = State::Open;
        stream.send.credit = opening.answer_credit as usize;
        stream.send.quantum = self.quantum(opening.urgency);
        stream.opening = Some(opening);
        self.table.insert(no, stream);
        self.stats.accepted += 1;
        let outcome = self.continue_stream(rest);
        match outcome {
            Ok(()) => {
                self.events.push_back(Event::Accepted(no));
                Ok(())
            }
            Err(wrong) => {
                self.reset(no, wrong.reason, false, wrong.message);
                // Nobody was told of it, so nobody will drop its handles.
                self.drop_reader(no);
                self.drop_writer(no);
                self.blame(&wrong)
            }
        }
    }

    /// The next frame of a request that is in the table.
    fn continue_stream(&mut self, frame: StreamFrame) -> Result<(), Wrong> {
        let no = frame.no;
        let Some(stream) = self.table.get_mut(&no) else { return Ok(()) };
        if frame.protocol != stream.protocol {
            return Err(Wrong::new("a payload of another protocol"));
        }
        if frame.is_request == stream.ours {
            return Err(Wrong::new("a payload of the other direction"));
        }
        let recv = &mut stream.recv;
        if frame.sequence != recv.sequence {
            return Err(Wrong::new("a gap in the sequence"));
        }
        recv.sequence = recv.sequence.wrapping_add(1);
        let step = |state: &mut State, happening| match state.after(happening) {
            Ok(next) => {
                *state = next;
                Ok(())
            }
            Err(violation) => Err(Wrong::new(violation.as_str())),
        };
        match frame.first {
            Some(First::Response(head)) if stream.ours => {
                step(&mut recv.state, Happening::Head)?;
                if !stream.keep_head(head, &self.budget) {
                    return Err(Wrong::no_memory("no memory is left for the answer's head"));
                }
            }
            Some(First::Request(_)) => return Err(Wrong::new("a second first chunk")),
            Some(First::Response(_)) => {
                return Err(Wrong::new("an answer from the side that asked"));
            }
            // A chunk that says nothing is a chunk: it has no place before the head or after
            // the end.
            None if frame.data.is_empty() && !frame.end => {
                step(&mut recv.state, Happening::Data)?;
            }
            None => {}
        }
        let recv = &mut stream.recv;
        let mut pieces = frame.data;
        while let Some(data) = pieces.pop_front() {
            step(&mut recv.state, Happening::Data)?;
            // Credit that the peer was not told of yet is none.
            let within = recv.window.receive(data.weight())
                && recv.window.outstanding() >= recv.credit_due as usize;
            if !within {
                return Err(Wrong {
                    reason: Reason::FlowControl,
                    message: "data beyond the credit",
                });
            }
            self.stats.bytes_in += data.bytes.len() as u64;
            recv.enqueue(data);
        }
        if frame.end {
            let mut state = recv.state;
            step(&mut state, Happening::End)?;
            if !recv.end(frame.trailers, &self.budget) {
                // The state is still open: what is cut must not look like an end.
                return Err(Wrong::no_memory("no memory is left for the trailers"));
            }
            recv.state = state;
        }
        self.events.push_back(Event::Readable(no));
        Ok(())
    }

    fn on_credit(
        &mut self,
        no: StreamNo,
        bytes: u32,
        now: impl FnOnce() -> Instant,
    ) -> Result<(), Fatal> {
        let Some(stream) = self.table.get_mut(&no) else { return self.on_unknown(no) };
        if stream.gone.is_some() {
            return Ok(());
        }
        let sum = stream.send.credit + bytes as usize;
        if bytes == 0 || sum > CREDIT_MAX {
            self.reset(no, Reason::FlowControl, false, "a grant of nothing or of too much");
            self.settle(no);
            return self.violation("a grant of nothing or of too much");
        }
        stream.send.credit = sum;
        stream.send.awaits_continue = false;
        if stream.send.wants_room && stream.send.room(&self.budget) > 0 {
            stream.send.wants_room = false;
            self.events.push_back(Event::Writable(no));
        }
        stream.enlist(no, &mut self.schedule);
        self.unblock(no, now);
        Ok(())
    }

    fn on_reset(&mut self, reset: Reset) {
        let Some(stream) = self.table.get_mut(&reset.no) else {
            self.stats.ignored += 1;
            return;
        };
        if stream.ours && stream.recv.state == State::Ended {
            // The answer is complete: only the rest of the request is not wanted.
            stream.send.stop(&self.budget);
        } else {
            let gone = Gone { reason: reset.reason, retry_safe: reset.retry_safe, by_peer: true };
            stream.cut(gone, &self.budget);
        }
        self.wake(reset.no);
        self.settle(reset.no);
    }

    fn on_goaway(&mut self, goaway: GoAway) {
        self.peer_leaving = true;
        if let Some(last) = goaway.last {
            let cut: Vec<StreamNo> = self
                .table
                .iter()
                .filter(|(no, stream)| stream.ours && **no > last && stream.gone.is_none())
                .map(|(no, _)| *no)
                .collect();
            for no in cut {
                if let Some(stream) = self.table.get_mut(&no) {
                    let gone = Gone { reason: Reason::Draining, retry_safe: true, by_peer: true };
                    stream.cut(gone, &self.budget);
                }
                self.wake(no);
                self.settle(no);
            }
        }
        self.events.push_back(Event::Leaving(goaway));
    }

    fn on_malformed(&mut self, no: StreamNo, message: &'static str) -> Result<(), Fatal> {
        if self.table.contains_key(&no) {
            self.reset(no, Reason::Protocol, false, message);
            self.settle(no);
        } else if no > self.highest && no.0 != 0 && !self.side.opens(no) {
            // Its opening was unreadable: it counts as opened and refused.
            self.highest = no;
            self.refuse(no, Reason::Protocol, message);
        }
        self.violation(message)
    }

    /// A frame for a request that is not in the table: late when its number was in use,
    /// otherwise a violation.
    fn on_unknown(&mut self, no: StreamNo) -> Result<(), Fatal> {
        let was_in_use = if self.side.opens(no) { no < self.next_no } else { no <= self.highest };
        if was_in_use && no.0 != 0 {
            self.stats.ignored += 1;
            return Ok(());
        }
        self.violation("a message for a request that was never opened")
    }

    fn refuse(&mut self, no: StreamNo, reason: Reason, message: &str) {
        let message = message.to_owned();
        self.control.push_back(Frame::Reset(Reset { no, reason, retry_safe: true, message }));
    }

    /// What a frame that cut its request costs the peer.
    fn blame(&mut self, wrong: &Wrong) -> Result<(), Fatal> {
        if wrong.reason == Reason::Overloaded {
            self.stats.refusals.heads += 1;
            return Ok(());
        }
        self.violation(wrong.message)
    }

    fn violation(&mut self, what: &'static str) -> Result<(), Fatal> {
        self.stats.ignored += 1;
        self.violations += 1;
        if self.violations > self.settings.max_violations {
            Err(Fatal::Violations(what))
        } else {
            Ok(())
        }
    }
}
