//! What is known of a request's body while it is sent to a service.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use strait_engine::Fault;

/// What is known about a request's body while it is sent.
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

    /// Stops sending: the answer is over, or nobody wants it.
    pub(crate) fn abort(&self) {
        let mut state = self.lock();
        state.aborted = true;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Stops the upload when it is dropped with the answer.
pub(crate) struct AbortUpload(pub(crate) Arc<Upload>);

impl Drop for AbortUpload {
    fn drop(&mut self) {
        self.0.abort();
    }
}
