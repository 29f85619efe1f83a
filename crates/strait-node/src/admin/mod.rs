//! The admin address: `/healthz`, `/readyz`, `/metrics`, `/status`. It changes nothing.

use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::config::AdminConfig;
use crate::observe::{Live, Metrics, Readiness};

/// The prometheus scrape format.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A bound admin address that does not answer yet.
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    hosts: HashSet<String>,
}

struct Shared {
    metrics: Arc<Metrics>,
    live: Arc<dyn Live>,
    hosts: HashSet<String>,
}

impl Admin {
    /// Binds the address.
    ///
    /// # Errors
    /// The system's, with the address in it.
    pub async fn bind(config: &AdminConfig) -> io::Result<Admin> {
        let listener = TcpListener::bind(config.listen).await.map_err(|error| {
            io::Error::new(error.kind(), format!("admin address {}: {error}", config.listen))
        })?;
        let address = listener.local_addr()?;
        Ok(Admin { listener, address, hosts: hosts(address, &config.hosts) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` resolves.
    ///
    /// # Errors
    /// None that a caller can mend; accept errors are waited out.
    pub async fn serve(
        self,
        metrics: Arc<Metrics>,
        live: Arc<dyn Live>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let router = router(metrics, live, self.hosts);
        axum::serve(self.listener, router).with_graceful_shutdown(shutdown).await
    }
}

/// The names under which this address may be asked. Any other name means that a web page
/// made a browser ask (DNS rebinding), and gets nothing.
fn hosts(address: SocketAddr, configured: &[String]) -> HashSet<String> {
    let port = address.port();
    let mut hosts: HashSet<String> =
        ["localhost", "127.0.0.1", "[::1]"].iter().map(|host| format!("{host}:{port}")).collect();
    hosts.insert(address.to_string());
    hosts.extend(configured.iter().map(|host| host.to_ascii_lowercase()));
    hosts
}

fn router(metrics: Arc<Metrics>, live: Arc<dyn Live>, hosts: HashSet<String>) -> Router {
    let shared = Arc::new(Shared { metrics, live, hosts });
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .route("/status", get(status))
        .fallback(|| async {
            (StatusCode::NOT_FOUND, "not here; there are /healthz /readyz /metrics /status\n")
        })
        .layer(from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let mut named = request.headers().get_all(header::HOST).iter();
    let host = match (named.next(), named.next()) {
        (Some(host), None) => host.to_str().unwrap_or_default().to_ascii_lowercase(),
        _ => String::new(),
    };
    let mut response = if shared.hosts.contains(&host) {
        next.run(request).await
    } else {
        let message = "this name is not served here; ask by the address itself, or add the name \
                       to [admin] hosts\n";
        (StatusCode::FORBIDDEN, message).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let readiness = shared.live.readiness();
    let status = match readiness {
        Readiness::Ready => StatusCode::OK,
        Readiness::Connecting | Readiness::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{}\n", readiness.as_str())).into_response()
}

async fn scrape(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, OPENMETRICS)], shared.metrics.render()).into_response()
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    axum::Json(shared.live.snapshot()).into_response()
}
