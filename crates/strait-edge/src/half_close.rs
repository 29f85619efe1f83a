//! Visitors by HTTP/1 who shut their writing side while they wait for an answer.
//!
//! TCP tells it alike when somebody only has nothing more to say, as a client may once its request
//! is whole, and when it has closed altogether. They differ in what comes back when something is
//! sent: who has closed answers with a reset. So a visitor who seems to leave before its answer has
//! begun is sent `100 Continue`, which every client of HTTP/1.1 must be able to skip
//! (RFC 9110 15.2), unless the answer comes first. Whoever is gone is known to be so a round trip
//! later, and the backend hears of it.
//!
//! Two kinds of visitors count as gone at once: those by HTTP/1.0, who must not be sent such an
//! answer, and those who shut their side in the middle of one. Nothing can be put into an answer,
//! and a stream of events that is silent for hours would be kept up for nobody.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::activity::Activity;

/// The answer that is sent to find out who is there.
pub(crate) const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How long an answer may take to come first.
const GRACE: Duration = Duration::from_millis(50);
/// After the interim answer, the connection is looked at again after this time, and then less and
/// less often.
const FIRST: Duration = Duration::from_millis(5);
const SELDOM: Duration = Duration::from_millis(250);
/// How long the rest of a body is waited for that cannot come any more: what has come of it may
/// be on its way.
const REST: Duration = Duration::from_secs(1);

/// What is to be done about a visitor who has shut its side.
pub(crate) enum Next {
    /// Look whether there was a reset.
    Look,
    /// Send [`INTERIM`] as well.
    Ask,
    /// Let the HTTP library see the end: nothing is carried, or the request has no end.
    End,
}

/// The wait for the answer of a visitor who has shut its side.
pub(crate) struct HalfClose {
    since: Instant,
    sleep: Pin<Box<Sleep>>,
    pause: Duration,
    asked: bool,
}

impl HalfClose {
    /// From now on; nothing if such a visitor counts as gone.
    pub(crate) fn new(activity: &Activity) -> Option<HalfClose> {
        let sleep = || Box::pin(tokio::time::sleep(GRACE));
        activity.awaits_answer().then(|| HalfClose {
            since: Instant::now(),
            sleep: sleep(),
            pause: FIRST,
            asked: false,
        })
    }

    /// What is to be done next, when it is time.
    pub(crate) fn poll(&mut self, activity: &Activity, cx: &mut Context<'_>) -> Poll<Next> {
        if !activity.is_busy() {
            return Poll::Ready(Next::End);
        }
        ready!(self.sleep.as_mut().poll(cx));
        let now = Instant::now();
        if activity.is_body_wanted() && now - self.since >= REST {
            return Poll::Ready(Next::End);
        }
        self.sleep.as_mut().reset(now + self.pause);
        self.pause = (self.pause * 2).min(SELDOM);
        let ask = !self.asked && activity.awaits_answer();
        self.asked |= ask;
        Poll::Ready(if ask { Next::Ask } else { Next::Look })
    }
}

/// Whether what was written of [`INTERIM`] is all of it: half an answer would spoil the next one.
pub(crate) fn is_whole(written: &Poll<io::Result<usize>>) -> bool {
    matches!(written, Poll::Ready(Ok(n)) if *n == INTERIM.len())
}
