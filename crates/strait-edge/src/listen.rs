//! Entries: ports that take HTTP/1.1, HTTP/2 and WebSocket connections.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::BytesMut;
use strait_engine::{Upstream, Workers};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::activity::{Activity, Verdict};
use crate::allowance::Allowance;
use crate::arriving::Arriving;
use crate::detect::{self, Version};
use crate::grpc::web_cors::Cors;
use crate::http1::serve::serve as serve_http1;
use crate::http2::serve::serve as serve_http2;
use crate::io::{Conn, Stream};
use crate::peer::{Peer, TrustedProxies};
use crate::proxy_protocol::ProxyProtocol;
use crate::settings::{Settings, or_never};
use crate::tune::{tune, tune_accepted};
use crate::unless::unless;
use crate::visit::Door;

/// A port through which visitors come in.
pub struct Entry {
    /// Its name in logs and metrics.
    pub name: Arc<str>,
    /// Whoever carries what comes in.
    pub upstream: Arc<dyn Upstream>,
    /// Limits and timeouts.
    pub settings: Arc<Settings>,
    /// TLS with this configuration, whose ALPN should offer `h2` and `http/1.1`; in clear
    /// without.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Whose pages may call by gRPC-Web.
    pub cors: Cors,
    /// Who is believed about the visitors that it passes on.
    pub trusted_proxies: TrustedProxies,
    /// Every connection begins with a header of this protocol; `None`: none does.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// The tasks of an entry, which end with it.
#[derive(Clone)]
pub(crate) struct Tasks(Arc<Shared>);

struct Shared {
    tracker: TaskTracker,
    kill: CancellationToken,
    drain: CancellationToken,
}

impl Tasks {
    /// Runs `task` until it ends or the entry is dropped.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(&Handle::current(), task);
    }

    fn spawn_on(&self, runtime: &Handle, task: impl Future<Output = ()> + Send + 'static) {
        let Tasks(shared) = self.clone();
        // Boxed, because a future that is handed on is otherwise held once for each hand.
        let mut task = Box::pin(task);
        let task = async move {
            let _ = unless(task.as_mut(), pin!(shared.kill.cancelled())).await;
        };
        self.0.tracker.spawn_on(task, runtime);
    }

    /// Runs `task`, of a stream of HTTP/2, which ends with its connection.
    pub(crate) fn spawn_stream(&self, task: impl Future<Output = ()> + Send + 'static) {
        // Boxed, because it is large and a task moves its future several times.
        self.0.tracker.spawn(Box::pin(task));
    }

    /// Cancelled when the entry accepts no more and what it has shall end.
    pub(crate) fn drain(&self) -> &CancellationToken {
        &self.0.drain
    }
}

/// Serves `entry` on `listener`, each connection on one of the `workers`. It can be exchanged for
/// another: requests that begin then are served by the new one, also on connections that were
/// there before; timeouts and buffers of a connection stay as they were. When `drain` is cancelled
/// it accepts no more, lets every connection finish the requests it has, closes WebSockets with
/// code 1001, and returns when all are done; the caller bounds that time. Dropping the future ends
/// everything at once.
pub async fn serve(
    listener: TcpListener,
    entry: Arc<ArcSwap<Entry>>,
    workers: Workers,
    drain: CancellationToken,
) {
    tune(&listener);
    let (tracker, kill) = (TaskTracker::new(), CancellationToken::new());
    let _end_all = kill.clone().drop_guard();
    let tasks = Tasks(Arc::new(Shared { tracker, kill, drain }));
    let drain = tasks.drain();
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let placed =
            accepted.and_then(|(tcp, peer)| Ok((Arriving::new(tcp, workers.visitor())?, peer)));
        match placed {
            Ok((arriving, peer)) => {
                pause = FIRST_PAUSE;
                let (runtime, entry, of_entry) = (arriving.runtime(), entry.clone(), tasks.clone());
                tasks.spawn_on(&runtime, async move {
                    let Ok((tcp, _seat)) = arriving.arrive() else { return };
                    connection(tcp, peer, entry, of_entry).await;
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors, most likely: others will be closed in a while.
                tracing::warn!(entry = %entry.load().name, %error, "cannot accept connections; trying again");
                tokio::select! {
                    () = drain.cancelled() => break,
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(1)),
                }
            }
        }
    }
    drop(listener);
    tasks.0.tracker.close();
    tasks.0.tracker.wait().await;
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Errors of `accept` that concern the accepted connection only.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// One connection, from its first byte on.
async fn connection(
    tcp: TcpStream,
    address: SocketAddr,
    current: Arc<ArcSwap<Entry>>,
    tasks: Tasks,
) {
    tune_accepted(&tcp);
    let entry = current.load_full();
    let opened = tokio::select! {
        biased;
        // Boxed, because its room is of no use afterwards.
        opened = Box::pin(open(tcp, address, &entry)) => opened,
        // Nothing was asked yet.
        () = tasks.drain().cancelled() => return,
    };
    let (conn, version, peer) = match opened {
        Ok(Some(opened)) => opened,
        Ok(None) => return,
        Err(error) => {
            tracing::debug!(entry = %entry.name, %address, %error, "a connection did not open");
            return;
        }
    };
    let activity = Activity::new();
    activity.bytes_came();
    let mut conn = conn.watched(activity.clone());
    if version == Version::Http2 {
        conn = conn.counted(Allowance::new(
            entry.settings.max_control_frames,
            detect::PREFACE.len(),
            Instant::now(),
        ));
    }
    let server_name = conn.server_name();
    let secure = entry.tls.is_some();
    let settings = entry.settings.clone();
    let door = Arc::new(Door {
        entry: current,
        peer,
        secure,
        server_name,
        activity: activity.clone(),
        tasks: tasks.clone(),
    });
    let mut served: Served<'_> = match version {
        Version::Http1 => Box::pin(serve_http1(conn, door, &settings)),
        Version::Http2 => Box::pin(serve_http2(conn, door, &settings)),
    };
    let heads = version == Version::Http1;
    watch(served.as_mut(), &activity, &settings, heads, tasks.drain()).await;
}

/// A connection that is served. Boxed, because one version takes twice as much as the other.
type Served<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

/// Who is there, TLS and the version of HTTP, each within its time; `None` when the visitor
/// closes before.
async fn open(
    mut tcp: TcpStream,
    address: SocketAddr,
    entry: &Entry,
) -> io::Result<Option<(Conn, Version, Peer)>> {
    let settings = &entry.settings;
    let mut peer = Peer::new(address, &entry.trusted_proxies);
    if let Some(protocol) = &entry.proxy_protocol {
        let (trusted, within) = (&entry.trusted_proxies, settings.first_byte);
        // Boxed, because few entries have it and every connection would be larger.
        let introduced = Box::pin(protocol.introduced(&mut tcp, peer, trusted, within));
        match introduced.await? {
            Some(visitor) => peer = visitor,
            None => return Ok(None),
        }
    }
    let slow = |_| io::Error::from(io::ErrorKind::TimedOut);
    if let Some(tls) = &entry.tls {
        // A peer that says nothing waits in the kernel, not in a TLS state machine.
        timeout(or_never(settings.first_byte), tcp.readable()).await.map_err(slow)??;
        let accept = tokio_rustls::TlsAcceptor::from(tls.clone()).accept(tcp);
        let mut tls = timeout(or_never(settings.headers), accept).await.map_err(slow)??;
        let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        if http2 {
            let stream = Stream::Tls(Box::new(tls.into()));
            return Ok(Some((Conn::new(stream, bytes::Bytes::new()), Version::Http2, peer)));
        }
        let Some((version, replay)) = detect_version(&mut tls, settings).await? else {
            return Ok(None);
        };
        let stream = Stream::Tls(Box::new(tls.into()));
        return Ok(Some((Conn::new(stream, replay), version, peer)));
    }
    let Some((version, replay)) = detect_version(&mut tcp, settings).await? else {
        return Ok(None);
    };
    Ok(Some((Conn::new(Stream::Tcp(tcp), replay), version, peer)))
}

async fn detect_version<T: tokio::io::AsyncRead + Unpin>(
    io: &mut T,
    settings: &Settings,
) -> io::Result<Option<(Version, bytes::Bytes)>> {
    let slow = |_| io::Error::from(io::ErrorKind::TimedOut);
    let first: Option<BytesMut> =
        timeout(or_never(settings.first_byte), detect::first_bytes(io)).await.map_err(slow)??;
    let Some(first) = first else { return Ok(None) };
    // Mostly they say it.
    if let Some(version) = detect::told(&first) {
        return Ok(Some((version, first.freeze())));
    }
    let found =
        timeout(or_never(settings.headers), detect::version(io, first)).await.map_err(slow)??;
    Ok(Some(found))
}

/// What is to be done about a connection beside serving it.
enum Interruption {
    Drain,
    /// The timeouts are due.
    Check,
}

/// Drives a connection to its end, under the eyes of its timeouts and of the drain.
async fn watch(
    mut served: Pin<&mut (dyn Future<Output = io::Result<()>> + Send)>,
    activity: &Activity,
    settings: &Settings,
    heads: bool,
    drain: &CancellationToken,
) {
    let first = match activity.verdict(settings, heads) {
        Verdict::Fine(time) => time,
        _ => Duration::ZERO,
    };
    let mut check = pin!(tokio::time::sleep(first));
    let (mut draining, mut told) = (false, false);
    loop {
        let came = unless(
            served.as_mut(),
            // In place: what is moved is held twice by each connection.
            pin!(async {
                tokio::select! {
                    biased;
                    () = drain.cancelled(), if !draining => Interruption::Drain,
                    () = check.as_mut() => Interruption::Check,
                }
            }),
        )
        .await;
        match came {
            Ok(result) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a visitor's connection ended");
                }
                return;
            }
            Err(Interruption::Drain) => {
                draining = true;
                activity.leave();
            }
            Err(Interruption::Check) => {
                let next = match activity.verdict(settings, heads) {
                    Verdict::Fine(next) => next,
                    Verdict::SlowHead => return,
                    Verdict::Stalled => {
                        tracing::debug!("a visitor does not take its answer");
                        // What the kernel holds for it would never be taken either.
                        activity.reset_on_close();
                        return;
                    }
                    // Told to go before, and still here.
                    Verdict::Idle if told => return,
                    Verdict::Idle => {
                        told = true;
                        activity.leave();
                        Duration::from_secs(2)
                    }
                };
                check.as_mut().reset(tokio::time::Instant::now() + next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn tasks_are_small() {
        // Each visitor has them for as long as the connection lasts: growth shall be noticed.
        let visitor = size(|(tcp, peer, entry, tasks)| connection(tcp, peer, entry, tasks));
        let served = size(|(conn, door, settings)| serve_http1(conn, door, settings));
        let request = size(|(visit, head, body)| crate::http::entry::carry(visit, head, body));
        let leg = size(|(backend, exchange)| crate::http1::carry::carry(backend, exchange));
        let socket = size(crate::websocket::entry::Relay::run);
        println!(
            "bytes of a task: a connection {visitor} and {served}, its request {request}, the same \
             towards a service {leg}, a WebSocket {socket}"
        );
        assert!(visitor <= 1024, "{visitor}");
        assert!(served <= 896, "{served}");
        assert!(request <= 640, "{request}");
        assert!(leg <= 720, "{leg}");
        assert!(socket <= 1024, "{socket}");
    }
}
