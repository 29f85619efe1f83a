//! Waiting for something that goes on, and for what may interrupt it.
//!
//! Whatever wakes a task has all that it waits for polled again. What ends a connection, as a
//! drain or a timeout, comes once in its life, and would be asked at every message.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Acquire, Release},
};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Waits for `work`, unless `interruption` comes before, which is polled only when it was woken
/// itself. The output is an error when it came.
pub(crate) fn unless<'a, W: ?Sized, I>(
    work: Pin<&'a mut W>,
    interruption: Pin<&'a mut I>,
) -> Unless<'a, W, I> {
    let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: Mutex::new(None) });
    Unless { work, interruption, bell, task: None }
}

/// See [`unless`]. Each connection holds several.
pub(crate) struct Unless<'a, W: ?Sized, I> {
    work: Pin<&'a mut W>,
    interruption: Pin<&'a mut I>,
    bell: Arc<Bell>,
    /// Whom the bell wakes.
    task: Option<Waker>,
}

impl<W: Future + ?Sized, I: Future> Future for Unless<'_, W, I> {
    type Output = Result<W::Output, I::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(done) = this.work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        this.bell.belongs_to(cx, &mut this.task);
        if !this.bell.has_rung() {
            return Poll::Pending;
        }
        let bell = Waker::from(this.bell.clone());
        this.interruption.as_mut().poll(&mut Context::from_waker(&bell)).map(Err)
    }
}

/// Wakes a task, and tells that it did.
struct Bell {
    rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Bell {
    /// Notes whom to wake from now on; `known` is who that was before.
    fn belongs_to(&self, cx: &Context<'_>, known: &mut Option<Waker>) {
        if known.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            *known = Some(cx.waker().clone());
            self.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(known);
        }
    }

    /// Whether it was rung since the last time.
    fn has_rung(&self) -> bool {
        self.rung.load(Acquire) && self.rung.swap(false, AcqRel)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        task.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn an_interruption_is_polled_only_when_it_was_woken() {
        let (works, asked) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let inner = Mutex::new(None);
        let interrupted = AtomicBool::new(false);
        let work = pin!(poll_fn(|_| {
            works.fetch_add(1, Relaxed);
            Poll::<()>::Pending
        }));
        let interruption = pin!(poll_fn(|cx: &mut Context<'_>| {
            asked.fetch_add(1, Relaxed);
            *inner.lock().unwrap() = Some(cx.waker().clone());
            if interrupted.load(Relaxed) { Poll::Ready(()) } else { Poll::Pending }
        }));
        let mut both = pin!(unless(work, interruption));
        let (first, second) = (Arc::<Woken>::default(), Arc::<Woken>::default());
        let mut poll = |task: &Arc<Woken>| {
            both.as_mut().poll(&mut Context::from_waker(&Waker::from(task.clone())))
        };
        let ring = || inner.lock().unwrap().as_ref().unwrap().wake_by_ref();
        for _ in 0..3 {
            assert!(poll(&first).is_pending());
        }
        assert_eq!((works.load(Relaxed), asked.load(Relaxed)), (3, 1));
        ring();
        assert_eq!(first.0.load(Relaxed), 1);
        assert!(poll(&first).is_pending() && poll(&first).is_pending());
        assert_eq!(asked.load(Relaxed), 2);
        // In another task it is that one which is woken.
        assert!(poll(&second).is_pending());
        interrupted.store(true, Relaxed);
        ring();
        assert_eq!((first.0.load(Relaxed), second.0.load(Relaxed)), (1, 1));
        assert_eq!(poll(&second), Poll::Ready(Err(())));
    }

    #[tokio::test]
    async fn work_that_is_done_goes_before_what_interrupts_it() {
        let (done, never) = (std::future::ready(1), std::future::pending::<i32>());
        assert_eq!(unless(pin!(done), pin!(std::future::ready(2))).await, Ok(1));
        assert_eq!(unless(pin!(never), pin!(std::future::ready(2))).await, Err(2));
    }
}
