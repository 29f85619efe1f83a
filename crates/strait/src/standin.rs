//! Stands in for the node until it is there: binds its addresses and carries nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use strait_engine::Recorder;
use strait_node::admin::Admin;
use strait_node::config::{Config, Role};
use strait_node::observe::{Live, Metrics, Readiness, Snapshot};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) struct Node {
    entries: Vec<(String, TcpListener)>,
    tunnel: Option<TcpListener>,
    admin: Option<Admin>,
    metrics: Arc<Metrics>,
    snapshot: Snapshot,
}

struct Still(Snapshot);

impl Live for Still {
    fn snapshot(&self) -> Snapshot {
        self.0.clone()
    }

    fn readiness(&self) -> Readiness {
        self.0.readiness
    }
}

impl Node {
    pub(crate) async fn start(
        config: Config,
        metrics: Arc<Metrics>,
        _: Arc<dyn Recorder>,
    ) -> io::Result<Node> {
        let mut snapshot =
            Snapshot { version: env!("CARGO_PKG_VERSION").to_owned(), ..Snapshot::default() };
        let mut entries = Vec::new();
        for entry in &config.entries {
            let listener = bind(&format!("entry {}", entry.name), entry.listen).await?;
            entries.push((entry.name.clone(), listener));
        }
        let tunnel = match &config.role {
            Role::Server(tunnel) => {
                snapshot.role = "server".to_owned();
                snapshot.readiness = Readiness::Ready;
                Some(bind("tunnel", tunnel.listen).await?)
            }
            Role::Client(_) => {
                snapshot.role = "client".to_owned();
                None
            }
        };
        let admin = match &config.admin {
            None => None,
            Some(admin) => match Admin::bind(admin).await {
                Ok(bound) => Some(bound),
                Err(_) if admin.optional => None,
                Err(error) => return Err(error),
            },
        };
        metrics.watch(Arc::new(Still(snapshot.clone())));
        Ok(Node { entries, tunnel, admin, metrics, snapshot })
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        let address = |listener: &TcpListener| listener.local_addr().ok();
        self.entries.iter().filter_map(move |(name, l)| Some((name.as_str(), address(l)?)))
    }

    pub(crate) fn tunnel(&self) -> Option<SocketAddr> {
        self.tunnel.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    pub(crate) fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), String> {
        if let Some(admin) = self.admin {
            let live = Arc::new(Still(self.snapshot));
            tokio::spawn(admin.serve(self.metrics, live, stop.clone().cancelled_owned()));
        }
        stop.cancelled().await;
        Ok(())
    }
}

async fn bind(what: &str, address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{what}: {address}: {error}")))
}
