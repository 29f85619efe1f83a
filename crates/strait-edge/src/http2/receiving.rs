//! The body of a request or an answer as it comes.

use std::task::{Context, Poll, ready};

use h2::RecvStream;
use strait_engine::{Data, Part};

/// What comes on a stream.
pub(crate) struct Receiving {
    stream: RecvStream,
    /// Bytes that are still to come, when that was announced.
    left: Option<u64>,
    /// Only trailers can come.
    data_over: bool,
    is_answer: bool,
}

impl Receiving {
    /// The body of a request.
    pub(crate) fn request(stream: RecvStream) -> Receiving {
        Receiving { stream, left: None, data_over: false, is_answer: false }
    }

    /// The body of an answer; `length` is what the head announces.
    pub(crate) fn answer(stream: RecvStream, length: Option<u64>) -> Receiving {
        Receiving { stream, left: length, data_over: false, is_answer: true }
    }

    /// The next part; `None` at the end. Empty pieces are dropped: peers allow only a hundred of
    /// them in a connection's life.
    pub(crate) fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, h2::Error>>> {
        while !self.data_over {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    // Fails only when the stream has ended, and nobody waits for room then.
                    let _ = self.stream.flow_control().release_capacity(bytes.len());
                    self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                    if !bytes.is_empty() {
                        return Poll::Ready(Some(Ok(Part::Data(Data::plain(bytes)))));
                    }
                }
                Some(Err(error)) => return Poll::Ready(self.broken(error)),
                None => self.data_over = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Part::Trailers(trailers)))),
            Err(error) => Poll::Ready(self.broken(error)),
        }
    }

    /// Whether the end is already known.
    pub(crate) fn is_end(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// Bytes that are still to come, when that was announced.
    pub(crate) fn left(&self) -> Option<u64> {
        self.left
    }

    /// A reset without error follows an answer that is complete: no more of the upload is wanted
    /// (RFC 9113 8.1). Whoever knows its length finds out if it is not. Anything else is a cut.
    fn broken(&self, error: h2::Error) -> Option<Result<Part, h2::Error>> {
        let without_error = error.is_reset() && error.reason() == Some(h2::Reason::NO_ERROR);
        if self.is_answer && without_error { None } else { Some(Err(error)) }
    }
}
