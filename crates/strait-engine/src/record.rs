//! What is remembered of an exchange: exactly one record for each, whatever its end.

use std::sync::Arc;
use std::time::Duration;

use strait_wire::Protocol;

use crate::{Fault, Flight};

/// One finished exchange.
#[derive(Clone, Debug)]
pub struct Record {
    /// What was asked, and by whom.
    pub flight: Arc<Flight>,
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
