//! What a load generator of one thread has seen.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// Counts of what was done, and how long it took.
pub(crate) struct Tally {
    until: Instant,
    /// Things, or MiB of bodies, that are enough.
    most: u64,
    /// In microseconds.
    times: RefCell<Vec<u32>>,
    bytes: Cell<u64>,
    failed: Cell<u64>,
    error: RefCell<Option<String>>,
}

impl Tally {
    /// Of what is done until then, or until `most` things or MiB are done.
    pub(crate) fn new(until: Instant, most: u64) -> Tally {
        Tally {
            until,
            most,
            times: RefCell::default(),
            bytes: Cell::default(),
            failed: Cell::default(),
            error: RefCell::default(),
        }
    }

    /// Whether there is time, and it is not enough.
    pub(crate) fn wants_more(&self) -> bool {
        let done = self.times.borrow().len() as u64 + (self.bytes.get() >> 20);
        done < self.most && Instant::now() < self.until
    }

    /// When it must end.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Notes one thing that was done rightly.
    pub(crate) fn done(&self, took: Duration) {
        self.times.borrow_mut().push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    /// Notes `bytes` of a body that were carried.
    pub(crate) fn carried(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    /// Notes one thing that went wrong.
    pub(crate) fn fail(&self, error: &dyn std::fmt::Display) {
        self.failed.set(self.failed.get() + 1);
        self.error.borrow_mut().get_or_insert_with(|| error.to_string());
    }

    /// Whether more was done rightly than not.
    pub(crate) fn is_some(&self) -> bool {
        let done = self.times.borrow().len() as u64;
        done > self.failed.get() || (self.bytes.get() > 0 && self.failed.get() == 0)
    }

    /// One line for programs.
    pub(crate) fn json(&self, took: Duration) -> String {
        let mut times = self.times.borrow_mut();
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 1000).copied().unwrap_or(0);
        let error = self.error.borrow().clone().unwrap_or_default();
        format!(
            r#"{{"count":{},"bytes":{},"failed":{},"error":{error:?},"seconds":{:.4},"p50_us":{},"p99_us":{}}}"#,
            times.len(),
            self.bytes.get(),
            self.failed.get(),
            took.as_secs_f64(),
            at(500),
            at(990),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_what_was_done() {
        let tally = Tally::new(Instant::now() + Duration::from_secs(600), 1000);
        assert!(tally.wants_more() && !tally.is_some());
        (0..1000).rev().for_each(|n| tally.done(Duration::from_micros(n)));
        assert!(!tally.wants_more());
        tally.fail(&"cut");
        let line = tally.json(Duration::from_secs(2));
        for part in ["\"count\":1000", "\"failed\":1", "\"p50_us\":500", "\"p99_us\":990", "cut"] {
            assert!(line.contains(part), "{line}");
        }
        assert!(tally.is_some());
    }
}
