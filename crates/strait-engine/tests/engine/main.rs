//! Exchanges over tunnels of real bytes: carried, lost, tried again, recorded.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]
#![allow(unreachable_pub, missing_docs)]

mod pair;
mod records;
mod retry;
mod world;
