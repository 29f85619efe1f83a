//! The live tunnels that offer one service, as one upstream.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use strait_wire::Reason;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::carry::carry;
use crate::{Answer, Carried, Exchange, Failure, Fault, Session, Upstream, here};

/// A tunnel of another worker costs twice as much for each request, and the waking of a thread that
/// may sleep: as much as waiting behind so many requests.
const AWAY: usize = 8;

/// How long an exchange waits before it is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// For a tunnel, while none offers its service.
    pub hold: Duration,
    /// For room on a tunnel whose memory, or number of requests, is used up.
    pub room: Duration,
}

/// The tunnels that offer one service.
pub(crate) struct Group {
    members: Mutex<Members>,
    joined: Notify,
}

struct Members {
    patience: Patience,
    sessions: Vec<Session>,
    turn: usize,
}

impl Group {
    pub(crate) fn new(patience: Patience) -> Group {
        let members = Members { patience, sessions: Vec::new(), turn: 0 };
        Group { members: Mutex::new(members), joined: Notify::new() }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges that begin to wait from now on wait so long.
    pub(crate) fn set_patience(&self, patience: Patience) {
        self.members().patience = patience;
    }

    pub(crate) fn join(&self, session: &Session) {
        let mut members = self.members();
        if !members.sessions.iter().any(|known| known.is(session)) {
            members.sessions.push(session.clone());
        }
        drop(members);
        self.joined.notify_waiters();
    }

    /// Whether it was a member.
    pub(crate) fn leave(&self, session: &Session) -> bool {
        let mut members = self.members();
        let before = members.sessions.len();
        members.sessions.retain(|known| !known.is(session));
        members.sessions.len() < before
    }

    pub(crate) fn len(&self) -> usize {
        self.members().sessions.len()
    }

    /// The member, other than `tried`, that carries one more request at the least cost; of equals
    /// the one whose turn it is. And how long a place on it may be waited for: where there is
    /// another member to try, not at all.
    fn choose(&self, tried: &[Session]) -> Option<(Session, Duration)> {
        let mut members = self.members();
        let count = members.sessions.len();
        members.turn = members.turn.wrapping_add(1);
        let turn = members.turn;
        let order = (0..count).map(|i| &members.sessions[(turn + i) % count]);
        let place = if count == 1 { None } else { here() };
        let cost = |session: &Session| match session.pending() {
            pending if session.is_at(place) => pending,
            pending => AWAY + 2 * pending,
        };
        let last = count == 1 || !tried.is_empty();
        let wait = if last { members.patience.room } else { Duration::ZERO };
        order
            .filter(|session| !session.is_closed() && !tried.iter().any(|t| t.is(session)))
            .min_by_key(|session| if count == 1 { 0 } else { cost(session) })
            .map(|session| (session.clone(), wait))
    }

    /// A member; if there is none, and `after` that fault it helps, one that joins.
    async fn member(&self, tried: &[Session], after: &Fault) -> Option<(Session, Duration)> {
        let joined = self.joined.notified();
        let chosen = self.choose(tried);
        if chosen.is_some() || !after.awaits() {
            return chosen;
        }
        let hold = self.members().patience.hold;
        timeout(hold, joined).await.ok()?;
        self.choose(tried)
    }

    async fn carry_on(&self, mut exchange: Exchange) -> Result<Answer, Failure> {
        let mut tried = Vec::new();
        let mut last =
            Fault::because(Reason::ClientOffline, "no tunnel offers this service now").retry_safe();
        // Once more on another tunnel, where the table of faults allows it.
        for _ in 0..2 {
            let Some((session, wait)) = self.member(&tried, &last).await else { break };
            match carry(&session, exchange, wait).await {
                Err(Failure { fault, untouched: Some(again) })
                    if fault.may_retry(&again.head.method) =>
                {
                    last = fault;
                    exchange = *again;
                    tried.push(session);
                }
                outcome => return outcome,
            }
        }
        Err(last.into())
    }
}

impl Upstream for Group {
    fn carry(&self, exchange: Exchange) -> Carried<'_> {
        Box::pin(self.carry_on(exchange))
    }
}

#[cfg(all(test, not(interleavings)))]
mod tests {
    use std::slice;
    use std::sync::Arc;

    use strait_wire::Protocol;

    use super::*;
    use crate::Workers;
    use crate::doubles::{opening, session};

    #[tokio::test]
    async fn a_request_stays_on_its_worker_unless_that_has_much_more_to_do() {
        let (workers, _threads) = Workers::start(2).unwrap();
        let [_, there] = [workers.tunnel(), workers.tunnel()];
        let near = session("near");
        let far = there.runtime().spawn(async { session("far") }).await.unwrap();
        let group = Arc::new(Group::new(Patience::default()));
        group.join(&far);
        group.join(&near);
        let twice = |wanted| (0..2).all(|_| group.choose(&[]).unwrap().0.is(wanted));
        for open in 0..=AWAY {
            assert!(open == AWAY || twice(&near), "whosever turn it is, with {open} open");
            near.with(|core| core.mux.open(opening(), Protocol::Http, true)).unwrap();
        }
        assert!(twice(&far));
        assert!(group.choose(slice::from_ref(&far)).unwrap().0.is(&near), "the other was tried");
        let elsewhere = group.clone();
        let chosen = there.runtime().spawn(async move { elsewhere.choose(&[]).unwrap().0 });
        assert!(chosen.await.unwrap().is(&far));
    }

    #[test]
    fn of_one_worker_all_have_their_turns_and_the_idlest_goes_first() {
        let group = Group::new(Patience::default());
        let all = ["a", "b", "c"].map(session);
        all.iter().for_each(|session| group.join(session));
        let mut chosen: Vec<_> =
            (0..3).map(|_| group.choose(&[]).unwrap().0.name().clone()).collect();
        chosen.sort();
        assert_eq!(chosen, ["a", "b", "c"].map(Arc::from));
        for busy in &all[..2] {
            busy.with(|core| core.mux.open(opening(), Protocol::Http, true)).unwrap();
        }
        assert!((0..3).all(|_| group.choose(&[]).unwrap().0.is(&all[2])));
    }
}
