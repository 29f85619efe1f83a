//! A running node: everything bound, wired and drained.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use strait_edge::ProxyProtocol;
use strait_engine::{Budget, Directory, Dispatch, Recorder, Threads, Upstream, Workers};
use strait_wire::{Hello, Reason};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};

use crate::client::Client;
use crate::config::{Config, Role};
use crate::hub::Hub;
use crate::link::accept;
use crate::observe::{Live, Recorders};
use crate::reload::{End, Read, Reloader, Running, SetLevel, Used};
use crate::server::Server;
use crate::setup::{Setup, Tunnel};
use crate::status::{Sums, View};

/// Why a node cannot start; says what to do.
#[derive(Debug)]
pub struct StartError(pub(crate) String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// A node whose ports are bound and which begins to work when it is [run](Node::run_until).
pub struct Node {
    running: Arc<Running>,
    view: Arc<View>,
    /// In the order of the configuration.
    entries: Vec<TcpListener>,
    /// Where tunnels arrive; `None` on a client.
    tunnel: Option<TcpListener>,
    /// What runs on them ends with the node.
    threads: Threads,
}

impl Node {
    /// Binds the entries and the tunnel that `config` names. `recorder` hears of every
    /// exchange.
    ///
    /// # Errors
    /// What cannot be bound, read or set up.
    pub async fn start(config: Config, recorder: Arc<dyn Recorder>) -> Result<Node, StartError> {
        let setup = Setup::of(&config, None)?;
        let (workers, threads) = Workers::start(config.limits.threads as usize)
            .map_err(|error| StartError(format!("cannot start the threads: {error}")))?;
        let directory = Arc::new(Directory::new(setup.locals(), config.timeouts.patience()));
        let sums = Arc::new(Sums::default());
        let recorders = Recorders(vec![sums.clone(), recorder]);
        let most = config.limits.max_exchanges as usize;
        let dispatch = Arc::new(Dispatch::new(directory.clone(), Arc::new(recorders), most));
        dispatch.set_visitor_limit(config.limits.of_one_visitor());
        let upstream: Arc<dyn Upstream> = dispatch.clone();
        let proxy_protocol = ProxyProtocol::default();
        let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
        for entry in &config.entries {
            let listener = bind(entry.listen, &format!("entry {}", entry.name))?;
            addresses.push(listener.local_addr().map_err(|e| StartError(e.to_string()))?);
            listeners.push(listener);
        }
        let entries = setup.entries(&config, &upstream, &proxy_protocol);
        let hub = Arc::new(hub(&config, &setup, &addresses, workers, directory, dispatch)?);
        let (end, tunnel) = end(&setup, &hub).await?;
        let view =
            Arc::new(View { hub: hub.clone(), sums, proxy_protocol: proxy_protocol.clone() });
        let running = Running {
            hub,
            proxy_protocol,
            entries: entries
                .into_iter()
                .map(|entry| Arc::new(ArcSwap::from_pointee(entry)))
                .collect(),
            addresses,
            end,
            used: Arc::new(sync::Mutex::new(Used { config, setup })),
        };
        Ok(Node { running: Arc::new(running), view, entries: listeners, tunnel, threads })
    }

    /// Where the entries are, in the order of the configuration.
    pub fn entries(&self) -> Vec<SocketAddr> {
        self.running.addresses.clone()
    }

    /// Where tunnels are accepted; `None` on a client.
    pub fn tunnel(&self) -> Option<SocketAddr> {
        self.tunnel.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Whoever gives the node, while it runs, the configuration that `read` reads.
    pub fn reloader(&self, read: Read, set_level: SetLevel) -> Reloader {
        Reloader::new(self.running.clone(), read, set_level)
    }

    /// What the node says about itself while it runs.
    pub fn live(&self) -> Arc<dyn Live> {
        self.view.clone()
    }

    /// Works until `stop` resolves, then drains: entries and tunnels take nothing
    /// new, what is under way may finish within the configured time, and what is left then
    /// is cut.
    ///
    /// # Errors
    /// A client told to try only once could not connect.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), String> {
        let hub = &self.running.hub;
        let _threads = self.threads;
        let mut entries = JoinSet::new();
        for (listener, entry) in self.entries.into_iter().zip(&self.running.entries) {
            let drain = hub.draining.clone();
            entries.spawn(strait_edge::serve(listener, entry.clone(), hub.workers.clone(), drain));
        }
        let worked = async {
            match (&self.running.end, self.tunnel) {
                (End::Client(client), _) => client.run(hub.draining.clone()).await,
                (End::Server(server), listener) => {
                    let (gate, stop) = (server.clone(), hub.draining.clone());
                    if let Some(listener) = listener {
                        accept::listen(listener, gate, hub.workers.clone(), stop).await;
                    }
                    Ok(())
                }
            }
        };
        let mut worked = std::pin::pin!(worked);
        tokio::select! {
            () = stop => {}
            outcome = &mut worked => outcome?,
        }
        hub.draining.cancel();
        let deadline = tokio::time::Instant::now() + hub.terms.load().drain;
        let orderly = async {
            let leaving = async {
                for peer in hub.live() {
                    peer.session.leave();
                }
                while entries.join_next().await.is_some() {}
                let mut sessions = JoinSet::new();
                for peer in hub.live() {
                    sessions.spawn(async move { peer.session.drain().await });
                }
                while sessions.join_next().await.is_some() {}
                hub.links.close();
                hub.links.wait().await;
            };
            tokio::join!(leaving, &mut worked)
        };
        if timeout_at(deadline, orderly).await.is_err() {
            tracing::warn!("the drain time is over; cutting what is left");
            cut(hub).await;
        }
        Ok(())
    }
}

/// Ends every session at once, with a goodbye.
async fn cut(hub: &Hub) {
    for peer in hub.live() {
        peer.session.close(Reason::Draining, "the drain time is over");
    }
    // Let the goodbyes leave.
    sleep_until(tokio::time::Instant::now() + Duration::from_millis(100)).await;
}

/// Connections that may wait to be accepted; the system allows fewer (`net.core.somaxconn`). Of a
/// burst beyond it each is late by a second or more, and some are lost.
pub const BACKLOG: u32 = 65535;

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Not refused because of connections of the last run that linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind(address: SocketAddr, what: &str) -> Result<TcpListener, StartError> {
    listen(address).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => "; stop what listens there, or choose another port",
            std::io::ErrorKind::PermissionDenied => {
                "; choose a port above 1023, or give the program the right \
                 (setcap cap_net_bind_service=+ep)"
            }
            _ => "",
        };
        StartError(format!("{what} cannot listen on {address}: {error}{hint}"))
    })
}

fn hub(
    config: &Config,
    setup: &Setup,
    addresses: &[SocketAddr],
    workers: Workers,
    directory: Arc<Directory>,
    dispatch: Arc<Dispatch>,
) -> Result<Hub, StartError> {
    let (role, name) = match &config.role {
        Role::Server(_) => ("server", crate::config::host_name()),
        Role::Client(dial) => ("client", dial.id.clone()),
    };
    let instance = getrandom::u64().map_err(|e| StartError(format!("no randomness: {e}")))?;
    let hello = Hello {
        role: role.to_owned(),
        client_id: name,
        instance: Bytes::copy_from_slice(&instance.to_be_bytes()),
        software: concat!("strait/", env!("CARGO_PKG_VERSION")).to_owned(),
        ..Hello::default()
    };
    let terms = setup.terms(config, addresses);
    let budget = Budget::new(config.limits.process_budget as usize);
    Ok(Hub::new(hello, workers, directory, dispatch, terms, budget))
}

/// The only thing in which the two roles differ.
async fn end(setup: &Setup, hub: &Arc<Hub>) -> Result<(End, Option<TcpListener>), StartError> {
    match &setup.tunnel {
        Tunnel::Accept(access) => {
            let listener = bind(access.config.listen, "the tunnel")?;
            let server = Server::new(hub.clone(), access.clone());
            Ok((End::Server(Arc::new(server)), Some(listener)))
        }
        Tunnel::Dial { dialer, tunnels, once, .. } => {
            let client = Client::new(hub.clone(), dialer.clone(), *tunnels, *once);
            Ok((End::Client(Arc::new(client)), None))
        }
    }
}
