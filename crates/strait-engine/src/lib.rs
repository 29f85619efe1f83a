//! Moves exchanges between entries, backends and tunnels, whatever their protocol.

mod body;
mod carry;
mod clock;
mod directory;
mod dispatch;
#[cfg(test)]
mod doubles;
mod driver;
mod exchange;
pub mod fault;
mod flight;
mod group;
#[cfg(all(test, interleavings))]
mod interleavings;
mod offers;
mod pump;
mod queue;
mod record;
mod route;
mod session;
mod share;
mod stream;
mod sync;
mod turns;
mod upstream;
mod visitors;
mod workers;

pub use body::{Body, BoxBody, EmptyBody, collect_small, next_part};
pub use carry::serve;
pub use directory::{Directory, Local, RouteLine};
pub use dispatch::{Dispatch, MAX_HOPS};
pub use driver::{Ending, Incoming, LinkError, Refusal, drive};
pub use exchange::{Answer, Caller, Context, Exchange, Origin};
pub use fault::Fault;
pub use flight::{Asked, Counters, Flight, Flights};
pub use group::Patience;
pub use offers::MAX_SERVICES;
pub use record::{Record, Recorder};
pub use route::Match;
pub use session::{News, Session};
pub use share::Share;
pub use turns::Turns;
pub use upstream::{Carried, Failure, Upstream};
pub use workers::{Seat, Threads, Workers, here, runtime};

pub use strait_mux::{Budget, Fatal, Refusals, Settings, Stats};
pub use strait_wire::{
    Data, MessageStart, Part, Protocol, Reason, RequestHead, RequestId, ResponseHead,
};
