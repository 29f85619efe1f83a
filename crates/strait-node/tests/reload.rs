//! Two running nodes whose files change: what is other at once, what ends as it began, what
//! waits, and what a tunnel hears of it.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use strait_node::Node;
use strait_node::config::{Difference, Overrides, RoleKind, load};
use strait_node::observe::{Live, Recorders, SessionStatus};
use strait_node::reload::{ReloadError, Reloader};
use strait_node::secrets::Token;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

/// The bound on everything that should happen soon.
const SOON: Duration = Duration::from_secs(10);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("happens soon")
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, wait).await.is_ok(), "waited in vain: {what}");
}

/// A backend of HTTP/1.1 that answers with its name; `/held` not before it is let go.
struct Backend {
    address: SocketAddr,
    /// Connections that there are, and that there were.
    open: Arc<AtomicUsize>,
    made: Arc<AtomicUsize>,
    held: Arc<AtomicUsize>,
    let_go: Arc<Notify>,
}

impl Backend {
    async fn new(name: &'static str) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = Backend {
            address: listener.local_addr().unwrap(),
            open: Arc::default(),
            made: Arc::default(),
            held: Arc::default(),
            let_go: Arc::default(),
        };
        let (open, made) = (backend.open.clone(), backend.made.clone());
        let (held, let_go) = (backend.held.clone(), backend.let_go.clone());
        tokio::spawn(async move {
            loop {
                let (mut tcp, _) = listener.accept().await.unwrap();
                let (open, held, let_go) = (open.clone(), held.clone(), let_go.clone());
                open.fetch_add(1, Ordering::SeqCst);
                made.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    while let Some(head) = head(&mut tcp).await {
                        if head.starts_with("GET /held ") {
                            let wait = let_go.notified();
                            held.fetch_add(1, Ordering::SeqCst);
                            wait.await;
                        }
                        let length = name.len();
                        let answer =
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}");
                        if tcp.write_all(answer.as_bytes()).await.is_err() {
                            break;
                        }
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        backend
    }

    fn service(&self, name: &str, host: &str) -> String {
        let backend = self.address;
        format!("[[services]]\nname = \"{name}\"\nbackend = \"{backend}\"\nhosts = [\"{host}\"]\n")
    }
}

/// The next head on a connection; `None` at its end.
async fn head(tcp: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// A visitor's connection, which stays open.
struct Visitor(TcpStream);

impl Visitor {
    async fn new(address: SocketAddr) -> Visitor {
        Visitor(TcpStream::connect(address).await.unwrap())
    }

    async fn send(&mut self, host: &str, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.unwrap();
    }

    /// The status and the body.
    async fn answer(&mut self) -> (u16, String) {
        let head = soon(head(&mut self.0)).await.unwrap().to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        soon(self.0.read_exact(&mut body)).await.unwrap();
        (head[9..12].parse().unwrap(), String::from_utf8(body).unwrap())
    }

    async fn get(&mut self, host: &str) -> (u16, String) {
        self.send(host, "/").await;
        self.answer().await
    }
}

/// A running node and its file.
struct Running {
    file: PathBuf,
    entry: Option<SocketAddr>,
    tunnel: Option<SocketAddr>,
    live: Arc<dyn Live>,
    reloader: Arc<Reloader>,
    _stop: oneshot::Sender<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

impl Running {
    async fn start(name: &str, text: &str, over: Overrides) -> Running {
        let file = std::env::temp_dir().join(format!("strait-{name}-{}.toml", std::process::id()));
        fs::write(&file, text).unwrap();
        let path = file.clone();
        let read = move || load(Some(&path), &over);
        let node = Node::start(read().unwrap().config, Arc::new(Recorders(Vec::new())));
        let node = node.await.unwrap();
        let (entry, tunnel, live) = (node.entries().first().copied(), node.tunnel(), node.live());
        let reloader = Arc::new(node.reloader(Box::new(read), Box::new(|_| ())));
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(node.run_until(async {
            let _ = stopped.await;
        }));
        Running { file, entry, tunnel, live, reloader, _stop: stop }
    }

    async fn server(name: &str, text: &str) -> Running {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let over = Overrides {
            role: Some(RoleKind::Server),
            entries: vec![any],
            tunnel: Some(any),
            ..Overrides::default()
        };
        Running::start(&format!("{name}-server"), &format!("[server]\ntls = false\n{text}"), over)
            .await
    }

    async fn client(name: &str, server: &Running, text: &str) -> Running {
        let over = Overrides { role: Some(RoleKind::Client), ..Overrides::default() };
        let text = Running::client_text(server, text);
        let client = Running::start(&format!("{name}-client"), &text, over).await;
        client.up(1).await;
        server.up(1).await;
        client
    }

    fn client_text(server: &Running, text: &str) -> String {
        format!("[client]\nserver = \"http://{}\"\nid = \"laptop\"\n{text}", server.tunnel.unwrap())
    }

    async fn becomes(&self, text: &str) -> Result<Difference, ReloadError> {
        fs::write(&self.file, text).unwrap();
        soon(self.reloader.reload()).await
    }

    /// The same for a node whose new file must be good: what changed.
    async fn changes(&self, text: &str) -> Vec<String> {
        let difference = self.becomes(text).await.unwrap();
        assert_eq!(difference.waiting, Vec::<String>::new());
        difference.changed
    }

    fn sessions(&self) -> Vec<SessionStatus> {
        self.live.snapshot().sessions
    }

    /// Waits for so many tunnels since the start, of which one is up.
    async fn up(&self, tunnels: u64) {
        until("a tunnel is up", || {
            let snapshot = self.live.snapshot();
            snapshot.totals.sessions == tunnels && snapshot.sessions.len() == 1
        })
        .await;
    }

    async fn visitor(&self) -> Visitor {
        Visitor::new(self.entry.unwrap()).await
    }

    /// Waits until a host is answered so.
    async fn answers(&self, host: &str, status: u16, body: &str) {
        let mut last = None;
        for _ in 0..200 {
            let answer = self.visitor().await.get(host).await;
            if answer.0 == status && answer.1.starts_with(body) {
                return;
            }
            last = Some(answer);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{host}: waited in vain for {status} {body:?}, got {last:?}");
    }
}

const OPEN: &str = "insecure_no_auth = true\n";

#[tokio::test]
async fn new_requests_go_where_the_file_says_and_those_under_way_end_where_they_began() {
    let (old, new) = (Backend::new("old").await, Backend::new("new").await);
    let server = Running::server("routes", OPEN).await;
    let client = Running::client("routes", &server, &old.service("web", "a.test")).await;
    let (mut held, mut kept) = (server.visitor().await, server.visitor().await);
    held.send("a.test", "/held").await;
    server.answers("a.test", 200, "old").await;
    assert_eq!(kept.get("a.test").await, (200, "old".to_owned()));
    until("the old backend has the request", || old.held.load(Ordering::SeqCst) == 1).await;
    let text = new.service("web", "a.test") + &new.service("more", "b.test");
    let changed = client.changes(&Running::client_text(&server, &text)).await;
    assert_eq!(changed, ["services.web", "services.more (new)"]);
    // The very next request of a connection that was there before.
    assert_eq!(kept.get("a.test").await, (200, "new".to_owned()));
    server.answers("b.test", 200, "new").await;
    old.let_go.notify_waiters();
    assert_eq!(held.answer().await, (200, "old".to_owned()));
    until("nothing is left of the old backend", || old.open.load(Ordering::SeqCst) == 0).await;
    let fewer = Running::client_text(&server, &new.service("more", "b.test"));
    assert_eq!(client.changes(&fewer).await, ["services.web (gone)"]);
    server.answers("a.test", 404, "no_route").await;
    assert_eq!(server.live.snapshot().totals.sessions, 1, "the tunnel has stayed");
}

#[tokio::test]
async fn the_same_file_changes_nothing_and_keeps_the_connections_to_backends() {
    let backend = Backend::new("web").await;
    let server = Running::server("same", OPEN).await;
    let text = Running::client_text(&server, &backend.service("web", "a.test"));
    let client = Running::client("same", &server, &backend.service("web", "a.test")).await;
    server.answers("a.test", 200, "web").await;
    let changed = client.changes(&text).await;
    assert_eq!(changed, Vec::<String>::new());
    server.answers("a.test", 200, "web").await;
    assert_eq!(backend.made.load(Ordering::SeqCst), 1);
    let moved = text.replace("a.test", "b.test");
    assert_eq!(client.changes(&moved).await, ["services.web"]);
    server.answers("b.test", 200, "web").await;
    assert_eq!(backend.made.load(Ordering::SeqCst), 1, "another rule is no other backend");
}

#[tokio::test]
async fn several_reloads_at_once_are_one_after_the_other() {
    let backend = Backend::new("web").await;
    let server = Running::server("crowd", OPEN).await;
    let client = Running::client("crowd", &server, &backend.service("web", "a.test")).await;
    let mut all = tokio::task::JoinSet::new();
    let text = Running::client_text(&server, &backend.service("web", "b.test"));
    fs::write(&client.file, text).unwrap();
    for i in 0..16 {
        let reloader = client.reloader.clone();
        all.spawn(async move {
            // Whoever does not wait for the end has begun it all the same.
            let patience = if i == 0 { Duration::ZERO } else { SOON };
            tokio::time::timeout(patience, reloader.reload()).await.ok()
        });
    }
    let mut changes = 0;
    while let Some(done) = all.join_next().await {
        let Some(difference) = done.unwrap() else { continue };
        changes += usize::from(difference.unwrap().changed == ["services.web"]);
    }
    assert!(changes <= 1, "{changes} of them found something to change");
    server.answers("b.test", 200, "web").await;
}

#[tokio::test]
async fn what_a_running_node_cannot_change_waits_and_the_rest_does_not() {
    let backend = Backend::new("web").await;
    let server = Running::server("waits", OPEN).await;
    let service = backend.service("web", "a.test");
    let client = Running::client("waits", &server, &service).await;
    let mut text = Running::client_text(&server, &service).replace("laptop", "desktop");
    text += "[admin]\nlisten = 1234\n[limits]\nprocess_budget = \"1GiB\"\nmax_uri = \"1KiB\"\n\
             [timeouts]\nhold = \"5s\"\n[log]\nformat = \"json\"\nlevel = \"warn\"\n";
    write!(text, "[[entries]]\nname = \"late\"\nlisten = 1\n").unwrap();
    for time in 0..2 {
        let difference = client.becomes(&text).await.unwrap();
        let changed = ["log.level", "limits.max_uri", "timeouts.hold"];
        assert_eq!(difference.changed, if time == 0 { &changed[..] } else { &[] });
        let waiting =
            ["client.id", "entries.late (new)", "admin", "log.format", "limits.process_budget"];
        assert_eq!(difference.waiting, waiting);
    }
    server.answers("a.test", 200, "web").await;
    assert_eq!(server.sessions()[0].peer, "laptop");
}

#[tokio::test]
async fn limits_of_an_entry_hold_for_the_next_request_of_every_connection() {
    let backend = Backend::new("web").await;
    let server = Running::server("limits", OPEN).await;
    let _client = Running::client("limits", &server, &backend.service("web", "a.test")).await;
    server.answers("a.test", 200, "web").await;
    let (mut visitor, path) = (server.visitor().await, format!("/{}", "x".repeat(300)));
    visitor.send("a.test", &path).await;
    assert_eq!(visitor.answer().await.0, 200);
    let text = format!("[server]\ntls = false\n{OPEN}[limits]\nmax_uri = \"256B\"\n");
    assert_eq!(server.changes(&text).await, ["limits.max_uri"]);
    visitor.send("a.test", &path).await;
    assert_eq!(visitor.answer().await.0, 414);
    let none = format!("{text}max_exchanges = 1\n");
    assert_eq!(server.changes(&none).await, ["limits.max_exchanges"]);
    let mut held = server.visitor().await;
    held.send("a.test", "/held").await;
    until("it is under way", || backend.held.load(Ordering::SeqCst) == 1).await;
    assert_eq!(server.visitor().await.get("a.test").await.0, 503);
    backend.let_go.notify_waiters();
    assert_eq!(held.answer().await.0, 200);
}

fn tokens(rules: &[(&str, &Token, &str)]) -> String {
    let rule = |(name, token, services): &(&str, &Token, &str)| {
        let sha256 = token.digest();
        format!(
            "[[server.tokens]]\nname = \"{name}\"\nsha256 = \"{sha256}\"\nservices = [\"{services}\"]\n"
        )
    };
    rules.iter().map(rule).collect()
}

#[tokio::test]
async fn a_tunnel_lasts_as_long_as_the_right_that_it_came_with() {
    let backend = Backend::new("web").await;
    let (own, other) = (Token::generate().unwrap(), Token::generate().unwrap());
    let server = Running::server("rights", &tokens(&[("own", &own, "w*")])).await;
    let credential = format!("token = \"{}\"\n", own.reveal());
    let text =
        credential.clone() + &backend.service("web", "a.test") + &backend.service("api", "b.test");
    let client = Running::client("rights", &server, &text).await;
    server.answers("a.test", 200, "web").await;
    server.answers("b.test", 404, "no_route").await;
    // Another token beside it is nothing to this tunnel.
    let with = |rules: &[(&str, &Token, &str)]| format!("[server]\ntls = false\n{}", tokens(rules));
    let both = with(&[("own", &own, "w*"), ("other", &other, "*")]);
    assert_eq!(server.changes(&both).await, ["server.tokens.other (new)"]);
    assert_eq!(server.live.snapshot().totals.sessions, 1);
    // More services for its own: the client comes back and offers them.
    let mut held = server.visitor().await;
    held.send("a.test", "/held").await;
    until("it is under way", || backend.held.load(Ordering::SeqCst) == 1).await;
    let wide = with(&[("own", &own, "*"), ("other", &other, "*")]);
    assert_eq!(server.changes(&wide).await, ["server.tokens.own"]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    backend.let_go.notify_waiters();
    assert_eq!(held.answer().await, (200, "web".to_owned()), "what was under way has ended well");
    client.up(2).await;
    server.answers("b.test", 200, "web").await;
    // None at all: it goes, and does not come back.
    assert_eq!(
        server.changes(&with(&[("other", &other, "*")])).await,
        ["server.tokens.own (gone)"]
    );
    until("the tunnel is gone", || server.sessions().is_empty()).await;
    server.answers("a.test", 503, "client_offline").await;
}

#[tokio::test]
async fn a_tunnel_of_anybody_ends_when_anybody_is_not_enough() {
    let backend = Backend::new("web").await;
    let server = Running::server("anybody", OPEN).await;
    let _client = Running::client("anybody", &server, &backend.service("web", "a.test")).await;
    let token = Token::generate().unwrap();
    let rules = tokens(&[("own", &token, "*")]);
    // Whoever came without a token may stay, as long as nobody needs one.
    let open = format!("[server]\ntls = false\n{OPEN}{rules}");
    assert_eq!(server.changes(&open).await, ["server.tokens.own (new)"]);
    assert_eq!(server.sessions().len(), 1);
    let changed = server.changes(&format!("[server]\ntls = false\n{rules}")).await;
    assert_eq!(changed, ["server.insecure_no_auth"]);
    until("the tunnel is gone", || server.sessions().is_empty()).await;
    assert_eq!(server.live.snapshot().totals.sessions, 1, "and does not come back");
}

#[tokio::test]
async fn a_request_waits_for_a_tunnel_as_long_as_the_file_says_now() {
    let backend = Backend::new("web").await;
    let text = |hold: &str| format!("{OPEN}[timeouts]\nhold = \"{hold}\"\n");
    let server = Running::server("hold", &text("0s")).await;
    let service = backend.service("web", "a.test");
    let client = Running::client("hold", &server, &service).await;
    server.answers("a.test", 200, "web").await;
    drop(client);
    until("the tunnel is gone", || server.sessions().is_empty()).await;
    assert_eq!(server.visitor().await.get("a.test").await.0, 503);
    let longer = format!("[server]\ntls = false\n{}", text("30s"));
    assert_eq!(server.changes(&longer).await, ["timeouts.hold"]);
    let mut waits = server.visitor().await;
    waits.send("a.test", "/").await;
    until("it is under way", || server.live.snapshot().totals.open == 1).await;
    let over = Overrides { role: Some(RoleKind::Client), ..Overrides::default() };
    let text = Running::client_text(&server, &service);
    let _client = Running::start("hold-again", &text, over).await;
    assert_eq!(waits.answer().await, (200, "web".to_owned()));
}

#[tokio::test]
async fn a_client_dials_anew_when_its_own_end_of_the_tunnel_changes_and_only_then() {
    let backend = Backend::new("web").await;
    let (first, second) = (Token::generate().unwrap(), Token::generate().unwrap());
    let rules = |token: &Token| tokens(&[("own", token, "*")]);
    let one = Running::server("first", &rules(&first)).await;
    let two = Running::server("second", &rules(&second)).await;
    let service = backend.service("web", "a.test");
    let text = |server: &Running, token: &Token| {
        Running::client_text(server, &format!("token = \"{}\"\n{service}", token.reveal()))
    };
    let given = format!("token = \"{}\"\n{service}", first.reveal());
    let client = Running::client("dial", &one, &given).await;
    one.answers("a.test", 200, "web").await;
    let mut held = one.visitor().await;
    held.send("a.test", "/held").await;
    until("it is under way", || backend.held.load(Ordering::SeqCst) == 1).await;
    let changed = client.changes(&text(&two, &second)).await;
    assert_eq!(changed, ["client.server", "client.token"]);
    two.up(1).await;
    two.answers("a.test", 200, "web").await;
    backend.let_go.notify_waiters();
    assert_eq!(held.answer().await, (200, "web".to_owned()), "the old tunnel ended it");
    until("the old tunnel is gone", || one.sessions().is_empty()).await;
    assert_eq!(client.live.snapshot().totals.sessions, 2);
}

#[tokio::test]
async fn a_client_that_comes_back_lets_its_old_tunnel_end_what_it_has() {
    let backend = Backend::new("web").await;
    let token = Token::generate().unwrap();
    let server = Running::server("twice", OPEN).await;
    let service = backend.service("web", "a.test");
    let client = Running::client("twice", &server, &service).await;
    server.answers("a.test", 200, "web").await;
    let mut held = server.visitor().await;
    held.send("a.test", "/held").await;
    until("it is under way", || backend.held.load(Ordering::SeqCst) == 1).await;
    // A server that asks for nothing takes any token: the same peer on a new tunnel.
    let text = format!("token = \"{}\"\n{service}", token.reveal());
    assert_eq!(client.changes(&Running::client_text(&server, &text)).await, ["client.token"]);
    until("both tunnels stand", || server.sessions().len() == 2).await;
    server.answers("a.test", 200, "web").await;
    backend.let_go.notify_waiters();
    assert_eq!(held.answer().await, (200, "web".to_owned()));
    server.up(2).await;
}
