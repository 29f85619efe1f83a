//! The tasks in which the HTTP library sends bodies to backends by HTTP/2.
//!
//! While a backend takes nothing of a body, the library holds a piece of it and asks for no more,
//! so that the body cannot tell it that nobody wants the rest. Ending the task does: the library
//! then resets the stream, for which no room is needed, and lets go of the body.

use std::cell::OnceCell;
use std::future::{Future, poll_fn};

use tokio_util::sync::CancellationToken;

tokio::task_local! {
    /// There once the task turns out to send a body.
    static END: OnceCell<CancellationToken>;
}

/// Runs each future of a connection in a task that can be ended from within.
#[derive(Clone)]
pub(crate) struct Pipes;

impl<F> hyper::rt::Executor<F> for Pipes
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        // Boxed, because a task moves its future several times, and each of these is as large as
        // the largest, the connection itself.
        let mut task = Box::pin(task);
        let mut ended = None;
        let until_ended = poll_fn(move |cx| {
            let done = task.as_mut().poll(cx).map(drop);
            if done.is_pending() && ended.is_none() {
                let end = END.with(|end| end.get().cloned());
                ended = end.map(|end| Box::pin(end.cancelled_owned()));
            }
            match &mut ended {
                Some(ended) if done.is_pending() => ended.as_mut().poll(cx),
                _ => done,
            }
        });
        tokio::spawn(END.scope(OnceCell::new(), until_ended));
    }
}

/// What ends the task that polls a body just now, if it can be ended.
pub(crate) fn end() -> Option<CancellationToken> {
    END.try_with(|end| end.get_or_init(CancellationToken::new).clone()).ok()
}
