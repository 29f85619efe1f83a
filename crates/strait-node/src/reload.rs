//! Another configuration for a node that runs: read again, checked as at the start, and put to
//! use at once or not at all.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use strait_edge::{Entry, ProxyProtocol};
use strait_engine::Upstream;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::client::Client;
use crate::config::{Config, ConfigError, Difference, Loaded, Role};
use crate::hub::Hub;
use crate::server::Server;
use crate::setup::{Setup, Tunnel};

/// Reads the configuration again, from where it was read at the start.
pub type Read = Box<dyn Fn() -> Result<Loaded, ConfigError> + Send + Sync>;

/// Sets the level of the log.
pub type SetLevel = Box<dyn Fn(&str) + Send + Sync>;

/// The parts of a node that can be exchanged while it runs.
pub(crate) struct Running {
    pub(crate) hub: Arc<Hub>,
    pub(crate) proxy_protocol: ProxyProtocol,
    /// In the order of the configuration.
    pub(crate) entries: Vec<Arc<ArcSwap<Entry>>>,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) end: End,
    /// What is in use, and the lock that makes one reload wait for another.
    pub(crate) used: Arc<Mutex<Used>>,
}

/// This node's end of its tunnels.
#[derive(Clone)]
pub(crate) enum End {
    Server(Arc<Server>),
    Client(Arc<Client>),
}

/// What is in use.
pub(crate) struct Used {
    pub(crate) config: Config,
    pub(crate) setup: Setup,
}

/// Gives a node the configuration that its file has now.
pub struct Reloader(Arc<Inner>);

struct Inner {
    running: Arc<Running>,
    read: Read,
    set_level: SetLevel,
}

/// Why the configuration stays as it is; the text is the one of the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadError(String);

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ReloadError {}

impl Reloader {
    pub(crate) fn new(running: Arc<Running>, read: Read, set_level: SetLevel) -> Reloader {
        Reloader(Arc::new(Inner { running, read, set_level }))
    }

    /// How long what is under way may take when the node ends.
    pub fn drain(&self) -> Duration {
        self.0.running.hub.terms.load().drain
    }

    /// Reads the configuration and puts it to use; logs what came of it. Of several at once,
    /// one waits for the other. One that has begun is done, whoever drops the future.
    ///
    /// # Errors
    /// What is wrong with it. Then nothing has changed.
    pub async fn reload(&self) -> Result<Difference, ReloadError> {
        let used = Arc::clone(&self.0.running.used).lock_owned().await;
        let inner = Arc::clone(&self.0);
        // Files are read, certificates checked: nothing for a thread that carries requests.
        let done = tokio::task::spawn_blocking(move || inner.reload(used)).await;
        done.unwrap_or_else(|error| Err(ReloadError(format!("the reload broke off: {error}"))))
    }
}

impl Inner {
    fn reload(&self, mut used: OwnedMutexGuard<Used>) -> Result<Difference, ReloadError> {
        let outcome = self.attempt(&mut used);
        let hub = &self.running.hub;
        let counter = if outcome.is_ok() { &hub.reloads } else { &hub.reloads_refused };
        counter.fetch_add(1, Ordering::Relaxed);
        match &outcome {
            Err(error) => tracing::error!("not reloaded, all stays as it was: {error}"),
            Ok(found) => {
                tracing::info!("reloaded; {found}");
                if !found.waiting.is_empty() {
                    tracing::warn!("waits for a restart: {}", found.waiting.join(", "));
                }
            }
        }
        outcome
    }

    fn attempt(&self, used: &mut Used) -> Result<Difference, ReloadError> {
        let Loaded { mut config, warnings } =
            (self.read)().map_err(|error| ReloadError(error.to_string()))?;
        let mut found = Difference::settle(&used.config, &mut config);
        let setup = Setup::of(&config, Some(&used.setup))
            .map_err(|error| ReloadError(error.to_string()))?;
        for key in setup.files_changed(&config, &used.setup) {
            if !found.changed.contains(&key) {
                found.changed.push(key);
            }
        }
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        (self.set_level)(&config.log.level);
        self.running.use_now(&used.config, &config, &setup);
        *used = Used { config, setup };
        Ok(found)
    }
}

impl Running {
    /// Puts `setup` to use. Whoever begins something takes from each part once, so that it sees
    /// the part as it was or as it is now.
    fn use_now(&self, before: &Config, config: &Config, setup: &Setup) {
        let hub = &self.hub;
        hub.terms.store(Arc::new(setup.terms(config, &self.addresses)));
        hub.dispatch.set_max_exchanges(config.limits.max_exchanges as usize);
        hub.dispatch.set_visitor_limit(config.limits.of_one_visitor());
        hub.directory.replace(setup.locals(), config.timeouts.patience());
        let upstream: Arc<dyn Upstream> = hub.dispatch.clone();
        for (current, entry) in
            self.entries.iter().zip(setup.entries(config, &upstream, &self.proxy_protocol))
        {
            current.store(Arc::new(entry));
        }
        match (&self.end, &setup.tunnel) {
            (End::Server(server), Tunnel::Accept(access)) => server.replace(access.clone()),
            (End::Client(client), Tunnel::Dial { dialer, .. }) => {
                client.replace(dialer.clone(), dials_anew(before, config));
            }
            // `Difference::settle` keeps the kind of node as it is.
            (End::Server(_), Tunnel::Dial { .. }) | (End::Client(_), Tunnel::Accept(_)) => {}
        }
        if before.services != config.services {
            hub.announce();
        }
    }
}

/// Whether a tunnel that stands is not the one that is wanted now.
fn dials_anew(before: &Config, now: &Config) -> bool {
    match (&before.role, &now.role) {
        (Role::Client(before), Role::Client(now)) => {
            (&before.server, &before.token, &before.ca, &before.pin)
                != (&now.server, &now.token, &now.ca, &now.pin)
        }
        _ => false,
    }
}
