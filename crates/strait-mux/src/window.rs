//! Credit that was granted to the peer for one half of a request.

use std::time::{Duration, Instant};

use strait_wire::Protocol;

use crate::{Budget, Settings};

/// Credit is told once this much of it is due, in bytes, or half of a smaller window. Told in
/// larger lots, a sender would sit idle and then send in bursts that everybody else feels.
const STEP: usize = 64 * 1024;

/// Halves of a window in a row that make "for long": a burst of one window is not it.
const LONG: u32 = 4;

/// The receiving side's account. What the peer sends within its credit always has a place:
/// outstanding + buffered <= reserved.
#[derive(Debug)]
pub(crate) struct Window {
    /// What shall be granted or buffered.
    target: usize,
    /// What is taken from the budget: more than the target while a window that was made
    /// smaller still holds more.
    reserved: usize,
    outstanding: usize,
    buffered: usize,
    /// When the consumer began to take the present half of a window.
    since: Option<Instant>,
    /// Bytes of it that were taken.
    taken: usize,
    /// The consumer had taken everything at some moment of it.
    caught_up: bool,
    /// Halves in a row in which he had not.
    behind: u32,
}

impl Window {
    /// A window of `target` bytes, reserved, of which the peer may use `granted` at once.
    pub(crate) fn new(target: usize, granted: usize) -> Window {
        debug_assert!(granted <= target);
        Window {
            target,
            reserved: target,
            outstanding: granted,
            buffered: 0,
            since: None,
            taken: 0,
            caught_up: false,
            behind: 0,
        }
    }

    /// The size that the window of a new request shall have while `budget` is as full as it is.
    /// WebSockets start small, because most are idle.
    pub(crate) fn size_for(protocol: Protocol, settings: &Settings, budget: &Budget) -> usize {
        if protocol == Protocol::WebSocket {
            return settings.window_min as usize;
        }
        budget.share_of(settings.window, 1).max(settings.window_min as usize)
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
    pub(crate) fn reserved(&self) -> usize {
        self.reserved
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
        self.taken += weight;
        self.caught_up |= self.buffered == 0;
    }

    /// Credit to be granted now, after the consumer took something.
    pub(crate) fn grant(
        &mut self,
        now: Instant,
        rtt: Duration,
        settings: &Settings,
        budget: &Budget,
    ) -> Option<u32> {
        self.fit(now, rtt, settings, budget);
        let due = self.missing() >= STEP.min(self.target / 2).max(1);
        due.then(|| self.grant_rest())
    }

    /// Fits the window to its consumer, once for each half of it that was taken. Half within
    /// two round trips is too small for the path: it doubles while memory is plentiful. And
    /// where something has waited for long, it is the consumer that is slow, and the window
    /// holds more than he needs: it halves, down to a quarter of a new one.
    fn fit(&mut self, now: Instant, rtt: Duration, settings: &Settings, budget: &Budget) {
        if self.taken * 2 >= self.target {
            let fast = self.since.is_some_and(|since| now.duration_since(since) < rtt * 2);
            let plenty = budget.free(2) >= 1;
            let most = settings.window_max as usize;
            let least = (settings.window / 4).max(settings.window_min) as usize;
            self.behind = if self.caught_up { 0 } else { self.behind + 1 };
            if self.caught_up && fast && plenty && self.target * 2 <= most {
                self.widen(self.target * 2, budget);
            } else if self.behind >= LONG && self.target / 2 >= least {
                self.target /= 2;
                self.behind = 0;
            }
            self.since = Some(now);
            self.taken = 0;
            self.caught_up = self.buffered == 0;
        }
        let needed = self.target.max(self.outstanding + self.buffered);
        if needed < self.reserved {
            budget.release(self.reserved - needed);
            self.reserved = needed;
        }
    }

    /// Grants a request its first window, as far as the budget has it.
    pub(crate) fn open(&mut self, protocol: Protocol, settings: &Settings, budget: &Budget) -> u32 {
        self.widen(Window::size_for(protocol, settings, budget), budget);
        self.grant_rest()
    }

    /// Grants everything up to the target, at once.
    fn grant_rest(&mut self) -> u32 {
        let missing = self.missing();
        self.outstanding += missing;
        u32::try_from(missing).unwrap_or(u32::MAX)
    }

    /// Widens the window to `target` if the budget has that much.
    pub(crate) fn widen(&mut self, target: usize, budget: &Budget) {
        let more = target.saturating_sub(self.reserved);
        if target > self.target && budget.reserve(more) {
            self.target = target;
            self.reserved += more;
        }
    }

    /// Gives all memory back; nothing can be received from now on.
    pub(crate) fn close(&mut self, budget: &Budget) {
        budget.release(self.reserved);
        *self = Window::new(0, 0);
    }

    /// Shrinks the reservation to what is buffered: the peer has ended.
    pub(crate) fn end(&mut self, budget: &Budget) {
        budget.release(self.reserved - self.buffered.min(self.reserved));
        self.target = self.buffered;
        self.reserved = self.buffered;
        self.outstanding = 0;
    }

    fn missing(&self) -> usize {
        self.target.saturating_sub(self.outstanding + self.buffered)
    }
}
