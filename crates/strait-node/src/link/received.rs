//! The frames that a session receives, cut out of the body of the call.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use hyper::body::Incoming as HttpBody;
use strait_engine::{Incoming, LinkError, Refusal};
use strait_wire::{Frame, codec};
use tonic::{Code, Status};

use super::near::Distance;
use super::{FRAME, PREFIX, deepest, told};

/// Messages of so many bytes stay where HTTP/2 has read them: they fill about half of that
/// block, or more. A smaller one, which may wait for its consumer, shall not keep a block alive
/// in which there was much else.
const SHARED_FROM: usize = FRAME as usize / 2;

/// The frames that a session receives.
pub(crate) struct Received {
    body: HttpBody,
    cutter: Cutter,
    distance: Arc<Distance>,
}

impl Received {
    pub(crate) fn new(body: HttpBody, distance: Arc<Distance>) -> Received {
        Received { body, cutter: Cutter::default(), distance }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, LinkError>> {
        loop {
            if let Some(message) = self.cutter.next().map_err(LinkError::Unreadable)? {
                let malformed = |error: codec::DecodeError| {
                    LinkError::Unreadable(Refusal::Malformed(error.to_string()))
                };
                let frame = codec::decode(message).map_err(malformed)?;
                if matches!(frame, Frame::Pong(_)) {
                    self.distance.ponged();
                }
                return Poll::Ready(Ok(Some(frame)));
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(self.end());
            };
            match frame.map(|frame| frame.into_data().map_err(|frame| frame.into_trailers())) {
                Ok(Ok(data)) => self.cutter.chunk = data,
                Ok(Err(Ok(trailers))) => return Poll::Ready(self.status(&trailers)),
                Ok(Err(Err(_))) => {}
                Err(error) => return Poll::Ready(broken(&error)),
            }
        }
    }

    fn end(&mut self) -> Result<Option<Frame>, LinkError> {
        match self.cutter.partial.is_empty() {
            true => Ok(None),
            false => {
                let text = "the stream ended within a message".to_owned();
                Err(LinkError::Unreadable(Refusal::Malformed(text)))
            }
        }
    }

    /// What the peer says at the end of its answer.
    fn status(&mut self, trailers: &HeaderMap) -> Result<Option<Frame>, LinkError> {
        match Status::from_header_map(trailers) {
            Some(status) if status.code() != Code::Ok => Err(LinkError::Broken(told(&status))),
            _ => self.end(),
        }
    }
}

/// Cuts messages out of chunks.
#[derive(Default)]
struct Cutter {
    /// What has come and is not cut yet.
    chunk: Bytes,
    /// A message that came in several chunks, as far as it is here.
    partial: BytesMut,
}

impl Cutter {
    /// The next message, without its prefix, when all of it is here. Takes all of the chunk
    /// when it is not.
    fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        if self.chunk.is_empty() {
            return Ok(None);
        }
        if self.partial.is_empty()
            && let Some(length) = length(&self.chunk)?
            && self.chunk.len() >= PREFIX + length
        {
            self.chunk.advance(PREFIX);
            let message = self.chunk.split_to(length);
            // Of a small one the codec makes its own copy.
            let stays = length >= SHARED_FROM || length <= codec::COPY_BELOW;
            return Ok(Some(if stays { message } else { Bytes::copy_from_slice(&message) }));
        }
        if self.partial.len() < PREFIX {
            self.fill(PREFIX);
        }
        let Some(length) = length(&self.partial)? else { return Ok(None) };
        self.fill(PREFIX + length);
        if self.partial.len() < PREFIX + length {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.partial).freeze();
        message.advance(PREFIX);
        Ok(Some(message))
    }

    /// Moves what there is until `partial` has `bytes`.
    fn fill(&mut self, bytes: usize) {
        let missing = bytes.saturating_sub(self.partial.len());
        self.partial.reserve(missing);
        self.partial.extend_from_slice(&self.chunk.split_to(missing.min(self.chunk.len())));
    }
}

/// The length of the message whose prefix stands at the beginning of `bytes`, when all of the
/// prefix is there.
fn length(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    let Some(&[flag, a, b, c, d]) = bytes.first_chunk::<PREFIX>() else { return Ok(None) };
    if flag != 0 {
        return Err(Refusal::Malformed("a message is compressed, and none may be".to_owned()));
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > codec::MAX_MESSAGE {
        let most = codec::MAX_MESSAGE;
        let text = format!("a message of {length} bytes is over the limit of {most} bytes");
        return Err(Refusal::TooLarge(text));
    }
    Ok(Some(length))
}

/// A peer that cancels its call is gone; anything else broke.
fn broken(error: &hyper::Error) -> Result<Option<Frame>, LinkError> {
    let reset = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    match reset.filter(|error| error.is_reset()).and_then(h2::Error::reason) {
        Some(h2::Reason::CANCEL) => Ok(None),
        _ => Err(LinkError::Broken(deepest(error))),
    }
}

impl Incoming for Received {
    async fn next(&mut self) -> Result<Option<Frame>, LinkError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages of these lengths, with their prefixes.
    fn stream(lengths: &[usize]) -> (Vec<Bytes>, Bytes) {
        let mut all = Vec::new();
        let messages = lengths.iter().enumerate().map(|(at, &length)| {
            let message = Bytes::from(vec![at as u8 + 1; length]);
            all.push(0);
            all.extend((length as u32).to_be_bytes());
            all.extend(&message);
            message
        });
        (messages.collect(), Bytes::from(all))
    }

    fn cut(stream: &Bytes, chunk: usize) -> Result<(Vec<Bytes>, Cutter), Refusal> {
        let (mut cutter, mut cut) = (Cutter::default(), Vec::new());
        for at in (0..stream.len()).step_by(chunk) {
            cutter.chunk = stream.slice(at..stream.len().min(at + chunk));
            while let Some(message) = cutter.next()? {
                cut.push(message);
            }
        }
        Ok((cut, cutter))
    }

    #[test]
    fn messages_are_the_same_however_they_arrive() {
        let (messages, stream) = stream(&[0, 1, 4, 5, 300, 0, 5_000, 40_000, 70_000, 7]);
        for chunk in (1..20).chain([100, 1_000, 16_384, 40_000, 66_000, 1_000_000]) {
            let (cut, cutter) = cut(&stream, chunk).unwrap();
            assert_eq!(cut, messages, "in chunks of {chunk}");
            assert!(cutter.partial.is_empty());
        }
        let (_, cutter) = cut(&stream.slice(..stream.len() - 1), 1_000).unwrap();
        assert!(!cutter.partial.is_empty());
    }

    #[test]
    fn only_a_large_message_stays_in_its_block() {
        let (_, stream) = stream(&[5_000, 40_000]);
        let (cut, _) = cut(&stream, stream.len()).unwrap();
        let block = stream.as_ptr_range();
        let stays = cut.iter().map(|message| block.contains(&message.as_ptr()));
        assert_eq!(stays.collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn what_is_compressed_or_too_large_is_refused_by_its_prefix() {
        let refused = |prefix: &'static [u8]| cut(&Bytes::from_static(prefix), 2).err();
        assert!(matches!(refused(&[1, 0, 0, 0, 1]), Some(Refusal::Malformed(_))));
        assert!(matches!(refused(&[0, 0, 16, 0, 1]), Some(Refusal::TooLarge(_))));
        assert!(refused(&[0, 0, 16, 0, 0]).is_none());
    }
}
