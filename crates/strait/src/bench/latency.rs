//! Many durations in little memory, and what share of them was shorter than what.

use std::time::Duration;

/// Buckets for each doubling: a percentile is at most 1/128 too long, never too short.
const FINE: u32 = 7;
/// All buckets for nanoseconds in 64 bits.
const BUCKETS: usize = ((64 - FINE as usize) + 1) << FINE;

/// A histogram of durations. Its size does not depend on how many there are.
#[derive(Clone)]
pub(crate) struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    longest: u64,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { buckets: vec![0; BUCKETS], count: 0, longest: 0 }
    }
}

/// The bucket of `nanos`: exact up to 2^FINE, then FINE bits behind the leading one.
fn bucket(nanos: u64) -> usize {
    let octave = (64 - nanos.leading_zeros()).saturating_sub(FINE + 1);
    ((u64::from(octave) << FINE) + (nanos >> octave)) as usize
}

/// The longest duration of bucket `index`, in nanoseconds.
fn longest_of(index: usize) -> u64 {
    // A value in octave n >= 1 has its leading bit set, which counts as one more row.
    let octave = ((index >> FINE) as u32).saturating_sub(1);
    let top = (index as u64) - (u64::from(octave) << FINE);
    (top << octave) + ((1 << octave) - 1)
}

impl Latencies {
    /// Adds one.
    pub(crate) fn record(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.longest = self.longest.max(nanos);
    }

    /// Adds all of `other`.
    pub(crate) fn add(&mut self, other: &Latencies) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The longest, exactly. `None` without any.
    pub(crate) fn max(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_nanos(self.longest))
    }

    /// How many took at least `from` and less than `to`, to the fineness of the buckets.
    pub(crate) fn between(&self, from: Duration, to: Duration) -> u64 {
        let index = |time: Duration| bucket(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let (from, to) = (index(from), index(to));
        self.buckets.get(from..to).map_or(0, |buckets| buckets.iter().sum())
    }

    /// What `share` of all (0 to 1) did not exceed, by nearest rank. `None` without any.
    pub(crate) fn percentile(&self, share: f64) -> Option<Duration> {
        let rank = ((share * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let index = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_nanos(longest_of(index).min(self.longest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(all: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::default();
        all.into_iter().for_each(|one| latencies.record(Duration::from_micros(one)));
        latencies
    }

    /// `expected` microseconds, or up to 1/128 more.
    fn close(latencies: &Latencies, share: f64, expected: u64) {
        let found = latencies.percentile(share).unwrap().as_nanos() as f64;
        let exact = expected as f64 * 1e3;
        assert!((exact..=exact * (1.0 + 1.0 / 128.0)).contains(&found), "{share}: {found}");
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let latencies = micros((1..=1000).rev());
        for (share, expected) in [(0.0, 1), (0.5, 500), (0.9, 900), (0.99, 990), (1.0, 1000)] {
            close(&latencies, share, expected);
        }
        assert_eq!(latencies.max(), Some(Duration::from_millis(1)));
        // One of ten: the ninth is the 90th percentile, the tenth anything above it.
        let latencies = micros([1, 1, 1, 1, 1, 1, 1, 1, 1, 5_000_000]);
        close(&latencies, 0.9, 1);
        close(&latencies, 0.91, 5_000_000);
    }

    #[test]
    fn nothing_has_no_percentile_and_one_has_all() {
        assert_eq!(Latencies::default().percentile(0.5), None);
        assert_eq!(Latencies::default().max(), None);
        let one = micros([777]);
        assert_eq!(one.percentile(0.01), one.max());
        assert_eq!(one.percentile(0.99), one.max());
    }

    #[test]
    fn every_duration_falls_into_a_bucket_that_holds_it() {
        let mut nanos = 0_u64;
        while nanos < u64::MAX / 3 {
            let longest = longest_of(bucket(nanos));
            assert!(longest >= nanos && longest - nanos <= nanos / 128, "{nanos}: {longest}");
            assert_eq!(bucket(longest), bucket(nanos));
            assert_ne!(bucket(longest + 1), bucket(nanos));
            nanos += nanos / 8 + 1;
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn a_range_holds_what_lies_in_it_and_neighbours_share_nothing() {
        let latencies = micros(1..=1000);
        let between =
            |from, to| latencies.between(Duration::from_micros(from), Duration::from_micros(to));
        assert!((490..=510).contains(&between(250, 750)), "{}", between(250, 750));
        assert_eq!(between(0, 300) + between(300, 2000), 1000);
        assert_eq!(between(5, 5), 0);
    }

    #[test]
    fn sums_are_as_if_recorded_together() {
        let mut sum = micros(1..=500);
        sum.add(&micros(501..=1000));
        assert_eq!(sum.count(), 1000);
        close(&sum, 0.75, 750);
        assert_eq!(sum.max(), Some(Duration::from_millis(1)));
    }
}
