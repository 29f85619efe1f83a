//! Requests that wait until a tunnel has a place for them, first come, first served.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use strait_mux::{Load, Refused};
use strait_wire::{Opening, Protocol, StreamNo};

use crate::Session;
use crate::session::Core;

/// Who waits, in order.
#[derive(Default)]
pub(crate) struct Queue {
    next: u64,
    waiting: VecDeque<(u64, Option<Waker>)>,
    /// What the first of them found when it was refused; it is refused again while there is no less.
    found: Option<Load>,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn join(&mut self) -> u64 {
        self.next += 1;
        self.waiting.push_back((self.next, None));
        self.next
    }

    fn is_first(&self, ticket: u64) -> bool {
        self.waiting.front().is_some_and(|(first, _)| *first == ticket)
    }

    fn wait(&mut self, ticket: u64, cx: &Context<'_>) {
        if let Ok(at) = self.place_of(ticket) {
            self.waiting[at].1 = Some(cx.waker().clone());
        }
    }

    fn leave(&mut self, ticket: u64) {
        if self.is_first(ticket) {
            self.found = None;
            self.waiting.pop_front();
        } else if let Ok(at) = self.place_of(ticket) {
            self.waiting.remove(at);
        }
    }

    fn place_of(&self, ticket: u64) -> Result<usize, usize> {
        self.waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket)
    }

    /// The waker of the first, when it is worth its while to try again: there is less on the tunnel,
    /// or nothing to wait for because it is `over`.
    pub(crate) fn turn(&mut self, load: impl FnOnce() -> Load, over: bool) -> Option<Waker> {
        let (_, waker) = self.waiting.front_mut()?;
        let again = |found: Load| {
            let now = load();
            now.budget_used < found.budget_used || now.opened < found.opened
        };
        if over || self.found.is_none_or(again) { waker.take() } else { None }
    }
}

impl Core {
    /// Opens a request, but not ahead of those who wait.
    pub(crate) fn open_at_once(
        &mut self,
        opening: impl FnOnce() -> Opening,
        protocol: Protocol,
        end: bool,
    ) -> Result<StreamNo, Refused> {
        match self.queue.is_empty() {
            true => self.open(opening(), protocol, end),
            false => Err(Refused::NoBudget),
        }
    }
}

/// One request's place in the queue, which it leaves when this is dropped.
pub(crate) struct Place {
    session: Session,
    ticket: u64,
}

impl Place {
    /// The last one.
    pub(crate) fn last(session: &Session) -> Place {
        let ticket = session.look(|core| core.queue.join());
        Place { session: session.clone(), ticket }
    }

    /// Opens a request once it is the first in the queue and the tunnel has room for it.
    pub(crate) fn poll_open(
        &self,
        cx: &Context<'_>,
        opening: impl FnOnce() -> Opening,
        protocol: Protocol,
        end: bool,
    ) -> Poll<Result<StreamNo, Refused>> {
        self.session.with(|core| {
            if core.queue.is_first(self.ticket) {
                match core.open(opening(), protocol, end) {
                    Err(Refused::TooMany | Refused::NoBudget) => {
                        core.queue.found = Some(core.mux.load());
                    }
                    outcome => return Poll::Ready(outcome),
                }
            }
            core.queue.wait(self.ticket, cx);
            Poll::Pending
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.session.with(|core| core.queue.leave(self.ticket));
    }
}

#[cfg(all(test, not(interleavings)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::doubles::{opening, session_of};
    use crate::stream::StreamReader;

    #[test]
    fn places_are_taken_in_the_order_of_coming() {
        // Enough for one.
        let session = session_of("peer", 10 * 1024);
        let open = |core: &mut Core| core.open_at_once(opening, Protocol::Http, true);
        let held = StreamReader::new(session.clone(), session.with(open).unwrap());
        let [first, left, second] = [(); 3].map(|()| Place::last(&session));
        let cx = Context::from_waker(Waker::noop());
        let poll = |place: &Place| place.poll_open(&cx, opening, Protocol::Http, true);
        assert!([&second, &left, &first].into_iter().all(|place| poll(place).is_pending()));
        drop((held, left));
        assert!(poll(&second).is_pending(), "another is the first");
        let Poll::Ready(Ok(no)) = poll(&first) else { panic!("there is room for the first") };
        drop(StreamReader::new(session.clone(), no));
        assert_eq!(session.with(open), Err(Refused::NoBudget), "nobody goes ahead");
        drop(first);
        assert!(matches!(poll(&second), Poll::Ready(Ok(_))));
        drop(second);
        assert!(session.look(|core| core.queue.is_empty()));
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Woken>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_becomes_the_first_is_told() {
        let session = session_of("peer", 10 * 1024);
        let open = |core: &mut Core| core.open_at_once(opening, Protocol::Http, true);
        let _held = StreamReader::new(session.clone(), session.with(open).unwrap());
        let [first, second] = [(); 2].map(|()| Place::last(&session));
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(woken.clone());
        let cx = Context::from_waker(&waker);
        let poll = |place: &Place| place.poll_open(&cx, opening, Protocol::Http, true);
        assert!(poll(&first).is_pending() && poll(&second).is_pending());
        session.with(|_| ());
        assert_eq!(woken.0.load(Ordering::Relaxed), 0, "nothing has changed");
        drop(first);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "it may need less than the first did");
        assert!(poll(&second).is_pending());
    }
}
