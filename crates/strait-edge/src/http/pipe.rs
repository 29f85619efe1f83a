//! The tasks in which the HTTP library sends bodies to backends by HTTP/2.
//!
//! While a backend takes nothing of a body, the library holds a piece of it and asks for no more,
//! so that the body cannot tell it that nobody wants the rest. Ending the task does: the library
//! then resets the stream, for which no room is needed, and lets go of the body.

use std::future::Future;

use tokio_util::sync::CancellationToken;

tokio::task_local! {
    static END: CancellationToken;
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
        let end = CancellationToken::new();
        let task = END.scope(end.clone(), task);
        tokio::spawn(async move { end.run_until_cancelled(task).await.map(drop) });
    }
}

/// What ends the task that polls a body just now, if it can be ended.
pub(crate) fn end() -> Option<CancellationToken> {
    END.try_with(Clone::clone).ok()
}
