//! The two nodes of the demo, as two machines would run them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use strait_node::config::{
    Config, EntryConfig, Limits, LogConfig, Role, ServerUrl, ServiceConfig, Timeouts, TokenRule,
    TunnelDial, TunnelListen, TunnelTls, parse_backend,
};
use strait_node::secrets::Token;
use strait_wire::Protocol;

use super::samples::Samples;

/// What the server and the client are told: visitors come in at `entry`, the client
/// dials `tunnel` and offers the samples.
fn configs(entry: SocketAddr, tunnel: SocketAddr, samples: &Samples) -> io::Result<[Config; 2]> {
    let token = Token::generate().map_err(io::Error::other)?;
    let rule = TokenRule {
        name: "demo".to_owned(),
        sha256: token.digest(),
        services: vec!["*".to_owned()],
    };
    let listen = TunnelListen {
        listen: tunnel,
        // Both ends are this process.
        tls: TunnelTls::Off,
        tokens: vec![rule],
        insecure_no_auth: false,
    };
    let host = tunnel.ip().to_string();
    let dial = TunnelDial {
        server: ServerUrl { tls: false, host, port: tunnel.port() },
        token: Some(token),
        ca: None,
        pin: None,
        id: "demo-client".to_owned(),
        once: false,
    };
    let web = service("hello", samples.http, "http", &[Protocol::Http, Protocol::WebSocket])?;
    let grpc = service("sampler", samples.grpc, "h2c", &[Protocol::Grpc])?;
    let door = EntryConfig { name: "web".to_owned(), listen: entry, tls: None };
    Ok([
        node(Role::Server(listen), vec![door], Vec::new()),
        node(Role::Client(dial), Vec::new(), vec![web, grpc]),
    ])
}

fn service(
    name: &str,
    address: SocketAddr,
    scheme: &str,
    protocols: &[Protocol],
) -> io::Result<ServiceConfig> {
    let backend = parse_backend(&address.to_string(), scheme).map_err(io::Error::other)?;
    Ok(ServiceConfig::new(name, backend, protocols))
}

fn node(role: Role, entries: Vec<EntryConfig>, services: Vec<ServiceConfig>) -> Config {
    let log = LogConfig { access: false, ..LogConfig::default() };
    let (limits, timeouts) = (Limits::default(), Timeouts::default());
    Config { role, entries, services, admin: None, log, limits, timeouts }
}

/// A port of the loopback that is free now; the next one who binds it is we.
fn free_port() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
