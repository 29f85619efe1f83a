//! The live tunnels that offer one service, as one upstream.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use strait_wire::Reason;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::carry::carry;
use crate::{Answer, Carried, Exchange, Failure, Fault, Session, Upstream};

/// The tunnels that offer one service.
pub(crate) struct Group {
    members: Mutex<Members>,
    joined: Notify,
}

struct Members {
    /// How long an exchange waits for a first tunnel before it is refused.
    hold: Duration,
    sessions: Vec<Session>,
    turn: usize,
}

impl Group {
    pub(crate) fn new(hold: Duration) -> Group {
        let members = Members { hold, sessions: Vec::new(), turn: 0 };
        Group { members: Mutex::new(members), joined: Notify::new() }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges that begin to wait from now on wait so long.
    pub(crate) fn set_hold(&self, hold: Duration) {
        self.members().hold = hold;
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

    /// The member with the fewest requests open, other than `tried`; of equals the one
    /// whose turn it is.
    fn choose(&self, tried: &[Session]) -> Option<Session> {
        let mut members = self.members();
        let count = members.sessions.len();
        members.turn = members.turn.wrapping_add(1);
        let turn = members.turn;
        let order = (0..count).map(|i| &members.sessions[(turn + i) % count]);
        order
            .filter(|session| !session.is_closed() && !tried.iter().any(|t| t.is(session)))
            .min_by_key(|session| if count == 1 { 0 } else { session.pending() })
            .cloned()
    }

    /// A member; if there is none, and `after` that fault it helps, one that joins.
    async fn member(&self, tried: &[Session], after: &Fault) -> Option<Session> {
        let joined = self.joined.notified();
        let session = self.choose(tried);
        if session.is_some() || !after.awaits() {
            return session;
        }
        let hold = self.members().hold;
        timeout(hold, joined).await.ok()?;
        self.choose(tried)
    }

    async fn carry_on(&self, mut exchange: Exchange) -> Result<Answer, Failure> {
        let mut tried = Vec::new();
        let mut last =
            Fault::because(Reason::ClientOffline, "no tunnel offers this service now").retry_safe();
        // Once more on another tunnel, where the table of faults allows it.
        for _ in 0..2 {
            let Some(session) = self.member(&tried, &last).await else { break };
            match carry(&session, exchange).await {
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
