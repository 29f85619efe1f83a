//! The admin address as a scraper, a person and a hostile web page find it.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use strait_engine::{Asked, Caller, Counters, Fault, Flight, Origin, Reason, Record, Recorder};
use strait_node::admin::Admin;
use strait_node::config::AdminConfig;
use strait_node::observe::{
    Live, Metrics, Readiness, Refused, RouteStatus, SessionStatus, Snapshot, Totals,
};
use strait_wire::{Protocol, RequestId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// A node that is in whatever state a test puts it.
#[derive(Default)]
struct Node(AtomicU8);

impl Live for Node {
    fn snapshot(&self) -> Snapshot {
        let session = |bytes_in| SessionStatus {
            peer: "laptop".to_owned(),
            rtt_us: 1500,
            open_ours: 2,
            credit_wait_ms: 250,
            budget: 65_536,
            refused: Refused { ours_budget: 3, heads: 1, ..Refused::default() },
            budget_used: 4096,
            violations: 2,
            ignored: 4,
            bytes_in,
            ..SessionStatus::default()
        };
        Snapshot {
            role: "server".to_owned(),
            readiness: self.readiness(),
            // An old tunnel and its successor: one peer.
            sessions: vec![session(10), session(5)],
            routes: vec![RouteStatus { service: "web".to_owned(), ..RouteStatus::default() }],
            totals: Totals {
                reconnects: 3,
                reloads: 5,
                reloads_refused: 2,
                violations: 9,
                proxy_headers_refused: 6,
                budget_used: 8192,
                budget: 131_072,
                tasks: 17,
                ..Totals::default()
            },
            ..Snapshot::default()
        }
    }

    fn readiness(&self) -> Readiness {
        match self.0.load(Ordering::Relaxed) {
            0 => Readiness::Connecting,
            1 => Readiness::Ready,
            _ => Readiness::Draining,
        }
    }
}

struct World {
    address: SocketAddr,
    node: Arc<Node>,
    metrics: Arc<Metrics>,
    _stop: oneshot::Sender<()>,
}

async fn world(hosts: &[&str]) -> World {
    let config = AdminConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        optional: false,
    };
    let admin = Admin::bind(&config).await.unwrap();
    let (node, metrics) = (Arc::new(Node::default()), Arc::new(Metrics::new()));
    metrics.watch(node.clone());
    let (stop, stopped) = oneshot::channel();
    let address = admin.address();
    tokio::spawn(admin.serve(metrics.clone(), node.clone(), None, async {
        let _ = stopped.await;
    }));
    World { address, node, metrics, _stop: stop }
}

impl World {
    async fn ask(&self, request: &str) -> String {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = request.replace("PORT", &self.address.port().to_string());
            let request = request.replace('\n', "\r\n") + "\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        tokio::time::timeout(Duration::from_secs(10), exchange).await.unwrap()
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\nHost: localhost:PORT")).await
    }
}

fn record(protocol: Protocol, route: &str) -> Record {
    let flight = Flight {
        id: RequestId::new(),
        trace: Arc::default(),
        protocol,
        caller: Caller { origin: Origin::Entry(Arc::from("web")), address: None, version: None },
        route: Arc::from(route),
        method: http::Method::POST,
        asked: Asked::new(b"h", b"/p"),
        since: Instant::now(),
        counters: Counters::default(),
    };
    Record {
        flight: Arc::new(flight),
        status: Some(200),
        grpc_status: Some(0),
        bytes_in: 100,
        bytes_out: 2000,
        messages_in: 1,
        messages_out: 20,
        first_byte: Some(Duration::from_millis(2)),
        duration: Duration::from_millis(20),
        fault: None,
    }
}

#[tokio::test]
async fn only_its_own_names_are_answered() {
    let world = world(&["node.example:1234"]).await;
    for good in
        ["localhost:PORT", "127.0.0.1:PORT", "[::1]:PORT", "LOCALHOST:PORT", "node.example:1234"]
    {
        let answer = world.ask(&format!("GET /healthz HTTP/1.1\nHost: {good}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{good}: {answer}");
        assert!(answer.ends_with("ok\n"), "{answer}");
    }
    for bad in [
        "evil.example:PORT",
        "evil.example",
        "localhost",
        "localhost:1",
        "127.0.0.1",
        "node.example",
        "localhost:PORT.evil.example",
        "x@localhost:PORT",
    ] {
        for path in ["/healthz", "/status", "/metrics", "/nothing"] {
            let answer = world.ask(&format!("GET {path} HTTP/1.1\nHost: {bad}")).await;
            let status = answer.split(' ').nth(1).unwrap_or_default();
            assert!(matches!(status, "403" | "400"), "{bad}: {answer}");
            assert!(!answer.contains("laptop"), "{answer}");
        }
    }
    let twice = "GET /status HTTP/1.1\nHost: localhost:PORT\nHost: evil.example";
    assert!(!world.ask(twice).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_web_page_gets_no_help_from_it() {
    let world = world(&[]).await;
    let request = "GET /status HTTP/1.1\nHost: localhost:PORT\nOrigin: http://evil.example";
    let answer = world.ask(request).await.to_ascii_lowercase();
    assert!(!answer.contains("access-control-allow"), "{answer}");
    assert!(answer.contains("x-content-type-options: nosniff"), "{answer}");
    assert!(answer.contains("cache-control: no-store"), "{answer}");
    for method in ["POST", "PUT", "DELETE"] {
        let request = format!("{method} /status HTTP/1.1\nHost: localhost:PORT\nContent-Length: 0");
        assert!(world.ask(&request).await.starts_with("HTTP/1.1 405 "));
    }
}

#[tokio::test]
async fn a_reload_is_asked_for_by_post_and_not_by_a_web_page() {
    let world = world(&["node.example:1234"]).await;
    let asked = async |head: &str| {
        let answer = world.ask(&format!("{head}\nContent-Length: 0")).await;
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let post = "POST /reload HTTP/1.1\nHost: localhost:PORT";
    assert_eq!(asked(post).await, "404", "this node has nothing to reload");
    assert_eq!(asked("GET /reload HTTP/1.1\nHost: localhost:PORT").await, "405");
    assert_eq!(asked("POST /reload HTTP/1.1\nHost: evil.example").await, "403");
    for origin in ["http://evil.example", "http://localhost:PORT", "null"] {
        assert_eq!(asked(&format!("{post}\nOrigin: {origin}")).await, "403", "{origin}");
    }
}

#[tokio::test]
async fn readiness_follows_the_node() {
    let world = world(&[]).await;
    for (state, status, text) in
        [(0, "503", "connecting\n"), (1, "200", "ready\n"), (2, "503", "draining\n")]
    {
        world.node.0.store(state, Ordering::Relaxed);
        let answer = world.get("/readyz").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.ends_with(text), "{answer}");
        assert!(world.get("/healthz").await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn a_status_is_the_snapshot_as_json() {
    let world = world(&[]).await;
    let answer = world.get("/status").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/json"), "{head}");
    let read: Snapshot = serde_json::from_str(body).unwrap();
    assert_eq!(read, world.node.snapshot());
    assert!(world.get("/nothing").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn what_is_scraped_is_what_was_recorded() {
    let world = world(&[]).await;
    world.metrics.started(Protocol::Grpc);
    world.metrics.started(Protocol::Grpc);
    world.metrics.finished(&record(Protocol::Grpc, "ledger"));
    world.metrics.started(Protocol::Http);
    let failed = Record {
        status: None,
        grpc_status: None,
        first_byte: None,
        fault: Some(Fault::because(Reason::Cancelled, "private")),
        ..record(Protocol::Http, "")
    };
    world.metrics.finished(&failed);
    let answer = world.get("/metrics").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/openmetrics-text"), "{head}");
    assert!(body.ends_with("# EOF\n") && !body.contains("private"), "{body}");
    let golden = include_str!("metrics.golden");
    let mut found: Vec<&str> = body.lines().filter(|line| !line.contains("_bucket{")).collect();
    found.sort_unstable();
    let found = found.join("\n") + "\n";
    if std::env::var_os("STRAIT_GOLDEN").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/metrics.golden"), &found)
            .unwrap();
        return;
    }
    assert_eq!(found, golden, "run with STRAIT_GOLDEN=1 to write what is found");
}

#[tokio::test]
async fn a_peer_cannot_fill_the_memory_with_names() {
    let metrics = Metrics::new();
    for i in 0..2000 {
        let record = Record {
            grpc_status: Some(1000 + i),
            status: None,
            ..record(Protocol::Grpc, &format!("s{i}"))
        };
        metrics.started(record.flight.protocol);
        metrics.finished(&record);
    }
    let text = metrics.render();
    let rows = text.lines().filter(|line| line.starts_with("strait_requests_total{")).count();
    assert_eq!(rows, 501);
    assert!(text.contains("route=\"(other)\""));
    assert!(text.contains("strait_requests_open{protocol=\"grpc\"} 0\n"), "{text}");
}
