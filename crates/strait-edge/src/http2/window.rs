//! What the other side of an HTTP/2 connection may send of a body before it is taken, and the
//! budget that all of it comes from.
//!
//! Nobody reads a stalled body, and what has come of it lies in the library, up to its window. So
//! each body that may come is charged with a window, and the fuller the budget is the smaller are
//! the windows of those that come next. Beyond the budget each has the [`LEAST`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strait_engine::Budget;

/// The largest window of a body, in bytes.
pub(crate) const MOST: u32 = 256 << 10;
/// The smallest one.
const LEAST: u32 = 4 << 10;
/// What a connection's window is before anything was said of it (RFC 9113 6.9.2).
const UNTOLD: u32 = 65_535;

/// What the next body would get of `budget`, at the least nothing.
pub(crate) fn share(budget: &Budget) -> u32 {
    u32::try_from(budget.share_of(MOST, 1)).unwrap_or(MOST)
}

/// The window for a new connection's bodies: a power of two, lest every connection have another.
pub(crate) fn of_new(budget: &Budget) -> u32 {
    let share = share(budget).max(LEAST);
    1 << share.ilog2()
}

/// Whether a connection whose bodies have this `window` is good for one that would get `share`:
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

/// What a visitor may send on one connection. He takes new windows for bodies only when he has
/// heard of them, if ever; what holds at once is the window of his connection, which is that of its
/// bodies taken together. As HTTP/2 cannot take a window back, what was given of it stays charged
/// until it is used up.
pub(crate) struct Connection {
    budget: Budget,
    state: Mutex<State>,
}

struct State {
    /// The window of the next body.
    window: u32,
    /// The windows of the bodies that may still come.
    open: u32,
    /// What the connection's window has room for, beside what it began with.
    given: u32,
    /// What the visitor may send beyond that, because it was given before.
    owed: u32,
}

impl State {
    /// What bodies that are over leave.
    fn settle(&mut self) {
        self.owed += self.given - self.open;
        self.given = self.open;
    }
}

impl Connection {
    pub(crate) fn new(budget: Budget) -> Connection {
        let state = State { window: MOST, open: 0, given: 0, owed: 0 };
        Connection { budget, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A body may come. The connection's window has room for it once it is [settled](Self::settle).
    pub(crate) fn open(self: &Arc<Self>) -> Room {
        let mut state = self.state();
        if !suits(state.window, share(&self.budget)) {
            state.window = of_new(&self.budget);
        }
        let bytes = state.window;
        state.settle();
        // What was given before is charged already.
        let again = bytes.min(state.owed);
        self.budget.charge((bytes - again) as usize);
        state.owed -= again;
        state.given += bytes;
        state.open += bytes;
        Room { connection: self.clone(), bytes }
    }

    /// The windows that the connection and each of its bodies should have.
    pub(crate) fn settle(&self) -> (u32, u32) {
        let mut state = self.state();
        state.settle();
        (UNTOLD + state.given, state.window)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let State { given, owed, .. } = *self.state();
        self.budget.release((given + owed) as usize);
    }
}

/// The place of a body that may come.
pub(crate) struct Room {
    connection: Arc<Connection>,
    bytes: u32,
}

impl Room {
    /// So many bytes were taken, and the visitor may send as many anew, unless more was given
    /// before than there is room for now.
    pub(crate) fn taken(&self, bytes: usize) {
        let mut state = self.connection.state();
        let used = state.owed.min(u32::try_from(bytes).unwrap_or(u32::MAX));
        state.owed -= used;
        self.connection.budget.release(used as usize);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.connection.state().open -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Open,
        Settle,
        /// The visitor sends so many, if he may.
        Sent(u32),
        Taken(u32),
        /// The body with this number is over.
        Over(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            Just(Op::Open),
            Just(Op::Settle),
            (0..600_000u32).prop_map(Op::Sent),
            (0..600_000u32).prop_map(Op::Taken),
            any::<usize>().prop_map(Op::Over),
        ]
    }

    proptest! {
        #[test]
        fn whatever_a_visitor_may_send_is_charged(ops in prop::collection::vec(op(), 1..200)) {
            let budget = Budget::new(2 << 20);
            let connection = Arc::new(Connection::new(budget.clone()));
            let mut rooms = Vec::new();
            // What the library does: the window it aims at, what the visitor may still send, and
            // what has come and was not taken.
            let (mut target, mut window, mut held) = (UNTOLD, UNTOLD, 0);
            for op in ops {
                match op {
                    Op::Open => {
                        rooms.push(connection.open());
                        target = connection.settle().0;
                    }
                    Op::Settle => target = connection.settle().0,
                    Op::Sent(bytes) => {
                        let bytes = bytes.min(window);
                        (window, held) = (window - bytes, held + bytes);
                    }
                    Op::Taken(bytes) => if let Some(room) = rooms.last() {
                        let bytes = bytes.min(held);
                        room.taken(bytes as usize);
                        held -= bytes;
                    }
                    Op::Over(number) => if !rooms.is_empty() {
                        rooms.swap_remove(number % rooms.len());
                    }
                }
                window = window.max(target.saturating_sub(held));
                prop_assert_eq!((window + held) as usize, UNTOLD as usize + budget.used());
            }
            drop(rooms);
            prop_assert_eq!(connection.settle().0, UNTOLD);
            drop(connection);
            prop_assert_eq!(budget.used(), 0);
        }
    }
}
