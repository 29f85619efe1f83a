//! The two nodes of the demo, each told what it would be told on a machine of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use strait_node::config::{
    Config, EntryConfig, Limits, LogConfig, Role, Scheme, ServerUrl, ServiceConfig, Timeouts,
    TokenRule, TunnelDial, TunnelListen, TunnelTls, parse_backend,
};
use strait_node::observe::{Live, Recorders};
use strait_node::secrets::Token;
use strait_node::{Node, StartError};
use strait_wire::Protocol;
use tokio_util::sync::CancellationToken;

use super::samples::Samples;

/// The port that people remember.
const PORT: u16 = 8000;
/// How long the tunnel between two nodes of one process may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// The server of the demo, bound but not yet at work.
pub(crate) struct Server {
    node: Node,
    token: Token,
    /// Where visitors come in.
    pub(crate) entry: SocketAddr,
    tunnel: SocketAddr,
}

/// Both nodes at work, and a tunnel between them.
pub(crate) struct Nodes {
    /// What the server says about itself.
    pub(crate) live: Arc<dyn Live>,
    tasks: tokio::task::JoinSet<Result<(), String>>,
    stop: CancellationToken,
}

/// Binds the server: its entry to `port`, or without one to a port that is free.
///
/// # Errors
/// When the port is taken.
pub(crate) async fn start_server(port: Option<u16>) -> io::Result<Server> {
    let token = Token::generate().map_err(io::Error::other)?;
    let bound = match port {
        Some(port) => start(server_config(port, &token)).await.map_err(|error| {
            io::Error::other(format!("{error}; choose another with --port, or leave it out"))
        }),
        None => match start(server_config(PORT, &token)).await {
            Ok(node) => Ok(node),
            Err(_) => start(server_config(0, &token)).await.map_err(io::Error::other),
        },
    };
    let node = bound?;
    let entry = node.entries().first().copied();
    let (Some(entry), Some(tunnel)) = (entry, node.tunnel()) else {
        return Err(io::Error::other("the server has no address"));
    };
    Ok(Server { node, token, entry, tunnel })
}

/// Sets the server to work, starts a client that offers `samples` through it, and waits
/// until they can be reached.
///
/// # Errors
/// When the client cannot start or does not get through.
pub(crate) async fn start_nodes(server: Server, samples: &Samples) -> io::Result<Nodes> {
    let client = client_config(server.tunnel, server.token, samples)?;
    let client = start(client).await.map_err(io::Error::other)?;
    let live = server.node.live();
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(server.node.run_until(stop.clone().cancelled_owned()));
    tasks.spawn(client.run_until(stop.clone().cancelled_owned()));
    let began = std::time::Instant::now();
    while !live.snapshot().routes.iter().any(|route| route.online) {
        if began.elapsed() > PATIENCE {
            return Err(io::Error::other("the client did not get through to the server"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(Nodes { live, tasks, stop })
}

impl Nodes {
    /// Works until one of the nodes ends, which it should not.
    pub(crate) async fn run(&mut self) -> io::Result<()> {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => Err(io::Error::other(error)),
            Some(Err(error)) => Err(io::Error::other(error)),
            _ => Ok(()),
        }
    }

    /// Says goodbye, without waiting for answers that never end.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

async fn start(config: Config) -> Result<Node, StartError> {
    let nobody = Arc::new(Recorders(Vec::new()));
    Node::start(config, nobody).await
}

fn server_config(port: u16, token: &Token) -> Config {
    let rule = TokenRule {
        name: "demo".to_owned(),
        sha256: token.digest(),
        services: vec!["*".to_owned()],
    };
    let role = Role::Server(TunnelListen {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        // Both ends are this process.
        tls: TunnelTls::Off,
        tokens: vec![rule],
        insecure_no_auth: false,
    });
    let listen = (Ipv4Addr::LOCALHOST, port).into();
    let door = EntryConfig::new("web", listen);
    node(role, vec![door], Vec::new())
}

fn client_config(tunnel: SocketAddr, token: Token, samples: &Samples) -> io::Result<Config> {
    let role = Role::Client(TunnelDial {
        server: ServerUrl { tls: false, host: tunnel.ip().to_string(), port: tunnel.port() },
        token: Some(token),
        ca: None,
        pin: None,
        id: "demo-client".to_owned(),
        once: false,
        tunnels: 1,
    });
    let web = service("web", samples.http, Scheme::Http, &[Protocol::Http, Protocol::WebSocket])?;
    let grpc = service("sampler", samples.grpc, Scheme::H2c, &[Protocol::Grpc])?;
    Ok(node(role, Vec::new(), vec![web, grpc]))
}

fn service(
    name: &str,
    address: SocketAddr,
    scheme: Scheme,
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
