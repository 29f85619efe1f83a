//! `strait bench load`: how many small requests get through, and what each costs.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strait_node::config::MAX_TUNNELS;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::caller::Caller;
use super::meter::{Cost, Costs, Meter};
use super::pace::Outcome;
use super::report::{self, Progress, cells, mebibytes, number};
use super::world::{Plan, World};
use crate::demo::samples::aside;

/// How long requests are made before they count.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long a last answer may take.
const STRAGGLERS: Duration = Duration::from_secs(5);
/// How long a caller waits after a failure.
const PAUSE: Duration = Duration::from_millis(20);

/// What `strait bench load` can be told.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Visitors' connections; each asks again as soon as it is answered
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Seconds of each phase
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Tunnels, each with a thread of its own on both sides
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TUNNELS)))]
    tunnels: u32,
    /// Then send the same requests straight to the backend, for scale
    #[arg(long)]
    direct: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What one phase showed.
struct Phase {
    outcome: Outcome,
    costs: Costs,
}

/// What all of it showed.
pub(crate) struct Report {
    arguments: Arguments,
    tunnel: Phase,
    direct: Option<Phase>,
}

/// Runs the load.
///
/// # Errors
/// When the processes do not start, or one ends on the way.
pub(crate) async fn run(arguments: Arguments, progress: &Progress) -> io::Result<Report> {
    progress.begin("starting a server, a client and a backend, each in a process of its own");
    let visitors = aside("visitors")?;
    let plan = Plan { tunnels: arguments.tunnels, link: None, tls: false, backend: None };
    let world = World::start(plan, &visitors).await?;
    let (connections, seconds) = (arguments.connections, arguments.seconds);
    progress.begin(&format!("{connections} connections through the tunnel, {seconds} s"));
    let tunnel = phase(&arguments, &world, world.entry, &visitors, progress).await?;
    let direct = if arguments.direct {
        progress.begin(&format!("{connections} connections to the backend, {seconds} s"));
        Some(phase(&arguments, &world, world.direct, &visitors, progress).await?)
    } else {
        None
    };
    progress.clear();
    Ok(Report { arguments, tunnel, direct })
}

async fn phase(
    arguments: &Arguments,
    world: &World,
    address: SocketAddr,
    visitors: &Handle,
    progress: &Progress,
) -> io::Result<Phase> {
    let from = Instant::now() + WARM_UP;
    let until = from + Duration::from_secs(arguments.seconds.into());
    let mut tasks = JoinSet::new();
    for _ in 0..arguments.connections {
        tasks.spawn_on(closed_loop(address, from, until), visitors);
    }
    tokio::time::sleep_until(from.into()).await;
    let (parts, rest) = (world.parts(), [world.backend.pid]);
    let mut meter = Meter::start(&parts, &rest);
    while Instant::now() < until {
        let left = until.saturating_duration_since(Instant::now());
        tokio::time::sleep(left.min(Duration::from_millis(250))).await;
        world.check()?;
        meter.look();
        let seconds = Instant::now().saturating_duration_since(from).as_secs();
        progress.show(&format!("{seconds:>3} s"));
    }
    let costs = meter.read();
    let mut outcome = Outcome::default();
    while let Some(ended) = tasks.join_next().await {
        outcome.add(&ended.map_err(io::Error::other)?);
    }
    Ok(Phase { outcome, costs })
}

/// One visitor: asks, waits, asks again. What began before `from` does not count.
async fn closed_loop(address: SocketAddr, from: Instant, until: Instant) -> Outcome {
    let (mut caller, mut outcome) = (Caller::new(address), Outcome::default());
    loop {
        let began = Instant::now();
        if began >= until {
            return outcome;
        }
        let ended = tokio::time::timeout_at((until + STRAGGLERS).into(), caller.get()).await;
        let failed = !matches!(ended, Ok(Ok(())));
        if began >= from {
            match ended {
                Ok(ended) => outcome.note(began.elapsed(), ended),
                Err(_) => outcome.give_up(began.elapsed()),
            }
        }
        if failed {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Phase {
    /// Right answers per second.
    fn rate(&self, arguments: &Arguments) -> f64 {
        self.answered() as f64 / f64::from(arguments.seconds)
    }

    fn answered(&self) -> u64 {
        self.outcome.answered()
    }

    /// CPU time of both nodes for one request, in microseconds.
    fn cost(&self) -> Option<f64> {
        Some(self.costs.cpu()?.as_secs_f64() * 1e6 / self.answered().max(1) as f64)
    }

    fn row(&self, name: &str, arguments: &Arguments, cost: String) -> Vec<String> {
        let rate = format!("{:.0} req/s", self.rate(arguments));
        let mut row = report::row(name, &self.outcome);
        row.insert(1, rate);
        row.push(cost);
        row.push(number(self.costs.cores(self.costs.others), 2, " cores"));
        row
    }

    fn json(&self, arguments: &Arguments) -> Value {
        let mut object = report::outcome_json(&self.outcome);
        object["requests_per_second"] = json!(self.rate(arguments));
        object["costs"] = self.costs.json();
        object
    }
}

impl Report {
    /// Whether most requests were answered.
    pub(crate) fn is_one(&self) -> bool {
        self.tunnel.answered() > self.tunnel.outcome.failed
    }

    /// The tables, for people.
    pub(crate) fn text(&self) -> String {
        let heads =
            ["1 KiB answers", "", "p50", "p90", "p99", "max", "CPU/request", "CPU of others"];
        let mut rows = vec![cells(&heads)];
        let cost = number(self.tunnel.cost(), 1, " us");
        rows.push(self.tunnel.row("through the tunnel", &self.arguments, cost));
        if let Some(direct) = &self.direct {
            rows.push(direct.row("direct", &self.arguments, "-".to_owned()));
        }
        let mut text = report::table(&rows);
        let cores = |cpu| number(self.tunnel.costs.cores(cpu), 2, " cores");
        let node = |cost: &Cost| vec![cost.name.clone(), mebibytes(cost.rss), cores(cost.cpu)];
        let mut rows = vec![cells(&["", "memory", "CPU"])];
        rows.extend(self.tunnel.costs.parts.iter().map(node));
        text.push('\n');
        text.push_str(&report::table(&rows));
        let outcomes = self.direct.iter().map(|direct| &direct.outcome);
        text.push_str(&report::disturbed([&self.tunnel.costs]));
        text + &report::failures(std::iter::once(&self.tunnel.outcome).chain(outcomes))
    }

    /// All of it, for programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "bench": "load",
            "version": env!("CARGO_PKG_VERSION"),
            "connections": self.arguments.connections,
            "seconds": self.arguments.seconds,
            "tunnel": self.tunnel.json(&self.arguments),
            "tunnel_cpu_us_per_request": self.tunnel.cost(),
            "direct": self.direct.as_ref().map(|direct| direct.json(&self.arguments)),
        })
    }
}
