//! What threads share: the standard library's, or a model of it that tries every order of
//! steps (`tests/interleavings.sh`).

#[cfg(interleavings)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(interleavings))]
pub(crate) use std::sync::{Mutex, MutexGuard};
