//! The one clock: tokio's, so that tests can stop it.

use std::time::Instant;

/// The time.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
