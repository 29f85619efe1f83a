//! Plain HTTP at entries, and what the other protocols and both legs share of it.

pub(crate) mod body;
pub(crate) mod date;
pub(crate) mod entry;
pub(crate) mod hop;
pub(crate) mod incoming;
pub(crate) mod outgoing;
pub(crate) mod upload;
