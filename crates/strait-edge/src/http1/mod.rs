//! HTTP/1.1, without a task for each message.
//!
//! Towards services whoever carries an exchange writes its request to a connection (`carry`) and
//! reads the answer from it. The answer's body takes the connection along and gives it back to the
//! pool. What is left of an upload when the answer's head has come goes on in a task, so that
//! neither direction waits for the other.
//!
//! At entries a connection's one task reads its requests and writes their answers (`serve`). A
//! request's body takes the reading side along and gives it back (`lent`).
//!
//! Heads, chunks and framing are read strictly and by the same code in both places: what can be read
//! in two ways is refused.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod carry;
pub(crate) mod chunked;
pub(crate) mod connection;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod lent;
pub(crate) mod request;
mod sending;
pub(crate) mod serve;
