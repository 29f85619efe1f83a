//! What holds when nothing is said.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sha2::{Digest, Sha256};

use super::{AdminConfig, LogConfig, LogFormat, RoleKind, ServiceConfig};
use super::{EntryConfig, ServerUrl};

/// Where a server waits for tunnels.
pub(super) const TUNNEL: SocketAddr = any(7443);

const fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// A server has one public port; a client opens none that nobody asked for.
pub(super) fn entries(role: RoleKind) -> Vec<EntryConfig> {
    match role {
        RoleKind::Server => {
            vec![EntryConfig::new("web", any(8080))]
        }
        RoleKind::Client => Vec::new(),
    }
}

/// Different ports, so that both kinds of node can run on one machine.
pub(super) fn admin(role: RoleKind) -> AdminConfig {
    let port = match role {
        RoleKind::Server => 7600,
        RoleKind::Client => 7601,
    };
    AdminConfig { listen: loopback(port), hosts: Vec::new(), optional: true }
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { format: LogFormat::Text, access: true, level: "info".to_owned() }
    }
}

/// The name of this machine, reduced to what may stand in an id; empty when unknown.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"))
        .or_else(|_| std::env::var("HOSTNAME").map_err(std::io::Error::other))
        .unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.trim().chars().filter(|c| fits(*c)).take(48).collect()
}

/// A name for a client that was given none: the same after a restart with the same services,
/// different for two clients of one machine that offer different things (the newest
/// connection of one id replaces the older, so ids must not meet by accident).
pub fn default_client_id(server: &ServerUrl, services: &[ServiceConfig]) -> String {
    let mut hash = Sha256::new();
    hash.update(server.to_string());
    for service in services {
        hash.update(format!("\n{} {} {:?}", service.name, service.backend, service.hosts));
    }
    let digest = hash.finalize();
    let tail: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let host = host_name();
    let host = if host.is_empty() { "client" } else { &host };
    format!("{host}-{tail}")
}
