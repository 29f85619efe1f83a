//! The line in which tasks that move much wait for their turns.
//!
//! A task that wakes itself goes to the end of its thread's queue. With eight of them there,
//! whatever a short request needs on its way through this node, a dozen wake-ups or so, waits
//! behind eight shares each time. So they stand in a line of their own, which lets one go on
//! for each round of the queue: what is short waits behind one share, however many are busy.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;

use crate::sync::{Mutex, MutexGuard};

/// A handle to the line of a node.
#[derive(Clone)]
pub struct Turns(Option<Arc<Shared>>);

struct Shared(Mutex<Line>);

#[derive(Default)]
struct Line {
    waiting: VecDeque<Arc<Place>>,
    /// The task that lets them go on, while nobody waits.
    usher: Option<Waker>,
}

/// One task's place in the line.
#[derive(Debug)]
pub(crate) struct Place(Mutex<State>);

#[derive(Debug)]
enum State {
    Waiting(Waker),
    /// It may go on.
    Called,
    /// It does not wait any more.
    Left,
}

impl Turns {
    /// No line: whoever has spent a share goes to the end of the runtime's queue. For tasks
    /// that move what is short and what is long alike.
    pub const NONE: Turns = Turns(None);

    /// A line on `runtime`: as many go on in a round as that has threads. It ends with the last
    /// handle.
    pub fn start(runtime: &Handle) -> Turns {
        let (turns, usher) = Turns::line(runtime.metrics().num_workers());
        runtime.spawn(usher);
        turns
    }

    #[cfg(all(test, not(interleavings)))]
    pub(crate) fn is(&self, other: &Turns) -> bool {
        match (&self.0, &other.0) {
            (Some(this), Some(other)) => Arc::ptr_eq(this, other),
            _ => false,
        }
    }

    /// A line, and the task that lets `width` of it go on at a time.
    pub(crate) fn line(width: usize) -> (Turns, impl Future<Output = ()> + Send) {
        let shared = Arc::new(Shared(Mutex::default()));
        let line = Arc::downgrade(&shared);
        let mut has_yielded = false;
        let usher = poll_fn(move |cx| usher(&line, width, &mut has_yielded, cx));
        (Turns(Some(shared)), usher)
    }

    /// Takes a place at the end of the line for the task of `cx`; `None` without a line.
    pub(crate) fn join(&self, cx: &Context<'_>) -> Option<Arc<Place>> {
        let shared = self.0.as_ref()?;
        let place = Arc::new(Place(Mutex::new(State::Waiting(cx.waker().clone()))));
        let usher = {
            let mut line = shared.lock();
            line.waiting.push_back(Arc::clone(&place));
            line.usher.take()
        };
        usher.into_iter().for_each(Waker::wake);
        Some(place)
    }
}

impl Shared {
    // Held for a few steps, never over an await.
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let usher = self.lock().usher.take();
        usher.into_iter().for_each(Waker::wake);
    }
}

/// Lets the first `width` of the line go on, once in each round of the runtime's queue.
fn usher(
    line: &Weak<Shared>,
    width: usize,
    has_yielded: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let Some(shared) = line.upgrade() else { return Poll::Ready(()) };
    // Woken by the task that ran last, this one runs next, before all that waited already:
    // it goes to the end of the queue first.
    if !std::mem::replace(has_yielded, true) {
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    let mut called = Vec::new();
    {
        let mut line = shared.lock();
        while called.len() < width
            && let Some(place) = line.waiting.pop_front()
        {
            called.extend(place.call());
        }
        if line.waiting.is_empty() {
            line.usher = Some(cx.waker().clone());
            *has_yielded = false;
        } else {
            cx.waker().wake_by_ref();
        }
    }
    called.into_iter().for_each(Waker::wake);
    Poll::Pending
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready once the place was called. A task that asks from elsewhere is remembered anew.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        match &mut *self.lock() {
            State::Waiting(waker) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            State::Called | State::Left => Poll::Ready(()),
        }
    }

    /// Calls the place; its task is to be woken, unless it has left.
    fn call(&self) -> Option<Waker> {
        match std::mem::replace(&mut *self.lock(), State::Called) {
            State::Waiting(waker) => Some(waker),
            State::Called | State::Left => None,
        }
    }

    /// Leaves the line: nobody else's turn is spent on this place.
    pub(crate) fn leave(&self) {
        *self.lock() = State::Left;
    }
}

#[cfg(all(test, not(interleavings)))]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::Share;

    fn note(log: &Mutex<Vec<usize>>, name: usize) {
        log.lock().expect("no test panics while it holds it").push(name);
    }

    /// Moves as much as it can, and counts its turns in `log` under `name`.
    async fn greedy(turns: Turns, name: usize, count: usize, log: Arc<Mutex<Vec<usize>>>) {
        let mut share = Share::of_body();
        for _ in 0..count {
            poll_fn(|cx| share.poll_turn(&turns, cx)).await;
            note(&log, name);
            share.spend(usize::MAX);
        }
    }

    /// Goes to the end of the runtime's queue once.
    async fn requeue() {
        let mut again = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut again, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    #[tokio::test]
    async fn a_short_task_waits_for_one_share_however_many_are_busy() {
        const BUSY: usize = 8;
        const SHORT: usize = usize::MAX;
        let (turns, log) = (Turns::start(&Handle::current()), Arc::<Mutex<Vec<usize>>>::default());
        let busy: Vec<_> = (0..BUSY)
            .map(|name| tokio::spawn(greedy(turns.clone(), name, 200, Arc::clone(&log))))
            .collect();
        let short = tokio::spawn({
            let log = Arc::clone(&log);
            async move {
                for _ in 0..100 {
                    note(&log, SHORT);
                    requeue().await;
                }
            }
        });
        for task in busy.into_iter().chain([short]) {
            timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
        }
        let log = log.lock().unwrap();
        // All of them once at first, before anyone has spent a share.
        let begun: Vec<usize> = log.iter().copied().skip(2 * BUSY + 1).collect();
        let last = begun.iter().rposition(|name| *name == SHORT).unwrap();
        let between = begun[..last].split(|name| *name == SHORT).map(<[_]>::len).max();
        assert!(between <= Some(2), "{between:?} shares between two steps of the short task");
        // In turns.
        let rest = &begun[last + 1..];
        assert!(rest.windows(BUSY).all(|turn| (0..BUSY).all(|name| turn.contains(&name))));
    }

    #[test]
    fn who_leaves_the_line_costs_nobody_a_turn() {
        let (turns, usher) = Turns::line(1);
        let mut usher = std::pin::pin!(usher);
        let mut cx = Context::from_waker(Waker::noop());
        let places: Vec<_> = (0..100).map(|_| turns.join(&cx).unwrap()).collect();
        let (last, others) = places.split_last().unwrap();
        others.iter().for_each(|place| place.leave());
        // It goes to the end of the queue first, then it calls one.
        for _ in 0..2 {
            assert!(last.poll(&cx).is_pending());
            assert!(usher.as_mut().poll(&mut cx).is_pending());
        }
        assert!(last.poll(&cx).is_ready(), "places that were left are called");
    }

    #[tokio::test]
    async fn a_line_without_handles_ends() {
        let turns = Turns::start(&Handle::current());
        let line = Arc::downgrade(turns.0.as_ref().unwrap());
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        drop(turns);
        assert!(line.upgrade().is_none());
        let metrics = Handle::current().metrics();
        for _ in 0..100 {
            tokio::task::yield_now().await;
            if metrics.num_alive_tasks() == 0 {
                return;
            }
        }
        panic!("the usher stays");
    }
}
