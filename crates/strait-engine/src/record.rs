//! What is remembered of an exchange: exactly one record for each, whatever its end.

use std::sync::Arc;
use std::time::Duration;

use strait_wire::{Protocol, RequestId};

use crate::{Caller, Fault};

/// One finished exchange.
#[derive(Clone, Debug)]
pub struct Record {
    /// The request's id.
    pub id: RequestId,
    /// W3C traceparent.
    pub trace: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it came from.
    pub caller: Caller,
    /// The route that was chosen, by the name of its service; empty when none matched.
    pub route: Arc<str>,
    /// Request method.
    pub method: http::Method,
    /// The request's host, as text.
    pub host: String,
    /// The request's path without its query, which may hold secrets.
    pub path: String,
    /// Status of the answer's head; `None` when none was sent.
    pub status: Option<u16>,
    /// `grpc-status`, for gRPC.
    pub grpc_status: Option<u32>,
    /// Payload bytes of the request.
    pub bytes_in: u64,
    /// Payload bytes of the answer.
    pub bytes_out: u64,
    /// gRPC messages or WebSocket frames of the request.
    pub messages_in: u64,
    /// gRPC messages or WebSocket frames of the answer.
    pub messages_out: u64,
    /// From the request's arrival to the answer's head.
    pub first_byte: Option<Duration>,
    /// From the request's arrival to its end.
    pub duration: Duration,
    /// `None` for a proper end.
    pub fault: Option<Fault>,
}

/// Whoever keeps records: metrics, the access log.
pub trait Recorder: Send + Sync + 'static {
    /// An exchange begins; exactly one [`Recorder::finished`] follows.
    fn started(&self, protocol: Protocol);
    /// An exchange has ended.
    fn finished(&self, record: &Record);
}
