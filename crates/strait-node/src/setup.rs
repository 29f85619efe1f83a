//! What a configuration becomes: everything that a node works with but its sockets. Making it
//! reads files and may fail; putting it to use cannot.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use strait_edge::{Backend, Cors, Entry, ProxyProtocol, TrustedProxies, tls};
use strait_engine::{Budget, Local, Upstream};

use crate::StartError;
use crate::config::{
    Config, EntryConfig, Identity, Role, ServiceConfig, TunnelDial, TunnelListen, TunnelTls,
};
use crate::hub::Terms;
use crate::link::dial::Dialer;
use crate::server::Access;

/// What a configuration becomes.
pub(crate) struct Setup {
    /// Of entries and backends.
    edge: Arc<strait_edge::Settings>,
    /// What backends may send by HTTP/2 before it is taken.
    windows: Budget,
    services: Vec<Service>,
    /// Of the entries, in the order of the configuration.
    certificates: Vec<Option<Certificate>>,
    pub(crate) tunnel: Tunnel,
}

struct Service {
    config: ServiceConfig,
    /// What its file of authorities said.
    roots: Option<Vec<u8>>,
    backend: Arc<Backend>,
}

/// What this node's end of the tunnel does.
pub(crate) enum Tunnel {
    Accept(Arc<Access>),
    Dial {
        dialer: Arc<Dialer>,
        /// How many are kept at once.
        tunnels: u32,
        /// The first failure ends the node.
        once: bool,
        /// What its file of authorities said.
        roots: Option<Vec<u8>>,
    },
}

/// A certificate chain in use.
#[derive(Clone)]
pub(crate) struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    pub(crate) tls: Arc<ServerConfig>,
}

impl Certificate {
    fn new(identity: Identity, alpn: &[&[u8]]) -> Result<Certificate, StartError> {
        let tls = tls::server_config(identity.chain.clone(), identity.key, alpn)
            .map_err(|error| StartError(error.to_string()))?;
        Ok(Certificate { chain: identity.chain, tls })
    }
}

impl Setup {
    /// Makes all of it. What need not change is taken over from the setup `before`, above all
    /// backends with their connections.
    ///
    /// # Errors
    /// What cannot be read or set up.
    pub(crate) fn of(config: &Config, before: Option<&Setup>) -> Result<Setup, StartError> {
        // Like the budget of the process it stays as it was at the start.
        let new = || Budget::new(config.limits.process_budget as usize / 4);
        let windows = before.map_or_else(new, |setup| setup.windows.clone());
        let edge = edge_settings(config);
        let same = before.filter(|setup| *setup.edge == edge);
        let edge = same.map_or_else(|| Arc::new(edge), |setup| setup.edge.clone());
        let known = same.map_or(&[][..], |setup| &setup.services);
        let services = config.services.iter().map(|config| service(config, &edge, &windows, known));
        let tunnel = match &config.role {
            Role::Server(listen) => Tunnel::Accept(Arc::new(access(listen, before)?)),
            Role::Client(dial) => dialled(dial)?,
        };
        Ok(Setup {
            services: services.collect::<Result<_, _>>()?,
            certificates: config.entries.iter().map(certificate).collect::<Result<_, _>>()?,
            edge,
            windows,
            tunnel,
        })
    }

    /// The services for a directory.
    pub(crate) fn locals(&self) -> Vec<Local> {
        let local = |service: &Service| Local {
            service: service.config.announced(),
            upstream: service.backend.clone(),
            at_entries: false,
        };
        self.services.iter().map(local).collect()
    }

    /// The entries, in the order of `config`. What is wrong with headers of the PROXY protocol
    /// is counted for all of them together.
    pub(crate) fn entries(
        &self,
        config: &Config,
        upstream: &Arc<dyn Upstream>,
        proxy_protocol: &ProxyProtocol,
    ) -> Vec<Entry> {
        let entry = |(entry, certificate): (&EntryConfig, &Option<Certificate>)| Entry {
            name: entry.name.as_str().into(),
            upstream: upstream.clone(),
            settings: self.edge.clone(),
            tls: certificate.as_ref().map(|certificate| certificate.tls.clone()),
            cors: Cors::new(entry.cors_origins.clone()),
            trusted_proxies: TrustedProxies::new(entry.trusted_proxies.clone()),
            proxy_protocol: entry.proxy_protocol.then(|| proxy_protocol.clone()),
        };
        config.entries.iter().zip(&self.certificates).map(entry).collect()
    }

    /// What new tunnels are given; the entries listen `at` these addresses.
    pub(crate) fn terms(&self, config: &Config, at: &[SocketAddr]) -> Terms {
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
        let address = |(at, certificate): (&SocketAddr, &Option<Certificate>)| {
            format!("{}://{at}", if certificate.is_some() { "https" } else { "http" })
        };
        Terms {
            settings,
            session_budget: limits.session_budget as usize,
            addresses: at.iter().zip(&self.certificates).map(address).collect(),
            drain: config.timeouts.drain,
        }
    }

    /// The keys of files that say something else than they did in `before`: certificates and
    /// authorities.
    pub(crate) fn files_changed(&self, config: &Config, before: &Setup) -> Vec<String> {
        let differ = |a: &Option<Certificate>, b: &Option<Certificate>| {
            let chain = |c: &Option<Certificate>| c.as_ref().map(|c| c.chain.clone());
            chain(a) != chain(b)
        };
        let entries = config.entries.iter().zip(self.certificates.iter().zip(&before.certificates));
        let mut changed: Vec<String> = entries
            .filter(|(_, (now, then))| differ(now, then))
            .map(|(entry, _)| format!("entries.{}.cert", entry.name))
            .collect();
        for now in self.services.iter().filter(|service| service.config.ca.is_some()) {
            let Service { config, roots, .. } = now;
            let then = before.services.iter().find(|then| then.config.name == config.name);
            if then.is_some_and(|then| then.config.ca == config.ca && then.roots != *roots) {
                changed.push(format!("services.{}.ca", config.name));
            }
        }
        match (&self.tunnel, &before.tunnel) {
            (Tunnel::Accept(now), Tunnel::Accept(then))
                if differ(&now.certificate, &then.certificate) =>
            {
                changed.push("server.cert".to_owned());
            }
            (Tunnel::Dial { roots: now, .. }, Tunnel::Dial { roots: then, .. }) if now != then => {
                changed.push("client.ca".to_owned());
            }
            _ => {}
        }
        changed
    }
}

/// A limit for those who count in 32 bits; the largest that they know stands for all above it.
fn small(limit: u64) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

/// A service with the backend of one of those `known` that has the same address, if there is one.
fn service(
    config: &ServiceConfig,
    edge: &Arc<strait_edge::Settings>,
    windows: &Budget,
    known: &[Service],
) -> Result<Service, StartError> {
    let said = |error: String| StartError(format!("service {}: {error}", config.name));
    let roots = extra_roots(config.ca.as_deref()).map_err(said)?;
    let same = |old: &&Service| {
        old.config.backend == config.backend
            && old.config.host_override == config.host_override
            && old.roots == roots
    };
    let backend = match known.iter().find(same) {
        Some(old) => old.backend.clone(),
        None => Arc::new(backend(config, edge, windows, roots.clone()).map_err(said)?),
    };
    Ok(Service { config: config.clone(), roots, backend })
}

fn backend(
    config: &ServiceConfig,
    edge: &Arc<strait_edge::Settings>,
    windows: &Budget,
    extra_roots: Option<Vec<u8>>,
) -> Result<Backend, String> {
    let trust = tls::Trust { extra_roots, ..tls::Trust::default() };
    let backend = Backend::new(config.backend.clone(), edge.clone(), windows.clone(), &trust)
        .map_err(|error| error.to_string())?;
    match &config.host_override {
        Some(host) => backend.with_host(host).map_err(|error| error.to_string()),
        None => Ok(backend),
    }
}

fn certificate(entry: &EntryConfig) -> Result<Option<Certificate>, StartError> {
    let Some((cert, key)) = &entry.tls else { return Ok(None) };
    let identity = Identity::from_files(cert, key).map_err(StartError)?;
    Certificate::new(identity, tls::BOTH).map(Some)
}

fn access(listen: &TunnelListen, before: Option<&Setup>) -> Result<Access, StartError> {
    let config = listen.clone();
    if let Some(Tunnel::Accept(before)) = before.map(|setup| &setup.tunnel)
        && (&listen.tls, &before.config.tls) == (&TunnelTls::Development, &TunnelTls::Development)
    {
        // It was made for this process, and clients pin it.
        return Ok(Access { certificate: before.certificate.clone(), config });
    }
    let identity = listen.tls.identity().map_err(StartError)?;
    let certificate = identity.map(|identity| Certificate::new(identity, tls::HTTP2));
    Ok(Access { certificate: certificate.transpose()?, config })
}

fn dialled(dial: &TunnelDial) -> Result<Tunnel, StartError> {
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
    let roots = extra_roots(dial.ca.as_deref()).map_err(StartError)?;
    let trust = tls::Trust { extra_roots: roots.clone(), pin: dial.pin, insecure: false };
    let tls = dial.server.tls.then(|| tls::client(&trust, tls::HTTP2)).transpose();
    let tls = tls.map_err(|error| StartError(error.to_string()))?;
    let dialer = Arc::new(Dialer { server: dial.server.clone(), tls, credential });
    Ok(Tunnel::Dial { dialer, tunnels: dial.tunnels, once: dial.once, roots })
}

/// The certificates of authorities in a file, if one is named.
fn extra_roots(ca: Option<&Path>) -> Result<Option<Vec<u8>>, String> {
    let read = |path: &Path| {
        let said = |e| format!("the CA file {} cannot be read: {e}", path.display());
        std::fs::read(path).map_err(said)
    };
    ca.map(read).transpose()
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
