//! A server's side of the tunnel: who may come in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::HeaderValue;
use rustls::ServerConfig;
use strait_engine::{Ending, Session};
use strait_wire::Side;
use tonic::Status;

use crate::config::{TokenRule, TunnelListen};
use crate::hub::{Allowed, Hub};
use crate::link::Received;
use crate::link::accept::{Gate, Refused};
use crate::secrets::{Failures, authorise};
use crate::setup::Certificate;

/// The name of a peer that did not have to say who it is.
const ANYBODY: &str = "anybody";

/// Checks credentials and runs the sessions of those that pass.
pub(crate) struct Server {
    hub: Arc<Hub>,
    access: ArcSwap<Access>,
    failures: Failures,
}

/// Who may come in, and how connections are encrypted.
pub(crate) struct Access {
    /// `None`: they are not.
    pub(crate) certificate: Option<Certificate>,
    pub(crate) config: TunnelListen,
}

impl Gate for Server {
    fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.access.load().certificate.as_ref().map(|certificate| certificate.tls.clone())
    }

    fn admit(
        &self,
        credential: Option<&HeaderValue>,
        address: SocketAddr,
    ) -> Result<Session, Refused> {
        if self.hub.draining.is_cancelled() {
            let status = Status::unavailable("this server is going away; try again shortly");
            return Err(Refused { status, pause: Duration::ZERO });
        }
        let access = self.access.load_full();
        let name = access.authenticate(credential).ok_or_else(|| self.refuse(address))?;
        let session = self.hub.open(&name, Side::Listener, address.to_string(), 0);
        // Another access looks at the sessions that there are: this one may have come too late.
        if access.right(&name) != self.access.load().right(&name) {
            self.hub.discard(&session);
            return Err(self.refuse(address));
        }
        Ok(session)
    }

    fn attach(&self, session: Session, incoming: Received, address: SocketAddr) {
        let hub = Arc::clone(&self.hub);
        hub.tunnels.fetch_add(1, Ordering::Relaxed);
        let allowed = self.access.load().allowed(session.name());
        self.hub.links.spawn(async move {
            match hub.run(session, incoming, allowed).await {
                Ending::Goodbye(_) => tracing::info!(%address, "a tunnel has ended"),
                Ending::Lost(why) => tracing::warn!(%address, why, "a tunnel was lost"),
                Ending::Refused(why) => tracing::warn!(%address, %why, "a tunnel was ended"),
            }
        });
    }
}

impl Server {
    /// A server of this node's tunnels.
    pub(crate) fn new(hub: Arc<Hub>, access: Arc<Access>) -> Server {
        Server { hub, access: ArcSwap::new(access), failures: Failures::default() }
    }

    /// Takes another access. Tunnels whose right is not what it was are retired: their clients
    /// come back with the right that they have now, if they have one.
    pub(crate) fn replace(&self, access: Arc<Access>) {
        let before = self.access.swap(access);
        let now = self.access.load();
        for peer in self.hub.live() {
            let name = peer.session.name();
            if before.right(name) != now.right(name) {
                tracing::info!(token = %name, address = peer.address, "the right of a tunnel has changed; it is retired");
                self.hub.retire(&peer.session);
            }
        }
    }

    fn refuse(&self, address: SocketAddr) -> Refused {
        tracing::warn!(%address, "a tunnel with a wrong credential was refused");
        // The same text whatever was wrong.
        let status = Status::unauthenticated("the token is missing or not known here");
        Refused { status, pause: self.failures.pause(address.ip(), Instant::now()) }
    }
}

/// What a name may do.
#[derive(PartialEq, Eq)]
enum Right<'a> {
    /// Everything: nobody is asked who he is.
    Anybody,
    Rule(&'a TokenRule),
}

impl Access {
    /// The name of the rule that the credential fulfils.
    fn authenticate(&self, credential: Option<&HeaderValue>) -> Option<String> {
        let token = credential
            .map(HeaderValue::as_bytes)
            .and_then(|value| value.strip_prefix(b"Bearer "))
            .unwrap_or_default();
        // Compared even when none is needed or given, so that time tells nothing.
        let rule = authorise(&self.config.tokens, token).map(|rule| rule.name.clone());
        rule.or_else(|| self.config.insecure_no_auth.then(|| ANYBODY.to_owned()))
    }

    /// What the holder of the rule `name` may do; `None`: nothing.
    fn right(&self, name: &str) -> Option<Right<'_>> {
        let rule = self.config.tokens.iter().find(|rule| rule.name == name);
        let anybody = self.config.insecure_no_auth.then_some(Right::Anybody);
        rule.map(Right::Rule).or(anybody)
    }

    fn allowed(&self, name: &str) -> Allowed {
        match self.right(name) {
            Some(Right::Rule(rule)) => {
                let rule = rule.clone();
                Box::new(move |service| rule.allows(service))
            }
            Some(Right::Anybody) => Box::new(|_| true),
            None => Box::new(|_| false),
        }
    }
}
