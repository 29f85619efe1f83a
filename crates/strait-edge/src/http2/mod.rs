//! HTTP/2 towards services: requests on shared connections, each of which a task of its own moves.
//! Whoever carries an exchange sends its request and waits for the answer's head; what is left of an
//! upload then goes on in a task, so that neither direction waits for the other.
//!
//! A head and what there is of its body are handed over together, before the connection's task has
//! its turn: one write, and a quick service answers in one piece.

pub(crate) mod answer;
pub(crate) mod carry;
mod sending;
pub(crate) mod socket;
