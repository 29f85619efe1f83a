//! Every limit and every time of a node. From these two tables come the keys of the
//! configuration, their defaults and ranges, and docs/reference/limits.md.

use std::ops::RangeInclusive;
use std::time::Duration;

use strait_engine::Patience;

use super::document::{Table, human, human_time};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

/// The most that `threads` may be.
pub const MAX_THREADS: u64 = 1024;

/// No limit at all.
const NONE: u64 = u64::MAX;

/// A limit or a time, as the reference tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key in `[limits]` or `[timeouts]`.
    pub key: &'static str,
    /// What it bounds.
    pub what: &'static str,
    /// What holds when nothing is said.
    pub default: String,
    /// The smallest and the largest value that is taken.
    pub allowed: (String, String),
    /// What happens at the limit; kinds of faults stand in backticks.
    pub then: &'static str,
}

/// What a number counts: decides how it is written.
trait Unit {
    fn read(table: &Table<'_, '_>, key: &'static str, range: RangeInclusive<u64>) -> Option<u64>;
    fn show(value: u64) -> String;
}

/// A plain number.
struct Count;
/// Bytes.
struct Size;

impl Unit for Count {
    fn read(table: &Table<'_, '_>, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        table.count(key, range)
    }

    fn show(value: u64) -> String {
        if value == NONE { "none".to_owned() } else { value.to_string() }
    }
}

impl Unit for Size {
    fn read(table: &Table<'_, '_>, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        table.size(key, range)
    }

    fn show(value: u64) -> String {
        if value == NONE { "none".to_owned() } else { human(value) }
    }
}

macro_rules! limits {
    ($($key:ident: $unit:ident = $default:expr, $least:expr, $most:expr;
       $what:literal => $then:literal;)*) => {
        /// Named limits; sizes in bytes.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits { $(#[doc = $what] pub $key: u64,)* }

        impl Default for Limits {
            fn default() -> Limits {
                Limits { $($key: $default,)* }
            }
        }

        impl Limits {
            pub(super) fn read(table: &Table<'_, '_>) -> Limits {
                Limits {
                    $($key: $unit::read(table, stringify!($key), $least..=$most).unwrap_or($default),)*
                }
            }

            /// The keys whose values differ in `other`.
            pub(super) fn changed(&self, other: &Limits) -> Vec<&'static str> {
                let all = [$((stringify!($key), self.$key != other.$key),)*];
                all.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
            }

            /// The table, for the reference.
            pub fn rows() -> Vec<Row> {
                vec![$(Row {
                    key: stringify!($key), what: $what, default: $unit::show($default),
                    allowed: ($unit::show($least), $unit::show($most)), then: $then,
                }),*]
            }
        }
    };
}

// `max_exchanges_per_visitor`: nobody can say how many share the address of a proxy or of an
// office. `initial_window` and `max_window`: all of a window can lie in this node's memory when one
// visitor stops reading. `max_requests`: 10,000 idle WebSockets shall fit one tunnel.
limits! {
    threads: Count = half_of_the_cores(), 1, MAX_THREADS;
        "Threads that carry requests" => "requests take turns";
    max_exchanges: Count = 100_000, 1, 10_000_000;
        "Requests under way on the node" => "`overloaded`";
    max_exchanges_per_visitor: Count = NONE, 1, 10_000_000;
        "Requests under way of one visitor of an entry, by address; a network of 64 bits of IPv6 is one" => "`client_limit`";
    max_requests: Count = 16_384, 1, 1_000_000;
        "Requests of the other side, open at once on one tunnel" => "`overloaded`, after another tunnel was tried";
    session_budget: Size = 64 * MIB, MIB, 64 * GIB;
        "Credit given, buffers and heads of one tunnel" => "`overloaded`, after another tunnel was tried";
    process_budget: Size = 512 * MIB, MIB, 1024 * GIB;
        "The same of all tunnels of the process" => "`overloaded`";
    initial_window: Size = 256 * KIB, 16 * KIB, GIB;
        "What a request may send before it is granted more" => "the sender waits";
    max_window: Size = 4 * MIB, 16 * KIB, GIB;
        "The most that a request may be granted at once" => "the sender waits";
    max_header_bytes: Size = 64 * KIB, KIB, MIB / 2;
        "All header fields of one head" => "`header_too_large`";
    max_header_fields: Count = 100, 10, 10_000;
        "Header fields of one head" => "`header_too_large`";
    max_uri: Size = 16 * KIB, 256, 256 * KIB;
        "The request target" => "`uri_too_long`";
    max_body: Size = NONE, 1, MIB * GIB;
        "The body of one plain HTTP request" => "`body_too_large`";
    max_control_frames: Count = 20_000, 100, 10_000_000;
        "Frames of HTTP/2 that serve no request, from one visitor at once; a tenth of it comes back each second, and a request that is taken back counts as ten" => "the connection is closed";
    max_message: Size = 16 * MIB, KIB, 4 * GIB;
        "One gRPC message or WebSocket message" => "`message_too_large`";
    max_idle_connections: Count = 256, 0, 100_000;
        "Unused HTTP/1 connections kept to one backend" => "the connection is closed";
}

impl Limits {
    /// `max_exchanges_per_visitor`, when there is such a limit.
    pub(crate) fn of_one_visitor(&self) -> Option<usize> {
        let most = self.max_exchanges_per_visitor;
        usize::try_from(most).ok().filter(|_| most != NONE)
    }
}

/// The rest is for whoever else is on the machine. A tunnel has the use of one thread, so more than
/// there are tunnels do nothing.
fn half_of_the_cores() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores as u64 / 2).max(1)
}

macro_rules! times {
    ($($key:ident = $default:expr, $least:expr, $most:expr;
       $what:literal => $then:literal;)*) => {
        /// Named times.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Timeouts { $(#[doc = $what] pub $key: Duration,)* }

        impl Default for Timeouts {
            fn default() -> Timeouts {
                Timeouts { $($key: Duration::from_millis($default),)* }
            }
        }

        impl Timeouts {
            pub(super) fn read(table: &Table<'_, '_>) -> Timeouts {
                let millis = Duration::from_millis;
                Timeouts {
                    $($key: table
                        .duration(stringify!($key), millis($least)..=millis($most))
                        .unwrap_or(millis($default)),)*
                }
            }

            /// The keys whose values differ in `other`.
            pub(super) fn changed(&self, other: &Timeouts) -> Vec<&'static str> {
                let all = [$((stringify!($key), self.$key != other.$key),)*];
                all.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
            }

            /// The table, for the reference.
            pub fn rows() -> Vec<Row> {
                vec![$(Row {
                    key: stringify!($key), what: $what,
                    default: human_time(Duration::from_millis($default)),
                    allowed: (
                        human_time(Duration::from_millis($least)),
                        human_time(Duration::from_millis($most)),
                    ),
                    then: $then,
                }),*]
            }
        }
    };
}

// In milliseconds. `hold`: short enough to answer a visitor within a second, long enough
// for a client that is reconnecting. `room`: long enough for a burst of ten thousand requests.
times! {
    first_byte = 10 * SECOND, 10, HOUR;
        "From a visitor's connection to its first byte; to the end of its PROXY header, where it begins with one" => "the connection is closed";
    headers = 10 * SECOND, 10, HOUR;
        "From the first byte of a request's head to its last; a visitor's TLS handshake" => "the connection is closed";
    body_idle = 30 * SECOND, 10, HOUR;
        "A pause within the body of a plain HTTP request" => "`request_timeout`";
    answer_idle = 300 * SECOND, 10, 24 * HOUR;
        "An answer that its visitor does not take; not for gRPC and WebSocket" => "the connection is closed";
    keep_alive_idle = 75 * SECOND, 10, 24 * HOUR;
        "A visitor's connection without a request" => "the connection is closed, HTTP/2 with GOAWAY";
    hold = 300, 0, HOUR;
        "A request whose service no tunnel offers at the moment" => "`client_offline`";
    room = SECOND, 0, HOUR;
        "A request for which no tunnel has room at the moment: memory, or one more of `max_requests`" => "`overloaded`";
    backend_connect = 5 * SECOND, 10, HOUR;
        "Connecting to a backend, its TLS handshake included" => "`backend_connect_timeout`";
    backend_idle = 20 * SECOND, 10, 24 * HOUR;
        "An unused connection to a backend" => "the connection is closed";
    continue_wait = SECOND, 10, HOUR;
        "From the head of a request whose visitor waits for `100 Continue` to a service's word" => "the body is sent without it";
    answer_head = 60 * SECOND, 10, 24 * HOUR;
        "From the last piece of a plain HTTP request to the head of its answer" => "`backend_timeout`";
    websocket_handshake = 10 * SECOND, 10, HOUR;
        "A WebSocket handshake with a backend" => "`backend_timeout`";
    websocket_close = 10 * SECOND, 10, HOUR;
        "From one side's close frame to the other's" => "the socket is closed";
    ping_interval = 10 * SECOND, 100, HOUR;
        "Between two pings on the tunnel, also when it is idle" => "the next ping is sent";
    ping_timeout = 10 * SECOND, 100, HOUR;
        "From a ping to its answer" => "the tunnel ends, and its requests with `client_lost`";
    drain = 30 * SECOND, 0, HOUR;
        "Requests in flight when the node stops" => "what is left is cut";
}

impl Timeouts {
    /// How long an exchange waits for a tunnel that can take it.
    pub fn patience(&self) -> Patience {
        Patience { hold: self.hold, room: self.room }
    }
}
