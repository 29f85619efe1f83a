//! The heads of requests.

pub(crate) mod read;
pub(crate) mod write;
