//! The sample HTTP backend: the page, and what the page and a curious person ask for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::load::{Bulk, Load};
use super::{events, socket};

/// The body of an answer of the sample backend.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What is in flight on the stream right now, as far as this process knows.
pub(crate) type Status = Arc<dyn Fn() -> Option<Value> + Send + Sync>;

/// A download that somebody asks for without a size, in MiB.
const DEFAULT_DOWNLOAD: u64 = 100;

const ASSETS: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("page/app.js")),
    ("/probe.js", "text/javascript; charset=utf-8", include_str!("page/probe.js")),
    ("/series.js", "text/javascript; charset=utf-8", include_str!("page/series.js")),
    ("/strait.js", "text/javascript; charset=utf-8", include_str!("page/strait.js")),
    ("/flight.js", "text/javascript; charset=utf-8", include_str!("page/flight.js")),
    ("/sampler.proto", "text/plain; charset=utf-8", include_str!("page/sampler.proto")),
];

/// The sample HTTP backend.
pub(crate) struct Site {
    entry: SocketAddr,
    status: Status,
    greeted: AtomicU64,
    visitors: Handle,
    load: Mutex<Weak<Load>>,
}

impl Site {
    /// A backend that reaches the tunnel's public side at `entry`, and sends its bulk
    /// visitors there from the thread of `visitors`.
    pub(crate) fn new(entry: SocketAddr, status: Status, visitors: Handle) -> Site {
        Site { entry, status, greeted: AtomicU64::new(0), visitors, load: Mutex::default() }
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        match (request.method(), path) {
            (&Method::POST, "/upload") => return upload(request).await,
            (&Method::GET | &Method::HEAD, _) => {}
            _ => return text(StatusCode::METHOD_NOT_ALLOWED, "GET it; POST is for /upload.\n"),
        }
        match path {
            "/hello" => self.hello(query),
            "/clock" => events::clock(),
            "/echo" => socket::accept(request),
            "/download" | "/download/unread" => download(query),
            "/__demo/readings" => events::readings(self.entry).await,
            "/__demo/load" => {
                let pace = parameter(query, "mbit").unwrap_or(0).saturating_mul(1_000_000);
                events::progress(Load::join(&self.load, self.entry, &self.visitors, pace))
            }
            "/__demo/status" => self.in_flight(),
            _ => asset(path),
        }
    }

    /// A small answer that names its request, so that a mixed-up answer would be seen.
    fn hello(&self, query: &str) -> Response<Body> {
        let served = self.greeted.fetch_add(1, Ordering::Relaxed) + 1;
        let asked = parameter(query, "n");
        json_answer(&json!({ "hello": "from behind the tunnel", "n": asked, "served": served }))
    }

    fn in_flight(&self) -> Response<Body> {
        match (self.status)() {
            Some(status) => json_answer(&status),
            None => text(StatusCode::NO_CONTENT, ""),
        }
    }
}

fn asset(path: &str) -> Response<Body> {
    let Some((_, kind, content)) = ASSETS.iter().find(|(name, _, _)| *name == path) else {
        let hint = "Not here. There is / /hello /clock /echo /download?mb=N /upload.\n";
        return text(StatusCode::NOT_FOUND, hint);
    };
    let mut response = text(StatusCode::OK, "");
    *response.body_mut() = Full::new(Bytes::from_static(content.as_bytes())).boxed_unsync();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Alone in its process, a page gets a clock of microseconds to measure with.
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-embedder-policy", HeaderValue::from_static("require-corp"));
    let policy = "default-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

fn download(query: &str) -> Response<Body> {
    let mb = parameter(query, "mb").unwrap_or(DEFAULT_DOWNLOAD);
    let mut response = text(StatusCode::OK, "");
    *response.body_mut() = Bulk::new(mb.saturating_mul(1024 * 1024)).boxed_unsync();
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Counts what is sent, keeping none of it.
async fn upload(request: Request<Incoming>) -> Response<Body> {
    let mut body = request.into_body();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => received += frame.data_ref().map_or(0, Bytes::len),
            Err(_) => return text(StatusCode::BAD_REQUEST, "The upload was cut.\n"),
        }
    }
    json_answer(&json!({ "received": received }))
}

fn parameter(query: &str, name: &str) -> Option<u64> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name)?.1.parse().ok()
}

fn json_answer(value: &Value) -> Response<Body> {
    let mut response = text(StatusCode::OK, &format!("{value}\n"));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A short answer in words.
pub(crate) fn text(status: StatusCode, words: &str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(words.to_owned())).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, plain);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
