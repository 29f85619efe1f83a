//! HTTP/1.1 towards services, without a task of its own: whoever carries an exchange writes its
//! request to a connection and reads the answer from it. The answer's body takes the connection
//! along and gives it back to the pool. What is left of an upload when the answer's head has come
//! goes on in a task, so that neither direction waits for the other.
//!
//! Nothing here is shared with entries, where the HTTP library serves: a service is asked and
//! believed in less.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod carry;
pub(crate) mod chunked;
pub(crate) mod connection;
pub(crate) mod framing;
pub(crate) mod request;
mod sending;
