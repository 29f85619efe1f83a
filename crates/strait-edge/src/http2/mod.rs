//! HTTP/2: many requests on one connection, which a task of its own moves.
//!
//! Towards services whoever carries an exchange sends its request and waits for the answer's head;
//! what is left of an upload then goes on in a task, so that neither direction waits for the other.
//! A head and what there is of its body are handed over together, before the connection's task has
//! its turn: one write, and a quick service answers in one piece. At entries each request is
//! answered by a task of its own.

pub(crate) mod answer;
pub(crate) mod carry;
mod pings;
pub(crate) mod receiving;
mod sending;
pub(crate) mod serve;
pub(crate) mod socket;
pub(crate) mod window;
