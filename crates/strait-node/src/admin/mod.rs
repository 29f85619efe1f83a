//! The admin address: `/healthz`, `/readyz`, `/metrics`, `/status`. All that it changes is the
//! configuration, by `POST /reload`: to what the file says, not to what a caller says.

use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::config::AdminConfig;
use crate::observe::{Live, Metrics, Readiness};
use crate::reload::Reloader;

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
    reloader: Option<Arc<Reloader>>,
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

    /// Answers until `shutdown` resolves. Without a `reloader` there is nothing to reload.
    ///
    /// # Errors
    /// None that a caller can mend; accept errors are waited out.
    pub async fn serve(
        self,
        metrics: Arc<Metrics>,
        live: Arc<dyn Live>,
        reloader: Option<Arc<Reloader>>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let shared = Shared { metrics, live, reloader, hosts: self.hosts };
        let service = router(shared).into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(self.listener, service).with_graceful_shutdown(shutdown).await
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

fn router(shared: Shared) -> Router {
    let shared = Arc::new(shared);
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .route("/status", get(status))
        .route("/reload", post(reload))
        .fallback(|| async {
            let there = "not here; there are /healthz /readyz /metrics /status, and POST /reload\n";
            (StatusCode::NOT_FOUND, there)
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

/// Whether a caller may change anything: a program on this machine. A web page that is open on
/// this machine is told by its `Origin`, which browsers send with every POST.
fn may_change(caller: SocketAddr, headers: &HeaderMap) -> bool {
    caller.ip().to_canonical().is_loopback() && !headers.contains_key(header::ORIGIN)
}

/// Reloads the configuration.
async fn reload(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if !may_change(caller, &headers) {
        let message = "a reload is for programs on this machine; ask from there, or send SIGHUP\n";
        return (StatusCode::FORBIDDEN, message).into_response();
    }
    let Some(reloader) = &shared.reloader else {
        return (StatusCode::NOT_FOUND, "this node has no configuration to reload\n")
            .into_response();
    };
    match reloader.reload().await {
        Ok(difference) => axum::Json(difference).into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_on_this_machine_change_anything() {
        let none = HeaderMap::new();
        let page = HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static("null"))]);
        for (caller, here) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("192.0.2.1:1", false),
            ("[2001:db8::1]:1", false),
        ] {
            let address = caller.parse().unwrap();
            assert_eq!(may_change(address, &none), here, "{caller}");
            assert!(!may_change(address, &page), "{caller}");
        }
    }
}
