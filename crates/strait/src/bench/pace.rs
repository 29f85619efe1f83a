//! Open-loop requests: each is due at its time, whether the last one is back or not, and
//! its latency counts from when it was due. Nobody outside waits for a slow tunnel either.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::latency::Latencies;

/// How long answers may take after the last request was due.
const STRAGGLERS: Duration = Duration::from_secs(5);

/// What came of requests.
#[derive(Clone, Default)]
pub(crate) struct Outcome {
    /// Of those that were answered, and of those that were waited for in vain.
    pub(crate) latencies: Latencies,
    /// Requests that were answered wrongly or not at all.
    pub(crate) failed: u64,
    /// Those of them that were not answered at all.
    given_up: u64,
    /// What went wrong first.
    pub(crate) error: Option<String>,
}

impl Outcome {
    /// Notes one request that ended.
    pub(crate) fn note(&mut self, took: Duration, ended: io::Result<()>) {
        match ended {
            Ok(()) => self.latencies.record(took),
            Err(error) => {
                self.failed += 1;
                self.error.get_or_insert_with(|| error.to_string());
            }
        }
    }

    /// Notes one request that was given up after `waited`: its latency is at least that.
    pub(crate) fn give_up(&mut self, waited: Duration) {
        self.latencies.record(waited);
        self.failed += 1;
        self.given_up += 1;
        self.error.get_or_insert_with(|| "no answer in time".to_owned());
    }

    /// Adds all of `other`.
    pub(crate) fn add(&mut self, other: &Outcome) {
        self.latencies.add(&other.latencies);
        self.failed += other.failed;
        self.given_up += other.given_up;
        self.error = self.error.take().or_else(|| other.error.clone());
    }

    /// Requests that were answered rightly.
    pub(crate) fn answered(&self) -> u64 {
        self.latencies.count() - self.given_up
    }

    fn ended(&self) -> u64 {
        self.answered() + self.failed
    }
}

/// Calls `fire` for each of `count` requests when it is due, `period` apart from `began`,
/// with its number and the time when it was due. One that is late is fired at once and
/// keeps its time. Sleeps, so it wants a thread of its own: timers of the runtime are
/// a millisecond coarse, which is longer than what is measured.
fn pace(
    began: Instant,
    period: Duration,
    count: u32,
    stop: &AtomicBool,
    mut fire: impl FnMut(u32, Instant),
) {
    for number in 0..count {
        let due = began + period * number;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if stop.load(Ordering::Relaxed) {
            return;
        }
        fire(number, due);
    }
}

/// Open-loop requests on their way; dropping it ends them.
pub(crate) struct OpenLoop {
    count: u32,
    /// When the last request is due.
    end: Instant,
    outcome: Arc<Mutex<Outcome>>,
    stop: Arc<AtomicBool>,
    give_up: CancellationToken,
}

impl OpenLoop {
    /// Starts `count` requests on `runtime`, the first one after `head_start`.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(crate) fn start<F>(
        runtime: &Handle,
        head_start: Duration,
        period: Duration,
        count: u32,
        request: impl Fn() -> F + Send + 'static,
    ) -> io::Result<OpenLoop>
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let began = Instant::now() + head_start;
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let give_up = CancellationToken::new();
        let made = OpenLoop { count, end: began + period * count, outcome, stop, give_up };
        let (outcome, stop, give_up) =
            (Arc::clone(&made.outcome), Arc::clone(&made.stop), made.give_up.clone());
        let runtime = runtime.clone();
        std::thread::Builder::new().name("pace".to_owned()).spawn(move || {
            pace(began, period, count, &stop, |_, due| {
                let (request, give_up) = (request(), give_up.clone());
                let outcome = Arc::clone(&outcome);
                runtime.spawn(async move {
                    let ended = tokio::select! {
                        ended = request => Some(ended),
                        () = give_up.cancelled() => None,
                    };
                    let took = due.elapsed();
                    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                    match ended {
                        Some(ended) => outcome.note(took, ended),
                        None => outcome.give_up(took),
                    }
                });
            });
        })?;
        Ok(made)
    }

    /// What has come of them so far.
    pub(crate) fn so_far(&self) -> Outcome {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the last request has ended, and no longer than [`STRAGGLERS`] after it
    /// was due.
    pub(crate) async fn finish(self) -> Outcome {
        tokio::time::sleep_until(self.end.into()).await;
        self.until_ended(self.end + STRAGGLERS).await;
        self.give_up.cancel();
        // Each notes its own end, which takes no longer than a turn of the runtime.
        self.until_ended(Instant::now() + Duration::from_secs(1)).await;
        self.so_far()
    }

    async fn until_ended(&self, latest: Instant) {
        while self.so_far().ended() < u64::from(self.count) && Instant::now() < latest {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for OpenLoop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.give_up.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_their_time_whatever_the_last_one_does() {
        let (began, period) = (Instant::now(), Duration::from_millis(2));
        let mut fired = Vec::new();
        pace(began, period, 20, &AtomicBool::new(false), |number, due| {
            assert!(Instant::now() >= due, "not before it is due");
            if number == 0 {
                // Holds up the ones behind it: their time stays what it was.
                std::thread::sleep(Duration::from_millis(30));
            }
            fired.push((number, due));
        });
        let expected: Vec<_> = (0..20).map(|number| (number, began + period * number)).collect();
        assert_eq!(fired, expected);
    }

    #[test]
    fn a_stopped_pace_fires_no_more() {
        let stop = AtomicBool::new(false);
        let mut fired = 0;
        pace(Instant::now(), Duration::from_millis(1), 1000, &stop, |number, _| {
            fired += 1;
            stop.store(number == 4, Ordering::Relaxed);
        });
        assert_eq!(fired, 5);
    }

    /// A target that answers nothing for a while costs every request that was due then,
    /// not only the first one.
    #[tokio::test]
    async fn a_pause_is_seen_by_all_that_were_due_in_it() {
        let open = Instant::now() + Duration::from_millis(400);
        let request = move || async move {
            tokio::time::sleep_until(open.into()).await;
            Ok(())
        };
        let period = Duration::from_millis(10);
        let running =
            OpenLoop::start(&Handle::current(), Duration::ZERO, period, 20, request).unwrap();
        let outcome = running.finish().await;
        assert_eq!((outcome.latencies.count(), outcome.failed), (20, 0));
        // The last one was due after 190 ms and waited for 210 more; this machine may have
        // been late with the first.
        assert!(outcome.latencies.percentile(0.0).unwrap() >= Duration::from_millis(100));
        assert!(outcome.latencies.max().unwrap() >= Duration::from_millis(300));
    }

    #[tokio::test]
    async fn failures_are_counted_and_do_not_look_fast() {
        let request = || async { Err(io::Error::other("refused")) };
        let period = Duration::from_millis(1);
        let running =
            OpenLoop::start(&Handle::current(), Duration::ZERO, period, 5, request).unwrap();
        let outcome = running.finish().await;
        assert_eq!((outcome.latencies.count(), outcome.failed), (0, 5));
        assert_eq!(outcome.error.as_deref(), Some("refused"));
        let mut outcome = Outcome::default();
        outcome.give_up(Duration::from_secs(3));
        assert_eq!((outcome.latencies.count(), outcome.failed), (1, 1));
    }
}
