//! Runs a node: logs, metrics and the admin address around it, signals above it.

use std::future::Future;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use strait_engine::Recorder;
use strait_node::admin::Admin;
use strait_node::config::{Config, LogFormat, Place, ServiceConfig};
use strait_node::observe::log::LevelSwitch;
use strait_node::observe::{self, AccessLog, Live, Metrics, Recorders};
use tokio::sync::oneshot;

use crate::signals::{Hangups, Interrupt, Signals};
use crate::{fail, greet, tell};
use strait_node::Node;
use strait_node::reload::{Read, Reloader};

/// How long logs may take to be written at the end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Makes the start-up text, when it is known where the node listens, and names what went
/// wrong on the way.
pub(crate) type Greet = Box<dyn FnOnce(&Config, &Addresses) -> (String, Vec<String>)>;

/// A node that can be run.
pub(crate) struct Prepared {
    pub(crate) config: Config,
    /// Reads the configuration once more.
    pub(crate) read: Read,
    /// Whether it comes from a file.
    pub(crate) from_file: bool,
    /// To be told before anything else.
    pub(crate) warnings: Vec<String>,
    pub(crate) greet: Greet,
}

/// Where a node listens: what was configured, with real ports for 0.
pub(crate) struct Addresses {
    /// In the order of the configuration.
    pub(crate) entries: Vec<SocketAddr>,
    pub(crate) tunnel: Option<SocketAddr>,
    pub(crate) admin: Option<SocketAddr>,
}

impl Addresses {
    fn of(node: &Node, admin: Option<&Admin>) -> Addresses {
        let admin = admin.map(Admin::address);
        Addresses { entries: node.entries(), tunnel: node.tunnel(), admin }
    }
}

/// Runs a node until it is told to stop and has drained.
pub(crate) fn run(prepared: Prepared) -> ExitCode {
    // One thread: the node starts the others.
    let runtime = match strait_engine::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, format_args!("cannot start: {error}")),
    };
    let guard = match observe::log::install(&prepared.config.log) {
        Ok(guard) => guard,
        Err(error) => return fail(1, error),
    };
    let code = runtime.block_on(serve(prepared, guard.level()));
    // Whatever still runs has had its time.
    runtime.shutdown_timeout(Duration::from_millis(100));
    drop(guard);
    code
}

async fn serve(prepared: Prepared, level: LevelSwitch) -> ExitCode {
    let Prepared { config, read, from_file, warnings, greet: make_text } = prepared;
    let json = config.log.format == LogFormat::Json;
    warn(json, &warnings);
    // Before anything listens, so that a signal can never be missed.
    let watched = Signals::new().and_then(|s| Ok((s, Hangups::new(from_file)?)));
    let (mut signals, hangups) = match watched {
        Ok(watched) => watched,
        Err(error) => return fail(1, format_args!("cannot watch signals: {error}")),
    };
    let metrics = Arc::new(Metrics::new());
    let access = match access_log(&config) {
        Ok(access) => access,
        Err(error) => return fail(1, format_args!("cannot start the access log: {error}")),
    };
    let mut recorders: Vec<Arc<dyn Recorder>> = vec![metrics.clone()];
    if let Some(access) = &access {
        metrics.watch_access(access.clone());
        recorders.push(Arc::new(access.clone()));
    }
    let admin = match bind_admin(&config, json).await {
        Ok(admin) => admin,
        Err(error) => return fail(1, error),
    };
    let node = match Node::start(config.clone(), Arc::new(Recorders(recorders))).await {
        Ok(node) => node,
        Err(error) => return fail(1, error),
    };
    let reloader = Arc::new(node.reloader(read, Box::new(move |text| level.set(text))));
    let live: Arc<dyn Live> = node.live();
    metrics.watch(live.clone());
    let addresses = Addresses::of(&node, admin.as_ref());
    let (text, problems) = make_text(&config, &addresses);
    warn(json, &problems);
    show(json, &text, &addresses, greet::pin(&config));
    let (ended, end) = oneshot::channel::<()>();
    let by_admin = Some(reloader.clone());
    let admin = admin.map(|admin| {
        tokio::spawn(admin.serve(metrics, live, by_admin, async {
            let _ = end.await;
        }))
    });
    let reloads = tokio::spawn(reload(hangups, reloader.clone()));
    let probes = tokio::spawn(probe(config.services.clone()));
    let returns = tokio::spawn(return_memory());
    let drain = || reloader.drain();
    let code = until_stopped(|stop| node.run_until(stop), &mut signals, drain).await;
    reloads.abort();
    probes.abort();
    returns.abort();
    drop(ended);
    if let Some(admin) = admin {
        // A scraper that keeps its connection must not keep the process.
        let _ = tokio::time::timeout(Duration::from_millis(200), admin).await;
    }
    if let Some(access) = access {
        let _ = tokio::task::spawn_blocking(move || access.finish(LAST_LINES)).await;
    }
    code
}

/// The admin address, if there shall be one and, where nobody asked for it, can be.
async fn bind_admin(config: &Config, json: bool) -> std::io::Result<Option<Admin>> {
    let Some(admin) = &config.admin else { return Ok(None) };
    match Admin::bind(admin).await {
        Err(error) if admin.optional => {
            warn(json, &[format!("{error}; going on without it (--admin names another)")]);
            Ok(None)
        }
        bound => bound.map(Some),
    }
}

/// Reloads at every SIGHUP. What comes of it is logged.
async fn reload(mut hangups: Hangups, reloader: Arc<Reloader>) {
    loop {
        hangups.next().await;
        let _ = reloader.reload().await;
    }
}

/// Lets memory that was freed go back to the system. The allocator keeps it for a second and
/// looks at its clock when a large block is freed: on a node that falls silent that never comes.
async fn return_memory() {
    const EVERY: Duration = Duration::from_secs(1);
    const LARGE: usize = 1 << 20;
    loop {
        tokio::time::sleep(EVERY).await;
        // Never written to, so it costs an entry in the allocator's books and no memory.
        drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
    }
}

fn access_log(config: &Config) -> std::io::Result<Option<AccessLog>> {
    if !config.log.access {
        return Ok(None);
    }
    AccessLog::start(config.log.format, observe::access::standard_output()?).map(Some)
}

/// Lets a node work until a first signal, then lets it drain; a second one ends it at once.
async fn until_stopped<W, E>(
    work: impl FnOnce(Stop) -> W,
    signals: &mut impl Interrupt,
    drain: impl Fn() -> Duration,
) -> ExitCode
where
    W: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let (stop, stopped) = oneshot::channel();
    let work = work(Stop(stopped));
    tokio::pin!(work);
    let code = |outcome: Result<(), E>| match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, error),
    };
    tokio::select! {
        outcome = &mut work => return code(outcome),
        () = signals.next() => {}
    }
    let drain = drain();
    tracing::info!("draining: requests in flight have {drain:?} to end; again to stop at once");
    let _ = stop.send(());
    // The node keeps the time itself; this is for a node that does not.
    let limit = drain.saturating_add(Duration::from_secs(1));
    tokio::select! {
        outcome = &mut work => code(outcome),
        () = signals.next() => fail(1, "stopped at once"),
        () = tokio::time::sleep(limit) => fail(1, "the drain did not end in time"),
    }
}

/// Resolves when the node shall drain.
pub(crate) struct Stop(oneshot::Receiver<()>);

impl Future for Stop {
    type Output = ();

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<()> {
        std::pin::Pin::new(&mut self.0).poll(cx).map(|_| ())
    }
}

fn warn(json: bool, warnings: &[String]) {
    for warning in warnings {
        if json {
            tracing::warn!("{warning}");
        } else {
            tell(format_args!("warning: {warning}"));
        }
    }
}

/// The start-up text is for people. A log collector gets an event instead, and the text
/// only when it holds a token that is shown once.
fn show(json: bool, text: &str, addresses: &Addresses, pin: Option<String>) {
    if !json || text.contains("--token st_") || std::io::stderr().is_terminal() {
        tell(text);
    }
    if json {
        let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        let entries: Vec<_> = addresses.entries.iter().map(SocketAddr::to_string).collect();
        let (entries, tunnel) = (entries.join(","), text(addresses.tunnel));
        tracing::info!(entries, tunnel, admin = text(addresses.admin), pin, "started");
    }
}

/// Says which backends do not answer yet. They may come later: requests then find them.
async fn probe(services: Vec<ServiceConfig>) {
    for service in services {
        let Place::Tcp { host, port } = &service.backend.place else { continue };
        let connect = tokio::net::TcpStream::connect((host.as_str(), *port));
        let why = match tokio::time::timeout(Duration::from_secs(2), connect).await {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer within 2 s".to_owned(),
        };
        let (name, backend) = (&service.name, &service.backend);
        tracing::warn!(
            "service {name}: {backend} does not accept connections yet ({why}); visitors get 502 \
             until it does"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Script(u32);

    impl Interrupt for Script {
        async fn next(&mut self) {
            if self.0 == 0 {
                std::future::pending::<()>().await;
            }
            self.0 -= 1;
        }
    }

    async fn outcome(signals: u32, drains: bool) -> String {
        let work = |stop: Stop| async move {
            stop.await;
            if !drains {
                std::future::pending::<()>().await;
            }
            Ok::<(), String>(())
        };
        let code = until_stopped(work, &mut Script(signals), || Duration::from_millis(10)).await;
        format!("{code:?}")
    }

    #[tokio::test(start_paused = true)]
    async fn one_signal_drains_two_stop_and_a_drain_has_an_end() {
        let (good, bad) = (format!("{:?}", ExitCode::SUCCESS), format!("{:?}", ExitCode::from(1)));
        assert_eq!(outcome(1, true).await, good);
        assert_eq!(outcome(2, false).await, bad);
        assert_eq!(outcome(1, false).await, bad);
    }

    #[tokio::test]
    async fn a_node_that_fails_ends_the_program() {
        let work = |_: Stop| async { Err::<(), _>("no such server") };
        let code = until_stopped(work, &mut Script(0), || Duration::ZERO).await;
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(1)));
    }
}
