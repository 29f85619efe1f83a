//! What a node shall do, checked: from a file, from flags, or built by hand.
//!
//! [`load`] reads a file and lays flags over it; every problem of the file is reported at
//! once, each with its place. Nothing here listens or dials.

mod address;
mod backend;
mod defaults;
mod difference;
mod document;
mod limits;
mod load;
mod nodes;
mod problem;
mod routes;
mod suggest;
mod tls;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use strait_wire::Protocol;

use crate::secrets::{DevelopmentCertificate, Pin, Token, TokenDigest};

pub use address::{Listen, ServerUrl};
pub use backend::{BackendAddress, Place, Scheme, parse_backend};
pub use defaults::{default_client_id, host_name};
pub use difference::Difference;
pub use limits::{Limits, MAX_THREADS, Row, Timeouts};
pub use load::{AdminChoice, Loaded, Overrides, RoleKind, load};
pub use nodes::MAX_TUNNELS;
pub use problem::{ConfigError, Problem};
pub use routes::parse_host_header;
pub use suggest::nearest;
pub use tls::Identity;
pub use value::{
    parse_digest, parse_duration, parse_host_pattern, parse_level, parse_name, parse_network,
    parse_origin, parse_path_prefix, parse_pin, parse_size,
};

/// Everything a node needs to know. Both roles have entries and services: a service is what
/// this node offers to its peer, an entry is a port whose traffic goes to the peer's
/// services or to this node's own.
#[derive(Clone, Debug)]
pub struct Config {
    /// How this node takes part in the tunnel.
    pub role: Role,
    /// Ports that take HTTP, WebSocket and gRPC.
    pub entries: Vec<EntryConfig>,
    /// What this node offers to its peer.
    pub services: Vec<ServiceConfig>,
    /// The admin address; `None`: off.
    pub admin: Option<AdminConfig>,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Named limits.
    pub limits: Limits,
    /// Named times.
    pub timeouts: Timeouts,
}

/// The only difference between the two kinds of node.
#[derive(Clone, Debug)]
pub enum Role {
    /// Waits for tunnels.
    Server(TunnelListen),
    /// Dials a tunnel.
    Client(TunnelDial),
}

/// Where and how a server waits for tunnels.
#[derive(Clone, Debug)]
pub struct TunnelListen {
    /// The tunnel's own port.
    pub listen: SocketAddr,
    /// How the tunnel is encrypted.
    pub tls: TunnelTls,
    /// Who may connect. Empty only with `insecure_no_auth`.
    pub tokens: Vec<TokenRule>,
    /// Anybody may connect.
    pub insecure_no_auth: bool,
}

/// How a server encrypts its tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TunnelTls {
    /// A certificate chain and its key from PEM files.
    Pem {
        /// The chain, leaf first.
        cert: PathBuf,
        /// The leaf's private key.
        key: PathBuf,
    },
    /// A self-signed certificate, made when it is needed; clients pin it.
    Development,
    /// A self-signed certificate that exists already.
    Made(DevelopmentCertificate),
    /// No TLS: loopback, or behind something that ends TLS.
    Off,
}

/// One token that clients may present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRule {
    /// For logs and status; names the peer's right, not the peer.
    pub name: String,
    /// The token itself is not kept.
    pub sha256: TokenDigest,
    /// Names of services that its holder may announce; a `*` stands for any text.
    pub services: Vec<String>,
}

impl TokenRule {
    /// Whether the holder may announce a service of this name.
    pub fn allows(&self, service: &str) -> bool {
        self.services.iter().any(|pattern| value::matches(pattern, service))
    }
}

/// Where and how a client dials its tunnel.
#[derive(Clone, Debug)]
pub struct TunnelDial {
    /// The server.
    pub server: ServerUrl,
    /// The credential; `None` for a server that asks for none.
    pub token: Option<Token>,
    /// Certificates to trust beside those of the system (PEM).
    pub ca: Option<PathBuf>,
    /// The one certificate to trust, whoever signed it.
    pub pin: Option<Pin>,
    /// This client's name, stable over reconnects.
    pub id: String,
    /// End with an error when the first connection fails, instead of trying for ever.
    pub once: bool,
    /// Tunnels that are kept at once; a request is carried by one of them.
    pub tunnels: u32,
}

/// A port that takes HTTP, WebSocket and gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryConfig {
    /// Unique within the node.
    pub name: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Certificate chain and key (PEM); `None`: clear text.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Origins whose pages may call by gRPC-Web; `*` is any.
    pub cors_origins: Vec<String>,
    /// Proxies that are believed about the visitors that they pass on.
    pub trusted_proxies: Vec<IpNet>,
    /// Every connection begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

impl EntryConfig {
    /// An entry in clear text.
    pub fn new(name: impl Into<String>, listen: SocketAddr) -> EntryConfig {
        EntryConfig {
            name: name.into(),
            listen,
            tls: None,
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
        }
    }
}

/// A service that this node offers to its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Unique within the node.
    pub name: String,
    /// What answers.
    pub backend: BackendAddress,
    /// Protocols it takes; empty: all.
    pub protocols: Vec<Protocol>,
    /// Hosts it answers to, exact or `*.suffix`; empty: any.
    pub hosts: Vec<String>,
    /// Path prefix, with a leading slash; `/`: any path.
    pub path_prefix: String,
    /// The Host that the backend sees; `None`: the visitor's.
    pub host_override: Option<String>,
    /// Certificates to trust beside those of the system (PEM), for a backend of `https`.
    pub ca: Option<PathBuf>,
}

impl ServiceConfig {
    /// A service for every host and path.
    pub fn new(name: &str, backend: BackendAddress, protocols: &[Protocol]) -> ServiceConfig {
        ServiceConfig {
            name: name.to_owned(),
            backend,
            protocols: protocols.to_vec(),
            hosts: Vec::new(),
            path_prefix: "/".to_owned(),
            host_override: None,
            ca: None,
        }
    }

    /// The form in which the service is announced to the peer.
    pub fn announced(&self) -> strait_wire::Service {
        strait_wire::Service {
            name: self.name.clone(),
            protocols: self.protocols.clone(),
            hosts: self.hosts.clone(),
            path_prefix: self.path_prefix.clone(),
        }
    }
}

/// The admin address: health, metrics, status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Hosts (`name` or `name:port`) that requests may name beside the loopback ones.
    pub hosts: Vec<String>,
    /// Nobody asked for this address: go on without it when it is taken.
    pub optional: bool,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Of the log on standard error and of the access log on standard output.
    pub format: LogFormat,
    /// One line for each exchange on standard output.
    pub access: bool,
    /// `error`, `warn`, `info`, `debug`, `trace`, or `target=level,...`.
    pub level: String,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object in each line.
    Json,
}
