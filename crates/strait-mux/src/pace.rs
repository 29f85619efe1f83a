//! How large a piece may be while several requests send: as much as the link carries in a
//! moment. Each piece costs both ends a good deal beside its bytes, and on a fast link a large
//! one delays the others by no more than a small one does on a slow link.

use std::time::Instant;

use crate::Settings;

/// Bytes from which the rate is taken: several times what may lie between the scheduler and the
/// link, which takes the first bytes of a burst at any rate.
const SAMPLE: usize = 256 * 1024;

/// The rate at which the transport takes pieces.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    bytes: usize,
    piece: usize,
}

impl Pace {
    /// A link of which nothing is known yet.
    pub(crate) fn new(settings: &Settings, now: Instant) -> Pace {
        Pace { since: now, bytes: 0, piece: settings.piece as usize }
    }

    /// Bytes that a piece may have while others wait.
    pub(crate) fn piece(&self) -> usize {
        self.piece
    }

    /// A piece of `bytes` is handed to the transport. Time in which there was nothing to send
    /// counts as well, so what is not under load keeps small pieces.
    pub(crate) fn sent(&mut self, bytes: usize, settings: &Settings, now: Instant) {
        self.bytes += bytes;
        if self.bytes < SAMPLE {
            return;
        }
        let took = now.duration_since(self.since);
        if took.is_zero() {
            return;
        }
        let carried = self.bytes as f64 * settings.piece_time.as_secs_f64() / took.as_secs_f64();
        let least = settings.piece as usize;
        self.piece = (carried as usize).clamp(least, least.max(settings.max_piece as usize));
        self.bytes = 0;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The piece after a while on a link of `rate` bytes per second.
    fn piece_at(pace: &mut Pace, now: &mut Instant, rate: f64) -> usize {
        for _ in 0..64 {
            let piece = pace.piece();
            *now += Duration::from_secs_f64(piece as f64 / rate);
            pace.sent(piece, &Settings::default(), *now);
        }
        pace.piece()
    }

    #[test]
    fn a_piece_is_what_the_link_carries_in_a_moment() {
        let (settings, mut now) = (Settings::default(), Instant::now());
        let (least, most) = (settings.piece as usize, settings.max_piece as usize);
        let mut pace = Pace::new(&settings, now);
        assert_eq!(pace.piece(), least);
        let between = 3 * least / 2;
        let rate = between as f64 / settings.piece_time.as_secs_f64();
        assert_eq!(piece_at(&mut pace, &mut now, 12.5e6), least);
        assert!(piece_at(&mut pace, &mut now, rate).abs_diff(between) <= 1);
        assert_eq!(piece_at(&mut pace, &mut now, 1e9), most);
        // A pause counts.
        now += Duration::from_secs(1);
        pace.sent(SAMPLE, &settings, now);
        assert_eq!(pace.piece(), least);
    }

    #[test]
    fn a_clock_that_stands_still_tells_nothing() {
        let (settings, now) = (Settings::default(), Instant::now());
        let mut pace = Pace::new(&settings, now);
        (0..100).for_each(|_| pace.sent(SAMPLE, &settings, now));
        assert_eq!(pace.piece(), settings.piece as usize);
    }
}
