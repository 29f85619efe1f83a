//! What a fuzzer's bytes are turned into, and what must hold whatever they are.
//!
//! Each target is a function of bytes that panics when something is wrong. `fuzz/` wraps
//! them for libFuzzer; `tests/corpus.rs` gives them every input that was worth keeping.
#![allow(clippy::panic, clippy::unwrap_used)] // how a target fails

mod decode;
mod edge;
mod frames;
mod input;
mod model;
mod mux;

pub use decode::wire_decode;
pub use edge::{grpc_messages, request_head, service_answer, visitor_requests, websocket_frames};
pub use model::mux_pair;
pub use mux::mux_end;

/// A target: its name, which is that of its wrapper and its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 8] = [
    ("wire_decode", wire_decode),
    ("mux_end", mux_end),
    ("mux_pair", mux_pair),
    ("grpc_messages", grpc_messages),
    ("websocket_frames", websocket_frames),
    ("request_head", request_head),
    ("service_answer", service_answer),
    ("visitor_requests", visitor_requests),
];
