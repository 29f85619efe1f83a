//! Requests that wait until a tunnel has a place for them, first come, first served.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use strait_mux::{Load, Refused};
use strait_wire::{Opening, Protocol, StreamNo};
use tokio::time::Instant;

use crate::Session;
use crate::session::Core;
use crate::stream::{StreamReader, StreamWriter};

/// The tickets of those that were not sent yet begin here: behind the numbers of all requests.
const UNSENT: u64 = 1 << 63;

/// How many go for each that ends while the peer refuses some: with more than one it is found out
/// when the peer has more room, and no more than every other one is refused.
const FOR_ONE: usize = 2;

/// How often it is tried whether there is room though none was given back on the tunnel: other
/// tunnels share the memory of the process, and the peer's requests that of the tunnel.
pub(crate) const AGAIN: Duration = Duration::from_millis(100);

/// Who waits, in order.
#[derive(Default)]
pub(crate) struct Queue {
    next: u64,
    waiting: VecDeque<(u64, Option<Waker>)>,
    /// What the first of them found when it was refused; it is refused again while there is no less.
    found: Option<Load>,
    /// The peer has refused some of them.
    clock: Option<Clock>,
    /// When one was last allowed to try though nobody knew of more room.
    allowed: Option<Instant>,
}

/// Lets requests go as others end: only the peer knows how much room it has.
struct Clock {
    opened: usize,
    allowed: usize,
}

impl Clock {
    fn tick(&mut self, opened: usize) {
        self.allowed += FOR_ONE * self.opened.saturating_sub(opened);
        self.opened = opened;
    }
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn join(&mut self) -> u64 {
        self.next += 1;
        let ticket = UNSENT + self.next;
        self.waiting.push_back((ticket, None));
        ticket
    }

    /// The peer had no room for request `no`, which waits ahead of those that were opened later.
    fn join_again(&mut self, no: StreamNo, opened: usize) -> u64 {
        match &mut self.clock {
            // Its own end lets nobody go.
            Some(clock) => *clock = Clock { opened, allowed: clock.allowed / 2 },
            None => self.clock = Some(Clock { opened, allowed: 0 }),
        }
        if let Err(at) = self.place_of(no.0) {
            self.waiting.insert(at, (no.0, None));
        }
        no.0
    }

    /// Whether this one may try to open its request.
    fn may_try(&self, ticket: u64) -> bool {
        self.is_first(ticket) && self.clock.as_ref().is_none_or(|clock| clock.allowed > 0)
    }

    /// If this one is the first it may try, whatever is known: one now and then.
    fn allow(&mut self, ticket: u64, now: Instant) {
        let due = self.allowed.is_none_or(|last| now.duration_since(last) >= AGAIN);
        if due && self.is_first(ticket) {
            self.allowed = Some(now);
            self.found = None;
            if let Some(clock) = &mut self.clock {
                clock.allowed = clock.allowed.max(1);
            }
        }
    }

    /// The first has opened its request, and leaves.
    fn opened(&mut self, ticket: u64, opened: usize) {
        if let Some(clock) = &mut self.clock {
            *clock = Clock { opened, allowed: clock.allowed.saturating_sub(1) };
        }
        self.leave(ticket);
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
        if self.waiting.is_empty() {
            self.clock = None;
        }
    }

    fn place_of(&self, ticket: u64) -> Result<usize, usize> {
        self.waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket)
    }

    /// The waker of the first, when it is worth its while to try again: there is less on the tunnel,
    /// or nothing to wait for because it is `over`.
    pub(crate) fn turn(&mut self, load: impl FnOnce() -> Load, over: bool) -> Option<Waker> {
        let (_, waker) = self.waiting.front_mut()?;
        if over {
            self.clock = None;
            return waker.take();
        }
        let now = load();
        let allowed = self.clock.as_mut().is_none_or(|clock| {
            clock.tick(now.opened);
            clock.allowed > 0
        });
        let less = |found: Load| now.budget_used < found.budget_used || now.opened < found.opened;
        if allowed && self.found.is_none_or(less) { waker.take() } else { None }
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

    /// The place of the request of these handles, which the peer has refused for want of room.
    pub(crate) fn again(reader: StreamReader, writer: Option<StreamWriter>) -> Place {
        let (session, no) = reader.into_parts();
        let ticket = session.with(|core| {
            core.drop_reader(no);
            if let Some(writer) = writer {
                core.drop_writer(writer.into_no());
            }
            core.queue.join_again(no, core.mux.load().opened)
        });
        Place { session, ticket }
    }

    /// Tries, though nobody knows of more room.
    pub(crate) fn allow(&self, now: Instant) {
        self.session.with(|core| core.queue.allow(self.ticket, now));
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
            if core.queue.may_try(self.ticket) {
                match core.open(opening(), protocol, end) {
                    Err(Refused::TooMany | Refused::NoBudget) => {
                        core.queue.found = Some(core.mux.load());
                    }
                    outcome => {
                        core.queue.opened(self.ticket, core.mux.load().opened);
                        return Poll::Ready(outcome);
                    }
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
