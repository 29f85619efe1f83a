//! What happens on a visitor's connection, for its timeouts and for how it is closed.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use http::Version;

use crate::coarse::millis;
use crate::settings::{Settings, or_never};

/// The clock and the flags of one connection.
pub(crate) struct Activity {
    /// By the coarse clock, which the milliseconds below are counted from.
    start: u64,
    /// Requests whose answer has not ended.
    active: AtomicUsize,
    /// Milliseconds from `start` to the end of the last answer.
    idle_since: AtomicU64,
    /// Milliseconds from `start`, plus one, to the first byte of a head that is still
    /// incomplete; 0 when there is none.
    head_since: AtomicU64,
    /// A request by HTTP/1.1 is active and nothing of its answer is written: another answer may
    /// go before it.
    awaits_answer: AtomicBool,
    /// How often something was to be written to the visitor.
    writes: AtomicU64,
    /// A request's body is wanted and nothing of it is there.
    body_wanted: AtomicBool,
    /// The visitor waits for `100 Continue`, or did when its answer came.
    awaits_continue: AtomicBool,
    /// Answers that wait for the visitor to take them.
    held: AtomicUsize,
    /// Milliseconds from `start` to when an answer last moved.
    moved: AtomicU64,
    linger: AtomicBool,
    reset: AtomicBool,
    leaving: AtomicBool,
}

/// What the timeouts say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Look again after this time.
    Fine(Duration),
    /// No request for too long.
    Idle,
    /// A head has begun and does not end.
    SlowHead,
    /// The visitor does not take its answer.
    Stalled,
}

impl Activity {
    pub(crate) fn new() -> Arc<Activity> {
        Arc::new(Activity {
            start: millis(),
            active: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            awaits_answer: AtomicBool::new(false),
            writes: AtomicU64::new(0),
            body_wanted: AtomicBool::new(false),
            awaits_continue: AtomicBool::new(false),
            held: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            linger: AtomicBool::new(false),
            reset: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        })
    }

    fn now(&self) -> u64 {
        millis() - self.start
    }

    /// Bytes came from the visitor.
    pub(crate) fn bytes_came(&self) {
        if self.active.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.now() + 1, Relaxed);
        }
    }

    /// A request head is complete; it is active until the guard is dropped.
    pub(crate) fn request(self: &Arc<Self>, version: Version) -> Active {
        self.active.fetch_add(1, Relaxed);
        self.head_since.store(0, Relaxed);
        self.awaits_answer.store(version == Version::HTTP_11, Relaxed);
        Active(self.clone())
    }

    /// Whether there is a request.
    pub(crate) fn is_busy(&self) -> bool {
        self.active.load(Relaxed) > 0
    }

    /// Bytes are written to the visitor, or would be if there was room.
    pub(crate) fn write(&self) {
        self.awaits_answer.store(false, Relaxed);
        // By the connection's task only.
        self.writes.store(self.writes() + 1, Relaxed);
    }

    /// How often there was something to write.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Relaxed)
    }

    /// Whether an interim answer may be written: there is a request by HTTP/1.1, and nothing was
    /// written since it came, so that nothing is left of the answer before it either.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.is_busy() && self.awaits_answer.load(Relaxed)
    }

    /// A request's body is wanted and nothing of it is there, or something came.
    pub(crate) fn want_body(&self, wanted: bool) {
        self.body_wanted.store(wanted, Relaxed);
    }

    pub(crate) fn is_body_wanted(&self) -> bool {
        self.body_wanted.load(Relaxed)
    }

    /// A request's body is to be asked for (`true`), or was.
    pub(crate) fn await_continue(&self, awaits: bool) {
        self.awaits_continue.store(awaits, Relaxed);
    }

    pub(crate) fn awaits_continue(&self) -> bool {
        self.awaits_continue.load(Relaxed)
    }

    /// A request's body was given up before its end: the close must linger.
    pub(crate) fn left_unread(&self) {
        self.linger.store(true, Relaxed);
    }

    pub(crate) fn must_linger(&self) -> bool {
        self.linger.load(Relaxed)
    }

    /// The connection must end by a reset: an answer was cut that nothing else shows as cut, or
    /// the visitor does not read.
    pub(crate) fn reset_on_close(&self) {
        self.reset.store(true, Relaxed);
    }

    pub(crate) fn must_reset(&self) -> bool {
        self.reset.load(Relaxed)
    }

    /// No further request is wanted.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Relaxed);
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// Judges the connection. `heads` is whether unfinished heads can be told from other
    /// bytes, which is so on HTTP/1 only.
    pub(crate) fn verdict(&self, settings: &Settings, heads: bool) -> Verdict {
        let idle = or_never(settings.keep_alive_idle);
        let headers = or_never(settings.headers);
        let now = self.now();
        // Whoever sees the last request gone also sees when it went.
        if self.active.load(Acquire) > 0 {
            let answer = or_never(settings.answer_idle);
            let since = Duration::from_millis(now.saturating_sub(self.moved.load(Relaxed)));
            if self.held.load(Relaxed) > 0 && since >= answer {
                return Verdict::Stalled;
            }
            return Verdict::Fine(idle.min(headers).min(answer));
        }
        let head = self.head_since.load(Relaxed);
        if heads && head > 0 {
            let since = Duration::from_millis((now + 1).saturating_sub(head));
            return match headers.checked_sub(since) {
                Some(left) if !left.is_zero() => Verdict::Fine(left.min(idle)),
                _ => Verdict::SlowHead,
            };
        }
        let since = Duration::from_millis(now.saturating_sub(self.idle_since.load(Relaxed)));
        match idle.checked_sub(since) {
            // A head may begin, or end, at any time, so look at least that often.
            Some(left) if !left.is_zero() => Verdict::Fine(left.min(headers)),
            _ => Verdict::Idle,
        }
    }
}

/// A request that is on the connection for as long as this lives.
pub(crate) struct Active(Arc<Activity>);

impl Active {
    pub(crate) fn connection(&self) -> &Arc<Activity> {
        &self.0
    }
}

/// Whether an answer is held up by its visitor: there is some of it, and whoever
/// sends it asks for no more.
#[derive(Default)]
pub(crate) struct Held(bool);

impl Held {
    /// A piece of the answer was handed over (`held`), or more is asked for.
    pub(crate) fn set(&mut self, held: bool, active: &Active) {
        if self.0 == held {
            return;
        }
        self.0 = held;
        let activity = &active.0;
        activity.moved.store(activity.now(), Relaxed);
        match held {
            true => activity.held.fetch_add(1, Relaxed),
            false => activity.held.fetch_sub(1, Relaxed),
        };
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.now(), Relaxed);
        self.0.active.fetch_sub(1, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_suspends_the_idle_timeout() {
        let settings =
            Settings { keep_alive_idle: Duration::from_millis(1), ..Settings::default() };
        let activity = Activity::new();
        let request = activity.request(Version::HTTP_11);
        std::thread::sleep(Duration::from_millis(25));
        assert!(matches!(activity.verdict(&settings, true), Verdict::Fine(_)));
        drop(request);
        std::thread::sleep(Duration::from_millis(25));
        assert_eq!(activity.verdict(&settings, true), Verdict::Idle);
    }

    #[test]
    fn an_answer_that_nobody_takes_is_stalled() {
        let settings = Settings { answer_idle: Duration::from_millis(1), ..Settings::default() };
        let activity = Activity::new();
        let request = activity.request(Version::HTTP_11);
        let mut held = Held::default();
        std::thread::sleep(Duration::from_millis(25));
        assert!(matches!(activity.verdict(&settings, true), Verdict::Fine(_)));
        held.set(true, &request);
        std::thread::sleep(Duration::from_millis(25));
        assert_eq!(activity.verdict(&settings, true), Verdict::Stalled);
        held.set(false, &request);
        assert!(matches!(activity.verdict(&settings, true), Verdict::Fine(_)));
    }

    #[test]
    fn a_head_that_does_not_end_is_slow_on_http1_only() {
        let settings = Settings { headers: Duration::from_millis(1), ..Settings::default() };
        let activity = Activity::new();
        activity.bytes_came();
        std::thread::sleep(Duration::from_millis(25));
        assert_eq!(activity.verdict(&settings, true), Verdict::SlowHead);
        assert!(matches!(activity.verdict(&settings, false), Verdict::Fine(_)));
    }
}
