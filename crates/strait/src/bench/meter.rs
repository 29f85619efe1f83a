//! What the processes of a bench cost while something is measured.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::usage::{self, Usage};
use super::world::World;

/// What one process cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    /// CPU time.
    pub(crate) cpu: Option<Duration>,
    /// Most memory that was resident at any look, in bytes.
    pub(crate) rss: Option<u64>,
}

/// What the bench cost in one stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Costs {
    /// How long the stretch was.
    pub(crate) wall: Duration,
    pub(crate) server: Cost,
    pub(crate) client: Cost,
    /// CPU time that other programs and other machines on this host took.
    pub(crate) others: Option<Duration>,
}

/// Watches from its making to [`Meter::read`].
pub(crate) struct Meter {
    began: Instant,
    /// Server, client, backend and this process.
    pids: [u32; 4],
    before: [Option<Usage>; 4],
    machine: Option<Duration>,
    most: [Option<u64>; 2],
}

impl Meter {
    /// Watches the processes of `world` from now on.
    pub(crate) fn start(world: &World) -> Meter {
        let pids = [world.server.pid, world.client.pid, world.backend.pid, std::process::id()];
        let before = pids.map(usage::of);
        let most = [before[0].map(|u| u.rss), before[1].map(|u| u.rss)];
        Meter { began: Instant::now(), pids, before, machine: usage::machine(), most }
    }

    /// Looks at the memory of the nodes. To be called a few times a second.
    pub(crate) fn look(&mut self) {
        for (most, pid) in self.most.iter_mut().zip(self.pids) {
            *most = (*most).max(usage::of(pid).map(|usage| usage.rss));
        }
    }

    /// What it all cost so far.
    pub(crate) fn read(&mut self) -> Costs {
        self.look();
        let mut cpu = [None; 4];
        for (i, pid) in self.pids.into_iter().enumerate() {
            let now = usage::of(pid).map(|usage| usage.cpu);
            cpu[i] = now.zip(self.before[i]).map(|(now, was)| now.saturating_sub(was.cpu));
        }
        let all = usage::machine().zip(self.machine).map(|(now, was)| now.saturating_sub(was));
        let ours = sum(&cpu);
        Costs {
            wall: self.began.elapsed(),
            server: Cost { cpu: cpu[0], rss: self.most[0] },
            client: Cost { cpu: cpu[1], rss: self.most[1] },
            others: all.zip(ours).map(|(all, ours)| all.saturating_sub(ours)),
        }
    }
}

/// A sum that is known when all of it is known.
fn sum(parts: &[Option<Duration>]) -> Option<Duration> {
    parts.iter().try_fold(Duration::ZERO, |sum, part| Some(sum + (*part)?))
}

impl Costs {
    /// `cpu` as a number of cores that were busy all the time.
    pub(crate) fn cores(&self, cpu: Option<Duration>) -> Option<f64> {
        Some(cpu?.as_secs_f64() / self.wall.as_secs_f64().max(1e-9))
    }

    /// CPU time of both nodes.
    pub(crate) fn nodes(&self) -> Option<Duration> {
        sum(&[self.server.cpu, self.client.cpu])
    }

    /// All of it, for programs.
    pub(crate) fn json(&self) -> Value {
        let node = |cost: &Cost| json!({ "cores": self.cores(cost.cpu), "rss_bytes": cost.rss });
        json!({
            "server": node(&self.server),
            "client": node(&self.client),
            "others_cores": self.cores(self.others),
        })
    }
}
