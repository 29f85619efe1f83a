//! Names of things: sides, stream numbers, request ids.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Which end of the tunnel this is. It decides the parity of stream numbers, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The side that dialled the connection; opens odd numbers.
    Dialer,
    /// The side that was dialled; opens even numbers.
    Listener,
}

impl Side {
    /// The first number that this side opens.
    pub fn first_number(self) -> StreamNo {
        match self {
            Side::Dialer => StreamNo(1),
            Side::Listener => StreamNo(2),
        }
    }

    /// Whether `number` was, or would be, opened by this side.
    pub fn opens(self, number: StreamNo) -> bool {
        number.0 % 2 == self.first_number().0 % 2
    }
}

/// A request's number in its session: increasing, never reused, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamNo(pub u64);

impl StreamNo {
    /// The number of no request.
    pub const NONE: StreamNo = StreamNo(0);
}

impl fmt::Display for StreamNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a request wherever it goes: a UUID of version 7 (RFC 9562 5.7).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; 16]);

/// Per-thread state of the id generator: a xorshift seeded by the operating system, so
/// that making an id takes neither a lock nor a system call.
fn random_u64() -> u64 {
    thread_local! { static STATE: Cell<u64> = const { Cell::new(0) }; }
    STATE.with(|state| {
        let mut x = state.get();
        if x == 0 {
            // Without the system's randomness ids are still unique by time and thread.
            x = getrandom::u64().unwrap_or(0) | 1;
        }
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    })
}

/// Eight bytes of the same value.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The eight digits of a number, all at once: ids are written and read for every request.
fn digits(number: u32) -> [u8; 8] {
    // One half of a byte in each byte.
    let mut halves = u64::from(number);
    halves = (halves | halves << 16) & 0x0000_FFFF_0000_FFFF;
    halves = (halves | halves << 8) & 0x00FF_00FF_00FF_00FF;
    halves = (halves | halves << 4) & each(0x0F);
    let letters = (halves + each(6)) >> 4 & each(1);
    (halves + each(b'0') + letters * u64::from(b'a' - b'9' - 1)).to_be_bytes()
}

/// The number of eight digits, whose letters are of either case; `None` for anything else.
fn number(text: [u8; 8]) -> Option<u32> {
    let text = u64::from_be_bytes(text);
    let letters = text >> 6 & each(1);
    let mut halves = (text & each(0x0F)) + letters * 9;
    halves = (halves | halves >> 4) & 0x00FF_00FF_00FF_00FF;
    halves = (halves | halves >> 8) & 0x0000_FFFF_0000_FFFF;
    let number = (halves | halves >> 16) as u32;
    // What was no digit is written in another way than it was read.
    (digits(number) == (text | letters << 5).to_be_bytes()).then_some(number)
}

impl RequestId {
    /// A new id, unique without coordination.
    pub fn new() -> RequestId {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&(millis as u64).to_be_bytes()[2..]);
        bytes[6..8].copy_from_slice(&(random_u64() as u16).to_be_bytes());
        bytes[8..].copy_from_slice(&random_u64().to_be_bytes());
        bytes[6] = 0x70 | (bytes[6] & 0x0F);
        bytes[8] = 0x80 | (bytes[8] & 0x3F);
        RequestId(bytes)
    }

    /// A new trace context (W3C `traceparent`, version 00, sampled) in canonical text, which is ASCII.
    pub fn new_traceparent() -> [u8; 55] {
        let mut text = *b"00-................................-................-01";
        for (at, random) in [(3, random_u64()), (19, random_u64() | 1), (36, random_u64() | 1)] {
            text[at..at + 8].copy_from_slice(&digits((random >> 32) as u32));
            text[at + 8..at + 16].copy_from_slice(&digits(random as u32));
        }
        text
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestId {
    /// The canonical text (RFC 9562 4), as ASCII.
    pub fn text(&self) -> [u8; 36] {
        let mut all = [0; 32];
        for (digits_of, number) in all.chunks_exact_mut(8).zip(self.0.as_chunks::<4>().0) {
            digits_of.copy_from_slice(&digits(u32::from_be_bytes(*number)));
        }
        let mut text = [b'-'; 36];
        text[..8].copy_from_slice(&all[..8]);
        text[9..13].copy_from_slice(&all[8..12]);
        text[14..18].copy_from_slice(&all[12..16]);
        text[19..23].copy_from_slice(&all[16..20]);
        text[24..].copy_from_slice(&all[20..]);
        text
    }

    /// The id in the canonical text of any UUID; `None` for anything else.
    pub fn from_text(text: &[u8]) -> Option<RequestId> {
        let text: &[u8; 36] = text.try_into().ok()?;
        if [8, 13, 18, 23].into_iter().any(|at| text[at] != b'-') {
            return None;
        }
        let mut all = [0; 32];
        all[..8].copy_from_slice(&text[..8]);
        all[8..12].copy_from_slice(&text[9..13]);
        all[12..16].copy_from_slice(&text[14..18]);
        all[16..20].copy_from_slice(&text[19..23]);
        all[20..].copy_from_slice(&text[24..]);
        let mut bytes = [0; 16];
        for (part, digits) in bytes.chunks_exact_mut(4).zip(all.as_chunks::<8>().0) {
            part.copy_from_slice(&number(*digits)?.to_be_bytes());
        }
        Some(RequestId(bytes))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RequestId {
    type Err = ();

    /// Accepts the canonical form of any UUID, nothing else.
    fn from_str(text: &str) -> Result<Self, ()> {
        RequestId::from_text(text.as_bytes()).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_standard_library() {
        for half in 0..=u16::MAX {
            let full = u32::from(half) << 16 | u32::from(half.rotate_left(5));
            let text = format!("{full:08x}");
            assert_eq!(digits(full), text.as_bytes());
            for text in [text.to_ascii_uppercase(), text] {
                assert_eq!(number(text.as_bytes().try_into().unwrap()), Some(full));
            }
        }
    }

    #[test]
    fn only_digits_are_digits() {
        for at in 0..8 {
            for byte in 0..=u8::MAX {
                let mut text = *b"0a1B2c3D";
                text[at] = byte;
                assert_eq!(number(text).is_some(), byte.is_ascii_hexdigit(), "{byte} at {at}");
            }
        }
    }

    #[test]
    fn an_id_is_its_text() {
        let text = "0190163d-8694-739b-aea5-966c26f8ad90";
        let id: RequestId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(text.to_ascii_uppercase().parse(), Ok(id));
        for at in 0..text.len() {
            let mut bad = text.to_owned();
            bad.replace_range(at..=at, if text.as_bytes()[at] == b'-' { "0" } else { "-" });
            assert_eq!(bad.parse::<RequestId>(), Err(()), "{bad}");
        }
        assert_eq!(text[..35].parse::<RequestId>(), Err(()));
    }
}
