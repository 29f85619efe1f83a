//! Visitors by HTTP/1 who shut their writing side while a request of theirs is carried.
//!
//! TCP tells it alike when somebody only has nothing more to say, as a client may once its request
//! is whole, and when it has closed altogether. They differ in what comes back when something is
//! sent: who has closed answers with a reset. So whoever is sent its answer is known by that. A
//! visitor whose answer has not begun is sent `100 Continue` after a moment, which every client of
//! HTTP/1.1 must be able to skip (RFC 9110 15.2); who is gone is known to be so a round trip later,
//! and the backend hears of it.
//!
//! Where nothing can be sent, a visitor counts as gone: one by HTTP/1.0, who must not be sent such
//! an answer, and one in the middle of an answer that is silent, as a stream of events may be for
//! hours. It would be kept up for nobody far more often than for somebody.

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
/// How long one is waited for that cannot be preceded by another.
const SILENCE: Duration = Duration::from_millis(150);
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
    /// Let whoever reads see the end: nothing is carried, or the request has no end.
    End,
}

/// The wait for the answer of a visitor who has shut its side.
pub(crate) struct HalfClose {
    since: Instant,
    /// What was written before.
    writes: u64,
    sleep: Pin<Box<Sleep>>,
    pause: Duration,
    asked: bool,
}

impl HalfClose {
    /// From now on.
    pub(crate) fn new(activity: &Activity) -> HalfClose {
        HalfClose {
            since: Instant::now(),
            writes: activity.writes(),
            sleep: Box::pin(tokio::time::sleep(GRACE)),
            pause: FIRST,
            asked: false,
        }
    }

    /// What is to be done next, when it is time; `busy` is whether a request is carried or some of
    /// its answer is unwritten.
    pub(crate) fn poll(
        &mut self,
        activity: &Activity,
        busy: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Next> {
        if !busy {
            return Poll::Ready(Next::End);
        }
        ready!(self.sleep.as_mut().poll(cx));
        let now = Instant::now();
        let passed = now - self.since;
        let ask = !self.asked && activity.awaits_answer();
        self.asked |= ask;
        // Whatever is written, or shall be as soon as there is room, tells by itself.
        let told = self.asked || activity.writes() != self.writes;
        if (!told && passed >= SILENCE) || (activity.is_body_wanted() && passed >= REST) {
            return Poll::Ready(Next::End);
        }
        self.sleep.as_mut().reset(now + self.pause);
        self.pause = (self.pause * 2).min(SELDOM);
        Poll::Ready(if ask { Next::Ask } else { Next::Look })
    }
}

/// Whether what was written of [`INTERIM`] is all of it: half an answer would spoil the next one.
pub(crate) fn is_whole(written: &Poll<io::Result<usize>>) -> bool {
    matches!(written, Poll::Ready(Ok(n)) if *n == INTERIM.len())
}
