//! What the tests may see of a mux. No part of the contract, and nothing here changes it.

use std::collections::HashSet;

use strait_wire::{Data, Pieces, StreamNo};

use crate::life::State;
use crate::mux::Mux;
use crate::stream::Stream;

/// The accounts of one request at one end, in bytes.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Credit that this end may still use.
    pub credit: usize,
    /// Queued and not handed to the transport.
    pub queued: usize,
    /// The half that this end sends is open or has its end still to be sent.
    pub sending: bool,
    /// Granted to the peer and not received.
    pub outstanding: usize,
    /// The part of it that the peer was not told of yet.
    pub credit_due: usize,
    /// Received and not consumed.
    pub buffered: usize,
    /// Reserved for what is received.
    pub window: usize,
    /// The peer may still send: neither ended nor cut nor given up.
    pub receiving: bool,
}

/// A request that could be served at one end.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which.
    pub no: StreamNo,
    /// Its share of a round, in bytes.
    pub quantum: usize,
    /// The usual piece, in bytes.
    pub piece: usize,
}

impl Mux {
    /// The requests that could be served now.
    #[doc(hidden)]
    pub fn lines(&self) -> Vec<Line> {
        let sendable = self.table.iter().filter(|(_, stream)| stream.send.is_sendable());
        let piece = self.pace.piece();
        sendable.map(|(no, stream)| Line { no: *no, quantum: stream.send.quantum, piece }).collect()
    }

    /// Whether a ping was sent and not answered yet.
    #[doc(hidden)]
    pub fn awaits_pong(&self) -> bool {
        self.ping.sent.is_some()
    }

    /// The accounts of `no`.
    #[doc(hidden)]
    pub fn accounts(&self, no: StreamNo) -> Option<Accounts> {
        let stream = self.table.get(&no)?;
        let (send, recv) = (&stream.send, &stream.recv);
        Some(Accounts {
            credit: send.credit,
            queued: send.queued,
            sending: stream.gone.is_none() && send.state != State::Reset && !send.finished,
            outstanding: recv.window.outstanding(),
            credit_due: recv.credit_due as usize,
            buffered: recv.window.buffered(),
            window: recv.window.reserved(),
            receiving: stream.gone.is_none() && !recv.abandoned && !recv.state.is_over(),
        })
    }

    /// Violations of the peer so far.
    #[doc(hidden)]
    pub fn violations(&self) -> u32 {
        self.violations
    }

    /// Whether this end agrees with itself. The budget must not be shared.
    ///
    /// # Errors
    /// What does not add up.
    #[doc(hidden)]
    pub fn check(&self) -> Result<(), String> {
        let mut used = 0;
        let mut ours = 0;
        // What this side's writers have queued is charged even when it does not fit.
        let mut beyond = 0;
        let due: Vec<StreamNo> = self.credits.iter().copied().collect();
        let owed: HashSet<StreamNo> = due.iter().copied().collect();
        for (no, stream) in &self.table {
            let (send, recv) = (&stream.send, &stream.recv);
            used += stream.fixed() + recv.window.reserved() + send.queued;
            let answer = if stream.ours { 0 } else { stream.head };
            beyond += send.queued + send.trailers_cost + answer;
            ours += usize::from(stream.ours);
            self.check_stream(*no, stream).map_err(|what| format!("request {no}: {what}"))?;
            if recv.credit_due > 0 && !owed.contains(no) {
                return Err(format!("request {no}: credit is due and never told"));
            }
        }
        let facts = [
            (used == self.budget.used(), "the budget is not the sum of what requests hold"),
            (used - beyond <= self.budget.limit(), "more was promised than the budget has"),
            (ours == self.stats.opened, "the count of opened requests"),
            (self.table.len() - ours == self.stats.accepted, "the count of accepted requests"),
            (due.len() <= self.credits_bound(), "credits wait for requests that are no more"),
        ];
        match facts.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, what)) => {
                Err(format!("{what}: sum {used}, budget {:?}, {due:?}", self.budget))
            }
        }
    }

    fn credits_bound(&self) -> usize {
        // Entries of requests that went before their credit was told are skipped later.
        self.settings.max_control + 1
    }

    fn check_stream(&self, no: StreamNo, stream: &Stream) -> Result<(), String> {
        let (send, recv) = (&stream.send, &stream.recv);
        let weight = |queue: &Pieces| -> usize { queue.iter().map(Data::weight).sum() };
        let held = send.first.is_some() || !send.queue.is_empty() || recv.first.is_some();
        let facts = [
            (send.queued == weight(&send.queue), "the weight of the send queue"),
            (recv.window.buffered() == weight(&recv.queue), "the weight of the receive queue"),
            (
                recv.window.outstanding() + recv.window.buffered() <= recv.window.reserved(),
                "more promised than reserved",
            ),
            (
                recv.state != State::Ended || recv.window.reserved() == recv.window.buffered(),
                "a half that ended keeps more than what waits in it",
            ),
            (recv.credit_due as usize <= recv.window.outstanding(), "credit due and not granted"),
            (
                !send.awaits_continue || send.credit == 0,
                "credit of a half that waits for its first grant",
            ),
            (
                !recv.awaits_continue || recv.window.outstanding() == 0,
                "credit for a half that nobody has asked for",
            ),
            (stream.gone.is_none() || !held, "a request that is gone holds memory"),
            (!stream.is_done(), "an entry that nothing keeps"),
            (
                !send.is_sendable() || self.schedule.holds(no, &send.turn),
                "something to send and in no line",
            ),
            (
                !send.wants_room
                    || send.is_sendable()
                    || send.state != State::Open
                    || send.room(&self.budget) == 0,
                "a writer waits although there is room and nothing to send",
            ),
        ];
        match facts.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, what)) => Err(format!("{what}: {stream:?}")),
        }
    }
}
