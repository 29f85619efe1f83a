//! Moves exchanges between entries, backends and tunnels, whatever their protocol.

mod body;
mod exchange;
pub mod fault;
mod record;
mod upstream;

pub use body::{Body, BoxBody, EmptyBody, collect_small, next_part};
pub use exchange::{Answer, Caller, Context, Exchange, Origin};
pub use fault::Fault;
pub use record::{Record, Recorder};
pub use upstream::{Carried, Failure, Upstream};

pub use strait_wire::{
    Data, MessageStart, Part, Protocol, Reason, RequestHead, RequestId, ResponseHead,
};
