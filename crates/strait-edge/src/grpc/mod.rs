//! gRPC over HTTP/2, and gRPC-Web at entries.

pub(crate) mod backend;
pub(crate) mod body;
pub(crate) mod entry;
pub(crate) mod message;
pub(crate) mod read;
pub(crate) mod status;
pub(crate) mod timeout;
pub(crate) mod web;
pub(crate) mod web_cors;
mod web_text;
