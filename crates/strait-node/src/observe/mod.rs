//! What a node tells about its work: metrics, the access log, the log, its status.

pub mod access;
pub mod log;
mod metrics;
mod queue;
mod snapshot;
pub mod time;

use std::sync::Arc;

use strait_engine::{Record, Recorder};
use strait_wire::Protocol;

pub use access::AccessLog;
pub use metrics::Metrics;
pub use snapshot::{
    ExchangeStatus, Live, Readiness, Refused, RouteStatus, SessionStatus, Snapshot, Totals,
};

/// Several recorders as one.
pub struct Recorders(pub Vec<Arc<dyn Recorder>>);

impl Recorder for Recorders {
    fn started(&self, protocol: Protocol) {
        self.0.iter().for_each(|recorder| recorder.started(protocol));
    }

    fn finished(&self, record: &Record) {
        self.0.iter().for_each(|recorder| recorder.finished(record));
    }
}
