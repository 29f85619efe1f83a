//! Plain HTTP, and what the other protocols share of it.

pub(crate) mod backend;
pub(crate) mod body;
pub(crate) mod entry;
pub(crate) mod hop;
pub(crate) mod outgoing;
pub(crate) mod pipe;
pub(crate) mod upload;
