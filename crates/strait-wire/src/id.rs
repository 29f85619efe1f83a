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

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The two digits of a byte.
fn hex(byte: u8) -> [u8; 2] {
    [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]
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
            let bytes = random.to_be_bytes();
            for (digits, byte) in text[at..at + 16].chunks_exact_mut(2).zip(bytes) {
                digits.copy_from_slice(&hex(byte));
            }
        }
        text
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

/// Where the two digits of each byte stand in the canonical text, and where the hyphens.
const DIGITS: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// What a digit of either case stands for; 16 for what is none.
const VALUES: [u8; 256] = {
    let mut values = [16; 256];
    let mut value = 0;
    while value < 16 {
        let digit = HEX[value];
        values[digit as usize] = value as u8;
        values[digit.to_ascii_uppercase() as usize] = value as u8;
        value += 1;
    }
    values
};

impl RequestId {
    /// The canonical text (RFC 9562 4), as ASCII.
    pub fn text(&self) -> [u8; 36] {
        let mut text = [b'-'; 36];
        for (at, byte) in DIGITS.into_iter().zip(self.0) {
            text[at..at + 2].copy_from_slice(&hex(byte));
        }
        text
    }

    /// The id in the canonical text of any UUID; `None` for anything else.
    pub fn from_text(text: &[u8]) -> Option<RequestId> {
        let text: &[u8; 36] = text.try_into().ok()?;
        let (mut bytes, mut all) = ([0; 16], 0);
        for (byte, at) in bytes.iter_mut().zip(DIGITS) {
            let [high, low] = [text[at], text[at + 1]].map(|digit| VALUES[usize::from(digit)]);
            *byte = high << 4 | low;
            all |= high | low;
        }
        (all < 16 && HYPHENS.into_iter().all(|at| text[at] == b'-')).then_some(RequestId(bytes))
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
