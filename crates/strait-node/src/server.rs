//! A server's side of the tunnel: who may come in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::HeaderValue;
use strait_engine::{Ending, Session};
use strait_wire::Side;
use tonic::Status;

use crate::config::TunnelListen;
use crate::hub::{Allowed, Hub};
use crate::link::Received;
use crate::link::accept::{Gate, Refused};
use crate::secrets::{Failures, authorise};

/// The name of a peer that did not have to say who it is.
const ANYBODY: &str = "anybody";

/// Checks credentials and runs the sessions of those that pass.
pub(crate) struct Server {
    pub(crate) hub: Arc<Hub>,
    pub(crate) config: TunnelListen,
    pub(crate) failures: Failures,
}

impl Gate for Server {
    fn admit(
        &self,
        credential: Option<&HeaderValue>,
        address: SocketAddr,
    ) -> Result<Session, Refused> {
        if self.hub.draining.is_cancelled() {
            let status = Status::unavailable("this server is going away; try again shortly");
            return Err(Refused { status, pause: Duration::ZERO });
        }
        let name = self.authenticate(credential).ok_or_else(|| {
            tracing::warn!(%address, "a tunnel with a wrong credential was refused");
            // The same text whatever was wrong.
            let status = Status::unauthenticated("the token is missing or not known here");
            Refused { status, pause: self.failures.pause(address.ip(), Instant::now()) }
        })?;
        Ok(self.hub.open(&name, Side::Listener, address.to_string()))
    }

    fn attach(&self, session: Session, incoming: Received, address: SocketAddr) {
        let hub = Arc::clone(&self.hub);
        hub.tunnels.fetch_add(1, Ordering::Relaxed);
        let allowed = self.allowed(session.name());
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

    fn allowed(&self, name: &str) -> Allowed {
        match self.config.tokens.iter().find(|rule| rule.name == name).cloned() {
            Some(rule) => Box::new(move |service| rule.allows(service)),
            None => Box::new(|_| true),
        }
    }
}
