//! What a node says when it starts: where it listens, and what to do next.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use strait_node::config::{Config, Role, ServiceConfig, TunnelListen, TunnelTls, host_name};
use strait_node::secrets::Token;
use strait_wire::Protocol;

use crate::run::Addresses;

/// What is known of the token that clients need.
pub(crate) enum TokenShown {
    /// Made just now: this is the one time that it is shown.
    Fresh(Token),
    /// Made at an earlier start.
    Remembered,
    /// Given by a flag or a file.
    Configured,
    /// Anybody may connect.
    NotNeeded,
}

fn head(config: &Config, role: &str) -> String {
    let name = match &config.role {
        Role::Server(_) => String::new(),
        Role::Client(dial) => format!(" {}", dial.id),
    };
    format!("\nStrait {} {role}{name}\n\n", env!("CARGO_PKG_VERSION"))
}

fn entries(text: &mut String, config: &Config, addresses: &Addresses) {
    for (entry, address) in config.entries.iter().zip(&addresses.entries) {
        let scheme = if entry.tls.is_some() { "https" } else { "http" };
        let _ = writeln!(text, "  entry    {scheme}://{address}  {}", entry.name);
    }
}

fn services(text: &mut String, services: &[ServiceConfig]) {
    let width = services.iter().map(|service| service.name.len()).max().unwrap_or(0);
    for service in services {
        let hosts =
            if service.hosts.is_empty() { "any host".to_owned() } else { service.hosts.join(", ") };
        let path = match service.path_prefix.as_str() {
            "/" => String::new(),
            path => format!(" {path}"),
        };
        let protocols: Vec<&str> = service.protocols.iter().map(|p| shown(*p)).collect();
        let protocols =
            if protocols.is_empty() { "all protocols".to_owned() } else { protocols.join(", ") };
        let (name, backend) = (&service.name, &service.backend);
        let _ = writeln!(text, "  service  {name:<width$}  {backend}  {protocols}, {hosts}{path}");
    }
}

fn shown(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "HTTP",
        Protocol::Grpc => "gRPC",
        Protocol::WebSocket => "WebSocket",
    }
}

fn admin(text: &mut String, addresses: &Addresses) {
    if let Some(address) = addresses.admin {
        let _ = writeln!(text, "  admin    http://{address}  /status /metrics /healthz /readyz");
    }
}

/// A server's start: its addresses, and the command for the other machine.
pub(crate) fn server(
    config: &Config,
    addresses: &Addresses,
    token: &TokenShown,
    state: Option<&Path>,
) -> String {
    let mut text = head(config, "server");
    let Role::Server(tunnel) = &config.role else { return text };
    entries(&mut text, config, addresses);
    let listen = addresses.tunnel.unwrap_or(tunnel.listen);
    let scheme = if matches!(tunnel.tls, TunnelTls::Off) { "http" } else { "https" };
    let certificate = match &tunnel.tls {
        TunnelTls::Off => "not encrypted".to_owned(),
        TunnelTls::Pem { cert, .. } => format!("certificate {}", cert.display()),
        TunnelTls::Development | TunnelTls::Made(_) => "self-signed certificate".to_owned(),
    };
    let _ = writeln!(text, "  tunnel   {scheme}://{listen}  {certificate}");
    services(&mut text, &config.services);
    admin(&mut text, addresses);
    if let Some(folder) = state {
        let _ = writeln!(text, "  state    {}", folder.display());
    }
    if matches!(token, TokenShown::NotNeeded) {
        text.push_str(
            "\n  Anybody who reaches the tunnel may offer services: --insecure-no-auth.\n",
        );
    }
    text.push_str("\nOn the machine with the services, with your own port:\n\n  ");
    text.push_str(&command(tunnel, scheme, listen, token));
    text.push_str(match token {
        TokenShown::Fresh(_) => {
            "\n\nThis is the only time that the token is shown. A new one: strait server --new-token\n"
        }
        TokenShown::Remembered => {
            "\n\nTOKEN was shown at the first start. A new one: strait server --new-token\n"
        }
        TokenShown::Configured => "\n\nTOKEN is the one that this server was given.\n",
        TokenShown::NotNeeded => "\n",
    });
    text
}

/// The line to paste on the other machine.
fn command(tunnel: &TunnelListen, scheme: &str, listen: SocketAddr, token: &TokenShown) -> String {
    let mut line =
        format!("strait client --server {scheme}://{}:{}", reachable(listen.ip()), listen.port());
    if let Some(pin) = pin_of(tunnel) {
        let _ = write!(line, " --pin {pin}");
    }
    match token {
        TokenShown::Fresh(token) => line += &format!(" --token {}", token.reveal()),
        TokenShown::Remembered | TokenShown::Configured => line += " --token TOKEN",
        TokenShown::NotNeeded => {}
    }
    line + " http 3000"
}

/// By what clients know the certificate that a server has made for itself.
pub(crate) fn pin(config: &Config) -> Option<String> {
    match &config.role {
        Role::Server(tunnel) => pin_of(tunnel),
        Role::Client(_) => None,
    }
}

fn pin_of(tunnel: &TunnelListen) -> Option<String> {
    let TunnelTls::Made(_) = &tunnel.tls else { return None };
    let identity = tunnel.tls.identity().ok()??;
    Some(format!("sha256:{}", identity.pin()))
}

/// The address under which another machine most likely reaches this one.
fn reachable(ip: IpAddr) -> String {
    let guess = if ip.is_unspecified() { route_out() } else { Some(ip) };
    match guess {
        Some(IpAddr::V6(v6)) => format!("[{v6}]"),
        Some(ip) => ip.to_string(),
        None => match host_name() {
            name if name.is_empty() => "HOST".to_owned(),
            name => name,
        },
    }
}

/// The source address of a packet to the world. Connecting a UDP socket sends nothing; the
/// target is reserved for documentation (RFC 5737).
fn route_out() -> Option<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

/// A client's start: what it offers, and to whom.
pub(crate) fn client(config: &Config, addresses: &Addresses) -> String {
    let mut text = head(config, "client");
    let Role::Client(dial) = &config.role else { return text };
    let trust = match (&dial.pin, &dial.ca, dial.server.tls) {
        (Some(_), _, _) => "pinned certificate".to_owned(),
        (None, Some(ca), _) => format!("certificates of {}", ca.display()),
        (None, None, true) => "certificates of the system".to_owned(),
        (None, None, false) => "not encrypted".to_owned(),
    };
    let at_once = match dial.tunnels {
        1 => String::new(),
        several => format!("  {several} at once"),
    };
    let _ = writeln!(text, "  tunnel   {}  {trust}{at_once}", dial.server);
    services(&mut text, &config.services);
    entries(&mut text, config, addresses);
    admin(&mut text, addresses);
    text
}

#[cfg(test)]
mod tests {
    use strait_node::config::{Overrides, RoleKind, load};

    use super::*;

    fn config(over: Overrides) -> Config {
        load(None, &over).unwrap().config
    }

    fn addresses(config: &Config) -> Addresses {
        Addresses {
            entries: config.entries.iter().map(|entry| entry.listen).collect(),
            tunnel: None,
            admin: config.admin.as_ref().map(|admin| admin.listen),
        }
    }

    #[test]
    fn a_server_prints_the_line_for_the_other_machine() {
        let token = Token::parse("st_secret").unwrap();
        let over = Overrides {
            role: Some(RoleKind::Server),
            token: Some(token.clone()),
            tunnel: Some("127.0.0.1:7443".parse().unwrap()),
            tls: Some(TunnelTls::Off),
            ..Overrides::default()
        };
        let config = config(over);
        let addresses = addresses(&config);
        let fresh = server(&config, &addresses, &TokenShown::Fresh(token), None);
        let expected =
            "\n  strait client --server http://127.0.0.1:7443 --token st_secret http 3000\n";
        assert!(fresh.contains(expected), "{fresh}");
        for shown in [TokenShown::Remembered, TokenShown::Configured] {
            let text = server(&config, &addresses, &shown, None);
            assert!(text.contains(" --token TOKEN http 3000\n"), "{text}");
            assert!(!text.contains("st_secret"), "{text}");
        }
        let open = server(&config, &addresses, &TokenShown::NotNeeded, None);
        assert!(open.contains("http://127.0.0.1:7443 http 3000\n"), "{open}");
    }

    #[test]
    fn a_client_tells_of_several_tunnels() {
        let told = |tunnels| {
            let over = Overrides {
                role: Some(RoleKind::Client),
                server: Some("http://127.0.0.1:7443".parse().unwrap()),
                tunnels,
                ..Overrides::default()
            };
            let config = config(over);
            client(&config, &addresses(&config))
        };
        assert!(told(Some(3)).contains("http://127.0.0.1:7443  not encrypted  3 at once\n"));
        assert!(told(None).contains("http://127.0.0.1:7443  not encrypted\n"));
    }

    #[test]
    fn a_self_signed_certificate_is_pinned_in_the_line() {
        let made = strait_node::secrets::DevelopmentCertificate::make().unwrap();
        let over = Overrides {
            role: Some(RoleKind::Server),
            insecure_no_auth: true,
            tls: Some(TunnelTls::Made(made)),
            ..Overrides::default()
        };
        let config = config(over);
        let text = server(&config, &addresses(&config), &TokenShown::NotNeeded, None);
        assert!(text.contains(":7443 --pin sha256:"), "{text}");
        assert!(!text.contains("0.0.0.0:7443 --pin"), "{text}");
    }
}
