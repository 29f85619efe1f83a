//! A bounded queue of lines to one writer thread: whoever logs never waits for a disk, a
//! pipe or a terminal. What does not fit is dropped and counted.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Items that may wait at once.
pub(super) const ROOM: usize = 8192;

/// After a write the thread rests, so that under load one wake-up serves many lines.
const REST: Duration = Duration::from_millis(10);

/// Turns an item into a line, with its line end.
pub(super) type Format<T> = Box<dyn Fn(&T, &mut Vec<u8>) + Send>;

struct State<T> {
    items: Vec<T>,
    /// The writer sleeps until it is called.
    asleep: bool,
    closed: bool,
    /// The writer has ended.
    ended: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    dropped: AtomicU64,
}

impl<T> Shared<T> {
    // A panic of another holder leaves a list of lines, which is as good as before.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue's cheap handle.
pub(super) struct Queue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Queue { shared: self.shared.clone() }
    }
}

impl<T: Send + 'static> Queue<T> {
    /// Starts the writer thread. `name` is the thread's.
    pub(super) fn start(
        name: &'static str,
        out: Box<dyn Write + Send>,
        format: Format<T>,
    ) -> std::io::Result<Queue<T>> {
        let state = State { items: Vec::new(), asleep: false, closed: false, ended: false };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            dropped: AtomicU64::new(0),
        });
        let writer = Writer { shared: shared.clone(), out, format, torn: false, failing: false };
        thread::Builder::new().name(name.to_owned()).spawn(move || writer.run())?;
        Ok(Queue { shared })
    }

    /// Hands over one item; never waits for the writer.
    pub(super) fn push(&self, item: T) {
        let mut state = self.shared.lock();
        if state.items.len() >= ROOM || state.closed {
            drop(state);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.items.push(item);
        if state.asleep {
            state.asleep = false;
            self.shared.changed.notify_all();
        }
    }

    /// Lines that were lost so far.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Takes no more items and waits until those at hand are written, at most for `limit`.
    pub(super) fn finish(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.changed.notify_all();
        while !state.ended {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

struct Writer<T> {
    shared: Arc<Shared<T>>,
    out: Box<dyn Write + Send>,
    format: Format<T>,
    /// The last write ended within a line.
    torn: bool,
    failing: bool,
}

impl<T> Writer<T> {
    fn run(mut self) {
        let mut batch = Vec::new();
        let mut text = Vec::new();
        while self.next(&mut batch) {
            text.clear();
            if self.torn {
                text.push(b'\n');
            }
            batch.drain(..).for_each(|item| (self.format)(&item, &mut text));
            self.write(&text);
            if !self.shared.lock().closed {
                thread::sleep(REST);
            }
        }
        let mut state = self.shared.lock();
        state.ended = true;
        self.shared.changed.notify_all();
    }

    /// Waits for items; `false` when there will be none.
    fn next(&self, batch: &mut Vec<T>) -> bool {
        let mut state = self.shared.lock();
        while state.items.is_empty() {
            if state.closed {
                return false;
            }
            state.asleep = true;
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.asleep = false;
        std::mem::swap(&mut state.items, batch);
        true
    }

    /// Writes what can be written. A full disk may have room again later; a closed pipe
    /// never, but asking it costs one system call for each batch.
    fn write(&mut self, text: &[u8]) {
        let mut rest = text;
        let error = loop {
            if rest.is_empty() {
                break self.out.flush().err();
            }
            match self.out.write(rest) {
                Ok(0) => break Some(std::io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
        };
        let written = text.len() - rest.len();
        if written > 0 {
            self.torn = text[written - 1] != b'\n';
        }
        let lost = rest.iter().filter(|byte| **byte == b'\n').count();
        self.shared.dropped.fetch_add(lost as u64, Ordering::Relaxed);
        if let Some(error) = &error
            && !self.failing
        {
            // Said once for each spell of failures; about itself the log cannot speak.
            tracing::warn!(%error, "a log cannot be written; lines are dropped and counted");
        }
        self.failing = error.is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An output that can be blocked, can fail, and remembers.
    #[derive(Clone, Default)]
    struct Out(Arc<(Mutex<OutState>, Condvar)>);

    #[derive(Default)]
    struct OutState {
        bytes: Vec<u8>,
        blocked: bool,
        fails_after: Option<usize>,
    }

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let mut state = self.0.0.lock().unwrap();
            while state.blocked {
                state = self.0.1.wait(state).unwrap();
            }
            if let Some(left) = state.fails_after {
                if left == 0 {
                    return Err(std::io::ErrorKind::StorageFull.into());
                }
                let count = left.min(bytes.len());
                state.fails_after = Some(left - count);
                state.bytes.extend_from_slice(&bytes[..count]);
                return Ok(count);
            }
            state.bytes.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Out {
        fn set(&self, change: impl FnOnce(&mut OutState)) {
            change(&mut self.0.0.lock().unwrap());
            self.0.1.notify_all();
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().unwrap().bytes.clone()).unwrap()
        }
    }

    fn queue(out: &Out) -> Queue<u32> {
        let format: Format<u32> = Box::new(|n, text| text.extend(format!("line {n}\n").bytes()));
        Queue::start("test", Box::new(out.clone()), format).unwrap()
    }

    fn until(mut reached: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !reached() {
            assert!(Instant::now() < end, "never reached");
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn lines_are_written_in_order_and_all_of_them_before_the_end() {
        let out = Out::default();
        let queue = queue(&out);
        (0..1000).for_each(|n| queue.push(n));
        queue.finish(Duration::from_secs(10));
        let expected: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        assert_eq!(out.text(), expected);
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_blocked_output_blocks_nobody_and_what_does_not_fit_is_counted() {
        let out = Out::default();
        out.set(|state| state.blocked = true);
        let queue = queue(&out);
        queue.push(0);
        until(|| queue.shared.lock().items.is_empty());
        (0..ROOM as u32 + 7).for_each(|n| queue.push(n));
        assert_eq!(queue.dropped(), 7);
        queue.finish(Duration::from_millis(20));
        out.set(|state| state.blocked = false);
        until(|| out.text().lines().count() == ROOM + 1);
    }

    #[test]
    fn a_full_disk_costs_lines_but_never_tears_two_into_one() {
        let out = Out::default();
        out.set(|state| state.fails_after = Some(10));
        let queue = queue(&out);
        queue.push(1);
        until(|| out.text() == "line 1\n");
        queue.push(2);
        until(|| queue.dropped() == 1);
        out.set(|state| state.fails_after = None);
        queue.push(3);
        queue.finish(Duration::from_secs(10));
        assert_eq!(out.text(), "line 1\nlin\nline 3\n");
    }
}
