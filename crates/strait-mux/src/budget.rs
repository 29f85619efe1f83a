//! Memory that may still be promised.

use std::sync::atomic::Ordering;

use crate::sync::{Arc, AtomicUsize};

/// A number of bytes that may be promised to peers or held in queues, shared by all that
/// promise: the requests of a session, the sessions of a process. Clones share one budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    limit: usize,
    used: AtomicUsize,
    parent: Option<Budget>,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Budget {
        Budget(Arc::new(Pool { limit, used: AtomicUsize::new(0), parent: None }))
    }

    /// A budget of `limit` bytes whose every byte also counts against this one.
    pub fn child(&self, limit: usize) -> Budget {
        let parent = Some(self.clone());
        Budget(Arc::new(Pool { limit, used: AtomicUsize::new(0), parent }))
    }

    /// Takes `bytes`, or nothing and returns `false` when they are not to be had. Nothing is always
    /// to be had, whatever is [charged](Budget::charge).
    #[must_use]
    pub fn reserve(&self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let pool = &*self.0;
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= pool.limit);
        // Relaxed: the number guards no other memory.
        if pool.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return false;
        }
        if pool.parent.as_ref().is_some_and(|parent| !parent.reserve(bytes)) {
            pool.used.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Counts `bytes` in that are in memory already, beyond the limit if need be: nothing
    /// else is promised until they are gone.
    pub fn charge(&self, bytes: usize) {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        if let Some(parent) = &self.0.parent {
            parent.charge(bytes);
        }
    }

    /// Gives `bytes` back.
    pub fn release(&self, bytes: usize) {
        // Most ends have nothing left to give back.
        if bytes == 0 {
            return;
        }
        let before = self.0.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "released {bytes} of {before} bytes");
        if let Some(parent) = &self.0.parent {
            parent.release(bytes);
        }
    }

    /// Bytes taken; more than the limit while charged bytes do not fit.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Bytes that may be taken in all.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// What of `whole` bytes one of many may have while the budget is as full as it is: all of it
    /// while one in `plenty` of its parts is free, and from there on the fourth power of what is
    /// left of that part. A few get all they want, and thousands still have a place beside them.
    pub fn share_of(&self, whole: u32, plenty: usize) -> usize {
        // Rounded up: whoever is nearly alone gets the whole.
        let square = ((self.free(256) * plenty + 1).min(256) as u64).pow(2);
        // No fourth power is more than 32 bits, and neither is the whole.
        ((u64::from(whole) * square * square) >> 32) as usize
    }

    /// The share that is still free, in so many `parts` of the whole: of this budget or of its
    /// parent, whichever is tighter.
    pub fn free(&self, parts: usize) -> usize {
        let own = (self.0.limit - self.used().min(self.0.limit)) * parts / self.0.limit.max(1);
        self.0.parent.as_ref().map_or(own, |parent| own.min(parent.free(parts)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_counts_against_its_parent_and_rolls_back() {
        let process = Budget::new(100);
        let (a, b) = (process.child(80), process.child(80));
        assert!(a.reserve(70));
        assert!(!a.reserve(11), "beyond its own limit");
        assert!(!b.reserve(40), "beyond the parent's limit");
        assert_eq!((a.used(), b.used(), process.used()), (70, 0, 70));
        a.release(70);
        assert!(b.reserve(80));
        assert_eq!(process.used(), 80);
    }

    #[test]
    fn the_share_of_one_shrinks_as_the_budget_fills() {
        let budget = Budget::new(1 << 20);
        let shares = |plenty| {
            [0, 4, 8, 10, 12, 16].map(|used| {
                assert!(budget.reserve(used << 16));
                let share = budget.share_of(1 << 16, plenty);
                budget.release(used << 16);
                share >> 10
            })
        };
        assert_eq!(shares(1), [64, 20, 4, 1, 0, 0]);
        assert_eq!(shares(2), [64, 64, 64, 20, 4, 0]);
    }

    #[test]
    fn what_is_charged_counts_even_when_it_does_not_fit() {
        let process = Budget::new(100);
        let session = process.child(80);
        assert!(session.reserve(80));
        session.charge(30);
        assert_eq!((session.used(), process.used()), (110, 110));
        assert_eq!(session.free(16), 0);
        assert!(session.reserve(0) && !session.reserve(1), "whoever wants nothing gets it");
        session.release(30);
        assert!(!session.reserve(1), "it is as full as it was");
        session.release(80);
        assert_eq!((session.used(), process.used()), (0, 0));
    }
}
