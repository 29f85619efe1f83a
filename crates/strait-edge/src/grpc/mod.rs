//! gRPC over HTTP/2.

pub(crate) mod backend;
pub(crate) mod body;
pub(crate) mod entry;
pub(crate) mod message;
pub(crate) mod read;
pub(crate) mod status;
pub(crate) mod timeout;
