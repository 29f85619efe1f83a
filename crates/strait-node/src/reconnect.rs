//! When to dial again.

use std::time::Duration;

/// First pause.
const FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(10);
/// Longest pause while the server is away for a moment: asking costs next to nothing.
const LONGEST_AWAY: Duration = Duration::from_secs(1);
/// As many attempts reach [`LONGEST_AWAY`].
const AWAY: u32 = 4;
/// Pause after a refusal that only a person can mend.
const PERSON: Duration = Duration::from_secs(10);

/// What the last attempt ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The server was there and is not now, or its machine answers and only its port does
    /// not: it is restarting.
    Away,
    /// The server does not want this client as it is.
    Unwanted,
    /// Anything else.
    Other,
}

/// Exponential back-off with full jitter: clients that lost the same server do not come
/// back in step.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// A tunnel lived: begin anew.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The pause before the next attempt. `dice` is uniform over all of `u64`.
    pub(crate) fn pause(&mut self, obstacle: Obstacle, dice: u64) -> Duration {
        let cap = match obstacle {
            Obstacle::Away => LONGEST_AWAY,
            Obstacle::Other => LONGEST,
            Obstacle::Unwanted => return PERSON / 2 + scale(PERSON / 2, dice),
        };
        let ceiling = FIRST.saturating_mul(1 << self.attempts.min(16)).min(cap);
        // However long a server was away, the first other trouble waits no longer for it.
        if obstacle == Obstacle::Other || self.attempts < AWAY {
            self.attempts += 1;
        }
        scale(ceiling, dice)
    }
}

/// `whole` times the fraction that `dice` is of its range.
fn scale(whole: Duration, dice: u64) -> Duration {
    let nanos = (whole.as_nanos() * u128::from(dice)) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_its_cap() {
        let mut backoff = Backoff::default();
        let ceilings: Vec<u128> =
            (0..9).map(|_| backoff.pause(Obstacle::Other, u64::MAX).as_millis()).collect();
        assert_eq!(ceilings, [99, 199, 399, 799, 1599, 3199, 6399, 9999, 9999]);
        backoff.reset();
        assert!(backoff.pause(Obstacle::Other, u64::MAX) < FIRST);
    }

    #[test]
    fn a_restarting_server_is_asked_at_least_every_second() {
        let mut backoff = Backoff::default();
        assert!((0..50).all(|_| backoff.pause(Obstacle::Away, u64::MAX) <= LONGEST_AWAY));
        assert!(backoff.pause(Obstacle::Other, u64::MAX) < Duration::from_secs(2));
    }

    #[test]
    fn the_jitter_is_full_except_after_a_refusal() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.pause(Obstacle::Other, 0), Duration::ZERO);
        assert!(backoff.pause(Obstacle::Unwanted, 0) >= Duration::from_secs(5));
    }
}
