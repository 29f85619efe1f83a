//! What travels on a Strait tunnel.
//!
//! Types without behaviour: the [`Frame`] is one unit on the tunnel, a [`Part`] is what
//! every protocol is cut into. `proto/strait/v1/tunnel.proto` is the contract; [`codec`]
//! is the only module that knows its generated types.

pub mod codec;
mod control;
mod frame;
mod head;
mod id;
mod part;
mod pieces;
mod reason;
#[allow(dead_code, missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)] // written by prost, documented in the proto
#[rustfmt::skip]
mod generated {
    pub(crate) mod tunnel;
}

pub use control::{Announced, Announcement, GoAway, Hello, Refusal, Service, Settings};
pub use frame::{First, Frame, Opening, Reset, StreamFrame};
pub use head::{Protocol, RequestHead, ResponseHead};
pub use id::{RequestId, Side, StreamNo};
pub use part::{Data, MessageStart, PIECE_WEIGHT, Part};
pub use pieces::Pieces;
pub use reason::Reason;
