//! Bodies: ordered parts that are pulled by whoever consumes them.
//!
//! Pulling is the back-pressure: a body that is not polled reads nothing from its source.
//! Dropping a body before its end is the cancellation.

use std::future::poll_fn;
use std::task::{Context, Poll};

use strait_wire::Part;

use crate::Fault;

/// The parts of a request or of an answer after its head, in order.
pub trait Body: Send + 'static {
    /// The next part; `None` at the end. After `None` or an error it is not polled again.
    ///
    /// # Errors
    /// The fault that cut the body; what was delivered before is a true prefix.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>>;

    /// Whether the end is already known, without polling: no part will come.
    fn is_end(&self) -> bool {
        false
    }

    /// Bytes of payload still to come, when that is known.
    fn size(&self) -> Option<u64> {
        self.is_end().then_some(0)
    }

    /// The next part shall have at most so many bytes, where it is read only then: memory is short.
    fn at_most(&mut self, bytes: usize) {
        let _ = bytes;
    }

    /// Notes why it will be dropped before its end. Dropped without a word it means that
    /// the caller gave up.
    fn give_up(&mut self, fault: &Fault) {
        let _ = fault;
    }
}

/// A body of any origin.
pub type BoxBody = Box<dyn Body>;

/// The body of a request or answer that has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptyBody;

impl Body for EmptyBody {
    fn poll_part(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        Poll::Ready(None)
    }

    fn is_end(&self) -> bool {
        true
    }
}

/// Waits for the next part of `body`.
pub async fn next_part(body: &mut BoxBody) -> Option<Result<Part, Fault>> {
    poll_fn(|cx| body.poll_part(cx)).await
}

/// Collects the payload of a body that is known to be small: for tests, samples and
/// answers of our own. Forwarding never collects.
///
/// # Errors
/// The body's fault, or `BodyTooLarge` beyond `limit` bytes.
pub async fn collect_small(mut body: BoxBody, limit: usize) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    while let Some(part) = next_part(&mut body).await {
        if let Part::Data(data) = part? {
            bytes.extend_from_slice(&data.bytes);
        }
        if bytes.len() > limit {
            return Err(Fault::new(crate::Reason::BodyTooLarge));
        }
    }
    Ok(bytes)
}
