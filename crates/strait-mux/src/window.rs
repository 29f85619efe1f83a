//! Credit that was granted to the peer for one half of a request.

use std::time::{Duration, Instant};

use crate::{Budget, Settings};

/// The receiving side's account. All of `target` is reserved from the budget, so what the
/// peer sends within its credit always has a place: outstanding + buffered <= target.
#[derive(Debug)]
pub(crate) struct Window {
    target: usize,
    outstanding: usize,
    buffered: usize,
    last_grant: Option<Instant>,
    /// The consumer had taken everything at some moment since the last grant.
    caught_up: bool,
}

impl Window {
    /// A window of `target` bytes, reserved, of which the peer may use `granted` at once.
    pub(crate) fn new(target: usize, granted: usize) -> Window {
        debug_assert!(granted <= target);
        Window { target, outstanding: granted, buffered: 0, last_grant: None, caught_up: false }
    }

    /// The size that a new window shall have while `budget` is as full as it is.
    pub(crate) fn size_for(settings: &Settings, budget: &Budget) -> usize {
        let full = settings.window as usize;
        let size = match budget.free_sixteenths() {
            8.. => full,
            4.. => full / 4,
            2.. => full / 16,
            _ => 0,
        };
        size.max(settings.window_min as usize)
    }

    /// Bytes granted and not yet received.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Bytes received and not yet consumed.
    pub(crate) fn buffered(&self) -> usize {
        self.buffered
    }

    /// Bytes reserved from the budget.
    pub(crate) fn target(&self) -> usize {
        self.target
    }

    /// Counts `weight` bytes in. `false`: the peer had no credit for them.
    #[must_use]
    pub(crate) fn receive(&mut self, weight: usize) -> bool {
        match self.outstanding.checked_sub(weight) {
            Some(left) => {
                self.outstanding = left;
                self.buffered += weight;
                true
            }
            None => false,
        }
    }

    /// Counts `weight` bytes out, because the consumer took them.
    pub(crate) fn consume(&mut self, weight: usize) {
        debug_assert!(weight <= self.buffered);
        self.buffered -= weight.min(self.buffered);
        self.caught_up |= self.buffered == 0;
    }

    /// Credit to be granted now: all that is missing to the target once that is half of it.
    /// A window half of which was used within two round trips is too small for its path
    /// and doubles while memory is plentiful. Not so when it is the consumer that is slow:
    /// a larger window would only hold more of what waits for it.
    pub(crate) fn grant(
        &mut self,
        now: Instant,
        rtt: Duration,
        settings: &Settings,
        budget: &Budget,
    ) -> Option<u32> {
        if self.missing() * 2 < self.target {
            return None;
        }
        let fast = self.last_grant.is_some_and(|last| now.duration_since(last) < rtt * 2);
        let plenty = budget.free_sixteenths() >= 8;
        let caught_up = std::mem::take(&mut self.caught_up);
        if fast
            && caught_up
            && plenty
            && self.target * 2 <= settings.window_max as usize
            && budget.reserve(self.target)
        {
            self.target *= 2;
        }
        self.last_grant = Some(now);
        Some(self.grant_rest())
    }

    /// Grants everything up to the target, at once.
    pub(crate) fn grant_rest(&mut self) -> u32 {
        let missing = self.missing();
        self.outstanding += missing;
        u32::try_from(missing).unwrap_or(u32::MAX)
    }

    /// Widens the window to `target` if the budget has that much.
    pub(crate) fn widen(&mut self, target: usize, budget: &Budget) {
        if target > self.target && budget.reserve(target - self.target) {
            self.target = target;
        }
    }

    /// Gives all memory back; nothing can be received from now on.
    pub(crate) fn close(&mut self, budget: &Budget) {
        budget.release(self.target);
        *self = Window::new(0, 0);
    }

    /// Shrinks the reservation to what is buffered: the peer has ended.
    pub(crate) fn end(&mut self, budget: &Budget) {
        budget.release(self.target - self.buffered.min(self.target));
        self.target = self.buffered;
        self.outstanding = 0;
    }

    fn missing(&self) -> usize {
        self.target - (self.outstanding + self.buffered).min(self.target)
    }
}
