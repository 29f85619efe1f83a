//! Bodies between a connection and the engine. Each is pulled through the other: no
//! task and no channel in between.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use strait_engine::{BoxBody, EmptyBody, Fault, Part, Reason};
use tokio::time::{Instant, Sleep};

use crate::http::hop::strip_trailers;
use crate::http::upload::Upload;
use crate::settings::or_never;

/// A fault as the error of a body that is written. What comes of it is a visible cut: on
/// HTTP/1 the connection closes before the end, on HTTP/2 the stream is reset.
#[derive(Debug)]
pub(crate) struct Cut {
    fault: Fault,
    // The library takes the reset's code from here.
    reset: h2::Error,
}

impl From<Fault> for Cut {
    fn from(fault: Fault) -> Cut {
        let reset = h2::Reason::from(fault.face().reset.code());
        Cut { fault, reset: reset.into() }
    }
}

impl Cut {
    /// The fault behind it.
    pub(crate) fn into_fault(self) -> Fault {
        self.fault
    }

    /// The code of the reset.
    pub(crate) fn code(&self) -> h2::Reason {
        self.reset.reason().unwrap_or(h2::Reason::CANCEL)
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the exchange was cut: {}", self.fault)
    }
}

impl Error for Cut {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.reset)
    }
}

/// Whether what came is nonsense, rather than the connection lost: TLS tells of malformed records
/// by its kind of error.
pub(crate) fn is_malformed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
}

/// Compares a body with the length that its head announced.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Length(Option<u64>);

impl Length {
    pub(crate) fn new(announced: Option<u64>) -> Length {
        Length(announced)
    }

    pub(crate) fn left(self) -> Option<u64> {
        self.0
    }

    /// Whether `bytes` more are within the announced length.
    fn admit(&mut self, bytes: usize) -> bool {
        match &mut self.0 {
            None => true,
            Some(left) => match left.checked_sub(bytes as u64) {
                Some(rest) => {
                    *left = rest;
                    true
                }
                None => false,
            },
        }
    }

    /// Whether the body may end here.
    fn may_end(self) -> bool {
        matches!(self.0, None | Some(0))
    }
}

/// Time that a source may be silent while it is wanted.
pub(crate) struct Idle {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl Idle {
    /// No limit when `limit` is zero.
    pub(crate) fn new(limit: Duration) -> Idle {
        Idle { limit, sleep: None, armed: false }
    }

    /// The source spoke.
    pub(crate) fn spoke(&mut self) {
        self.armed = false;
    }

    /// The source is silent: ready when that took too long.
    pub(crate) fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.limit.is_zero() {
            return Poll::Pending;
        }
        let limit = self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !self.armed {
            self.armed = true;
            sleep.as_mut().reset(Instant::now() + limit);
        }
        sleep.as_mut().poll(cx)
    }
}

/// A plain body on its way to a connection: of a request to a backend, or of an
/// answer to a visitor.
pub(crate) struct Plain {
    body: BoxBody,
    length: Length,
    /// The last piece that the length admits, held until the end behind it is known.
    last: Option<Bytes>,
    /// Whose fault a wrong length is.
    blame: Reason,
    upload: Option<Arc<Upload>>,
    /// The body is not asked for before the backend wants it, or this time is over.
    unasked: Option<Pin<Box<Sleep>>>,
}

impl Plain {
    /// The body of an answer; `length` is what the head announces.
    pub(crate) fn answer(body: BoxBody, length: Option<u64>) -> Plain {
        let length = Length::new(length);
        let (blame, upload) = (Reason::BackendInvalid, None);
        Plain { body, length, last: None, blame, upload, unasked: None }
    }

    /// The body of a request, observed through `upload`.
    pub(crate) fn request(body: BoxBody, length: Option<u64>, upload: Arc<Upload>) -> Plain {
        let (length, upload) = (Length::new(length), Some(upload));
        Plain { body, length, last: None, blame: Reason::BadRequest, upload, unasked: None }
    }

    /// The same body, which is not asked for before the backend wants it, or `wait` has passed
    /// without an answer.
    pub(crate) fn awaiting_continue(mut self, wait: Option<Duration>) -> Plain {
        self.unasked = wait.map(|wait| Box::pin(tokio::time::sleep(or_never(wait))));
        self
    }

    /// Waits until the body may be asked for.
    fn poll_asked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let (Some(sleep), Some(upload)) = (&mut self.unasked, &self.upload) {
            let over = sleep.as_mut().poll(cx).is_ready();
            if !upload.may_proceed(over) {
                return Poll::Pending;
            }
            self.unasked = None;
        }
        Poll::Ready(())
    }

    /// The body, when it could not be sent.
    pub(crate) fn into_body(self) -> BoxBody {
        self.body
    }

    fn fail(&mut self, fault: Fault) -> Option<Result<Frame<Bytes>, Cut>> {
        if let Some(upload) = &self.upload {
            upload.cut(&fault);
        }
        // Whatever else it holds is not wanted any more.
        self.body.give_up(&fault);
        self.body = Box::new(EmptyBody);
        Some(Err(fault.into()))
    }

    fn finish(&mut self) -> Option<Result<Frame<Bytes>, Cut>> {
        if !self.length.may_end() {
            let detail = "the body ended before its announced length";
            return self.fail(Fault::because(self.blame, detail));
        }
        if let Some(upload) = &self.upload {
            upload.end();
        }
        self.body = Box::new(EmptyBody);
        self.last.take().map(|last| Ok(Frame::data(last)))
    }

    fn data(&mut self, bytes: Bytes) -> Option<Option<Result<Frame<Bytes>, Cut>>> {
        if !self.length.admit(bytes.len()) {
            let fault = Fault::because(self.blame, "the body is longer than it announced");
            return Some(self.fail(fault));
        }
        if self.length.left() == Some(0) {
            // After the last announced byte nobody asks for more. Without seeing the
            // end ourselves we would drop the body before it, which means to cancel.
            self.last = Some(bytes);
            return self.body.is_end().then(|| self.finish());
        }
        if let Some(upload) = &self.upload {
            upload.sent();
            if self.body.is_end() && self.length.may_end() {
                upload.end();
            }
        }
        Some(Some(Ok(Frame::data(bytes))))
    }

    /// The next frame.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.upload.as_ref().is_some_and(|upload| upload.is_aborted(cx)) {
            return Poll::Ready(self.fail(Fault::new(Reason::None)));
        }
        ready!(self.poll_asked(cx));
        loop {
            return Poll::Ready(match ready!(self.body.poll_part(cx)) {
                Some(Ok(Part::Data(data))) if data.bytes.is_empty() => continue,
                Some(Ok(Part::Data(data))) => match self.data(data.bytes) {
                    Some(frame) => frame,
                    None => continue,
                },
                Some(Ok(Part::Trailers(mut trailers))) => match self.finish() {
                    None => {
                        strip_trailers(&mut trailers);
                        Some(Ok(Frame::trailers(trailers)))
                    }
                    other => other,
                },
                Some(Err(fault)) => self.fail(fault),
                None => self.finish(),
            });
        }
    }

    /// Whether no frame will come.
    pub(crate) fn is_end(&self) -> bool {
        self.length.may_end() && self.last.is_none() && self.body.is_end()
    }

    /// The exact size where it is known, so that it is framed by it.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.length.left().or_else(|| self.body.size()) {
            Some(size) => SizeHint::with_exact(size),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::upload::AbortUpload;
    use std::future::poll_fn;
    use strait_engine::Data;

    struct Parts(Vec<Result<Part, Fault>>);

    impl strait_engine::Body for Parts {
        fn poll_part(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
            Poll::Ready((!self.0.is_empty()).then(|| self.0.remove(0)))
        }
    }

    async fn frames(announced: Option<u64>, pieces: &[&'static [u8]]) -> Vec<Result<usize, ()>> {
        let parts = pieces.iter().map(|p| Ok(Part::Data(Data::plain(Bytes::from_static(p)))));
        let mut plain = Plain::answer(Box::new(Parts(parts.collect())), announced);
        let mut seen = Vec::new();
        while let Some(frame) = poll_fn(|cx| plain.poll_frame(cx)).await {
            let failed = frame.is_err();
            seen.push(frame.map(|f| f.data_ref().map_or(0, Bytes::len)).map_err(|_| ()));
            if failed {
                break;
            }
        }
        seen
    }

    #[tokio::test]
    async fn a_length_that_lies_is_a_cut_and_empty_pieces_are_dropped() {
        assert_eq!(frames(None, &[b"ab", b"", b"c"]).await, [Ok(2), Ok(1)]);
        assert_eq!(frames(Some(3), &[b"ab", b"c"]).await, [Ok(2), Ok(1)]);
        assert_eq!(frames(Some(4), &[b"ab", b"c"]).await, [Ok(2), Ok(1), Err(())]);
        // The last admitted piece waits for the end, which then does not come.
        assert_eq!(frames(Some(2), &[b"ab", b"c"]).await, [Err(())]);
    }

    #[tokio::test]
    async fn an_abort_cuts_the_upload() {
        let upload = Arc::new(Upload::default());
        let body = Box::new(Parts(Vec::new()));
        let mut plain = Plain::request(body, Some(5), upload.clone());
        drop(AbortUpload(upload.clone()));
        assert!(matches!(poll_fn(|cx| plain.poll_frame(cx)).await, Some(Err(_))));
        assert!(!upload.ended());
    }
}
