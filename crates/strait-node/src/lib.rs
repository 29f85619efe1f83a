//! A running Strait node: configuration, transport, admin and observation.

pub mod admin;
pub mod config;
pub mod observe;
pub mod secrets;
