//! The heart of Strait: many requests on one stream, as a pure state machine.
//!
//! A [`Mux`] is one end of a tunnel. It knows no socket, no clock and no task: frames and
//! the time go in, frames and [`Event`]s come out. Whoever drives it asks
//! [`Mux::next_frame`] when the transport has room, so there is no queue behind it.

mod budget;
mod check;
mod event;
mod life;
mod mux;
mod pace;
mod receive;
mod request;
mod schedule;
mod send;
mod settings;
mod stream;
mod sync;
mod window;

pub use budget::Budget;
#[doc(hidden)]
pub use check::{Accounts, Line};
pub use event::{Event, Fatal, Gone, Refused, Taken};
pub use life::{Happening, State, Violation, diagram};
pub use mux::{Load, Mux, NumberHasher, NumberMap, Refusals, Stats};
pub use settings::Settings;
