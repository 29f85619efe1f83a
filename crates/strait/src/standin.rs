//! Stands in for the node until it is there: binds its addresses and carries nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use strait_engine::Recorder;
use strait_node::config::{Config, Role};
use strait_node::observe::{Live, Readiness, Snapshot};
use tokio::net::TcpListener;

use crate::run::Stop;

pub(crate) struct Node {
    entries: Vec<TcpListener>,
    tunnel: Option<TcpListener>,
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
    pub(crate) async fn start(config: Config, _: Arc<dyn Recorder>) -> io::Result<Node> {
        let mut snapshot =
            Snapshot { version: env!("CARGO_PKG_VERSION").to_owned(), ..Snapshot::default() };
        let mut entries = Vec::new();
        for entry in &config.entries {
            entries.push(bind(&format!("entry {}", entry.name), entry.listen).await?);
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
        Ok(Node { entries, tunnel, snapshot })
    }

    pub(crate) fn live(&self) -> Arc<dyn Live> {
        Arc::new(Still(self.snapshot.clone()))
    }

    pub(crate) fn entries(&self) -> Vec<SocketAddr> {
        self.entries.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    pub(crate) fn tunnel(&self) -> Option<SocketAddr> {
        self.tunnel.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    pub(crate) async fn run_until(self, stop: Stop) -> io::Result<()> {
        stop.await;
        Ok(())
    }
}

async fn bind(what: &str, address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{what}: {address}: {error}")))
}
