//! The heads of answers.

pub(crate) mod read;
pub(crate) mod write;
