//! What goes out: the one point at which the transport pulls.

use std::time::{Duration, Instant};

use strait_wire::{Frame, PIECE_WEIGHT, Pieces, StreamFrame, StreamNo};

use crate::life::State;
use crate::mux::Mux;
use crate::schedule::{Flows, Turn};
use crate::stream::Stream;
use crate::{Event, Fatal};

/// Bytes of control frames between two pieces, so that neither can hold up the other.
const CONTROL_RUN: usize = 8 * 1024;

/// What a control frame is taken to cost, in bytes: most are far smaller.
const CONTROL_COST: usize = 32;

impl<H: std::hash::BuildHasher> Flows for std::collections::HashMap<StreamNo, Stream, H> {
    fn turn(&mut self, no: StreamNo) -> Option<(&mut Turn, usize, bool)> {
        let send = &mut self.get_mut(&no)?.send;
        let sendable = send.is_sendable();
        Some((&mut send.turn, send.quantum, sendable))
    }
}

impl Mux {
    /// The next frame for the transport, which calls this when it has room for one.
    pub fn next_frame(&mut self, now: Instant) -> Option<Frame> {
        let frame = if self.control_run < CONTROL_RUN {
            self.next_control().or_else(|| self.next_piece(now))
        } else {
            self.control_run = 0;
            self.next_piece(now).or_else(|| self.next_control())
        };
        self.stats.frames_out += u64::from(frame.is_some());
        frame
    }

    /// Whether a frame waits for the transport.
    pub fn has_frame(&mut self) -> bool {
        !self.control.is_empty()
            || self.ping.pong.is_some()
            || self.announced.is_some()
            || self.announcement.is_some()
            || self.credit_is_due()
            || self.schedule.next(&mut self.table).is_some()
    }

    fn next_control(&mut self) -> Option<Frame> {
        let frame = if self.stats.frames_out == 0 {
            self.control.pop_front()
        } else if let Some(nonce) = self.ping.pong.take() {
            Some(Frame::Pong(nonce))
        } else {
            let announced = self.announced.take().map(Frame::Announced);
            // Before a goodbye: nothing is offered after that.
            let announced = announced.or_else(|| self.announcement.take().map(Frame::Announce));
            announced.or_else(|| self.control.pop_front()).or_else(|| self.next_credit())
        }?;
        self.control_run += CONTROL_COST;
        Some(frame)
    }

    fn next_credit(&mut self) -> Option<Frame> {
        if !self.credit_is_due() {
            return None;
        }
        let no = self.credits.pop_front()?;
        let due = &mut self.table.get_mut(&no)?.recv.credit_due;
        Some(Frame::Credit(no, std::mem::take(due)))
    }

    /// Whether the first number in line has credit to be told. Requests that ended before
    /// theirs was told leave their number behind; it is dropped here.
    fn credit_is_due(&mut self) -> bool {
        while let Some(no) = self.credits.front() {
            if self.table.get(no).is_some_and(|stream| stream.recv.credit_due > 0) {
                return true;
            }
            self.credits.pop_front();
        }
        false
    }

    fn next_piece(&mut self, now: Instant) -> Option<Frame> {
        let no = self.schedule.next(&mut self.table)?;
        let usual = self.pace.piece();
        let largest =
            if self.schedule.is_alone() { self.settings.max_piece as usize } else { usual };
        let peer_max = self.peer.map_or(self.settings.piece, |peer| peer.max_piece);
        let limit = largest.min(peer_max as usize).max(1);
        let stream = self.table.get_mut(&no)?;
        let first = stream.take_first(&self.budget);
        let send = &mut stream.send;
        let alone = first.is_some() && stream.protocol.head_travels_alone();
        let mut data = Pieces::default();
        let mut bytes = 0;
        while !alone
            && bytes < limit
            && let Some(piece) = send.take_piece(limit - bytes, &self.budget)
        {
            bytes += piece.weight();
            self.stats.bytes_out += piece.bytes.len() as u64;
            data.push_back(piece);
            if !stream.protocol.packs_messages() {
                break;
            }
        }
        let end = !alone && send.state == State::Ended && send.queue.is_empty();
        let sequence = send.sequence;
        send.sequence = send.sequence.wrapping_add(1);
        send.started = true;
        send.finished = end;
        // A frame is never free, whatever it carries. What went beyond a usual piece while
        // no other request was in line took nothing from anyone, and is no debt.
        let cost = bytes.min(usual) + PIECE_WEIGHT;
        self.pace.sent(cost, &self.settings, now);
        self.schedule.serve(&mut send.turn, cost);
        if send.queue.is_empty() {
            send.blocked = None;
        } else if !send.is_sendable() {
            send.blocked.get_or_insert(now);
        }
        let frame = StreamFrame {
            no,
            sequence,
            protocol: stream.protocol,
            is_request: stream.ours,
            first,
            data,
            trailers: if end { send.take_trailers(&self.budget) } else { None },
            end,
        };
        if send.wants_room && (end || send.room(&self.budget) > 0) {
            send.wants_room = false;
            self.events.push_back(Event::Writable(no));
        }
        self.control_run = 0;
        if end {
            self.stop_rest(no);
            self.settle(no);
        }
        Some(Frame::Stream(frame))
    }

    /// Lets time pass: sends pings and notices a peer that does not answer them.
    ///
    /// # Errors
    /// The session must end.
    pub fn expire(&mut self, now: Instant) -> Result<(), Fatal> {
        if self.ping.sent.is_some_and(|sent| now >= sent + self.settings.ping_timeout) {
            return Err(Fatal::PingTimeout);
        }
        if self.ping.sent.is_none() && now >= self.ping.next {
            self.ping.nonce += 1;
            self.ping.sent = Some(now);
            self.ping.next = now + self.settings.ping_interval;
            self.control.push_back(Frame::Ping(self.ping.nonce));
        }
        Ok(())
    }

    /// When [`expire`](Mux::expire) has something to do next.
    pub fn next_deadline(&self) -> Instant {
        self.ping.sent.map_or(self.ping.next, |sent| sent + self.settings.ping_timeout)
    }

    /// Adds the time that `no` waited for credit to the figures.
    pub(crate) fn unblock(&mut self, no: StreamNo, now: impl FnOnce() -> Instant) {
        if let Some(stream) = self.table.get_mut(&no)
            && let Some(since) = stream.send.blocked.take()
        {
            self.stats.credit_wait += now().checked_duration_since(since).unwrap_or(Duration::ZERO);
        }
    }
}
