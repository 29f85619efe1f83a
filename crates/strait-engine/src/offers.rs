//! The services that peers have announced, and to whom each route belongs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use strait_wire::{Protocol, Service};

use crate::group::Group;
use crate::route::Match;
use crate::{Patience, Session};

/// Announced services that are remembered, connected or not.
pub const MAX_SERVICES: usize = 100_000;

/// What one owner offers under one name.
pub(crate) struct Offer {
    pub(crate) owner: Arc<str>,
    pub(crate) service: Service,
    pub(crate) group: Arc<Group>,
}

/// Announced services by owner and name, in the order of their first announcement. They stay
/// when their last tunnel leaves: the route is known, its owner is away.
#[derive(Default)]
pub(crate) struct Offers {
    list: Vec<Offer>,
    /// Where in the list an owner's service is. A peer may announce tens of thousands in one
    /// message, and nobody else may wait while each is compared with all others.
    names: HashMap<(Arc<str>, String), usize>,
    /// Who claims a host and path, and how many of its rules do so for each protocol.
    places: HashMap<(String, String), HashMap<Arc<str>, Claims>>,
}

/// Rules of one owner for one host and path, for each protocol.
type Claims = [u32; Protocol::ALL.len()];

impl Offers {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Offer> {
        self.list.iter()
    }

    /// Nothing goes through `session` any more.
    pub(crate) fn leave(&self, session: &Session) {
        self.list.iter().for_each(|offer| _ = offer.group.leave(session));
    }

    /// Nothing but the services of these names goes through `session` any more. What it offered
    /// beside them, and nobody else does, is not known any more: its owner has said so.
    pub(crate) fn keep(&mut self, session: &Session, names: &HashSet<&str>) {
        let mut gone = Vec::new();
        self.list.retain(|offer| {
            let stays = names.contains(offer.service.name.as_str()) || !offer.group.leave(session);
            let known = stays || offer.group.len() > 0;
            if !known {
                gone.push((Arc::clone(&offer.owner), offer.service.clone()));
            }
            known
        });
        if gone.is_empty() {
            return;
        }
        gone.iter().for_each(|(owner, service)| self.vacate(owner, service));
        let places = self.list.iter().enumerate();
        self.names = places
            .map(|(index, offer)| ((Arc::clone(&offer.owner), offer.service.name.clone()), index))
            .collect();
    }

    /// Exchanges that begin to wait for a tunnel from now on wait so long.
    pub(crate) fn set_patience(&self, patience: Patience) {
        self.list.iter().for_each(|offer| offer.group.set_patience(patience));
    }

    /// Enters one service of the peer of `session`, whose authenticated name is the owner.
    ///
    /// # Errors
    /// Why it is refused, for the person at the other end.
    pub(crate) fn admit(
        &mut self,
        session: &Session,
        service: &Service,
        patience: Patience,
    ) -> Result<(), String> {
        check(service)?;
        let owner = session.name();
        let rules = Match::of(service);
        if rules.iter().any(|rule| self.is_taken(rule, owner)) {
            return Err(
                "this host and path belong to another token; choose others with --host or --path"
                    .to_owned(),
            );
        }
        let index = match self.names.get(&(Arc::clone(owner), service.name.clone())) {
            Some(index) => *index,
            None => self.append(owner, service, patience)?,
        };
        let offer = &mut self.list[index];
        offer.group.join(session);
        let before = std::mem::replace(&mut offer.service, service.clone());
        self.vacate(owner, &before);
        for rule in &rules {
            let claims = self.places.entry(rule.place()).or_default();
            let claims = claims.entry(Arc::clone(owner)).or_default();
            claimed(rule, claims).for_each(|count| *count += 1);
        }
        Ok(())
    }

    /// Whether another owner claims a request that `rule` claims for the same host and path.
    fn is_taken(&self, rule: &Match, owner: &Arc<str>) -> bool {
        let there = self.places.get(&rule.place()).into_iter().flatten();
        there.filter(|(other, _)| *other != owner).any(|(_, claims)| {
            let mut claims = *claims;
            claimed(rule, &mut claims).any(|count| *count > 0)
        })
    }

    /// A new offer, which claims nothing yet.
    fn append(
        &mut self,
        owner: &Arc<str>,
        service: &Service,
        patience: Patience,
    ) -> Result<usize, String> {
        let index = self.list.len();
        if index >= MAX_SERVICES {
            return Err(format!("{MAX_SERVICES} services are known already; remove some"));
        }
        self.names.insert((Arc::clone(owner), service.name.clone()), index);
        let group = Arc::new(Group::new(patience));
        self.list.push(Offer { owner: Arc::clone(owner), service: Service::default(), group });
        Ok(index)
    }

    /// Gives up the claims of a service that is about to make others.
    fn vacate(&mut self, owner: &Arc<str>, service: &Service) {
        if service.name.is_empty() {
            return;
        }
        for rule in Match::of(service) {
            let place = rule.place();
            let Some(owners) = self.places.get_mut(&place) else { continue };
            let Some(claims) = owners.get_mut(owner) else { continue };
            claimed(&rule, claims).for_each(|count| *count = count.saturating_sub(1));
            if *claims == Claims::default() {
                owners.remove(owner);
            }
            if owners.is_empty() {
                self.places.remove(&place);
            }
        }
    }
}

/// The counts of the protocols that `rule` claims; one that names none claims all.
fn claimed<'a>(rule: &'a Match, claims: &'a mut Claims) -> impl Iterator<Item = &'a mut u32> {
    let all = rule.protocols.is_empty();
    let counts = Protocol::ALL.iter().zip(claims);
    counts.filter(move |(p, _)| all || rule.protocols.contains(p)).map(|(_, count)| count)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doubles::session;

    fn service(name: &str, host: &str, path: &str, protocols: &[Protocol]) -> Service {
        Service {
            name: name.to_owned(),
            protocols: protocols.to_vec(),
            hosts: vec![host.to_owned()],
            path_prefix: path.to_owned(),
        }
    }

    #[test]
    fn a_route_belongs_to_its_owner_for_every_protocol_that_it_claims() {
        let (mut offers, a, b) = (Offers::default(), session("a"), session("b"));
        let mut admit = |session: &Session, service: Service| {
            offers.admit(session, &service, Patience::default()).is_ok()
        };
        let (http, grpc) = (&[Protocol::Http][..], &[Protocol::Grpc][..]);
        assert!(admit(&a, service("all", "One.test", "/", &[])));
        for protocols in [&[], http, grpc] {
            assert!(!admit(&b, service("x", "one.TEST", "", protocols)), "{protocols:?}");
        }
        assert!(admit(&a, service("more", "one.test", "", http)), "an owner may say it again");
        assert!(admit(&a, service("web", "two.test", "", http)));
        assert!(!admit(&b, service("x", "two.test", "", &[])), "all of them is one of them too");
        assert!(!admit(&b, service("x", "two.test", "", http)));
        assert!(admit(&b, service("calls", "two.test", "", grpc)));
        assert!(admit(&b, service("below", "two.test", "/b", &[])));
    }

    #[test]
    fn what_nobody_offers_any_more_is_forgotten_and_its_place_is_free() {
        let mut offers = Offers::default();
        let (old, new, b) = (session("a"), session("a"), session("b"));
        for (name, host) in [("one", "h1"), ("two", "h2"), ("three", "h3")] {
            offers.admit(&old, &service(name, host, "/", &[]), Patience::default()).unwrap();
        }
        offers.admit(&new, &service("two", "h2", "/", &[]), Patience::default()).unwrap();
        offers.keep(&old, &HashSet::from(["three"]));
        let known: Vec<_> =
            offers.iter().map(|o| (o.service.name.as_str(), o.group.len())).collect();
        assert_eq!(known, [("two", 1), ("three", 1)]);
        let mut admit = |session: &Session, service: Service| {
            offers.admit(session, &service, Patience::default()).is_ok()
        };
        assert!(admit(&b, service("x", "h1", "/", &[])), "nobody has it");
        assert!(!admit(&b, service("y", "h2", "/", &[])), "the other tunnel offers it");
        assert!(!admit(&b, service("y", "h3", "/", &[])));
        assert!(admit(&new, service("three", "h4", "/", &[])), "it is found by its name");
        assert!(admit(&b, service("y", "h3", "/", &[])));
        offers.leave(&new);
        assert_eq!(offers.iter().count(), 4, "who only leaves may come back");
    }

    #[test]
    fn a_service_that_moves_gives_up_its_place_and_no_other() {
        let (mut offers, a, b) = (Offers::default(), session("a"), session("b"));
        let mut admit = |session: &Session, service: Service| {
            offers.admit(session, &service, Patience::default()).is_ok()
        };
        assert!(admit(&a, service("one", "h", "/", &[])));
        assert!(admit(&a, service("two", "h", "/", &[])));
        assert!(admit(&a, service("one", "elsewhere", "/", &[])));
        assert!(!admit(&b, service("x", "h", "/", &[])), "the other service is still there");
        assert!(admit(&a, service("two", "elsewhere", "/", &[])));
        assert!(admit(&b, service("x", "h", "/", &[])));
        assert!(!admit(&a, service("one", "h", "/", &[])));
        assert!(!admit(&b, service("y", "elsewhere", "/", &[])), "a refused move gives up nothing");
    }
}
