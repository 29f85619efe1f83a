//! What is known of a request's body while the HTTP library sends it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use strait_engine::Fault;
use tokio_util::sync::CancellationToken;

/// What is known about a request's body while somebody else, the HTTP library, sends it.
#[derive(Default)]
pub(crate) struct Upload(Mutex<UploadState>);

#[derive(Default)]
struct UploadState {
    ended: bool,
    aborted: bool,
    /// The backend has asked for the body.
    continued: bool,
    /// It has answered instead, and not with success: whoever still waits to be asked waits in
    /// vain.
    refused: bool,
    pieces: u64,
    fault: Option<Fault>,
    waker: Option<Waker>,
    /// Ends the task that sends the body, when it is one that waits for the backend's room.
    pipe: Option<CancellationToken>,
}

impl Upload {
    fn lock(&self) -> MutexGuard<'_, UploadState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the body was sent to its end.
    pub(crate) fn ended(&self) -> bool {
        self.lock().ended
    }

    /// Pieces sent so far; changes as long as the upload makes progress.
    pub(crate) fn pieces(&self) -> u64 {
        self.lock().pieces
    }

    /// The fault that cut the body, if one did.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.lock().fault.clone()
    }

    /// Whether it was aborted; else `cx` is woken when it is.
    pub(crate) fn is_aborted(&self, cx: &Context<'_>) -> bool {
        let mut state = self.lock();
        if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        state.aborted
    }

    /// The backend said `100 Continue`.
    pub(crate) fn proceed(&self) {
        let mut state = self.lock();
        state.continued = true;
        let waker = state.waker.clone();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// The backend has no use for a body that it did not ask for.
    pub(crate) fn refuse(&self) {
        self.lock().refused = true;
    }

    /// Whether a body that waits to be asked for may be sent; `over` is whether it has waited for
    /// long enough.
    pub(crate) fn may_proceed(&self, over: bool) -> bool {
        let state = self.lock();
        state.continued || (over && !state.refused)
    }

    /// A piece was sent.
    pub(crate) fn sent(&self) {
        self.lock().pieces += 1;
    }

    /// The body was sent to its end.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
    }

    /// The body was cut.
    pub(crate) fn cut(&self, fault: &Fault) {
        self.lock().fault = Some(fault.clone());
    }

    /// The body is sent by a task that `end` ends.
    pub(crate) fn sent_by(&self, end: CancellationToken) {
        let mut state = self.lock();
        // Else whoever aborted it could not end the task yet.
        if !state.aborted {
            state.pipe = Some(end);
        } else {
            end.cancel();
        }
    }

    /// The answer is over and so is the body: what the library still holds of it may go.
    pub(crate) fn let_go(&self) {
        self.lock().pipe = None;
    }

    /// Stops sending: the answer is over, or nobody wants it.
    pub(crate) fn abort(&self) {
        let mut state = self.lock();
        state.aborted = true;
        let (waker, pipe) = (state.waker.take(), state.pipe.take());
        drop(state);
        if let Some(pipe) = pipe {
            pipe.cancel();
        } else if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Wakes up the HTTP library when the upload is dropped with the exchange.
pub(crate) struct AbortUpload(pub(crate) Arc<Upload>);

impl Drop for AbortUpload {
    fn drop(&mut self) {
        self.0.abort();
    }
}
