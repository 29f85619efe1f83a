//! What a mux tells its driver.

use std::fmt;

use http::HeaderMap;
use strait_wire::{Announced, Announcement, Data, GoAway, Hello, Reason, ResponseHead, StreamNo};

/// Something that happened and that the driver must pass on.
#[derive(Debug)]
pub enum Event {
    /// The peer's Hello: requests may be opened now.
    Ready(Box<Hello>),
    /// The peer opened a request; see [`Mux::accept`](crate::Mux::accept).
    Accepted(StreamNo),
    /// There is something to [`take`](crate::Mux::take).
    Readable(StreamNo),
    /// There may be [`room`](crate::Mux::room) again.
    Writable(StreamNo),
    /// The services that the peer offers.
    Announce(Announcement),
    /// The peer's answer to our announcement.
    Announced(Announced),
    /// The peer is leaving: open requests elsewhere.
    Leaving(GoAway),
}

/// What [`Mux::take`](crate::Mux::take) found.
#[derive(Debug)]
pub enum Taken {
    /// The answer's head.
    Head(Box<ResponseHead>),
    /// A piece of the body.
    Data(Data),
    /// Trailers; the end follows.
    Trailers(Box<HeaderMap>),
    /// The proper end.
    End,
    /// Nothing yet.
    Pending,
    /// The request was cut.
    Gone(Gone),
}

/// Why a request is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Why.
    pub reason: Reason,
    /// Nothing reached a backend.
    pub retry_safe: bool,
    /// The peer said so; otherwise this side did.
    pub by_peer: bool,
}

/// Why a request was not opened. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The peer's Hello has not come yet.
    NotReady,
    /// One of the sides is leaving.
    Leaving,
    /// As many requests are open as the peer allows.
    TooMany,
    /// The memory budget is used up.
    NoBudget,
}

/// Why a session must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// The first frame was not a Hello.
    NoHello,
    /// There was a second Hello.
    SecondHello,
    /// No protocol version in common.
    Version {
        /// The peer's oldest.
        min: u32,
        /// The peer's newest.
        max: u32,
    },
    /// Too many violations; the last one.
    Violations(&'static str),
    /// A ping was not answered in time.
    PingTimeout,
    /// The peer makes us queue control frames and does not read them.
    NotReading,
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fatal::NoHello => f.write_str("the first message was not a Hello"),
            Fatal::SecondHello => f.write_str("there was a second Hello"),
            Fatal::Version { min, max } => write!(
                f,
                "this side speaks protocol versions 1..1, you offered {min}..{max}; update the older side"
            ),
            Fatal::Violations(last) => {
                write!(f, "too many protocol violations, the last one: {last}")
            }
            Fatal::PingTimeout => f.write_str("a ping was not answered in time"),
            Fatal::NotReading => f.write_str("the peer sends but does not read"),
        }
    }
}

impl std::error::Error for Fatal {}
