//! Whoever can carry an exchange to its answer.

use std::future::Future;
use std::pin::Pin;

use http::StatusCode;
use strait_wire::{Protocol, RequestHead};

use crate::{Answer, Exchange, Fault};

/// Why an exchange was not carried.
pub struct Failure {
    /// What went wrong.
    pub fault: Fault,
    /// The exchange itself, when nothing of it was used up. Whether it may be carried once
    /// more, [the fault tells](Fault::may_retry).
    pub untouched: Option<Box<Exchange>>,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure { fault, untouched: None }
    }
}

/// The future of an answer.
pub type Carried<'a> = Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send + 'a>>;

/// Whoever can carry an exchange: a backend, a tunnel, a service in this process, a test
/// double. Local or remote makes no difference to the caller.
///
/// The future resolves with the answer's head; both bodies may still be flowing then.
/// Dropping the future, or the answer's body, cancels the exchange everywhere.
pub trait Upstream: Send + Sync + 'static {
    /// Carries `exchange` to its answer.
    fn carry(&self, exchange: Exchange) -> Carried<'_>;

    /// Hears of an exchange that an entry answered itself, with `status` because of `fault`,
    /// so that it is recorded like all others.
    fn refused(&self, exchange: &Exchange, status: StatusCode, fault: &Fault) {
        let _ = (exchange, status, fault);
    }

    /// Whether a request of an entry with this protocol and head has somewhere to go,
    /// connected or not.
    fn serves(&self, _protocol: Protocol, _head: &RequestHead) -> bool {
        true
    }
}
