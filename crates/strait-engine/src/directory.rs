//! Who offers what: the services of this node and those that peers have announced.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use strait_wire::{Announced, Announcement, Protocol, Refusal, RequestHead, Service};

use crate::offers::Offers;
use crate::route::{Match, Table};
use crate::{Exchange, Origin, Patience, Session, Upstream};

/// A service of this node.
#[derive(Clone)]
pub struct Local {
    /// What it is and what it matches.
    pub service: Service,
    /// Who answers.
    pub upstream: Arc<dyn Upstream>,
    /// Whether this node's own entries reach it too. Off by default: a service is offered
    /// to the peer, and an entry must not fall back to it while a tunnel is down.
    pub at_entries: bool,
}

/// A line of the routing table, for people.
#[derive(Clone, Debug)]
pub struct RouteLine {
    /// The service.
    pub service: Service,
    /// Who offers it: the authenticated name of a peer, or `local`.
    pub owner: String,
    /// Tunnels through which it can be reached now; 0 for local services.
    pub tunnels: usize,
}

/// Where an exchange goes.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) service: Arc<str>,
    pub(crate) upstream: Arc<dyn Upstream>,
    /// The name travels with the request, because the peer knows the service by it.
    pub(crate) remote: bool,
}

/// Who offers what.
pub struct Directory {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    local: Vec<Local>,
    patience: Patience,
    offers: Offers,
    /// What entries see, and what peers see.
    entries: Table<Target>,
    peers: Table<Target>,
    /// What a peer reaches by name. The rest of a service's rule binds it all the same.
    by_name: BTreeMap<Arc<str>, Table<Target>>,
}

impl Directory {
    /// A directory of the node's own services. `patience` is how long an exchange waits
    /// for a tunnel that can take it.
    pub fn new(local: Vec<Local>, patience: Patience) -> Directory {
        let directory = Directory { state: RwLock::default() };
        directory.replace(local, patience);
        directory
    }

    /// Takes other services of the node, and another time to wait for a tunnel, for exchanges
    /// that begin from now on. Those under way end where they are.
    pub fn replace(&self, local: Vec<Local>, patience: Patience) {
        self.write(|state| {
            state.offers.set_patience(patience);
            (state.local, state.patience) = (local, patience);
        });
    }

    /// The services that this node offers to its peers.
    pub fn offered(&self) -> Vec<Service> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.local.iter().map(|local| local.service.clone()).collect()
    }

    /// Enters what the peer of `session` offers, in place of what it offered before; its
    /// authenticated name is the owner. A route that belongs to another owner is refused, also
    /// while that owner is away.
    pub fn announce(&self, session: &Session, announcement: Announcement) -> Announced {
        let mut refused = Vec::new();
        self.write(|state| {
            let mut entered = HashSet::new();
            for service in &announcement.services {
                match state.offers.admit(session, service, state.patience) {
                    Ok(()) => _ = entered.insert(service.name.as_str()),
                    Err(message) => {
                        refused.push(Refusal { service: service.name.clone(), message });
                    }
                }
            }
            state.offers.keep(session, &entered);
        });
        Announced { revision: announcement.revision, refused, addresses: Vec::new() }
    }

    /// The tunnel is gone, or is leaving.
    pub fn withdraw(&self, session: &Session) {
        self.state.read().unwrap_or_else(PoisonError::into_inner).offers.leave(session);
    }

    /// The routing table, for people.
    pub fn lines(&self) -> Vec<RouteLine> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let remote = state.offers.iter().map(|offer| RouteLine {
            service: offer.service.clone(),
            owner: offer.owner.to_string(),
            tunnels: offer.group.len(),
        });
        let local = state.local.iter().map(|local| RouteLine {
            service: local.service.clone(),
            owner: "local".to_owned(),
            tunnels: 0,
        });
        remote.chain(local).collect()
    }

    /// Where `exchange` goes. Peers reach this node's own services and nothing else, each for
    /// the protocols, hosts and paths that it is configured for; entries reach what peers
    /// offer, and own services that say so.
    pub(crate) fn find(&self, exchange: &Exchange) -> Option<Target> {
        let (head, context) = (&exchange.head, &exchange.context);
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let table = match context.caller.origin {
            Origin::Entry(_) => &state.entries,
            Origin::Session(_) if context.service.is_empty() => &state.peers,
            Origin::Session(_) => state.by_name.get(&*context.service)?,
        };
        table.find(context.protocol, head.host(), head.path_only()).cloned()
    }

    /// Whether a request of an entry has somewhere to go, connected or not.
    pub(crate) fn serves(&self, protocol: Protocol, head: &RequestHead) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.entries.find(protocol, head.host(), head.path_only()).is_some()
    }

    /// Changes the offers and rebuilds the tables from them.
    fn write(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let local = |local: &Local| Target {
            service: local.service.name.as_str().into(),
            upstream: Arc::clone(&local.upstream),
            remote: false,
        };
        let rules = |service: &Service, target: Target| {
            Match::of(service)
                .into_iter()
                .map(move |rule| (rule, target.clone()))
                .collect::<Vec<_>>()
        };
        let remote = state.offers.iter().flat_map(|offer| {
            let upstream: Arc<dyn Upstream> = offer.group.clone();
            let service = offer.service.name.as_str().into();
            rules(&offer.service, Target { service, upstream, remote: true })
        });
        let at_entries =
            state.local.iter().filter(|l| l.at_entries).flat_map(|l| rules(&l.service, local(l)));
        let entries = Table::new(remote.chain(at_entries));
        state.entries = entries;
        state.peers = Table::new(state.local.iter().flat_map(|l| rules(&l.service, local(l))));
        let named =
            |l: &Local| (l.service.name.as_str().into(), Table::new(rules(&l.service, local(l))));
        state.by_name = state.local.iter().map(named).collect();
    }
}
