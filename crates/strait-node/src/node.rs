//! A running node: everything bound, wired and drained.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::HeaderValue;
use strait_edge::{Backend, Cors, Entry, ProxyProtocol, TrustedProxies, tls};
use strait_engine::{Budget, Directory, Dispatch, Local, Recorder, Upstream};
use strait_wire::Reason;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::Client;
use crate::config::{Config, Identity, Role, ServiceConfig, TunnelDial};
use crate::hub::Hub;
use crate::link::accept;
use crate::link::dial::Dialer;
use crate::observe::{Live, Recorders};
use crate::secrets::Failures;
use crate::server::Server;
use crate::status::{Sums, View};

/// Why a node cannot start; says what to do.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// A node whose ports are bound and which begins to work when it is [run](Node::run_until).
pub struct Node {
    hub: Arc<Hub>,
    view: Arc<View>,
    entries: Vec<(TcpListener, Entry, SocketAddr)>,
    tunnel: Tunnel,
    drain: Duration,
}

/// The only thing in which the two roles differ.
enum Tunnel {
    Listen(TcpListener, Option<Arc<rustls::ServerConfig>>, Arc<Server>),
    Dial(Client),
}

impl Node {
    /// Binds the entries and the tunnel that `config` names. `recorder` hears of every
    /// exchange.
    ///
    /// # Errors
    /// What cannot be bound, read or set up.
    pub async fn start(config: Config, recorder: Arc<dyn Recorder>) -> Result<Node, StartError> {
        let edge = Arc::new(edge_settings(&config));
        let locals = config.services.iter().map(|s| local(s, &edge)).collect::<Result<_, _>>()?;
        let directory = Arc::new(Directory::new(locals, config.timeouts.hold));
        let sums = Arc::new(Sums::default());
        let recorders = Recorders(vec![sums.clone(), recorder]);
        let most = config.limits.max_exchanges as usize;
        let mut dispatch = Dispatch::new(directory.clone(), Arc::new(recorders), most);
        if let Some(most) = config.limits.of_one_visitor() {
            dispatch = dispatch.with_visitor_limit(most);
        }
        let dispatch = Arc::new(dispatch);
        let proxy_protocol = ProxyProtocol::default();
        let mut bound = Vec::new();
        for entry in &config.entries {
            let listener = bind(entry.listen, &format!("entry {}", entry.name)).await?;
            let address = listener.local_addr().map_err(|e| StartError(e.to_string()))?;
            let upstream: Arc<dyn Upstream> = dispatch.clone();
            let tls = match &entry.tls {
                Some((cert, key)) => Some(server_tls(
                    &Identity::from_files(cert, key).map_err(StartError)?,
                    tls::BOTH,
                )?),
                None => None,
            };
            let entry = Entry {
                name: entry.name.as_str().into(),
                upstream,
                settings: edge.clone(),
                tls,
                cors: Cors::new(entry.cors_origins.clone()),
                trusted_proxies: TrustedProxies::new(entry.trusted_proxies.clone()),
                proxy_protocol: entry.proxy_protocol.then(|| proxy_protocol.clone()),
            };
            bound.push((listener, entry, address));
        }
        let hub = Arc::new(hub(&config, directory, dispatch, &bound)?);
        let tunnel = tunnel(&config, &hub).await?;
        let view = Arc::new(View { hub: hub.clone(), sums, proxy_protocol });
        Ok(Node { hub, view, entries: bound, tunnel, drain: config.timeouts.drain })
    }

    /// Where the entries are, in the order of the configuration.
    pub fn entries(&self) -> Vec<SocketAddr> {
        self.entries.iter().map(|(_, _, address)| *address).collect()
    }

    /// Where tunnels are accepted; `None` on a client.
    pub fn tunnel(&self) -> Option<SocketAddr> {
        match &self.tunnel {
            Tunnel::Listen(listener, ..) => listener.local_addr().ok(),
            Tunnel::Dial(_) => None,
        }
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
        let hub = self.hub;
        let mut entries = JoinSet::new();
        for (listener, entry, _) in self.entries {
            entries.spawn(strait_edge::serve(listener, entry, hub.draining.clone()));
        }
        let worked = async {
            match self.tunnel {
                Tunnel::Listen(listener, tls, server) => {
                    accept::listen(listener, tls, server, hub.draining.clone()).await;
                    Ok(())
                }
                Tunnel::Dial(client) => client.run(hub.draining.clone()).await,
            }
        };
        let mut worked = std::pin::pin!(worked);
        tokio::select! {
            () = stop => {}
            outcome = &mut worked => outcome?,
        }
        hub.draining.cancel();
        let deadline = tokio::time::Instant::now() + self.drain;
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
            cut(&hub).await;
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

async fn bind(address: SocketAddr, what: &str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| {
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

/// A limit for those who count in 32 bits; the largest that they know stands for all above it.
fn small(limit: u64) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

fn hub(
    config: &Config,
    directory: Arc<Directory>,
    dispatch: Arc<Dispatch>,
    entries: &[(TcpListener, Entry, SocketAddr)],
) -> Result<Hub, StartError> {
    let (role, name) = match &config.role {
        Role::Server(_) => ("server", crate::config::host_name()),
        Role::Client(dial) => ("client", dial.id.clone()),
    };
    let instance = getrandom::u64().map_err(|e| StartError(format!("no randomness: {e}")))?;
    let scheme = |entry: &Entry| if entry.tls.is_some() { "https" } else { "http" };
    let limits = &config.limits;
    let settings = strait_engine::Settings {
        initial_credit: small(limits.initial_window.min(64 * 1024)),
        window: small(limits.initial_window),
        window_max: small(limits.max_window.max(limits.initial_window)),
        max_requests: small(limits.max_requests),
        ping_interval: config.timeouts.ping_interval,
        ping_timeout: config.timeouts.ping_timeout,
        ..strait_engine::Settings::default()
    };
    Ok(Hub {
        role,
        name,
        instance: bytes::Bytes::copy_from_slice(&instance.to_be_bytes()),
        directory,
        dispatch,
        settings,
        session_budget: limits.session_budget as usize,
        budget: Budget::new(limits.process_budget as usize),
        turns: strait_engine::Turns::start(),
        tasks: TaskTracker::new(),
        links: TaskTracker::new(),
        draining: CancellationToken::new(),
        addresses: entries
            .iter()
            .map(|(_, entry, at)| format!("{}://{at}", scheme(entry)))
            .collect(),
        started: Instant::now(),
        sessions: Mutex::default(),
        connections: AtomicU64::new(0),
        tunnels: AtomicU64::new(0),
        violations: AtomicU64::new(0),
    })
}

async fn tunnel(config: &Config, hub: &Arc<Hub>) -> Result<Tunnel, StartError> {
    match &config.role {
        Role::Server(listen) => {
            let listener = bind(listen.listen, "the tunnel").await?;
            let identity = listen.tls.identity().map_err(StartError)?;
            let tls = identity.map(|identity| server_tls(&identity, tls::HTTP2)).transpose()?;
            let failures = Failures::default();
            let server = Server { hub: hub.clone(), config: listen.clone(), failures };
            Ok(Tunnel::Listen(listener, tls, Arc::new(server)))
        }
        Role::Client(dial) => {
            let client = Client { hub: hub.clone(), dialer: dialer(dial)?, once: dial.once };
            Ok(Tunnel::Dial(client))
        }
    }
}

fn dialer(dial: &TunnelDial) -> Result<Dialer, StartError> {
    let credential = match &dial.token {
        None => None,
        Some(token) => {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {}", token.reveal())).map_err(|_| {
                    StartError("the token has characters that headers cannot carry".to_owned())
                })?;
            value.set_sensitive(true);
            Some(value)
        }
    };
    let tls = if dial.server.tls { Some(client_tls(dial)?) } else { None };
    Ok(Dialer { server: dial.server.clone(), tls, credential })
}

fn client_tls(dial: &TunnelDial) -> Result<Arc<rustls::ClientConfig>, StartError> {
    let extra_roots = extra_roots(dial.ca.as_deref()).map_err(StartError)?;
    let trust = tls::Trust { extra_roots, pin: dial.pin, insecure: false };
    tls::client(&trust, tls::HTTP2).map_err(|e| StartError(e.to_string()))
}

/// The certificates of authorities in a file, if one is named.
fn extra_roots(ca: Option<&Path>) -> Result<Option<Vec<u8>>, String> {
    let read = |path: &Path| {
        let said = |e| format!("the CA file {} cannot be read: {e}", path.display());
        std::fs::read(path).map_err(said)
    };
    ca.map(read).transpose()
}

fn local(service: &ServiceConfig, edge: &Arc<strait_edge::Settings>) -> Result<Local, StartError> {
    let said = |error: String| StartError(format!("service {}: {error}", service.name));
    let extra_roots = extra_roots(service.ca.as_deref()).map_err(said)?;
    let trust = tls::Trust { extra_roots, ..tls::Trust::default() };
    let mut backend = Backend::new(service.backend.clone(), edge.clone(), &trust)
        .map_err(|e| said(e.to_string()))?;
    if let Some(host) = &service.host_override {
        backend = backend.with_host(host).map_err(|e| said(e.to_string()))?;
    }
    Ok(Local { service: service.announced(), upstream: Arc::new(backend), at_entries: false })
}

fn edge_settings(config: &Config) -> strait_edge::Settings {
    let (times, limits) = (&config.timeouts, &config.limits);
    strait_edge::Settings {
        first_byte: times.first_byte,
        headers: times.headers,
        body_idle: times.body_idle,
        answer_idle: times.answer_idle,
        keep_alive_idle: times.keep_alive_idle,
        backend_connect: times.backend_connect,
        backend_idle: times.backend_idle,
        continue_wait: times.continue_wait,
        answer_head: times.answer_head,
        handshake: times.websocket_handshake,
        close_wait: times.websocket_close,
        max_header_bytes: limits.max_header_bytes as usize,
        max_header_fields: limits.max_header_fields as usize,
        max_uri: limits.max_uri as usize,
        max_body: limits.max_body,
        max_control_frames: small(limits.max_control_frames),
        max_message: limits.max_message,
        max_idle_connections: limits.max_idle_connections as usize,
    }
}

fn server_tls(
    identity: &Identity,
    alpn: &[&[u8]],
) -> Result<Arc<rustls::ServerConfig>, StartError> {
    tls::server_config(identity.chain.clone(), identity.key.clone_key(), alpn)
        .map_err(|e| StartError(e.to_string()))
}
