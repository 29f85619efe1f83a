//! What the processes of a bench cost while something is measured.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::usage::{self, Usage};

/// Processes that are told as one: a node, or all that a peer consists of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) pids: Vec<u32>,
}

impl Part {
    /// The processes `pids`, told as `name`.
    pub(crate) fn new(name: &str, pids: impl Into<Vec<u32>>) -> Part {
        Part { name: name.to_owned(), pids: pids.into() }
    }
}

/// What one part cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    pub(crate) name: String,
    /// CPU time.
    pub(crate) cpu: Option<Duration>,
    /// Most memory that was resident at any look, in bytes.
    pub(crate) rss: Option<u64>,
}

/// What the bench cost in one stretch of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Costs {
    /// How long the stretch was.
    pub(crate) wall: Duration,
    /// Of each part that was watched.
    pub(crate) parts: Vec<Cost>,
    /// CPU time that other programs and other machines on this host took.
    pub(crate) others: Option<Duration>,
}

/// Watches from its making to [`Meter::read`].
pub(crate) struct Meter<'a> {
    began: Instant,
    parts: &'a [Part],
    /// What else belongs to the bench, besides this process.
    rest: &'a [u32],
    before: Vec<Option<Usage>>,
    machine: Option<Duration>,
    most: Vec<Option<u64>>,
}

impl<'a> Meter<'a> {
    /// Watches `parts` from now on; `rest` are the other processes of the bench.
    pub(crate) fn start(parts: &'a [Part], rest: &'a [u32]) -> Meter<'a> {
        let mut meter = Meter {
            began: Instant::now(),
            parts,
            rest,
            before: Vec::new(),
            machine: usage::machine(),
            most: vec![Some(0); parts.len()],
        };
        meter.before = meter.pids().map(usage::of).collect();
        meter.look();
        meter
    }

    /// Those of the parts in their order, the rest, and this process.
    fn pids(&self) -> impl Iterator<Item = u32> + use<'_> {
        let parts = self.parts.iter().flat_map(|part| part.pids.iter().copied());
        parts.chain(self.rest.iter().copied()).chain([std::process::id()])
    }

    /// Looks at the memory of the parts. To be called a few times a second.
    pub(crate) fn look(&mut self) {
        for (most, part) in self.most.iter_mut().zip(self.parts) {
            let rss = part.pids.iter().map(|pid| usage::of(*pid).map(|usage| usage.rss));
            // Unknown once is unknown for good: a sum of what is left would look small.
            *most = most.zip(rss.sum::<Option<u64>>()).map(|(most, now)| most.max(now));
        }
    }

    /// What it all cost so far.
    pub(crate) fn read(&mut self) -> Costs {
        self.look();
        let all: Vec<Option<Duration>> = self
            .pids()
            .zip(&self.before)
            .map(|(pid, was)| {
                let now = usage::of(pid)?.cpu;
                Some(now.saturating_sub((*was)?.cpu))
            })
            .collect();
        let mut each = all.iter().copied();
        let parts = self.parts.iter().zip(&self.most).map(|(part, rss)| Cost {
            name: part.name.clone(),
            cpu: each.by_ref().take(part.pids.len()).sum(),
            rss: *rss,
        });
        let parts = parts.collect();
        let machine = usage::machine().zip(self.machine).map(|(now, was)| now.saturating_sub(was));
        let ours = all.into_iter().sum::<Option<Duration>>();
        Costs {
            wall: self.began.elapsed(),
            parts,
            others: machine.zip(ours).map(|(all, ours)| all.saturating_sub(ours)),
        }
    }
}

impl Costs {
    /// `cpu` as a number of cores that were busy all the time.
    pub(crate) fn cores(&self, cpu: Option<Duration>) -> Option<f64> {
        Some(cpu?.as_secs_f64() / self.wall.as_secs_f64().max(1e-9))
    }

    /// CPU time of all parts.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        self.parts.iter().map(|part| part.cpu).sum()
    }

    /// Cores of part `index`.
    pub(crate) fn cores_of(&self, index: usize) -> Option<f64> {
        self.cores(self.parts.get(index)?.cpu)
    }

    /// Cores that other programs took.
    pub(crate) fn others_cores(&self) -> Option<f64> {
        self.cores(self.others)
    }

    /// Cores of all parts; `None` when there are none.
    pub(crate) fn known_cores(&self) -> Option<f64> {
        self.cores(if self.parts.is_empty() { None } else { self.cpu() })
    }

    /// Memory of all parts, in bytes; `None` when there are none.
    pub(crate) fn known_rss(&self) -> Option<u64> {
        let sum = self.parts.iter().map(|part| part.rss).sum();
        if self.parts.is_empty() { None } else { sum }
    }

    /// All of it, for programs.
    pub(crate) fn json(&self) -> Value {
        let part = |cost: &Cost| json!({ "cores": self.cores(cost.cpu), "rss_bytes": cost.rss });
        let mut object = serde_json::Map::new();
        object.extend(self.parts.iter().map(|cost| (cost.name.clone(), part(cost))));
        object.insert("others_cores".to_owned(), json!(self.cores(self.others)));
        Value::Object(object)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_apart_and_what_is_gone_is_unknown() {
        let own = std::process::id();
        let parts = [Part::new("here", [own]), Part::new("gone", [own, u32::MAX])];
        let mut meter = Meter::start(&parts, &[]);
        let costs = meter.read();
        assert!(costs.parts[0].rss > Some(100_000) && costs.parts[0].cpu.is_some());
        assert_eq!((costs.parts[1].rss, costs.parts[1].cpu), (None, None));
        assert_eq!((costs.known_rss(), costs.others), (None, None));
        assert_eq!(Meter::start(&[], &[]).read().known_rss(), None);
    }
}
