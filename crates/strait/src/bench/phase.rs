//! One phase of the isolation bench: small requests through one contestant, open loop,
//! with or without load beside them.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::bulk::Bulk;
use super::contest::Contestant;
use super::meter::{Costs, Meter};
use super::pace::{OpenLoop, Outcome};
use super::report::{self, Progress};
use super::world::World;

/// What one phase showed.
pub(crate) struct Phase {
    pub(crate) outcome: Outcome,
    pub(crate) costs: Costs,
    /// Bytes of the downloads.
    pub(crate) bulk: u64,
    /// Downloads that were refused or cut.
    pub(crate) cut: u64,
}

/// Where all phases take place.
pub(crate) struct Stage<'a> {
    pub(crate) world: &'a World,
    pub(crate) contestants: &'a [Contestant],
    /// Of the small requests.
    pub(crate) runtime: Handle,
    /// Small requests per second.
    pub(crate) rate: u32,
}

impl Stage<'_> {
    /// Runs one phase of `time` through the contestant with number `who`.
    ///
    /// # Errors
    /// When a process of the bench has ended.
    pub(crate) async fn phase(
        &self,
        who: usize,
        load: Option<&Bulk>,
        time: Duration,
        progress: &Progress,
    ) -> io::Result<Phase> {
        let contestant = &self.contestants[who];
        let rest: Vec<u32> = self.others(who).collect();
        let (bytes, cut) = load.map_or((0, 0), |load| (load.bytes(), load.failures()));
        let mut meter = Meter::start(&contestant.parts, &rest);
        let began = Instant::now();
        let requests = self.requests(contestant, time)?;
        while began.elapsed() < time {
            let left = time.saturating_sub(began.elapsed());
            tokio::time::sleep(left.min(Duration::from_millis(250))).await;
            self.world.check()?;
            meter.look();
            let p99 = report::millis(requests.so_far().latencies.percentile(0.99));
            let bulk = load.map_or(0, |load| load.bytes() - bytes);
            let bulk = bulk as f64 / 1e6 / began.elapsed().as_secs_f64();
            let seconds = began.elapsed().as_secs();
            progress.show(&format!("{seconds:>3} s   p99 {p99}   bulk {bulk:.0} MB/s"));
        }
        let mut costs = meter.read();
        if !contestant.known {
            costs.parts.clear();
            costs.others = None;
        }
        let (bulk, cut) = load.map_or((0, 0), |l| (l.bytes() - bytes, l.failures() - cut));
        let outcome = requests.finish().await;
        self.world.check()?;
        Ok(Phase { outcome, costs, bulk, cut })
    }

    fn requests(&self, contestant: &Contestant, time: Duration) -> io::Result<OpenLoop> {
        let period = Duration::from_secs(1) / self.rate;
        let count = (time.as_secs_f64() * f64::from(self.rate)).ceil() as u32;
        let callers = Arc::clone(&contestant.callers);
        let get = move || {
            let callers = Arc::clone(&callers);
            async move { callers.get().await }
        };
        OpenLoop::start(&self.runtime, Duration::from_millis(20), period, count, get)
    }

    /// Processes of the bench that are not of contestant `who`.
    fn others(&self, who: usize) -> impl Iterator<Item = u32> {
        let others = self.contestants.iter().enumerate().filter(move |(i, _)| *i != who);
        others.flat_map(|(_, other)| other.pids()).chain([self.world.backend.pid])
    }
}
