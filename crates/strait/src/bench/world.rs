//! Server, client and backend as processes of their own on the loopback, started with the
//! commands that anybody would use. Dropping the world ends them.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use strait_node::secrets::Token;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::caller::Caller;
use super::meter::Part;
use super::relay::{Link, Relay};

/// How long a process may take to start, and the tunnel to be there.
const PATIENCE: Duration = Duration::from_secs(15);
/// Lines of a process that are kept to be shown when it fails.
const KEPT: usize = 5;
/// Any free port.
const ANY: &str = "127.0.0.1:0";

/// A started process; dropping it ends it.
pub(crate) struct Process {
    name: &'static str,
    child: Mutex<Child>,
    said: Arc<Mutex<VecDeque<String>>>,
    /// Its process id.
    pub(crate) pid: u32,
}

/// Everything between a visitor and the backend, and the backend.
pub(crate) struct World {
    /// Where visitors come in.
    pub(crate) entry: SocketAddr,
    /// Where the backend is, without a tunnel.
    pub(crate) direct: SocketAddr,
    /// Admin addresses of server and client.
    pub(crate) admin: [String; 2],
    // In this order they are ended: a client whose server is gone would complain.
    pub(crate) client: Process,
    pub(crate) server: Process,
    pub(crate) backend: Process,
    _relay: Option<Relay>,
    // Last: the nodes are gone before it is.
    _state: Option<State>,
}

/// What the world is to be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Tunnels between client and server; each has a thread of its own on both sides.
    pub(crate) tunnels: u32,
    /// What is between client and server; `None`: the loopback as it is.
    pub(crate) link: Option<Link>,
    /// TLS on the tunnel, as a newcomer has it: the server's own certificate, pinned.
    pub(crate) tls: bool,
    /// Where the backend listens; `None`: at any free port.
    pub(crate) backend: Option<SocketAddr>,
}

/// The folder in which a server keeps its certificate; it is gone when this is dropped.
struct State(PathBuf);

impl State {
    fn new() -> State {
        State(std::env::temp_dir().join(format!("strait-bench-{}", std::process::id())))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Process {
    /// Starts this program with `words` and returns it with what it said when it had
    /// started.
    async fn start(
        name: &'static str,
        words: &[&str],
        token: Option<&Token>,
        state: Option<&State>,
    ) -> io::Result<(Process, Value)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        // What is measured must not depend on what this shell has set.
        let ours = std::env::vars_os().map(|(name, _)| name);
        ours.filter(|name| name.to_string_lossy().starts_with("STRAIT_")).for_each(|name| {
            command.env_remove(name);
        });
        if let Some(token) = token {
            // Not on the command line, where every user of the machine could read it.
            command.env("STRAIT_TOKEN", token.reveal());
        }
        if let Some(State(folder)) = state {
            command.env("STRAIT_STATE", folder);
        }
        let mut child = command.spawn()?;
        let (pid, stderr) = (child.id(), child.stderr.take());
        let said = Arc::<Mutex<VecDeque<String>>>::default();
        let process = Process { name, child: Mutex::new(child), said: Arc::clone(&said), pid };
        let (tell, started) = oneshot::channel();
        if let Some(stderr) = stderr {
            std::thread::Builder::new()
                .name(format!("{name} says"))
                .spawn(move || listen(BufReader::new(stderr), &said, tell))?;
        }
        match tokio::time::timeout(PATIENCE, started).await {
            Ok(Ok(started)) => Ok((process, started)),
            _ => Err(process.failure("did not start")),
        }
    }

    /// An error when the process has ended.
    pub(crate) fn check(&self) -> io::Result<()> {
        let ended = self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait()?;
        match ended {
            None => Ok(()),
            Some(status) => Err(self.failure(&format!("ended by itself ({status})"))),
        }
    }

    fn failure(&self, what: &str) -> io::Error {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = said.iter().map(String::as_str).collect();
        let said = if lines.is_empty() { "it said nothing".to_owned() } else { lines.join("\n") };
        io::Error::other(format!("the {} {what}: {said}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Nothing it holds is worth a drain, and the bench must end.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Reads all that a process says, for a full pipe would stop it; keeps the last lines.
fn listen(lines: impl BufRead, said: &Mutex<VecDeque<String>>, tell: oneshot::Sender<Value>) {
    let mut tell = Some(tell);
    for line in lines.lines().map_while(Result::ok) {
        let event = serde_json::from_str(&line).ok();
        let started = event.filter(|event| text(event, "message") == "started");
        if let Some(event) = started
            && let Some(tell) = tell.take()
        {
            let _ = tell.send(event);
        }
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_back(line);
        if said.len() > KEPT {
            said.pop_front();
        }
    }
}

/// A field of a line of the log, or "".
fn text<'a>(event: &'a Value, name: &str) -> &'a str {
    let found = event.get(name).or_else(|| event.get("fields")?.get(name));
    found.and_then(Value::as_str).unwrap_or_default()
}

fn address(event: &Value, name: &str) -> io::Result<SocketAddr> {
    let found = text(event, name);
    found.parse().map_err(|_| io::Error::other(format!("no address of {name}: {found:?}")))
}

/// What both nodes are told: to be looked at, and to say only what matters.
const QUIET: [&str; 7] =
    ["--admin", ANY, "--log", "json", "--log-level", "info", "--no-access-log"];

async fn server(
    token: &Token,
    state: Option<&State>,
    threads: &str,
) -> io::Result<(Process, Value)> {
    let mut words = vec!["server", "--listen", ANY, "--tunnel", ANY, "--threads", threads];
    if state.is_none() {
        words.push("--no-tls");
    }
    words.extend(QUIET);
    Process::start("server", &words, Some(token), state).await
}

async fn client(
    token: &Token,
    tunnel: SocketAddr,
    pin: Option<&str>,
    backend: SocketAddr,
    tunnels: &str,
) -> io::Result<(Process, Value)> {
    let scheme = if pin.is_some() { "https" } else { "http" };
    let (url, target) = (format!("{scheme}://{tunnel}"), backend.to_string());
    let mut words = vec!["client", "--server", &url, "--id", "bench", "--once"];
    words.extend(["--tunnels", tunnels, "--threads", tunnels]);
    words.extend(pin.into_iter().flat_map(|pin| ["--pin", pin]));
    words.extend(QUIET);
    words.extend(["http", &target]);
    Process::start("client", &words, Some(token), None).await
}

impl World {
    /// Starts all of it, and waits until a request gets through. With a link, client and
    /// server are that far apart; it is run on `runtime`.
    ///
    /// # Errors
    /// When a process does not start, or nothing gets through.
    pub(crate) async fn start(plan: Plan, runtime: &Handle) -> io::Result<World> {
        let token = Token::generate().map_err(io::Error::other)?;
        let at = plan.backend.map_or(ANY.to_owned(), |address| address.to_string());
        let words = ["bench", "backend", &at];
        let (backend, started) = Process::start("backend", &words, None, None).await?;
        let direct = address(&started, "entries")?;
        let (state, tunnels) = (plan.tls.then(State::new), plan.tunnels.to_string());
        let (server, started) = server(&token, state.as_ref(), &tunnels).await?;
        let entry = address(&started, "entries")?;
        let tunnel = address(&started, "tunnel")?;
        let admin = text(&started, "admin").to_owned();
        let relay = plan.link.map(|link| Relay::start(runtime, link, tunnel)).transpose()?;
        let reached = relay.as_ref().map_or(tunnel, |relay| relay.address);
        let pin = plan.tls.then(|| text(&started, "pin"));
        let (client, started) = client(&token, reached, pin, direct, &tunnels).await?;
        let admin = [admin, text(&started, "admin").to_owned()];
        let (_relay, _state) = (relay, state);
        let world = World { entry, direct, admin, client, server, backend, _relay, _state };
        world.ready().await?;
        Ok(world)
    }

    /// The two nodes, to be watched.
    pub(crate) fn parts(&self) -> [Part; 2] {
        [Part::new("server", [self.server.pid]), Part::new("client", [self.client.pid])]
    }

    async fn ready(&self) -> io::Result<()> {
        let (mut caller, began) = (Caller::new(self.entry), Instant::now());
        loop {
            let asked = tokio::time::timeout(Duration::from_secs(3), caller.get()).await;
            let why = match asked {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            self.check()?;
            if began.elapsed() > PATIENCE {
                return Err(io::Error::other(format!("nothing gets through the tunnel: {why}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// An error when one of the processes has ended.
    pub(crate) fn check(&self) -> io::Result<()> {
        [&self.client, &self.server, &self.backend].into_iter().try_for_each(Process::check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_says_is_kept_in_part_and_its_start_is_noticed() {
        let mut log: String = (0..50).map(|n| format!("line {n}\n")).collect();
        log.insert_str(0, "{\"message\":\"started\",\"entries\":\"127.0.0.1:9\"}\n");
        let (tell, mut started) = oneshot::channel();
        let said = Mutex::default();
        listen(log.as_bytes(), &said, tell);
        assert_eq!(address(&started.try_recv().unwrap(), "entries").unwrap().port(), 9);
        assert_eq!(said.into_inner().unwrap().len(), KEPT);
    }

    #[test]
    fn a_log_without_a_start_is_no_start() {
        let (tell, mut started) = oneshot::channel();
        listen("{\"message\":\"not started\"}\nerror\n".as_bytes(), &Mutex::default(), tell);
        assert!(started.try_recv().is_err());
    }
}
