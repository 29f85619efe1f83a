//! `strait bench isolation`: what small requests pay for the load beside them.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::bulk::{Bulk, Sizes};
use super::caller::Callers;
use super::meter::{Costs, Meter};
use super::pace::{OpenLoop, Outcome};
use super::relay::Link;
use super::report::{self, Progress, SHARES, cells, mebibytes, number};
use super::units::{self, Rate};
use super::world::World;
use crate::demo::samples::aside;

/// What `strait bench isolation` can be told.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Small requests per second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// Seconds of each of the two phases
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Downloads beside them
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=256))]
    bulk: u32,
    /// Rate of each download, like 15MB/s [default: as fast as it goes]
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    bulk_rate: Option<Rate>,
    /// Downloads that are never read
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=256))]
    stalled: u32,
    /// WebSockets that are open and say nothing
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=20_000))]
    idle_websockets: u32,
    /// Put a link of this rate between client and server, like 100mbit
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    link: Option<Rate>,
    /// Put a link of this length between them, like 10ms each way
    #[arg(long, value_name = "TIME", value_parser = units::delay)]
    delay: Option<Duration>,
    /// Send the same requests straight to the backend too, not over the link, for scale
    #[arg(long)]
    direct: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What one phase showed.
struct Phase {
    tunnel: Outcome,
    direct: Option<Outcome>,
    costs: Costs,
    /// Bytes of the downloads.
    bulk: u64,
    /// Downloads that were refused or cut.
    cut: u64,
}

/// Where the requests of all phases come from.
struct Source {
    runtime: Handle,
    tunnel: Arc<Callers>,
    direct: Option<Arc<Callers>>,
}

/// What all of it showed.
pub(crate) struct Report {
    arguments: Arguments,
    alone: Phase,
    loaded: Phase,
}

/// Runs both phases.
///
/// # Errors
/// When the processes do not start, or one ends on the way.
pub(crate) async fn run(arguments: Arguments, progress: &Progress) -> io::Result<Report> {
    let link = (arguments.link.is_some() || arguments.delay.is_some())
        .then(|| Link { rate: arguments.link, delay: arguments.delay.unwrap_or_default() });
    progress.begin("starting a server, a client and a backend, each in a process of its own");
    // Each on a thread of its own: none of them must wait for another one's work.
    let (small, bulk) = (aside("small")?, aside("bulk")?);
    let world = World::start(link, &aside("link")?).await?;
    let [server, client] = &world.admin;
    progress.begin(&format!("  look at them: strait status --admin {server}, --admin {client}"));
    let source = Source {
        runtime: small,
        tunnel: Arc::new(Callers::new(world.entry)),
        direct: arguments.direct.then(|| Arc::new(Callers::new(world.direct))),
    };
    let warm_up = Duration::from_millis(500);
    let quiet = Progress::silent();
    phase(&arguments, &world, &source, None, warm_up, &quiet).await?;
    let (rate, time) = (arguments.rate, Duration::from_secs(arguments.seconds.into()));
    progress.begin(&format!("phase 1: {rate} small requests per second, alone, {time:?}"));
    let alone = phase(&arguments, &world, &source, None, time, progress).await?;
    let Arguments { bulk: downloads, stalled, idle_websockets: idle, .. } = arguments;
    progress.begin(&format!(
        "phase 2: the same beside {downloads} downloads, {stalled} never read, {idle} idle \
         WebSockets, {time:?}"
    ));
    let sizes = Sizes {
        downloads: downloads as usize,
        rate: arguments.bulk_rate,
        stalled: stalled as usize,
        websockets: idle as usize,
    };
    let load = Bulk::start(world.entry, &bulk, sizes).await?;
    phase(&arguments, &world, &source, Some(&load), warm_up, &quiet).await?;
    let loaded = phase(&arguments, &world, &source, Some(&load), time, progress).await?;
    progress.clear();
    Ok(Report { arguments, alone, loaded })
}

async fn phase(
    arguments: &Arguments,
    world: &World,
    source: &Source,
    load: Option<&Bulk>,
    time: Duration,
    progress: &Progress,
) -> io::Result<Phase> {
    let period = Duration::from_secs(1) / arguments.rate;
    let count = (time.as_secs_f64() * f64::from(arguments.rate)).ceil() as u32;
    let head_start = Duration::from_millis(20);
    let start = |callers: &Arc<Callers>, head_start| {
        let callers = Arc::clone(callers);
        let get = move || {
            let callers = Arc::clone(&callers);
            async move { callers.get().await }
        };
        OpenLoop::start(&source.runtime, head_start, period, count, get)
    };
    let (bytes, cut) = load.map_or((0, 0), |load| (load.bytes(), load.failures()));
    let mut meter = Meter::start(world);
    let began = Instant::now();
    let tunnel = start(&source.tunnel, head_start)?;
    // Between those of the tunnel, so that they do not compete at the same moment.
    let direct = source.direct.as_ref();
    let direct = direct.map(|direct| start(direct, head_start + period / 2)).transpose()?;
    while began.elapsed() < time {
        let left = time.saturating_sub(began.elapsed());
        tokio::time::sleep(left.min(Duration::from_millis(250))).await;
        world.check()?;
        meter.look();
        let p99 = report::millis(tunnel.so_far().latencies.percentile(0.99));
        let bulk = load.map_or(0, |load| load.bytes() - bytes);
        let bulk = bulk as f64 / 1e6 / began.elapsed().as_secs_f64();
        let seconds = began.elapsed().as_secs();
        progress.show(&format!("{seconds:>3} s   p99 {p99}   bulk {bulk:.0} MB/s"));
    }
    let costs = meter.read();
    let (bulk, cut) = load.map_or((0, 0), |l| (l.bytes() - bytes, l.failures() - cut));
    let tunnel = tunnel.finish().await;
    let direct = match direct {
        Some(direct) => Some(direct.finish().await),
        None => None,
    };
    world.check()?;
    Ok(Phase { tunnel, direct, costs, bulk, cut })
}

impl Report {
    /// Whether most requests of each phase were answered.
    pub(crate) fn is_one(&self) -> bool {
        let phases = [&self.alone.tunnel, &self.loaded.tunnel];
        phases.iter().all(|outcome| outcome.answered() > outcome.failed)
    }

    fn bulk_rate(&self) -> f64 {
        self.loaded.bulk as f64 / self.loaded.costs.wall.as_secs_f64()
    }

    /// The tables, for people.
    pub(crate) fn text(&self) -> String {
        let (alone, loaded) = (&self.alone, &self.loaded);
        let names = SHARES.map(|(name, _)| name);
        let mut rows = vec![cells(&[&["small requests"], &names[..]].concat())];
        rows.push(report::row("alone", &alone.tunnel));
        rows.push(report::row("under load", &loaded.tunnel));
        rows.push(ratio_row(&alone.tunnel, &loaded.tunnel));
        if let (Some(before), Some(after)) = (&alone.direct, &loaded.direct) {
            rows.push(report::row("direct, alone", before));
            rows.push(report::row("direct, under load", after));
            rows.push(ratio_row(before, after));
        }
        let mut text = report::table(&rows);
        let mut rows = vec![cells(&["", "alone", "under load"])];
        let cores = |costs: &Costs, cpu| number(costs.cores(cpu), 2, " cores");
        for (name, of) in [
            ("server", (|c: &Costs| c.server) as fn(&Costs) -> super::meter::Cost),
            ("client", |c| c.client),
        ] {
            let (a, b) = (of(&alone.costs), of(&loaded.costs));
            rows.push(vec![format!("{name} memory"), mebibytes(a.rss), mebibytes(b.rss)]);
            let cpu = [cores(&alone.costs, a.cpu), cores(&loaded.costs, b.cpu)];
            rows.push([vec![format!("{name} CPU")], cpu.to_vec()].concat());
        }
        let others = |costs: &Costs| cores(costs, costs.others);
        rows.push(vec!["CPU of others".into(), others(&alone.costs), others(&loaded.costs)]);
        let bulk = format!("{:.1} MB/s", self.bulk_rate() / 1e6);
        rows.push(cells(&["all downloads", "-", &bulk]));
        text.push('\n');
        text.push_str(&report::table(&rows));
        let outcomes = [&alone.tunnel, &loaded.tunnel].into_iter();
        text.push_str(&report::failures(outcomes.chain(&alone.direct).chain(&loaded.direct)));
        text.push_str(&report::disturbed([&alone.costs, &loaded.costs]));
        if loaded.cut > 0 {
            text.push_str(&format!("{} downloads were CUT\n", loaded.cut));
        }
        text
    }

    /// All of it, for programs.
    pub(crate) fn json(&self) -> Value {
        let arguments = &self.arguments;
        let phase = |phase: &Phase| {
            json!({
                "tunnel": report::outcome_json(&phase.tunnel),
                "direct": phase.direct.as_ref().map(report::outcome_json),
                "costs": phase.costs.json(),
            })
        };
        let [p50, p90, p99, max] =
            report::ratios(&self.alone.tunnel.latencies, &self.loaded.tunnel.latencies);
        json!({
            "bench": "isolation",
            "version": env!("CARGO_PKG_VERSION"),
            "rate_per_second": arguments.rate,
            "seconds": arguments.seconds,
            "downloads": arguments.bulk,
            "download_bytes_per_second": arguments.bulk_rate.map(|Rate(rate)| rate),
            "stalled": arguments.stalled,
            "idle_websockets": arguments.idle_websockets,
            "link_bytes_per_second": arguments.link.map(|Rate(rate)| rate),
            "link_delay_ms": arguments.delay.map(|delay| delay.as_secs_f64() * 1e3),
            "alone": phase(&self.alone),
            "under_load": phase(&self.loaded),
            "ratio": { "p50": p50, "p90": p90, "p99": p99, "max": max },
            "bulk_bytes_per_second": self.bulk_rate(),
            "downloads_cut": self.loaded.cut,
        })
    }
}

fn ratio_row(alone: &Outcome, loaded: &Outcome) -> Vec<String> {
    let ratios = report::ratios(&alone.latencies, &loaded.latencies);
    let mut row = vec!["  ratio".to_owned()];
    row.extend(ratios.map(|ratio| number(ratio, 1, "x")));
    row
}
