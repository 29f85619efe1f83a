//! Chunks (RFC 9112 7.1), read strictly: CR and LF together end a line, and nothing else does.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use crate::http1::head;

/// Digits of a chunk's size: no chunk needs more, and leading zeros have no end.
const DIGITS: u8 = 16;
/// Bytes beside sizes that the lines of all chunks of a body may have, for extensions.
const EXTENSIONS: usize = 16 << 10;
/// Bytes of all trailer fields.
const TRAILERS: usize = 16 << 10;

/// Reads the chunks of one body, however they are cut on the way.
pub(crate) struct Chunked {
    state: State,
    /// Of the chunk that is read: its size so far, then what is still to come.
    left: u64,
    extensions: usize,
    trailers: Vec<u8>,
    max_fields: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A size with so many digits so far.
    Size(u8),
    /// White space after the size.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    End,
}

/// What came of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Data(Bytes),
    /// The end, perhaps with trailers.
    End(Option<HeaderMap>),
}

impl Chunked {
    /// `max_fields` is how many trailer fields there may be.
    pub(crate) fn new(max_fields: usize) -> Chunked {
        Chunked { state: State::Size(0), left: 0, extensions: 0, trailers: Vec::new(), max_fields }
    }

    /// Takes what it can use from `input`; `None` when it needs more. What follows the end stays
    /// there.
    ///
    /// # Errors
    /// What is wrong with the chunks. After that it must not be asked again.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Step>, &'static str> {
        while !input.is_empty() {
            match self.state {
                State::Data => return Ok(Some(Step::Data(self.data(input)))),
                State::Trailers => {
                    if let Some(trailers) = self.trailers(input)? {
                        self.state = State::End;
                        return Ok(Some(Step::End(trailers)));
                    }
                }
                State::End => break,
                _ => {
                    let byte = input[0];
                    input.advance(1);
                    self.state = self.line(byte)?;
                }
            }
        }
        Ok(None)
    }

    fn data(&mut self, input: &mut BytesMut) -> Bytes {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX);
        let data = input.split_to(room.min(input.len())).freeze();
        self.left -= data.len() as u64;
        if self.left == 0 {
            self.state = State::DataCr;
        }
        data
    }

    /// The state after one byte of what stands between the data.
    fn line(&mut self, byte: u8) -> Result<State, &'static str> {
        let state = self.state;
        Ok(match (state, byte) {
            (State::Size(DIGITS), _) if byte.is_ascii_hexdigit() => {
                return Err("the size of a chunk is too long");
            }
            (State::Size(digits), _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.left = self.left << 4 | u64::from(digit);
                State::Size(digits + 1)
            }
            (State::Size(0), _) => return Err("a chunk without a size"),
            (State::Size(_) | State::Space | State::Extension, b'\r') => State::SizeLf,
            (State::Size(_) | State::Space, b' ' | b'\t') => self.extension(State::Space)?,
            (State::Size(_) | State::Space, b';') => self.extension(State::Extension)?,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.extension(State::Extension)?,
            (State::SizeLf, b'\n') if self.left == 0 => State::Trailers,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size(0),
            (State::DataCr | State::DataLf, _) => return Err("a chunk is longer than its size"),
            _ => return Err("a malformed line before a chunk"),
        })
    }

    fn extension(&mut self, next: State) -> Result<State, &'static str> {
        self.extensions += 1;
        if self.extensions > EXTENSIONS {
            return Err("the extensions of the chunks are over the limit");
        }
        Ok(next)
    }

    /// Collects trailers line by line; `Some` when the empty line has come.
    fn trailers(
        &mut self,
        input: &mut BytesMut,
    ) -> Result<Option<Option<HeaderMap>>, &'static str> {
        let line = input.iter().position(|byte| *byte == b'\n').map_or(input.len(), |at| at + 1);
        let begun = match self.trailers.last() {
            None | Some(b'\n') => self.trailers.len(),
            Some(_) => self.trailers.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
        };
        self.trailers.extend_from_slice(&input[..line]);
        input.advance(line);
        if self.trailers.len() > TRAILERS {
            return Err("the trailers are over the limit");
        }
        match &self.trailers[begun..] {
            b"\r\n" => {}
            [.., b'\r', b'\n'] | [.., 0..=9 | 11..] => return Ok(None),
            _ => return Err("a malformed line in trailers"),
        }
        if begun == 0 {
            return Ok(Some(None));
        }
        let block = Bytes::from(std::mem::take(&mut self.trailers));
        head::trailers(&block, self.max_fields).map(|trailers| Some(Some(trailers)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The data, whether trailers came and what is left over; or why not.
    type Read = Result<(Vec<u8>, Option<Option<HeaderMap>>, Vec<u8>), &'static str>;

    /// Reads what comes in these pieces.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
        let mut chunked = Chunked::new(100);
        let (mut data, mut end, mut input) = (Vec::new(), None, BytesMut::new());
        for piece in pieces {
            input.extend_from_slice(piece);
            while end.is_none() {
                match chunked.next(&mut input)? {
                    Some(Step::Data(bytes)) => {
                        assert!(!bytes.is_empty());
                        data.extend_from_slice(&bytes);
                    }
                    None => {
                        assert!(input.is_empty(), "it takes all there is");
                        break;
                    }
                    Some(Step::End(trailers)) => end = Some(trailers),
                }
            }
        }
        Ok((data, end, input.to_vec()))
    }

    /// The same, whole, cut in two at every byte, and byte by byte.
    fn read_anyhow(wire: &[u8]) -> Read {
        let whole = read([wire]);
        for at in 0..=wire.len() {
            assert_eq!(read([&wire[..at], &wire[at..]]), whole, "cut at {at}");
        }
        assert_eq!(read(wire.chunks(1)), whole);
        whole
    }

    #[test]
    fn bodies_end_where_they_say() {
        let (data, end, rest) = read_anyhow(b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1").unwrap();
        assert_eq!((&data[..], end, &rest[..]), (&b"hello"[..], Some(None), &b"HTTP/1.1"[..]));
        let wire = b"00a \t;x=\"y z\"\r\n0123456789\r\n1;\r\n!\r\nF\r\n\r\n0\r\n\r\n0\r\n\r\n0\r\n\r\n0\r\n\r\n";
        let (data, end, rest) = read_anyhow(wire).unwrap();
        assert_eq!((data.len(), end), (26, Some(None)), "{rest:?}");
        let (_, end, _) = read_anyhow(b"0\r\nX-Sum: 1\r\nx-b:  2 \r\nx-sum: 3\r\n\r\n").unwrap();
        let trailers = end.unwrap().unwrap();
        let all: Vec<_> = trailers.get_all("x-sum").iter().collect();
        assert_eq!(all, ["1", "3"]);
        assert_eq!(trailers["x-b"], "2");
    }

    #[test]
    fn a_cut_is_no_end() {
        let wire = b"5\r\nhello\r\n0\r\nx: 1\r\n\r\n";
        for at in 0..wire.len() {
            assert!(read([&wire[..at]]).unwrap().1.is_none(), "cut at {at}");
        }
    }

    #[test]
    fn what_is_malformed_is_refused_however_it_is_cut() {
        let long = format!("1;{}\r\nx\r\n", "e".repeat(EXTENSIONS));
        let trailing = format!("0\r\nx: {}\r\n\r\n", "y".repeat(TRAILERS));
        let endless = format!("0\r\n{}", "y".repeat(TRAILERS + 1));
        let many = format!("0\r\n{}\r\n", "x: y\r\n".repeat(101));
        for wire in [long, trailing, endless, many] {
            assert!(read([wire.as_bytes()]).is_err());
            assert!(read(wire.as_bytes().chunks(7)).is_err());
        }
        for wire in [
            &b"\r\n"[..],
            b" 5\r\n",
            b"g\r\n",
            b"-1\r\n",
            b"0x5\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\r\rhello",
            b"5 5\r\n",
            b"5;a\nb\r\n",
            b"5;a\rb\r\n",
            b"5;\0\r\n",
            b"5\r\nhello!\r\n",
            b"5\r\nhello\n0\r\n",
            b"5\r\nhello\r0\r\n",
            b"00000000000000005\r\nhello\r\n",
            b"fffffffffffffffff\r\n",
            b"0\r\n\n",
            b"0\r\nx: 1\n\r\n",
            b"0\r\nx: 1\r\n\n",
            b"0\r\nx 1\r\n\r\n",
            b"0\r\n x: 1\r\n\r\n",
            b"0\r\nx: 1\r2\r\n\r\n",
            b"0\r\nx: 1\r\n 2\r\n\r\n",
            b"0\r\nx : 1\r\n\r\n",
            b"0\r\n: 1\r\n\r\n",
        ] {
            assert!(read_anyhow(wire).is_err(), "{:?}", String::from_utf8_lossy(wire));
        }
    }

    proptest! {
        #[test]
        fn chunks_come_out_as_they_went_in(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..6),
            sizes in prop::collection::vec(1_usize..30, 1..20),
            rest in prop::collection::vec(any::<u8>(), 0..10),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            wire.extend_from_slice(&rest);
            let (mut pieces, mut left) = (Vec::new(), &wire[..]);
            for size in sizes.iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (piece, after) = left.split_at((*size).min(left.len()));
                pieces.push(piece);
                left = after;
            }
            prop_assert_eq!(read(pieces), Ok((chunks.concat(), Some(None), rest)));
        }

        #[test]
        fn any_bytes_read_the_same_however_they_are_cut(
            wire in prop::collection::vec(
                prop::sample::select(&b"05a;\r\n\r\n\r\nx: "[..]),
                0..40,
            ),
        ) {
            let _ = read_anyhow(&wire);
        }
    }
}
