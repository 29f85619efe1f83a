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

/// The two digits of a byte.
fn hex(byte: u8) -> [u8; 2] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
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

impl RequestId {
    /// The canonical text (RFC 9562 4), as ASCII.
    pub fn text(&self) -> [u8; 36] {
        let mut text = [b'-'; 36];
        let mut at = 0;
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                at += 1;
            }
            text[at..at + 2].copy_from_slice(&hex(*byte));
            at += 2;
        }
        text
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
        let text = text.as_bytes();
        if text.len() != 36 {
            return Err(());
        }
        let mut bytes = [0; 16];
        let mut at = 0;
        for (i, byte) in bytes.iter_mut().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                if text[at] != b'-' {
                    return Err(());
                }
                at += 1;
            }
            let digit = |c: u8| (c as char).to_digit(16).ok_or(());
            *byte = (digit(text[at])? << 4 | digit(text[at + 1])?) as u8;
            at += 2;
        }
        Ok(RequestId(bytes))
    }
}
