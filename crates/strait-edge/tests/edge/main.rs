//! Entry, then backend, then a service: what goes in comes out, and what breaks shows.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, missing_docs)]

mod break_off;
mod connect;
mod expect;
mod grpc;
mod grpc_web;
mod hostile;
mod http;
mod legs_http1;
mod legs_http2;
mod life;
mod limits;
mod proxies;
mod secure;
mod serving;
mod upstream;
mod websocket;
mod windows;
mod world;
