//! A running Strait node: configuration, transport, admin and observation.

pub mod admin;
mod client;
pub mod config;
mod hub;
mod link;
mod node;
pub mod observe;
mod reconnect;
pub mod reload;
pub mod secrets;
mod server;
mod setup;
mod status;

pub use node::{BACKLOG, Node, StartError};
