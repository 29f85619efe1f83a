//! The length-prefixed messages in a gRPC body: cut out at one end, joined at the other
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, Length-Prefixed-Message).
//! Neither end collects a message.

use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use strait_engine::{BoxBody, Data, Fault, MessageStart, Part, Reason};

const PREFIX: usize = 5;

/// Cuts a body at its length prefixes, however it was cut into pieces before.
pub(crate) struct Cutter {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that have come.
    have: usize,
    /// Payload bytes of the current message still to come.
    left: u64,
    max_message: u64,
    /// Whose fault malformed messages are.
    blame: Reason,
}

impl Cutter {
    /// `blame` is the reason of the fault when the source sends malformed messages.
    pub(crate) fn new(max_message: u64, blame: Reason) -> Cutter {
        Cutter { prefix: [0; PREFIX], have: 0, left: 0, max_message, blame }
    }

    /// Whether the source is between two messages, where a body may end.
    pub(crate) fn at_boundary(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Takes the next piece from the front of `input`; `None` when more bytes are needed.
    ///
    /// # Errors
    /// A flag other than 0 and 1; a message over the limit.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Result<Option<Data>, Fault> {
        if self.left > 0 {
            return Ok((!input.is_empty()).then(|| self.payload(input, None)));
        }
        let n = input.len().min(PREFIX - self.have);
        self.prefix[self.have..self.have + n].copy_from_slice(&input.split_to(n));
        self.have += n;
        if self.have < PREFIX {
            return Ok(None);
        }
        let [tag, length @ ..] = self.prefix;
        let length = u64::from(u32::from_be_bytes(length));
        if tag > 1 {
            return Err(Fault::because(self.blame, "a gRPC message has an unknown flag"));
        }
        if length > self.max_message {
            let detail = format!("a gRPC message of {length} bytes, over {}", self.max_message);
            return Err(Fault::because(Reason::MessageTooLarge, detail));
        }
        if length > 0 && input.is_empty() {
            // The start travels with the first bytes of its message.
            return Ok(None);
        }
        self.have = 0;
        self.left = length;
        Ok(Some(self.payload(input, Some(MessageStart { tag, length }))))
    }

    fn payload(&mut self, input: &mut Bytes, start: Option<MessageStart>) -> Data {
        let n = (input.len() as u64).min(self.left);
        self.left -= n;
        Data { bytes: input.split_to(n as usize), start, ends_message: self.left == 0 }
    }

    /// The fault of a source that ends here, if it may not.
    pub(crate) fn end(&self) -> Option<Fault> {
        let detail = "the body ended within a gRPC message";
        (!self.at_boundary()).then(|| Fault::because(self.blame, detail))
    }
}

/// Joins pieces of messages into a body again.
pub(crate) struct Joiner {
    left: u64,
    out: BytesMut,
    /// What comes after `out`.
    next: Option<Next>,
}

enum Next {
    Data(Bytes),
    Trailers(HeaderMap),
    Fault(Fault),
    End,
}

/// A frame of the joined body.
pub(crate) enum Joined {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// Small pieces that are ready together share a frame up to this size, and with it a
/// write; larger ones are passed on without a copy.
const BATCH: usize = 16 << 10;

impl Joiner {
    pub(crate) fn new() -> Joiner {
        Joiner { left: 0, out: BytesMut::new(), next: None }
    }

    /// Whether `out` is between two messages.
    pub(crate) fn at_boundary(&self) -> bool {
        self.left == 0
    }

    /// Whether no frame will come of `body`: its end is known and nothing is held back.
    pub(crate) fn is_end(&self, body: &BoxBody) -> bool {
        self.out.is_empty()
            && match &self.next {
                Some(Next::End) => true,
                Some(_) => false,
                // One that ends within a message has a fault to come.
                None => self.at_boundary() && body.is_end(),
            }
    }

    /// The next frame of the body that joins the messages of `body`.
    pub(crate) fn poll(
        &mut self,
        body: &mut BoxBody,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Joined, Fault>>> {
        while self.next.is_none() && self.out.len() < BATCH {
            match body.poll_part(cx) {
                Poll::Pending if self.out.is_empty() => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(Some(Ok(Part::Data(data)))) => {
                    if let Err(fault) = self.append(data) {
                        self.next = Some(Next::Fault(fault));
                    }
                }
                Poll::Ready(Some(Ok(Part::Trailers(trailers)))) => {
                    self.next = Some(Next::Trailers(trailers));
                }
                Poll::Ready(Some(Err(fault))) => self.next = Some(Next::Fault(fault)),
                Poll::Ready(None) if self.left > 0 => {
                    let detail = "the body ended within a gRPC message";
                    self.next = Some(Next::Fault(Fault::because(Reason::Protocol, detail)));
                }
                Poll::Ready(None) => self.next = Some(Next::End),
            }
        }
        if !self.out.is_empty() {
            return Poll::Ready(Some(Ok(Joined::Data(std::mem::take(&mut self.out).freeze()))));
        }
        Poll::Ready(match self.next.take() {
            Some(Next::Data(bytes)) => Some(Ok(Joined::Data(bytes))),
            Some(Next::Trailers(trailers)) => Some(Ok(Joined::Trailers(trailers))),
            Some(Next::Fault(fault)) => Some(Err(fault)),
            Some(Next::End) | None => None,
        })
    }

    fn append(&mut self, data: Data) -> Result<(), Fault> {
        let wrong = |detail| Fault::because(Reason::Protocol, detail);
        match data.start {
            Some(start) if self.left == 0 => {
                let length = u32::try_from(start.length).map_err(|_| wrong("message too long"))?;
                if start.tag > 1 {
                    return Err(wrong("a gRPC message has an unknown flag"));
                }
                self.left = start.length;
                self.out.reserve(PREFIX + data.bytes.len().min(BATCH));
                self.out.put_u8(start.tag);
                self.out.put_u32(length);
            }
            None if self.left > 0 => {}
            _ => return Err(wrong("a piece does not fit into its gRPC message")),
        }
        self.left = (self.left.checked_sub(data.bytes.len() as u64))
            .ok_or_else(|| wrong("a gRPC message is longer than it announced"))?;
        if data.ends_message != (self.left == 0) {
            return Err(wrong("a gRPC message is not as long as it announced"));
        }
        if self.out.len() + data.bytes.len() <= BATCH {
            self.out.put_slice(&data.bytes);
        } else {
            self.next = Some(Next::Data(data.bytes));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::future::poll_fn;

    struct Pieces(Vec<Data>);

    impl strait_engine::Body for Pieces {
        fn poll_part(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
            Poll::Ready((!self.0.is_empty()).then(|| Ok(Part::Data(self.0.remove(0)))))
        }
    }

    /// Cuts `wire` after it was cut into pieces of the given sizes.
    fn cut(wire: &[u8], sizes: &[usize]) -> Result<Vec<Data>, Fault> {
        let mut cutter = Cutter::new(1 << 20, Reason::BadRequest);
        let (mut pieces, mut at, mut turn) = (Vec::new(), 0, 0);
        while at < wire.len() {
            let n = sizes[turn % sizes.len()].min(wire.len() - at);
            let mut input = Bytes::copy_from_slice(&wire[at..at + n]);
            while let Some(data) = cutter.next(&mut input)? {
                pieces.push(data);
            }
            assert!(input.is_empty());
            at += n;
            turn += 1;
        }
        match cutter.end() {
            Some(fault) => Err(fault),
            None => Ok(pieces),
        }
    }

    fn wire(messages: &[(bool, Vec<u8>)]) -> Vec<u8> {
        let mut wire = Vec::new();
        for (compressed, bytes) in messages {
            wire.push(u8::from(*compressed));
            wire.put_u32(bytes.len() as u32);
            wire.extend_from_slice(bytes);
        }
        wire
    }

    async fn join(pieces: Vec<Data>) -> Result<Vec<u8>, Fault> {
        let (mut joiner, mut body): (_, BoxBody) = (Joiner::new(), Box::new(Pieces(pieces)));
        let mut out = Vec::new();
        while let Some(frame) = poll_fn(|cx| joiner.poll(&mut body, cx)).await {
            if let Joined::Data(bytes) = frame? {
                assert!(!bytes.is_empty());
                out.extend_from_slice(&bytes);
            }
        }
        Ok(out)
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_same_messages_and_joins_to_the_same_bytes(
            messages in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40_000)), 0..8),
            sizes in prop::collection::vec(1usize..30_000, 1..6),
        ) {
            let wire = wire(&messages);
            let pieces = cut(&wire, &sizes).unwrap();
            let mut seen: Vec<(bool, Vec<u8>)> = Vec::new();
            for data in &pieces {
                if let Some(start) = data.start {
                    prop_assert_eq!(start.length as usize, messages[seen.len()].1.len());
                    seen.push((start.tag == 1, Vec::new()));
                }
                let last = seen.last_mut().unwrap();
                last.1.extend_from_slice(&data.bytes);
                prop_assert_eq!(data.ends_message, last.1.len() == messages[seen.len() - 1].1.len());
            }
            prop_assert_eq!(&seen, &messages);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert_eq!(runtime.block_on(join(pieces)).unwrap(), wire);
        }

        #[test]
        fn any_bytes_are_messages_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..200), size in 1usize..9) {
            let _ = cut(&bytes, &[size]);
        }
    }

    #[test]
    fn malformed_messages_are_faults() {
        let reason = |bytes: &[u8]| cut(bytes, &[3]).map(|_| ()).map_err(|fault| fault.reason);
        assert_eq!(reason(&[2, 0, 0, 0, 0]), Err(Reason::BadRequest));
        assert_eq!(reason(&[0, 0, 0]), Err(Reason::BadRequest));
        assert_eq!(reason(&[0, 0, 0, 0, 2, 7]), Err(Reason::BadRequest));
        assert_eq!(reason(&[0, 0, 0x10, 0, 1, 7]), Err(Reason::MessageTooLarge));
        assert_eq!(reason(&[0, 0, 0, 0, 0]), Ok(()));
    }

    #[tokio::test]
    async fn the_last_frame_is_known_to_be_the_last() {
        for (length, whole) in [(2, true), (3, false)] {
            let start = Some(MessageStart { tag: 0, length });
            let piece = Data { bytes: Bytes::from_static(b"ab"), start, ends_message: whole };
            let (mut joiner, mut body): (_, BoxBody) =
                (Joiner::new(), Box::new(Pieces(vec![piece])));
            assert!(!joiner.is_end(&body));
            let frame = poll_fn(|cx| joiner.poll(&mut body, cx)).await;
            assert!(matches!(frame, Some(Ok(Joined::Data(_)))));
            // Within a message, a fault is still to come.
            assert_eq!(joiner.is_end(&body), whole);
        }
    }

    #[tokio::test]
    async fn pieces_that_lie_are_faults() {
        let piece = |start: Option<u64>, bytes: &'static [u8], ends_message| Data {
            bytes: Bytes::from_static(bytes),
            start: start.map(|length| MessageStart { tag: 0, length }),
            ends_message,
        };
        for pieces in [
            vec![piece(None, b"a", false)],
            vec![piece(Some(1), b"ab", true)],
            vec![piece(Some(3), b"ab", true)],
            vec![piece(Some(2), b"ab", false)],
            vec![piece(Some(3), b"ab", false)],
            vec![piece(Some(3), b"ab", false), piece(Some(1), b"c", true)],
            vec![piece(Some(1 << 32), b"ab", false)],
        ] {
            assert_eq!(join(pieces).await.unwrap_err().reason, Reason::Protocol);
        }
    }
}
