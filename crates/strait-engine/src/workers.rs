//! The threads that carry requests, each with a runtime of its own.
//!
//! A tunnel, with everything that arrives through it, is the work of one of them; so is a
//! visitor's connection. A request whose visitor and tunnel are on one worker is never handed from
//! thread to thread, which would cost as much again as carrying it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::{io, iter};

use tokio::runtime::{Builder, Handle, Id, Runtime};

use crate::Turns;

/// The workers of a node. Clones share them.
#[derive(Clone)]
pub struct Workers(Arc<All>);

struct All {
    workers: Vec<Worker>,
    /// Where the next visitor goes, of workers that have as few.
    turn: AtomicUsize,
}

struct Worker {
    runtime: Handle,
    turns: Turns,
    /// Connections that are tunnels or may become some.
    tunnels: AtomicUsize,
    /// Tunnels that are up, and whether one was at any time.
    up: AtomicUsize,
    was_up: AtomicBool,
    visitors: AtomicUsize,
}

/// The threads that were started for a node's workers. They end when this is dropped, and with them
/// whatever still runs there.
pub struct Threads(Vec<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        // Does not wait, because it may be dropped on a thread that must not.
        self.0.drain(..).for_each(Runtime::shutdown_background);
    }
}

/// A runtime of one thread, set up for carrying requests.
///
/// # Errors
/// When the machine does not give a thread or a descriptor.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .worker_threads(1)
        // A low interval looks at sockets more often between tasks: it halves what a small
        // request waits beside bulk that takes every core, and costs no throughput.
        .event_interval(4)
        .build()
}

/// The runtime that this is called on; `None` outside of any.
pub fn here() -> Option<Id> {
    Handle::try_current().ok().map(|runtime| runtime.id())
}

impl Workers {
    /// `count` workers: the current runtime and, beside it, threads that are started for the
    /// others.
    ///
    /// # Errors
    /// When the machine does not give a thread or a descriptor.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn start(count: usize) -> io::Result<(Workers, Threads)> {
        let more = (1..count).map(|_| runtime()).collect::<io::Result<Vec<_>>>()?;
        let others = more.iter().map(|runtime| runtime.handle().clone());
        let workers = iter::once(Handle::current()).chain(others).map(Worker::new).collect();
        Ok((Workers(Arc::new(All { workers, turn: AtomicUsize::new(0) })), Threads(more)))
    }

    /// The line in which bodies are moved on the current worker.
    pub fn turns(&self) -> &Turns {
        &self.0.workers[self.current_worker()].turns
    }

    fn current_worker(&self) -> usize {
        let here = here();
        let is_current = |worker: &Worker| Some(worker.runtime.id()) == here;
        self.0.workers.iter().position(is_current).unwrap_or(0)
    }

    /// Tasks on all of them.
    pub fn tasks(&self) -> usize {
        self.0.workers.iter().map(|worker| worker.runtime.metrics().num_alive_tasks()).sum()
    }

    /// A place for a connection that may become a tunnel: on the worker that has the fewest.
    pub fn tunnel(&self) -> Seat {
        let all = &self.0.workers;
        let fewest = (0..all.len()).min_by_key(|i| all[*i].tunnels.load(Relaxed));
        self.seat(fewest.unwrap_or(0), |worker| &worker.tunnels)
    }

    /// A tunnel of the current worker is up, for as long as this is held.
    pub fn tunnel_up(&self) -> Seat {
        let current = self.current_worker();
        self.0.workers[current].was_up.store(true, Relaxed);
        self.seat(current, |worker| &worker.up)
    }

    /// A place for a visitor's connection: of the workers that have a tunnel, on the one that has
    /// the fewest visitors. While there is none, of those to which tunnels will come back, and
    /// before the first one where that will be.
    pub fn visitor(&self) -> Seat {
        let all = &self.0.workers;
        if all.len() == 1 {
            return self.seat(0, |worker| &worker.visitors);
        }
        let first = self.0.turn.fetch_add(1, Relaxed);
        let in_turn = || (0..all.len()).map(|i| first.wrapping_add(i) % all.len());
        let visitors = |i: &usize| all[*i].visitors.load(Relaxed);
        let now = in_turn().filter(|i| all[*i].up.load(Relaxed) > 0);
        let before = in_turn().filter(|i| all[*i].was_up.load(Relaxed));
        let fewest = now.min_by_key(visitors).or_else(|| before.min_by_key(visitors));
        self.seat(fewest.unwrap_or(0), |worker| &worker.visitors)
    }

    fn seat(&self, worker: usize, kind: fn(&Worker) -> &AtomicUsize) -> Seat {
        kind(&self.0.workers[worker]).fetch_add(1, Relaxed);
        Seat { workers: self.clone(), worker, kind }
    }
}

impl Worker {
    fn new(runtime: Handle) -> Worker {
        Worker {
            turns: Turns::start(&runtime),
            runtime,
            tunnels: AtomicUsize::new(0),
            up: AtomicUsize::new(0),
            was_up: AtomicBool::new(false),
            visitors: AtomicUsize::new(0),
        }
    }
}

/// A place on a worker; dropping it makes room.
pub struct Seat {
    workers: Workers,
    worker: usize,
    kind: fn(&Worker) -> &AtomicUsize,
}

impl Seat {
    /// The worker's runtime.
    pub fn runtime(&self) -> &Handle {
        &self.workers.0.workers[self.worker].runtime
    }

    /// Whether that is the current one.
    pub fn is_here(&self) -> bool {
        here() == Some(self.runtime().id())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        (self.kind)(&self.workers.0.workers[self.worker]).fetch_sub(1, Relaxed);
    }
}

#[cfg(all(test, not(interleavings)))]
mod tests {
    use super::*;

    fn numbers(seats: &[Seat]) -> Vec<usize> {
        let mut numbers: Vec<_> = seats.iter().map(|seat| seat.worker).collect();
        numbers.sort_unstable();
        numbers
    }

    #[tokio::test]
    async fn tunnels_are_spread_and_the_room_of_one_that_ended_is_taken_first() {
        let (workers, _threads) = Workers::start(3).unwrap();
        let mut seats: Vec<_> = (0..4).map(|_| workers.tunnel()).collect();
        assert_eq!(numbers(&seats), [0, 0, 1, 2]);
        seats.remove(2);
        assert_eq!(workers.tunnel().worker, 2);
    }

    #[tokio::test]
    async fn visitors_go_where_tunnels_are() {
        let (workers, _threads) = Workers::start(3).unwrap();
        let strangers = [workers.tunnel(), workers.tunnel(), workers.tunnel()];
        let early: Vec<_> = (0..3).map(|_| workers.visitor()).collect();
        assert_eq!(numbers(&early), [0, 0, 0], "the first tunnel will be there");
        drop(early);
        let mut tunnels = Vec::new();
        for seat in &strangers[..2] {
            let workers = workers.clone();
            let up = seat.runtime().spawn(async move { workers.tunnel_up() });
            tunnels.push(up.await.unwrap());
        }
        assert_eq!(numbers(&tunnels), [0, 1]);
        let beside: Vec<_> = (0..4).map(|_| workers.visitor()).collect();
        assert_eq!(numbers(&beside), [0, 0, 1, 1]);
        drop(beside);
        // What left early, as WebSockets do, is not counted and must not draw all others.
        let one_by_one: Vec<_> = (0..30).map(|_| workers.visitor().worker).collect();
        assert!([0, 1].iter().all(|i| one_by_one.iter().filter(|n| *n == i).count() >= 10));
        drop(tunnels);
        let waiting: Vec<_> = (0..4).map(|_| workers.visitor()).collect();
        assert_eq!(numbers(&waiting), [0, 0, 1, 1], "the tunnels will come back");
    }

    #[tokio::test]
    async fn each_worker_is_a_runtime_with_a_line_of_its_own_and_ends_with_its_threads() {
        let (workers, threads) = Workers::start(2).unwrap();
        let seats = [workers.tunnel(), workers.tunnel()];
        assert!(seats[0].is_here() && !seats[1].is_here());
        let (other, line) = (workers.clone(), workers.turns().clone());
        let there = seats[1].runtime().spawn(async move {
            (here(), other.0.workers[1].turns.is(other.turns()), line.is(other.turns()))
        });
        let id = seats[1].runtime().id();
        assert_eq!(there.await.unwrap(), (Some(id), true, false));
        let left = seats[1].runtime().spawn(std::future::pending::<()>());
        drop(threads);
        assert!(left.await.unwrap_err().is_cancelled());
    }
}
