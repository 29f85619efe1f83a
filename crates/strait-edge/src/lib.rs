//! Entries and backends: HTTP, gRPC and WebSocket as exchanges.
//!
//! An [`Entry`] turns what visitors send to a port into exchanges and carries them to one
//! upstream; a [`Backend`] is an upstream that carries exchanges to a service. The two ends
//! of one protocol stand side by side in one folder: entry then backend is identity.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod activity;
mod allowance;
mod arriving;
mod backend;
#[doc(hidden)]
pub mod check;
mod classify;
mod coarse;
mod detect;
mod dial;
mod forwarded;
mod grpc;
mod half;
mod half_close;
mod http;
mod http1;
mod http2;
mod io;
mod listen;
mod peer;
mod pool;
mod proxy_protocol;
mod settings;
pub mod tls;
mod tune;
mod unless;
mod visit;
mod websocket;

pub use arriving::Arriving;
pub use backend::Backend;
pub use dial::{AddressError, BackendAddress, Place, Scheme};
pub use grpc::web_cors::Cors;
pub use listen::{Entry, serve};
pub use peer::TrustedProxies;
pub use proxy_protocol::{LONGEST_HEADER, LONGEST_TEXT, ProxyProtocol};
pub use settings::Settings;
