//! What threads share: the standard library's, or a model of it that tries every order of
//! steps (`tests/interleavings.sh`).

#[cfg(interleavings)]
pub(crate) use loom::sync::{Arc, atomic::AtomicUsize};
#[cfg(not(interleavings))]
pub(crate) use std::sync::{Arc, atomic::AtomicUsize};
