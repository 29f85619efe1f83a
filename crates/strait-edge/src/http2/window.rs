//! What a service may send of each answer by HTTP/2 before it is taken, and the budget that all of it
//! comes from.
//!
//! Nobody reads a stalled answer, and what has come of it lies in the library, up to its window. So
//! each is charged with a window, and the fuller the budget is the smaller are the windows of those
//! that come next. Beyond the budget each has the [`LEAST`].

use strait_engine::Budget;

/// The largest window of an answer, in bytes.
pub(crate) const MOST: u32 = 256 << 10;
/// The smallest one.
const LEAST: u32 = 4 << 10;

/// What the next answer would get of `budget`, at the least nothing.
pub(crate) fn share(budget: &Budget) -> u32 {
    u32::try_from(budget.share_of(MOST, 1)).unwrap_or(MOST)
}

/// The window for a new connection's answers: a power of two, lest every connection have another.
pub(crate) fn of_new(budget: &Budget) -> u32 {
    let share = share(budget).max(LEAST);
    1 << share.ilog2()
}

/// Whether a connection whose answers have this `window` is good for one that would get `share`:
/// else its window is too large for the budget, or too small for how much of it is free.
pub(crate) fn suits(window: u32, share: u32) -> bool {
    (window == LEAST || window / 4 <= share) && share / 16 <= window
}

/// Bytes that are charged to a budget.
pub(crate) struct Grant {
    budget: Budget,
    bytes: u32,
}

impl Grant {
    /// Charges `bytes`, beyond the limit if need be.
    pub(crate) fn new(budget: &Budget, bytes: u32) -> Grant {
        budget.charge(bytes as usize);
        Grant { budget: budget.clone(), bytes }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.budget.release(self.bytes as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_shrink_so_that_thousands_have_a_place() {
        let budget = Budget::new(128 << 20);
        assert_eq!(of_new(&budget), MOST);
        let grants: Vec<_> = (0..12_000).map(|_| Grant::new(&budget, of_new(&budget))).collect();
        assert!(budget.used() <= budget.limit(), "{}", budget.used());
        assert_eq!(of_new(&budget), LEAST);
        assert!(suits(LEAST, share(&budget)) && !suits(MOST, share(&budget)));
        drop(grants);
        assert_eq!(budget.used(), 0);
        assert!(suits(MOST, share(&budget)) && !suits(LEAST, share(&budget)));
    }
}
