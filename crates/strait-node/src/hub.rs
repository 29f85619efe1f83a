//! What every session of a node shares, whoever dialled it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use strait_engine::{
    Budget, Directory, Dispatch, Ending, Incoming, News, Session, Settings, Upstream, Workers,
    drive, serve,
};
use strait_wire::{Announced, Announcement, Hello, Reason, Refusal, Service, Side};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What every session of a node shares.
pub(crate) struct Hub {
    /// What it says of itself on each tunnel.
    pub(crate) hello: Hello,
    pub(crate) directory: Arc<Directory>,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) terms: ArcSwap<Terms>,
    pub(crate) budget: Budget,
    pub(crate) workers: Workers,
    /// Exchanges that peers opened.
    pub(crate) tasks: TaskTracker,
    /// Sessions.
    pub(crate) links: TaskTracker,
    pub(crate) draining: CancellationToken,
    pub(crate) started: Instant,
    pub(crate) sessions: Mutex<Vec<Peer>>,
    /// Sessions begun, live or not; numbers this client's connections.
    pub(crate) connections: AtomicU64,
    /// Tunnels that came up.
    pub(crate) tunnels: AtomicU64,
    /// Those of a client that were up before.
    pub(crate) reconnects: AtomicU64,
    /// Reloads of the configuration: put to use, and refused for a mistake.
    pub(crate) reloads: AtomicU64,
    pub(crate) reloads_refused: AtomicU64,
    /// Violations of the protocol by peers whose sessions have ended.
    pub(crate) violations: AtomicU64,
}

/// What a new tunnel is given. Tunnels that are up keep what they were given.
pub(crate) struct Terms {
    pub(crate) settings: Settings,
    pub(crate) session_budget: usize,
    /// Where visitors reach this node's entries, for people at the other end.
    pub(crate) addresses: Vec<String>,
    /// How long what is under way may take when a tunnel, or the node, ends.
    pub(crate) drain: Duration,
}

/// One live session and what its peer said of itself.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) session: Session,
    pub(crate) budget: Budget,
    pub(crate) address: String,
    /// Which of the client's tunnels it is, from 0.
    pub(crate) tunnel: u32,
    pub(crate) since: Instant,
    /// `None` until its Hello.
    pub(crate) hello: Option<Arc<Hello>>,
    /// How often its peer was told what this node offers.
    pub(crate) revision: u64,
    /// It carries to their end the requests that it has, and no others.
    pub(crate) leaving: bool,
}

impl Peer {
    fn announce(&mut self, services: Vec<Service>) {
        self.revision += 1;
        self.session.announce(Announcement { revision: self.revision, services });
    }
}

/// Which services a peer may announce.
pub(crate) type Allowed = Box<dyn Fn(&str) -> bool + Send + Sync>;

impl Hub {
    /// Of a node that has begun just now, and has no session yet.
    pub(crate) fn new(
        hello: Hello,
        workers: Workers,
        directory: Arc<Directory>,
        dispatch: Arc<Dispatch>,
        terms: Terms,
        budget: Budget,
    ) -> Hub {
        Hub {
            hello,
            directory,
            dispatch,
            terms: ArcSwap::from_pointee(terms),
            budget,
            workers,
            tasks: TaskTracker::new(),
            links: TaskTracker::new(),
            draining: CancellationToken::new(),
            started: Instant::now(),
            sessions: Mutex::default(),
            connections: AtomicU64::new(0),
            tunnels: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            reloads: AtomicU64::new(0),
            reloads_refused: AtomicU64::new(0),
            violations: AtomicU64::new(0),
        }
    }

    /// A new session with the authenticated peer `name`, on the current worker; `tunnel`: which
    /// one of this node's it is.
    pub(crate) fn open(&self, name: &str, side: Side, address: String, tunnel: u32) -> Session {
        let connection = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let hello = Hello { connection, tunnel, ..self.hello.clone() };
        let terms = self.terms.load();
        let budget = self.budget.child(terms.session_budget);
        let (settings, turns) = (terms.settings.clone(), self.workers.turns().clone());
        let session = Session::new(name.into(), side, settings, budget.clone(), hello, turns);
        let mut peer = Peer {
            session: session.clone(),
            budget,
            address,
            tunnel,
            since: Instant::now(),
            hello: None,
            revision: 0,
            leaving: false,
        };
        self.peers(|peers| {
            // Under the lock: whoever changes what is offered tells all that are in the list.
            peer.announce(self.directory.offered());
            peers.push(peer);
        });
        session
    }

    /// Tells every peer what this node offers now.
    pub(crate) fn announce(&self) {
        self.peers(|peers| {
            let services = self.directory.offered();
            let staying = peers.iter_mut().filter(|peer| !peer.leaving);
            staying.for_each(|peer| peer.announce(services.clone()));
        });
    }

    /// Ends a session in order: nothing new goes through it, and what it carries may end within
    /// the drain time.
    pub(crate) fn retire(&self, session: &Session) {
        self.withdraw(session);
        session.leave();
        let (session, drain) = (session.clone(), self.terms.load().drain);
        self.links.spawn(async move {
            if timeout(drain, session.drain()).await.is_err() {
                session.close(Reason::Draining, "the drain time is over");
            }
        });
    }

    /// Sends nothing new through `session`, which is leaving.
    fn withdraw(&self, session: &Session) {
        self.directory.withdraw(session);
        self.peers(|peers| {
            let leaving = peers.iter_mut().filter(|peer| peer.session.is(session));
            leaving.for_each(|peer| peer.leaving = true);
        });
    }

    /// Forgets a session that never lived.
    pub(crate) fn discard(&self, session: &Session) {
        session.lose(Reason::ClientLost);
        self.directory.withdraw(session);
        self.peers(|peers| {
            peers.retain(|peer| !peer.session.is(session));
            // Under the same lock: whoever sums up counts them once.
            self.violations.fetch_add(session.stats().violations, Ordering::Relaxed);
        });
    }

    /// Violations of the protocol by all peers so far.
    pub(crate) fn violations(&self) -> u64 {
        self.peers(|peers| {
            let live: u64 = peers.iter().map(|peer| peer.session.stats().violations).sum();
            live + self.violations.load(Ordering::Relaxed)
        })
    }

    /// Runs a session until its link ends: answers what the peer opens, hears what it says.
    pub(crate) async fn run(
        self: &Arc<Self>,
        session: Session,
        incoming: impl Incoming,
        allowed: Allowed,
    ) -> Ending {
        let _up = self.workers.tunnel_up();
        let upstream: Arc<dyn Upstream> = self.dispatch.clone();
        tokio::spawn(serve(session.clone(), upstream, self.tasks.clone()));
        // Apart from what is received, which comes far more often than news.
        let hearing = tokio::spawn({
            let (hub, session) = (Arc::clone(self), session.clone());
            async move {
                while let Some(news) = session.news().await {
                    hub.hear(&session, news, &allowed);
                }
            }
        });
        let ending = drive(&session, incoming).await;
        // What was offered last must not be entered after all of it is withdrawn.
        let _ = hearing.await;
        self.discard(&session);
        ending
    }

    fn hear(&self, session: &Session, news: News, allowed: &Allowed) {
        match news {
            News::Ready(hello) => self.welcome(session, *hello),
            News::Announce(announcement) => {
                let answer = self.enter(session, announcement, allowed);
                for refusal in &answer.refused {
                    tracing::warn!(
                        service = refusal.service,
                        "refused a service: {}",
                        refusal.message
                    );
                }
                session.announced(answer);
            }
            // The first of several tunnels speaks for all.
            News::Announced(answer) if self.number(session) == 0 => tell(&answer),
            News::Announced(_) => {}
            News::Leaving(goaway) => {
                let why = if goaway.message.is_empty() {
                    goaway.reason.as_str()
                } else {
                    &goaway.message
                };
                tracing::info!(peer = %session.name(), why, "the peer is leaving");
                self.withdraw(session);
            }
        }
    }

    /// Enters what the peer offers, as far as its credential allows.
    fn enter(
        &self,
        session: &Session,
        mut announcement: Announcement,
        allowed: &Allowed,
    ) -> Announced {
        let mut refused = Vec::new();
        announcement.services.retain(|service| {
            let ok = allowed(&service.name);
            if !ok {
                let message = "this token does not allow a service of this name".to_owned();
                refused.push(Refusal { service: service.name.clone(), message });
            }
            ok
        });
        let mut answer = self.directory.announce(session, announcement);
        answer.refused.append(&mut refused);
        answer.addresses.clone_from(&self.terms.load().addresses);
        answer
    }

    /// Notes who the peer is. Of two sessions for one tunnel of a client the newer one stays: by
    /// the client's own count, because clocks and arrival order tell nothing. Of two processes of
    /// one client the one that came last stays, with all its tunnels.
    fn welcome(&self, session: &Session, hello: Hello) {
        let hello = Arc::new(hello);
        let (tunnel, stale): (_, Vec<Session>) = self.peers(|peers| {
            let Some(own) = peers.iter_mut().find(|peer| peer.session.is(session)) else {
                return (0, Vec::new());
            };
            own.hello = Some(Arc::clone(&hello));
            // Who dials numbers them; to who listens the number comes from the peer.
            own.tunnel = own.tunnel.max(hello.tunnel);
            let tunnel = own.tunnel;
            let superseded = |peer: &Peer| {
                // One that is leaving has made room, and may end what it carries.
                let known = peer.hello.as_ref().filter(|_| !peer.leaving)?;
                let same_process = known.instance == hello.instance;
                let is_other = peer.session.is(session)
                    || known.client_id != hello.client_id
                    || peer.session.name() != session.name()
                    || same_process && peer.tunnel != tunnel;
                let is_newer = same_process && known.connection > hello.connection;
                let stale = if is_newer { session } else { &peer.session };
                (!is_other).then(|| stale.clone())
            };
            (tunnel, peers.iter().filter_map(superseded).collect())
        });
        let number = (tunnel > 0).then_some(tunnel);
        tracing::info!(
            peer = hello.client_id,
            tunnel = number,
            software = hello.software,
            "tunnel is up"
        );
        for old in stale {
            tracing::info!(peer = hello.client_id, "a newer connection of this client takes over");
            self.directory.withdraw(&old);
            old.close(Reason::ClientLimit, "a newer connection with this client's id took over");
        }
    }

    /// Which of the tunnels with its peer `session` is.
    fn number(&self, session: &Session) -> u32 {
        self.peers(|peers| {
            peers.iter().find(|peer| peer.session.is(session)).map_or(0, |peer| peer.tunnel)
        })
    }

    pub(crate) fn peers<T>(&self, act: impl FnOnce(&mut Vec<Peer>) -> T) -> T {
        act(&mut self.sessions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The sessions at this moment.
    pub(crate) fn live(&self) -> Vec<Peer> {
        self.peers(|peers| peers.clone())
    }
}

/// Tells the person at this end what became of the announced services.
fn tell(answer: &Announced) {
    for refusal in &answer.refused {
        tracing::error!(service = refusal.service, "not offered: {}", refusal.message);
    }
    if !answer.addresses.is_empty() {
        tracing::info!("services can be reached at {}", answer.addresses.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;
    use strait_engine::{LinkError, Protocol, Record, Recorder};
    use strait_wire::Frame;

    use super::*;
    use crate::link::Received;

    fn size<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// What a peer says all at once, before it is gone.
    struct Said(VecDeque<Frame>);

    impl Incoming for Said {
        async fn next(&mut self) -> Result<Option<Frame>, LinkError> {
            Ok(self.0.pop_front())
        }
    }

    struct NoRecords;

    impl Recorder for NoRecords {
        fn started(&self, _: Protocol) {}
        fn finished(&self, _: &Record) {}
    }

    fn hub() -> Hub {
        let directory = Arc::new(Directory::new(Vec::new(), strait_engine::Patience::default()));
        let dispatch = Arc::new(Dispatch::new(directory.clone(), Arc::new(NoRecords), 100));
        let (settings, session_budget) = (Settings::default(), 1 << 20);
        let terms =
            Terms { settings, session_budget, addresses: Vec::new(), drain: Duration::ZERO };
        let (workers, budget) = (Workers::start(1).unwrap().0, Budget::new(1 << 20));
        Hub::new(Hello::default(), workers, directory, dispatch, terms, budget)
    }

    #[tokio::test]
    async fn what_is_offered_with_the_last_breath_is_withdrawn_too() {
        let hub = Arc::new(hub());
        let session = hub.open("peer", Side::Listener, "here".to_owned(), 0);
        let service = Service { name: "web".to_owned(), ..Service::default() };
        let said = [
            Frame::Hello(Box::new(Hello { version_min: 1, version_max: 1, ..Hello::default() })),
            Frame::Announce(Announcement { revision: 1, services: vec![service] }),
        ];
        let heard = Arc::new(AtomicU64::new(0));
        let counter = heard.clone();
        let allowed = Box::new(move |_: &str| counter.fetch_add(1, Ordering::Relaxed) == 0);
        let ending = hub.run(session, Said(said.into()), allowed).await;
        assert!(matches!(ending, Ending::Lost(_)), "{ending:?}");
        // Whatever is still to run has its turn.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(heard.load(Ordering::Relaxed), 1, "it was offered");
        // The route may wait for the peer to come back.
        let tunnels: usize = hub.directory.lines().iter().map(|route| route.tunnels).sum();
        assert_eq!(tunnels, 0, "nobody is there who serves it");
    }

    /// Whether `session` was told to go.
    fn is_gone(session: &Session) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match session.poll_frame(&mut cx) {
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return true,
                Poll::Pending => return false,
            }
        }
    }

    #[tokio::test]
    async fn each_tunnel_of_a_client_has_one_session_and_a_new_process_has_all_of_them() {
        let hub = hub();
        let begin = |process: &'static [u8], tunnel, connection| {
            let session = hub.open("token", Side::Listener, "there".to_owned(), 0);
            let (client_id, instance) = ("office".to_owned(), Bytes::from_static(process));
            let hello = Hello { client_id, instance, tunnel, connection, ..Hello::default() };
            hub.welcome(&session, hello);
            session
        };
        let [first, second] = [begin(b"1", 0, 1), begin(b"1", 1, 2)];
        assert!(!is_gone(&first) && !is_gone(&second), "they are two tunnels");
        let again = begin(b"1", 1, 3);
        assert!(!is_gone(&first) && is_gone(&second) && !is_gone(&again));
        let late = begin(b"1", 0, 0);
        assert!(is_gone(&late) && !is_gone(&first), "it was dialled before");
        let restarted = begin(b"2", 0, 1);
        assert!(is_gone(&first) && is_gone(&again) && !is_gone(&restarted));
    }

    #[tokio::test]
    async fn a_client_keeps_all_its_tunnels_to_one_server() {
        let hub = hub();
        let dial = |tunnel| hub.open("server", Side::Dialer, "there".to_owned(), tunnel);
        let sessions = [dial(0), dial(1)];
        for session in &sessions {
            // A server does not number them.
            hub.welcome(session, Hello { client_id: "gate".to_owned(), ..Hello::default() });
        }
        assert!(!sessions.iter().any(is_gone));
    }

    #[test]
    fn the_task_of_a_tunnel_is_small() {
        let tunnel =
            size(|(hub, session, incoming, allowed): (&'static Arc<Hub>, _, Received, _)| {
                hub.run(session, incoming, allowed)
            });
        println!("bytes of a task: a tunnel {tunnel}");
        assert!(tunnel <= 1280, "{tunnel}");
    }
}
