//! One end of a tunnel: its table of requests and what the driver does with it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use strait_wire::{
    Announced, Announcement, Frame, GoAway, Hello, PIECE_WEIGHT, Reason, Side, StreamNo,
};

use crate::life::State;
use crate::pace::Pace;
use crate::schedule::Schedule;
use crate::stream::Stream;
use crate::{Budget, Event, Gone, Settings};

/// One end of a tunnel.
#[derive(Debug)]
pub struct Mux {
    pub(crate) side: Side,
    pub(crate) settings: Settings,
    pub(crate) budget: Budget,
    pub(crate) table: NumberMap<StreamNo, Stream>,
    /// The next number that this side opens.
    pub(crate) next_no: StreamNo,
    /// The highest number that the peer opened.
    pub(crate) highest: StreamNo,
    pub(crate) peer: Option<PeerLimits>,
    pub(crate) control: VecDeque<Frame>,
    /// Requests with credit to be told.
    pub(crate) credits: VecDeque<StreamNo>,
    pub(crate) schedule: Schedule,
    pub(crate) pace: Pace,
    pub(crate) events: VecDeque<Event>,
    pub(crate) leaving: Leaving,
    pub(crate) peer_leaving: bool,
    pub(crate) ping: Ping,
    /// The answer to the peer's announcement. A later one replaces it: a peer that announces
    /// without reading must not fill the queue with answers.
    pub(crate) announced: Option<Announced>,
    /// What this side offers, not yet sent. A later one replaces it: whoever changes it often
    /// must not fill the queue of a peer that does not read.
    pub(crate) announcement: Option<Announcement>,
    pub(crate) violations: u32,
    /// Bytes of control since the last piece.
    pub(crate) control_run: usize,
    pub(crate) stats: Stats,
}

/// What the peer allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerLimits {
    pub(crate) initial_credit: u32,
    pub(crate) max_piece: u32,
    pub(crate) max_requests: u32,
    /// It knows `Opening::awaits_continue`.
    pub(crate) continues: bool,
}

/// How far this side has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    No,
    /// The peer was asked to open no more; what it opened meanwhile is still accepted.
    Asked,
    /// Nothing above the number that was said is accepted.
    Said,
}

#[derive(Debug)]
pub(crate) struct Ping {
    pub(crate) nonce: u64,
    pub(crate) next: Instant,
    pub(crate) sent: Option<Instant>,
    pub(crate) pong: Option<u64>,
    pub(crate) rtt: Option<Duration>,
}

/// Figures of one end, for people and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests opened by this side that are in the table.
    pub opened: usize,
    /// Requests opened by the peer that are in the table.
    pub accepted: usize,
    /// Bytes of the budget that are taken; see docs/reference/memory.md.
    pub budget_used: usize,
    /// Credit granted to the peer and not used yet, in bytes.
    pub credit_outstanding: usize,
    /// Bytes received and not yet consumed, or queued and not yet sent.
    pub buffered: usize,
    /// Time that data spent waiting for credit, over all requests that ended the wait.
    pub credit_wait: Duration,
    /// Frames handed to the transport.
    pub frames_out: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Body bytes handed to the transport.
    pub bytes_out: u64,
    /// Body bytes received.
    pub bytes_in: u64,
    /// Violations, unknown payloads and late frames, which cost nothing but a count.
    pub ignored: u64,
    /// Violations among them.
    pub violations: u64,
    /// The last round trip of a ping.
    pub rtt: Option<Duration>,
    /// What was refused because of a limit.
    pub refusals: Refusals,
}

/// What of a tunnel is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Bytes of its budget.
    pub budget_used: usize,
    /// Requests that this end has opened.
    pub opened: usize,
}

/// Requests that a limit of this end refused, or cut, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Ours, for which the budget had no memory.
    pub ours_budget: u64,
    /// Ours, because the peer allows no more at once.
    pub ours_requests: u64,
    /// The peer's, for which the budget had no memory.
    pub theirs_budget: u64,
    /// The peer's, because this side allows no more at once.
    pub theirs_requests: u64,
    /// Cut because the budget had no memory for a head or trailers that came.
    pub heads: u64,
}

/// A map from numbers that only ever increase, such as those of requests.
pub type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// The hasher of a [`NumberMap`]: spreading increasing numbers over the table takes one
/// multiplication. Where a peer chooses them, it may open only so many at once.
#[derive(Debug, Default)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0 ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}

impl Mux {
    /// A new end. Its Hello, which says what `settings` allow and what this end knows, is the
    /// first frame it sends.
    pub fn new(
        side: Side,
        settings: Settings,
        budget: Budget,
        mut hello: Hello,
        now: Instant,
    ) -> Mux {
        hello.version_min = 1;
        hello.version_max = 1;
        hello.initial_credit = settings.initial_credit;
        hello.max_piece = settings.max_piece;
        hello.max_requests = settings.max_requests;
        hello.features.push(Hello::CONTINUE.to_owned());
        Mux {
            side,
            budget,
            table: HashMap::default(),
            next_no: side.first_number(),
            highest: StreamNo::NONE,
            peer: None,
            control: VecDeque::from([Frame::Hello(Box::new(hello))]),
            credits: VecDeque::new(),
            schedule: Schedule::default(),
            pace: Pace::new(&settings, now),
            events: VecDeque::new(),
            leaving: Leaving::No,
            peer_leaving: false,
            // The first ping goes at once: its answer tells the round trip.
            ping: Ping { nonce: 0, next: now, sent: None, pong: None, rtt: None },
            announced: None,
            announcement: None,
            violations: 0,
            control_run: 0,
            stats: Stats::default(),
            settings,
        }
    }

    /// Announces the services that this side offers, in place of those before.
    pub fn announce(&mut self, announcement: Announcement) {
        self.announcement = Some(announcement);
    }

    /// Answers the peer's announcement.
    pub fn announced(&mut self, answer: Announced) {
        self.announced = Some(answer);
    }

    /// Asks the peer to open no more requests; what is open goes on, and this side may
    /// still open some.
    pub fn drain(&mut self) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Asked;
            self.goaway(None, Reason::Draining, "");
        }
    }

    /// Says goodbye: the last frame of an orderly session.
    pub fn goodbye(&mut self, reason: Reason, message: &str) {
        if self.leaving != Leaving::Said {
            self.leaving = Leaving::Said;
            self.goaway(Some(self.highest), reason, message);
        }
    }

    fn goaway(&mut self, last: Option<StreamNo>, reason: Reason, message: &str) {
        self.control.push_back(Frame::GoAway(GoAway { last, reason, message: message.to_owned() }));
    }

    /// The tunnel is lost: every request ends, once. Those of which nothing was sent may
    /// be tried elsewhere.
    pub fn lose(&mut self, reason: Reason) {
        self.control.clear();
        self.credits.clear();
        self.ping.pong = None;
        self.announced = None;
        self.announcement = None;
        self.leaving = Leaving::Said;
        let numbers: Vec<StreamNo> = self.table.keys().copied().collect();
        for no in numbers {
            if let Some(stream) = self.table.get_mut(&no) {
                if stream.ours && stream.recv.state == State::Ended {
                    // The answer is complete and can still be delivered.
                    stream.send.stop(&self.budget);
                } else {
                    let retry_safe = stream.ours && !stream.send.started;
                    stream.cut(Gone { reason, retry_safe, by_peer: true }, &self.budget);
                }
                self.wake(no);
                self.settle(no);
            }
        }
    }

    /// The next event, oldest first.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Requests in the table, whoever opened them.
    pub fn pending(&self) -> usize {
        self.table.len()
    }

    /// The figures of this end.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            budget_used: self.budget.used(),
            rtt: self.ping.rtt,
            violations: u64::from(self.violations),
            ..self.stats
        };
        for stream in self.table.values() {
            stats.credit_outstanding += stream.recv.window.outstanding();
            stats.buffered += stream.recv.window.buffered() + stream.send.queued;
        }
        stats
    }

    /// How much there is on it.
    pub fn load(&self) -> Load {
        Load { budget_used: self.budget.used(), opened: self.stats.opened }
    }

    /// Urgency scales the share, never the order: nothing starves.
    pub(crate) fn quantum(&self, urgency: u8) -> usize {
        let share = self.settings.piece as usize * usize::from(8 - urgency.min(7)) / 5;
        // A share of nothing would never get out of debt, and its line never past it.
        share.max(PIECE_WEIGHT)
    }
}
