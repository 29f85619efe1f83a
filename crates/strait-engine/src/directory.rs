//! Who offers what: the services of this node and those that peers have announced.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use strait_wire::{Announced, Announcement, Protocol, Refusal, RequestHead, Service};

use crate::group::Group;
use crate::route::{Match, Table};
use crate::{Exchange, Origin, Session, Upstream};

/// Announced services that are remembered, connected or not.
const MAX_SERVICES: usize = 100_000;

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
    local: Vec<Local>,
    hold: Duration,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// Announced services by owner and name, in the order of their first announcement.
    /// They stay when their last tunnel leaves: the route is known, its owner is away.
    offers: Vec<Offer>,
    /// What entries see, and what peers see.
    entries: Arc<Table<Target>>,
    peers: Arc<Table<Target>>,
    by_name: Arc<HashMap<Arc<str>, Target>>,
}

struct Offer {
    owner: Arc<str>,
    service: Service,
    group: Arc<Group>,
}

impl Directory {
    /// A directory of the node's own services. `hold` is how long an exchange waits for a
    /// tunnel while none offers its service.
    pub fn new(local: Vec<Local>, hold: Duration) -> Directory {
        let directory = Directory { local, hold, state: RwLock::default() };
        directory.write(|_| ());
        directory
    }

    /// The services that this node offers to its peers.
    pub fn offered(&self) -> Vec<Service> {
        self.local.iter().map(|local| local.service.clone()).collect()
    }

    /// Enters what the peer of `session` offers; its authenticated name is the owner. A
    /// route that belongs to another owner is refused, also while that owner is away.
    pub fn announce(&self, session: &Session, announcement: Announcement) -> Announced {
        let mut refused = Vec::new();
        self.write(|state| {
            for offer in &state.offers {
                offer.group.leave(session);
            }
            for service in announcement.services {
                if let Err(message) = state.admit(session, &service, self.hold) {
                    refused.push(Refusal { service: service.name, message });
                }
            }
        });
        Announced { revision: announcement.revision, refused, addresses: Vec::new() }
    }

    /// The tunnel is gone, or is leaving.
    pub fn withdraw(&self, session: &Session) {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        for offer in &state.offers {
            offer.group.leave(session);
        }
    }

    /// The routing table, for people.
    pub fn lines(&self) -> Vec<RouteLine> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let remote = state.offers.iter().map(|offer| RouteLine {
            service: offer.service.clone(),
            owner: offer.owner.to_string(),
            tunnels: offer.group.len(),
        });
        let local = self.local.iter().map(|local| RouteLine {
            service: local.service.clone(),
            owner: "local".to_owned(),
            tunnels: 0,
        });
        remote.chain(local).collect()
    }

    /// Where `exchange` goes. Peers reach this node's own services and nothing else;
    /// entries reach what peers offer, and own services that say so.
    pub(crate) fn find(&self, exchange: &Exchange) -> Option<Target> {
        let (table, by_name) = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            match exchange.context.caller.origin {
                Origin::Entry(_) => (Arc::clone(&state.entries), None),
                Origin::Session(_) => (Arc::clone(&state.peers), Some(Arc::clone(&state.by_name))),
            }
        };
        let named = by_name.filter(|_| !exchange.context.service.is_empty());
        if let Some(by_name) = named {
            return by_name.get(exchange.context.service.as_str()).cloned();
        }
        let head = &exchange.head;
        table.find(exchange.context.protocol, head.host(), head.path_only()).cloned()
    }

    /// Whether a request of an entry has somewhere to go, connected or not.
    pub(crate) fn serves(&self, protocol: Protocol, head: &RequestHead) -> bool {
        let entries = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&state.entries)
        };
        entries.find(protocol, head.host(), head.path_only()).is_some()
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
            self.local.iter().filter(|l| l.at_entries).flat_map(|l| rules(&l.service, local(l)));
        let entries = Table::new(remote.chain(at_entries));
        state.entries = Arc::new(entries);
        state.peers =
            Arc::new(Table::new(self.local.iter().flat_map(|l| rules(&l.service, local(l)))));
        state.by_name = Arc::new(
            self.local.iter().map(|l| (l.service.name.as_str().into(), local(l))).collect(),
        );
    }
}

impl State {
    /// Enters one service of the peer of `session`.
    fn admit(
        &mut self,
        session: &Session,
        service: &Service,
        hold: Duration,
    ) -> Result<(), String> {
        check(service)?;
        let owner = session.name();
        let rules = Match::of(service);
        let taken = self.offers.iter().any(|offer| {
            offer.owner != *owner
                && Match::of(&offer.service).iter().any(|a| rules.iter().any(|b| a.collides(b)))
        });
        if taken {
            return Err(
                "this host and path belong to another token; choose others with --host or --path"
                    .to_owned(),
            );
        }
        let known =
            self.offers.iter_mut().find(|o| o.owner == *owner && o.service.name == service.name);
        if let Some(offer) = known {
            offer.service = service.clone();
            offer.group.join(session);
            return Ok(());
        }
        if self.offers.len() >= MAX_SERVICES {
            return Err(format!("{MAX_SERVICES} services are known already; remove some"));
        }
        let group = Arc::new(Group::new(hold));
        group.join(session);
        self.offers.push(Offer { owner: Arc::clone(owner), service: service.clone(), group });
        Ok(())
    }
}

/// What the announcement of a service must look like.
fn check(service: &Service) -> Result<(), String> {
    let name_ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if service.name.is_empty() || service.name.len() > 64 || !service.name.chars().all(name_ok) {
        return Err("a service name has 1 to 64 of the characters A-Z a-z 0-9 . _ -".to_owned());
    }
    if service.hosts.len() > 256 || service.hosts.iter().any(|h| h.is_empty() || h.len() > 253) {
        return Err("a service has at most 256 hosts, each of 1 to 253 characters".to_owned());
    }
    let path = &service.path_prefix;
    if !path.is_empty()
        && (!path.starts_with('/') || path.len() > 1024 || path.contains(['?', '#', ' ']))
    {
        return Err(
            "a path begins with / and has at most 1024 characters, no ?, # or space".to_owned()
        );
    }
    Ok(())
}
