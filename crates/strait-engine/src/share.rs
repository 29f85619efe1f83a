//! What a task may move before others get their turn.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::Turns;
use crate::turns::Place;

/// Bytes that a task moves of one body in one turn. Whatever it copies and writes on the way is time for
/// which every other task on its thread waits: tens of microseconds for this much.
const BODY: u32 = 32 * 1024;

/// The same for the tasks that carry a whole tunnel. It is several times as much: what they
/// leave in the socket waits below the scheduler, in front of whatever is short, and what they
/// take waits in its own request, where only its reader is held up by it.
const TUNNEL: u32 = 128 * 1024;

/// A task's share of its thread: bytes that it may still move before it lets others go first.
/// The runtime's own budget counts operations, of which one may move any amount.
pub struct Share {
    left: u32,
    size: u32,
    /// Where it waits for more.
    place: Option<Arc<Place>>,
}

impl Share {
    /// Of a task that moves one body.
    pub fn of_body() -> Share {
        Share { left: BODY, size: BODY, place: None }
    }

    /// Of a task that moves whatever travels on a tunnel.
    pub fn of_tunnel() -> Share {
        Share { left: TUNNEL, size: TUNNEL, place: None }
    }

    /// Ready while something is left. When nothing is, pending until it is the task's turn
    /// again in the line of `turns`.
    pub fn poll_turn(&mut self, turns: &Turns, cx: &mut Context<'_>) -> Poll<()> {
        if self.left > 0 {
            return Poll::Ready(());
        }
        if let Some(place) = &self.place {
            ready!(place.poll(cx));
            self.place = None;
            self.left = self.size;
            return Poll::Ready(());
        }
        self.place = turns.join(cx);
        if self.place.is_none() {
            self.left = self.size;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// `bytes` were moved.
    pub fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// The task waits for something else, so others have their turn anyway.
    pub fn rest(&mut self) {
        self.left = self.size;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            place.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_spent_share_lets_others_go_first_once() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut share = Share::of_body();
        share.spend(BODY as usize - 1);
        assert!(share.poll_turn(&Turns::NONE, &mut cx).is_ready());
        share.spend(1000);
        assert!(share.poll_turn(&Turns::NONE, &mut cx).is_pending());
        assert!(share.poll_turn(&Turns::NONE, &mut cx).is_ready());
        share.spend(BODY as usize);
        share.rest();
        assert!(share.poll_turn(&Turns::NONE, &mut cx).is_ready());
    }
}
