//! An entry in front of a backend in front of a service, all in this process.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use strait_edge::{
    Backend, BackendAddress, Cors, Entry, Settings, TrustedProxies, serve, tls::Trust,
};
use strait_engine::{
    Budget, Directory, Dispatch, Local, Patience, Protocol, Record, Recorder, Upstream, Workers,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The bound on everything that should happen soon.
pub const SOON: Duration = Duration::from_secs(5);

/// Waits for what should happen soon.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("happens soon")
}

/// A task that ends with its handle.
pub struct Task<T = ()>(pub JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub fn task<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Task<T> {
    Task(tokio::spawn(future))
}

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

pub fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body of frames that come through a channel; dropping the sender ends it.
pub fn channel()
-> (tokio::sync::mpsc::Sender<Result<http_body::Frame<Bytes>, std::io::Error>>, Body) {
    let (tx, mut rx) = tokio::sync::mpsc::channel(1);
    let stream = futures_body(move |cx| rx.poll_recv(cx));
    (tx, stream.boxed_unsync())
}

type Polled = std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>>;

pub struct FnBody<F>(F);

impl<F: FnMut(&mut std::task::Context<'_>) -> Polled + Unpin> http_body::Body for FnBody<F> {
    type Data = Bytes;
    type Error = std::io::Error;
    fn poll_frame(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Polled {
        (self.0)(cx)
    }
}

pub fn futures_body<F: FnMut(&mut std::task::Context<'_>) -> Polled + Unpin>(f: F) -> FnBody<F> {
    FnBody(f)
}

/// A service and how often it was connected to.
pub struct Service {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub open: Arc<AtomicUsize>,
    _task: Task,
}

pub struct Count(Arc<AtomicUsize>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// A service that does with each connection what `handle` says.
pub async fn raw_service<F, Fut>(handle: F) -> Service
where
    F: Fn(TcpStream, usize) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, opened) = (connections.clone(), open.clone());
    let _task = task(async move {
        let mut all = tokio::task::JoinSet::new();
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let number = count.fetch_add(1, SeqCst);
            opened.fetch_add(1, SeqCst);
            let guard = Count(opened.clone());
            let handled = handle(tcp, number);
            all.spawn(async move {
                let _guard = guard;
                handled.await;
            });
        }
    });
    Service { address, connections, open, _task }
}

/// A service by HTTP/1.1 or HTTP/2.
pub async fn http_service<F, Fut>(http2: bool, handle: F) -> Service
where
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    raw_service(move |tcp, _| {
        let handle = handle.clone();
        async move {
            let _ = tcp.set_nodelay(true);
            let service = service_fn(move |request| {
                let answer = handle(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let io = TokioIo::new(tcp);
            if http2 {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(io, service).await;
            } else {
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(io, service).await;
            }
        }
    })
    .await
}

/// An entry.
pub struct Door {
    pub address: SocketAddr,
    pub drain: CancellationToken,
    pub served: Task,
}

/// The origin of a page that may call by gRPC-Web.
pub const PAGE: &str = "https://page.example";

/// An entry to any upstream, in clear text.
pub fn entry(upstream: Arc<dyn Upstream>, settings: Settings) -> Entry {
    Entry {
        name: "test".into(),
        upstream,
        settings: Arc::new(settings),
        tls: None,
        cors: Cors::new(vec![PAGE.to_owned()]),
        trusted_proxies: TrustedProxies::default(),
        proxy_protocol: None,
    }
}

/// Serves an entry at a free port.
pub async fn open(entry: Entry) -> Door {
    open_on(entry, Workers::start(1).unwrap().0).await
}

/// The same on these workers.
pub async fn open_on(entry: Entry, workers: Workers) -> Door {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let drain = CancellationToken::new();
    let entry = Arc::new(ArcSwap::from_pointee(entry));
    let served = task(serve(listener, entry, workers, drain.clone()));
    Door { address, drain, served }
}

/// An entry to any upstream.
pub async fn door_to(upstream: Arc<dyn Upstream>, settings: Settings) -> Door {
    open(entry(upstream, settings)).await
}

pub fn backend(address: &str, settings: Settings) -> Backend {
    let address: BackendAddress = address.parse().unwrap();
    Backend::new(address, Arc::new(settings), Budget::new(1 << 30), &Trust::default()).unwrap()
}

/// An entry to a service by the given scheme, by way of a dispatch, as everywhere.
pub async fn door(scheme: &str, service: &Service, settings: Settings) -> Door {
    door_for(Vec::new(), scheme, service, settings).await
}

/// The same to a service of these protocols only.
pub async fn door_for(
    protocols: Vec<Protocol>,
    scheme: &str,
    service: &Service,
    settings: Settings,
) -> Door {
    door_to(dispatch(protocols, Vec::new(), scheme, service, settings.clone()), settings).await
}

/// A dispatch to a service of these protocols and hosts, or of all.
pub fn dispatch(
    protocols: Vec<Protocol>,
    hosts: Vec<String>,
    scheme: &str,
    service: &Service,
    settings: Settings,
) -> Arc<Dispatch> {
    struct NoRecords;
    impl Recorder for NoRecords {
        fn started(&self, _: Protocol) {}
        fn finished(&self, _: &Record) {}
    }
    let address = format!("{scheme}://{}", service.address);
    let only =
        strait_wire::Service { name: "only".into(), protocols, hosts, path_prefix: String::new() };
    let upstream = Arc::new(backend(&address, settings));
    let local = Local { service: only, upstream, at_entries: true };
    let directory = Arc::new(Directory::new(vec![local], Patience::default()));
    Arc::new(Dispatch::new(directory, Arc::new(NoRecords), 10_000))
}

/// A visitor by HTTP/1.1 or HTTP/2, and the task of its connection.
#[allow(dead_code, reason = "tasks are held for their drop")]
pub enum Visitor {
    Http1(hyper::client::conn::http1::SendRequest<Body>, Task),
    Http2(hyper::client::conn::http2::SendRequest<Body>, Task),
}

impl Visitor {
    pub async fn new(address: SocketAddr, http2: bool) -> Visitor {
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        if http2 {
            let (sender, conn) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            Visitor::Http2(sender, task(async move { drop(conn.await) }))
        } else {
            let (sender, conn) = hyper::client::conn::http1::handshake(io).await.unwrap();
            Visitor::Http1(sender, task(async move { drop(conn.await) }))
        }
    }

    pub async fn try_send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match self {
            Visitor::Http1(sender, _) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Visitor::Http2(sender, _) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    pub async fn send(&mut self, request: Request<Body>) -> Response<Incoming> {
        soon(self.try_send(request)).await.unwrap()
    }

    /// A request for this version of HTTP.
    pub fn request(&self, method: &str, path: &str, body: Body) -> Request<Body> {
        let uri = match self {
            Visitor::Http1(..) => path.to_owned(),
            Visitor::Http2(..) => format!("http://a.example{path}"),
        };
        let mut request = Request::builder().method(method).uri(uri);
        if matches!(self, Visitor::Http1(..)) {
            request = request.header("host", "a.example");
        }
        request.body(body).unwrap()
    }
}

/// Sends bytes to the door and returns all that comes until the connection ends.
pub async fn raw_exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon(tcp.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until what came contains `until`.
pub async fn read_until(tcp: &mut TcpStream, until: &str) -> String {
    let mut seen = Vec::new();
    soon(async {
        while !String::from_utf8_lossy(&seen).contains(until) {
            let mut buf = [0; 4096];
            let n = tcp.read(&mut buf).await.unwrap();
            assert!(n > 0, "ended before {until:?}: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buf[..n]);
        }
    })
    .await;
    String::from_utf8_lossy(&seen).into_owned()
}

/// Waits until `is_so`, and fails when it is not soon.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < SOON, "not soon: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
