//! One live tunnel: a cheap handle that every stream, and the link, share.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use strait_mux::{Budget, Event, Fatal, Mux, NumberMap, Refused, Settings, Stats};
use strait_wire::{
    Announced, Announcement, Frame, GoAway, Hello, Opening, Protocol, Reason, Side, StreamNo,
};
use tokio::runtime::Id;

use crate::clock::now;
use crate::queue::Queue;
use crate::sync::{Mutex, MutexGuard};
use crate::{Refusal, Turns, here};

/// A handle to one live tunnel. Clones share it.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

struct Shared {
    name: Arc<str>,
    /// The runtime on which it was made, which moves its frames.
    home: Option<Id>,
    turns: Turns,
    core: Mutex<Core>,
}

/// The state behind the lock, which is held for microseconds and never over an await.
pub(crate) struct Core {
    pub(crate) mux: Mux,
    pub(crate) queue: Queue,
    wakers: NumberMap<StreamNo, Wakers>,
    accepted: VecDeque<StreamNo>,
    news: VecDeque<News>,
    link: Option<Waker>,
    listener: Option<Waker>,
    reader: Option<Waker>,
    /// Nothing is sent any more once what is queued is out.
    closing: bool,
    closed: bool,
    /// Why this side ended the session, if it did so because of the peer.
    refusal: Option<Refusal>,
    drained: Option<Waker>,
}

/// Who waits for a stream.
#[derive(Default)]
struct Wakers {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A request that the peer opened.
pub(crate) struct Accepted {
    pub(crate) no: StreamNo,
    pub(crate) protocol: Protocol,
    pub(crate) opening: Box<Opening>,
    /// It has ended with its head: there is nothing to read, and no handle for that.
    pub(crate) bodiless: bool,
}

/// What the peer said about itself.
#[derive(Debug)]
pub enum News {
    /// Its Hello: exchanges can be carried now.
    Ready(Box<Hello>),
    /// The services that it offers.
    Announce(Announcement),
    /// Its answer to our announcement.
    Announced(Announced),
    /// It is leaving.
    Leaving(GoAway),
}

/// Wakers to be woken once the lock is free. Most of the time there is at most one.
#[derive(Default)]
#[must_use]
pub(crate) struct Wakes(Option<(Waker, Vec<Waker>)>);

impl Wakes {
    fn add(&mut self, waker: Option<Waker>) {
        match (waker, &mut self.0) {
            (Some(waker), Some((_, more))) => more.push(waker),
            (Some(first), none) => *none = Some((first, Vec::new())),
            (None, _) => {}
        }
    }

    #[inline]
    fn wake(self) {
        if let Some((first, more)) = self.0 {
            first.wake();
            more.into_iter().for_each(Waker::wake);
        }
    }
}

impl Session {
    /// A session of the peer `name`, whose identity was authenticated, whose bodies are moved
    /// in `turns`. It lives as long as someone moves its frames; see [`drive`](crate::drive). That
    /// is best done on the runtime on which it is made, and whatever else it gives rise to as well.
    pub fn new(
        name: Arc<str>,
        side: Side,
        settings: Settings,
        budget: Budget,
        hello: Hello,
        turns: Turns,
    ) -> Session {
        let core = Core {
            mux: Mux::new(side, settings, budget, hello, now()),
            queue: Queue::default(),
            wakers: NumberMap::default(),
            accepted: VecDeque::new(),
            news: VecDeque::new(),
            link: None,
            listener: None,
            reader: None,
            closing: false,
            closed: false,
            refusal: None,
            drained: None,
        };
        Session { shared: Arc::new(Shared { name, home: here(), turns, core: Mutex::new(core) }) }
    }

    /// The authenticated name of the peer.
    pub fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// Whether its frames are moved on the runtime `place`.
    pub(crate) fn is_at(&self, place: Option<Id>) -> bool {
        self.shared.home == place
    }

    /// The line in which those who move its bodies take turns.
    pub(crate) fn turns(&self) -> &Turns {
        &self.shared.turns
    }

    /// Whether both handles are of one session.
    pub fn is(&self, other: &Session) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // The mux keeps its invariants by itself; a panic elsewhere does not break them.
        self.shared.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` on the core, then wakes whoever it concerns, outside the lock.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.lock();
        let value = act(&mut core);
        let wakes = core.settle();
        drop(core);
        wakes.wake();
        value
    }

    /// What `look` finds in the core, in which it changes nothing that concerns anyone.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut Core) -> T) -> T {
        look(&mut self.lock())
    }

    /// The next frame for the link, which asks when it has room. `None`: the session has
    /// ended and so should the link's sending half.
    pub fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        self.with(|core| match core.mux.next_frame(now()) {
            Some(frame) if !core.closed => Poll::Ready(Some(frame)),
            _ if core.closing || core.closed => Poll::Ready(None),
            _ => {
                register(&mut core.link, cx);
                Poll::Pending
            }
        })
    }

    /// Takes a frame from the link. Never waits.
    ///
    /// # Errors
    /// The session must end.
    pub fn receive(&self, frame: Frame) -> Result<(), Fatal> {
        self.with(|core| core.mux.receive(frame, now))
    }

    /// Lets time pass and says when to do so again.
    ///
    /// # Errors
    /// The session must end.
    pub fn expire(&self) -> Result<Instant, Fatal> {
        self.with(|core| {
            core.mux.expire(now())?;
            Ok(core.mux.next_deadline())
        })
    }

    /// What the peer says about itself, in order; `None` once the session has ended.
    pub async fn news(&self) -> Option<News> {
        poll_fn(|cx| {
            self.with(|core| match core.news.pop_front() {
                Some(news) => Poll::Ready(Some(news)),
                None if core.closed => Poll::Ready(None),
                None => {
                    register(&mut core.reader, cx);
                    Poll::Pending
                }
            })
        })
        .await
    }

    /// The next request that the peer opened; `None` once the session has ended.
    pub(crate) async fn accept(&self) -> Option<Accepted> {
        poll_fn(|cx| {
            self.with(|core| match core.next_accepted() {
                Some(accepted) => Poll::Ready(Some(accepted)),
                None if core.closed => Poll::Ready(None),
                None => {
                    register(&mut core.listener, cx);
                    Poll::Pending
                }
            })
        })
        .await
    }

    /// Announces the services that this side offers.
    pub fn announce(&self, announcement: Announcement) {
        self.with(|core| core.mux.announce(announcement));
    }

    /// Answers the peer's announcement.
    pub fn announced(&self, answer: Announced) {
        self.with(|core| core.mux.announced(answer));
    }

    /// Asks the peer to open no more requests. This side may still open some.
    pub fn leave(&self) {
        self.with(|core| core.mux.drain());
    }

    /// [Leaves](Session::leave), waits until no request is open, then says goodbye.
    /// Whoever cannot wait for ever drops the future and calls [`close`](Session::close).
    pub async fn drain(&self) {
        self.leave();
        poll_fn(|cx| {
            self.with(|core| {
                if core.closed || core.mux.pending() == 0 {
                    return Poll::Ready(());
                }
                register(&mut core.drained, cx);
                Poll::Pending
            })
        })
        .await;
        self.close(Reason::None, "");
    }

    /// Says goodbye and ends the sending half; what is still open ends with the link.
    pub fn close(&self, reason: Reason, message: &str) {
        self.with(|core| {
            if !core.closing {
                core.mux.goodbye(reason, message);
                core.closing = true;
            }
        });
    }

    /// Says goodbye because of what the peer did.
    pub(crate) fn refuse(&self, refusal: &Refusal) {
        self.with(|core| core.refusal = Some(refusal.clone()));
        self.close(Reason::Protocol, &refusal.to_string());
    }

    /// Why this side ended the session, if it did so because of what the peer did.
    pub fn refusal(&self) -> Option<Refusal> {
        self.lock().refusal.clone()
    }

    /// Whether this side has said goodbye.
    pub(crate) fn said_goodbye(&self) -> bool {
        self.lock().closing
    }

    /// The link is gone: every request on it ends at once.
    pub fn lose(&self, reason: Reason) {
        self.with(|core| {
            core.closed = true;
            core.mux.lose(reason);
            while let Some(no) = core.accepted.pop_front() {
                core.forget(no);
            }
        });
    }

    /// Whether the link is gone; then it carries nothing any more.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Requests on this tunnel, whoever opened them.
    pub fn pending(&self) -> usize {
        self.lock().mux.pending()
    }

    /// The figures of this tunnel.
    pub fn stats(&self) -> Stats {
        self.lock().mux.stats()
    }
}

/// Keeps the waker of `cx` in `slot`.
fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

impl Core {
    /// The next request that the peer opened, and that is still to be answered.
    fn next_accepted(&mut self) -> Option<Accepted> {
        loop {
            let no = self.accepted.pop_front()?;
            if let Some((protocol, opening)) = self.mux.accept(no) {
                return Some(Accepted { no, protocol, opening, bodiless: self.end_reading(no) });
            }
        }
    }

    /// Opens a request; with `end` nobody writes to it.
    pub(crate) fn open(
        &mut self,
        opening: Opening,
        protocol: Protocol,
        end: bool,
    ) -> Result<StreamNo, Refused> {
        let no = self.mux.open(opening, protocol, end)?;
        if end {
            self.drop_writer(no);
        }
        Ok(no)
    }

    /// Keeps the waker of whoever reads `no`.
    pub(crate) fn wait_readable(&mut self, no: StreamNo, cx: &Context<'_>) {
        register(&mut self.wakers.entry(no).or_default().reader, cx);
    }

    /// Keeps the waker of whoever writes `no`.
    pub(crate) fn wait_writable(&mut self, no: StreamNo, cx: &Context<'_>) {
        register(&mut self.wakers.entry(no).or_default().writer, cx);
    }

    /// The reading handle of `no` is dropped.
    pub(crate) fn drop_reader(&mut self, no: StreamNo) {
        self.mux.drop_reader(no);
        if let Some(wakers) = self.wakers.get_mut(&no) {
            wakers.reader = None;
        }
        self.tidy(no);
    }

    /// Drops the reading handle of `no` if everything was taken up to the proper end, and says
    /// whether that is so: nobody need ask again.
    pub(crate) fn end_reading(&mut self, no: StreamNo) -> bool {
        let drained = self.mux.is_drained(no);
        if drained {
            self.drop_reader(no);
        }
        drained
    }

    /// The writing handle of `no` is dropped.
    pub(crate) fn drop_writer(&mut self, no: StreamNo) {
        self.mux.drop_writer(no);
        if let Some(wakers) = self.wakers.get_mut(&no) {
            wakers.writer = None;
        }
        self.tidy(no);
    }

    /// Drops both handles of a request that nobody will handle.
    fn forget(&mut self, no: StreamNo) {
        self.drop_reader(no);
        self.drop_writer(no);
    }

    fn tidy(&mut self, no: StreamNo) {
        if self.wakers.get(&no).is_some_and(|w| w.reader.is_none() && w.writer.is_none()) {
            self.wakers.remove(&no);
        }
    }

    /// Passes the mux's events on.
    fn settle(&mut self) -> Wakes {
        let mut wakes = Wakes::default();
        let mut over = self.closed || self.closing;
        while let Some(event) = self.mux.next_event() {
            match event {
                Event::Readable(no) => {
                    wakes.add(self.wakers.get_mut(&no).and_then(|w| w.reader.take()));
                }
                Event::Writable(no) => {
                    wakes.add(self.wakers.get_mut(&no).and_then(|w| w.writer.take()));
                }
                Event::Accepted(no) if self.closed => self.forget(no),
                Event::Accepted(no) => {
                    self.accepted.push_back(no);
                    wakes.add(self.listener.take());
                }
                Event::Ready(hello) => self.tell(News::Ready(hello), &mut wakes),
                Event::Announce(announcement) => {
                    self.tell(News::Announce(announcement), &mut wakes)
                }
                Event::Announced(answer) => self.tell(News::Announced(answer), &mut wakes),
                Event::Leaving(goaway) => {
                    over = true;
                    self.tell(News::Leaving(goaway), &mut wakes);
                }
            }
        }
        if self.closed {
            wakes.add(self.listener.take());
            wakes.add(self.reader.take());
            wakes.add(self.drained.take());
        }
        // A link that is not waiting asks by itself.
        if self.link.is_some() && (self.closed || self.closing || self.mux.has_frame()) {
            wakes.add(self.link.take());
        }
        if !self.queue.is_empty() {
            wakes.add(self.queue.turn(|| self.mux.load(), over));
        }
        if self.drained.is_some() && self.mux.pending() == 0 {
            wakes.add(self.drained.take());
        }
        wakes
    }

    /// News are bounded: a peer that floods them faster than they are heard is not kept.
    fn tell(&mut self, news: News, wakes: &mut Wakes) {
        const NEWS: usize = 64;
        if self.news.len() < NEWS {
            self.news.push_back(news);
        }
        wakes.add(self.reader.take());
    }
}
