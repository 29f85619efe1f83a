//! `strait bench isolation`: what small requests pay for the load beside them.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use strait_node::config::MAX_TUNNELS;
use tokio::runtime::Handle;

use super::bulk::{Bulk, Sizes};
use super::contest::{self, Beside, Contestant};
use super::phase::Stage;
use super::relay::Link;
use super::report::Progress;
use super::results::{Results, Run};
use super::svg;
use super::units::{self, Rate};
use super::world::{Plan, World};
use crate::demo::samples::aside;

/// How long each phase runs before it counts, or as long as what counts if that is shorter.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long a contestant may take to forget the load before the next one is measured.
const SETTLE: Duration = Duration::from_millis(300);

/// What `strait bench isolation` can be told.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Small requests per second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub(crate) rate: u32,
    /// Seconds of each of the two phases, 0.1 to 600
    #[arg(long, value_name = "N", default_value = "10", value_parser = units::seconds)]
    pub(crate) seconds: Duration,
    /// How often all of it is measured; medians are shown
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// Downloads beside them
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=256))]
    pub(crate) bulk: u32,
    /// Rate of each download, like 15MB/s [default: as fast as it goes]
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    pub(crate) bulk_rate: Option<Rate>,
    /// Downloads that are never read
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=256))]
    pub(crate) stalled: u32,
    /// WebSockets that are open and say nothing
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=20_000))]
    pub(crate) idle_websockets: u32,
    /// Put a link of this rate between client and server, like 100mbit
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    pub(crate) link: Option<Rate>,
    /// Put a link of this length between them, like 10ms each way
    #[arg(long, value_name = "TIME", value_parser = units::delay)]
    pub(crate) delay: Option<Duration>,
    /// TLS on the tunnel, with the server's own certificate
    #[arg(long)]
    pub(crate) tls: bool,
    /// Tunnels, each with a thread of its own on both sides
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TUNNELS)),
          conflicts_with_all = ["link", "delay"])]
    pub(crate) tunnels: u32,
    /// Measure the backend without any tunnel too, in turn, for scale
    #[arg(long, conflicts_with_all = ["link", "delay"])]
    direct: bool,
    /// Measure another tunnel to the backend too, in turn: NAME=HOST:PORT[,PID...]; repeatable
    #[arg(long, value_name = "PEER", value_parser = contest::beside, requires = "backend",
          conflicts_with_all = ["link", "delay"])]
    beside: Vec<Beside>,
    /// Where the backend listens, for other tunnels to find it [default: any free port]
    #[arg(long, value_name = "ADDR")]
    backend: Option<SocketAddr>,
    /// Draw how the latencies are distributed
    #[arg(long, conflicts_with = "json")]
    plot: bool,
    /// Write a picture of the latencies to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Arguments {
    /// Why these make no sense together, if so; with what does.
    fn nonsense(&self) -> Option<&'static str> {
        if self.bulk == 0 && self.stalled == 0 && self.idle_websockets == 0 {
            return Some(
                "nothing runs beside the small requests: ask for --bulk, --stalled or \
                 --idle-websockets, or see what one request costs with strait bench load",
            );
        }
        if self.bulk == 0 && self.bulk_rate.is_some() {
            return Some("--bulk-rate is the rate of downloads, and --bulk 0 wants none");
        }
        let mut names: Vec<&str> = self.beside.iter().map(Beside::name).collect();
        names.sort_unstable();
        names.windows(2).any(|pair| pair[0] == pair[1]).then_some("two peers have one name")
    }

    fn plan(&self) -> Plan {
        let link = (self.link.is_some() || self.delay.is_some())
            .then(|| Link { rate: self.link, delay: self.delay.unwrap_or_default() });
        Plan { tunnels: self.tunnels, link, tls: self.tls, backend: self.backend }
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            downloads: self.bulk as usize,
            rate: self.bulk_rate,
            stalled: self.stalled as usize,
            websockets: self.idle_websockets as usize,
        }
    }
}

/// What all of it showed, and how that is to be shown.
pub(crate) struct Report {
    arguments: Arguments,
    results: Results,
}

/// Runs both phases of every contestant in turn, as often as it is told.
///
/// # Errors
/// When what is asked for makes no sense, the processes do not start, or one ends on the way.
pub(crate) async fn run(arguments: Arguments, progress: &Progress) -> io::Result<Report> {
    if let Some(nonsense) = arguments.nonsense() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, nonsense));
    }
    progress.begin("starting a server, a client and a backend, each in a process of its own");
    // Each on a thread of its own: none of them must wait for another one's work.
    let (small, bulk) = (aside("small")?, aside("bulk")?);
    let world = World::start(arguments.plan(), &aside("link")?).await?;
    let [server, client] = &world.admin;
    progress.begin(&format!("  look at them: strait status --admin {server}, --admin {client}"));
    let contestants = Contestant::all(&world, arguments.direct, &arguments.beside);
    let stage =
        Stage { world: &world, contestants: &contestants, runtime: small, rate: arguments.rate };
    let mut results = Results::new(contestants.iter().map(|one| one.name.clone()));
    for run in 0..arguments.runs as usize {
        for turn in 0..contestants.len() {
            // Another one begins each run: what drifts must not always meet the same one.
            let who = (run + turn) % contestants.len();
            let shown = once(&arguments, &stage, who, run, &bulk, progress).await?;
            results.add(who, shown);
        }
    }
    progress.clear();
    if let Some(file) = &arguments.svg {
        let told = |error| io::Error::other(format!("cannot write {}: {error}", file.display()));
        std::fs::write(file, svg::picture(&results)).map_err(told)?;
    }
    Ok(Report { arguments, results })
}

async fn once(
    arguments: &Arguments,
    stage: &Stage<'_>,
    who: usize,
    run: usize,
    bulk: &Handle,
    progress: &Progress,
) -> io::Result<Run> {
    let (rate, time) = (arguments.rate, arguments.seconds);
    let warm_up = WARM_UP.min(time);
    let contestant = &stage.contestants[who];
    let title = match (arguments.runs, stage.contestants.len()) {
        (1, 1) => String::new(),
        (runs, _) => format!("run {} of {runs}, {}, ", run + 1, contestant.name),
    };
    let quiet = Progress::silent();
    stage.phase(who, None, warm_up, &quiet).await?;
    progress.begin(&format!("{title}phase 1: {rate} small requests per second, alone, {time:?}"));
    let alone = stage.phase(who, None, time, progress).await?;
    let Arguments { bulk: downloads, stalled, idle_websockets: idle, .. } = arguments;
    progress.begin(&format!(
        "{title}phase 2: the same beside {downloads} downloads, {stalled} never read, {idle} \
         idle WebSockets, {time:?}"
    ));
    let load = Bulk::start(contestant.entry, bulk, arguments.sizes()).await?;
    stage.phase(who, Some(&load), warm_up, &quiet).await?;
    let loaded = stage.phase(who, Some(&load), time, progress).await?;
    drop(load);
    tokio::time::sleep(SETTLE).await;
    Ok(Run { alone, loaded })
}

impl Report {
    /// Whether most requests of each phase were answered.
    pub(crate) fn is_one(&self) -> bool {
        self.results.are_some()
    }

    /// The tables, for people.
    pub(crate) fn text(&self) -> String {
        let plot =
            if self.arguments.plot { super::plot::text(&self.results) } else { String::new() };
        self.results.text() + &plot
    }

    /// All of it, for programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        let arguments = &self.arguments;
        let mut object = self.results.json();
        let told = serde_json::json!({
            "bench": "isolation",
            "version": env!("CARGO_PKG_VERSION"),
            "runs": arguments.runs,
            "rate_per_second": arguments.rate,
            "seconds": arguments.seconds.as_secs_f64(),
            "downloads": arguments.bulk,
            "download_bytes_per_second": arguments.bulk_rate.map(|Rate(rate)| rate),
            "stalled": arguments.stalled,
            "idle_websockets": arguments.idle_websockets,
            "link_bytes_per_second": arguments.link.map(|Rate(rate)| rate),
            "link_delay_ms": arguments.delay.map(|delay| delay.as_secs_f64() * 1e3),
            "tls": arguments.tls,
            "tunnels": arguments.tunnels,
        });
        if let (Some(all), serde_json::Value::Object(told)) = (object.as_object_mut(), told) {
            all.extend(told);
        }
        object
    }
}
