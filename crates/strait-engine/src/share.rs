//! What a task may move before others get their turn.

use std::task::{Context, Poll};

/// Bytes that a task moves in one turn. Whatever it copies and writes on the way is time for
/// which every other task on its thread waits: tens of microseconds for this much.
const SHARE: usize = 32 * 1024;

/// A task's share of its thread: bytes that it may still move before it lets others go first.
/// The runtime's own budget counts operations, of which one may move any amount.
#[derive(Debug)]
pub struct Share {
    left: usize,
}

impl Default for Share {
    fn default() -> Share {
        Share { left: SHARE }
    }
}

impl Share {
    /// Ready while something is left. When nothing is, pending once: the task goes to the
    /// end of the line.
    pub fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.left > 0 {
            return Poll::Ready(());
        }
        self.left = SHARE;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// `bytes` were moved.
    pub fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// The task waits for something else, so others have their turn anyway.
    pub fn rest(&mut self) {
        self.left = SHARE;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_spent_share_lets_others_go_first_once() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut share = Share::default();
        share.spend(SHARE - 1);
        assert!(share.poll_turn(&mut cx).is_ready());
        share.spend(1000);
        assert!(share.poll_turn(&mut cx).is_pending());
        assert!(share.poll_turn(&mut cx).is_ready());
        share.spend(SHARE);
        share.rest();
        assert!(share.poll_turn(&mut cx).is_ready());
    }
}
