//! The text mode of gRPC-Web: base64 in pieces, each of which may end with padding.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use strait_engine::{Fault, Reason};

/// Characters that are decoded together.
const GROUP: usize = 4;

/// `bytes` as one padded piece.
pub(crate) fn encode(bytes: &[u8]) -> Bytes {
    STANDARD.encode(bytes).into()
}

/// Decodes pieces however they are cut; holds back less than a group.
#[derive(Default)]
pub(crate) struct Decoder {
    held: [u8; GROUP],
    count: usize,
}

impl Decoder {
    /// Whether nothing is held back: where a body may end.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What can be decoded with the next `input`.
    ///
    /// # Errors
    /// `BadRequest` for what is not base64.
    pub(crate) fn decode(&mut self, mut input: &[u8]) -> Result<Bytes, Fault> {
        let mut out = Vec::with_capacity((self.count + input.len()) / GROUP * 3);
        if self.count > 0 {
            let (head, rest) = input.split_at(input.len().min(GROUP - self.count));
            self.held[self.count..self.count + head.len()].copy_from_slice(head);
            self.count += head.len();
            input = rest;
            if self.count < GROUP {
                return Ok(Bytes::new());
            }
            self.count = 0;
            append(&self.held, &mut out)?;
        }
        let (mut whole, rest) = input.split_at(input.len() / GROUP * GROUP);
        while !whole.is_empty() {
            // Padding ends a piece, and with it a group; another piece may follow.
            let padding = whole.iter().position(|b| *b == b'=');
            let end = padding.map_or(whole.len(), |at| (at / GROUP + 1) * GROUP);
            let (piece, next) = whole.split_at(end);
            append(piece, &mut out)?;
            whole = next;
        }
        self.held[..rest.len()].copy_from_slice(rest);
        self.count = rest.len();
        Ok(out.into())
    }
}

fn append(piece: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let wrong = |_| Fault::because(Reason::BadRequest, "the body is not base64");
    STANDARD.decode_vec(piece, out).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(text: &[u8], sizes: &[usize]) -> Result<Vec<u8>, Fault> {
        let (mut decoder, mut out, mut rest, mut turn) = (Decoder::default(), Vec::new(), text, 0);
        while !rest.is_empty() {
            let (piece, next) = rest.split_at(sizes[turn % sizes.len()].min(rest.len()));
            out.extend_from_slice(&decoder.decode(piece)?);
            (rest, turn) = (next, turn + 1);
        }
        assert!(decoder.is_empty(), "{} characters are held back", decoder.count);
        Ok(out)
    }

    proptest! {
        #[test]
        fn pieces_decode_however_they_are_padded_and_cut(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..8),
            sizes in prop::collection::vec(1usize..40, 1..6),
        ) {
            let text: Vec<u8> = pieces.iter().flat_map(|piece| encode(piece)).collect();
            prop_assert_eq!(decode(&text, &sizes).unwrap(), pieces.concat());
        }
    }

    #[test]
    fn what_is_not_base64_is_a_fault() {
        for text in ["AA!A", "A===", "AAA\n", "=AAA", "AA=A"] {
            assert_eq!(
                decode(text.as_bytes(), &[3]).unwrap_err().reason,
                Reason::BadRequest,
                "{text}"
            );
        }
    }
}
