//! The time at which an answer is written (RFC 9110 6.6.1).

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use http::HeaderValue;

use crate::coarse::millis;

/// How long a date is told before it is looked at again.
const FRESH: Duration = Duration::from_millis(500);

/// Now, as `f` takes it.
pub(crate) fn with_date<T>(f: impl FnOnce(&HeaderValue) -> T) -> T {
    thread_local! {
        /// The last text, and when it was made.
        static TOLD: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
    }
    TOLD.with_borrow_mut(|told| {
        let now = millis();
        let is_fresh = |at: u64| now.saturating_sub(at) < FRESH.as_millis() as u64;
        let known = told.take().filter(|(at, _)| is_fresh(*at));
        let (_, text) = told.insert(known.unwrap_or_else(|| (now, text())));
        f(text)
    })
}

fn text() -> HeaderValue {
    let text = httpdate::fmt_http_date(SystemTime::now());
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
