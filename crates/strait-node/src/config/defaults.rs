//! What holds when nothing is said.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{AdminConfig, LogConfig, LogFormat, RoleKind, ServiceConfig};
use super::{EntryConfig, Limits, ServerUrl, Timeouts};

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

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Limits {
            // A tunnel is one connection, so its requests have one thread's work anyway; handing
            // them between threads more than doubles what each costs (measured on two cores).
            threads: u32::try_from(cores / 2).unwrap_or(1).max(1),
            // Memory is what bounds them; 10,000 idle WebSockets shall fit one tunnel.
            max_requests: 16_384,
            session_budget: 64 << 20,
            process_budget: 512 << 20,
            initial_window: 256 << 10,
            // All of it can lie in this node's memory when one visitor stops reading.
            max_window: 4 << 20,
            max_header_bytes: 64 << 10,
            max_header_fields: 100,
            max_uri: 16 << 10,
            max_message: 16 << 20,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Timeouts {
            first_byte: seconds(10),
            headers: seconds(10),
            body_idle: seconds(30),
            keep_alive_idle: seconds(75),
            backend_connect: seconds(5),
            answer_head: seconds(60),
            ping_interval: seconds(10),
            ping_timeout: seconds(10),
            drain: seconds(30),
        }
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
