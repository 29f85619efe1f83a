//! Frames (RFC 6455 5.2) as they come: cut out of one socket, written to another. No frame
//! and no message is ever collected, and what an extension made of a payload is not ours.

use std::cell::RefCell;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use strait_engine::{Data, Fault, MessageStart, Reason};

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0F;
const CLOSE: u8 = 8;
const MASKED: u8 = 0x80;
/// Bytes of a control frame's payload, at most (RFC 6455 5.5).
const CONTROL: usize = 125;

/// What may follow what in one direction of a socket.
pub(crate) struct Rules {
    /// Reserved bits may be set: an extension was agreed on.
    extended: bool,
    /// Within a fragmented message, and its bytes so far.
    message: Option<u64>,
    max_message: u64,
    /// A close frame has begun: nothing may follow.
    closed: bool,
    /// Whose fault broken rules are.
    blame: Reason,
}

impl Rules {
    pub(crate) fn new(extended: bool, max_message: u64, blame: Reason) -> Rules {
        Rules { extended, message: None, max_message, closed: false, blame }
    }

    /// Whether a close frame has begun.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// Admits the start of a frame.
    pub(crate) fn admit(&mut self, start: MessageStart) -> Result<(), Fault> {
        let wrong = |why: &'static str| Err(Fault::because(self.blame, why));
        let (fin, opcode) = (start.tag & FIN != 0, start.tag & OPCODE);
        if self.closed {
            return wrong("a frame after the close frame");
        }
        if start.tag & RESERVED != 0 && !self.extended {
            return wrong("a reserved bit without an extension");
        }
        match opcode {
            8..=10 if !fin => return wrong("a fragmented control frame"),
            8..=10 if start.length > CONTROL as u64 => {
                return wrong("a control frame over 125 bytes");
            }
            CLOSE if start.length == 1 => return wrong("half a close code"),
            8..=10 => {
                self.closed = opcode == CLOSE;
                return Ok(());
            }
            0 if self.message.is_none() => return wrong("a continuation of nothing"),
            1 | 2 if self.message.is_some() => return wrong("a message within a message"),
            0..=2 => {}
            _ => return wrong("an unknown opcode"),
        }
        let so_far = self.message.unwrap_or(0).saturating_add(start.length);
        if so_far > self.max_message {
            let detail = format!("a WebSocket message over {} bytes", self.max_message);
            return Err(Fault::because(Reason::MessageTooLarge, detail));
        }
        self.message = (!fin).then_some(so_far);
        Ok(())
    }
}

/// Whether a close frame may carry this code (RFC 6455 7.4).
fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Whether a whole close frame has no code or a valid one.
fn may_close(frame: &Data) -> bool {
    match frame.bytes[..] {
        [high, low, ..] => is_close_code(u16::from_be_bytes([high, low])),
        _ => true,
    }
}

/// XORs `bytes`, which begin at `at` of a frame's payload, with its mask.
fn mask_at(bytes: &mut [u8], mask: [u8; 4], at: u64) {
    let turn = (at % 4) as u32;
    let word = u32::from_ne_bytes(mask);
    // The mask as it applies from `at` on, in memory order.
    let word = if cfg!(target_endian = "little") {
        word.rotate_right(8 * turn)
    } else {
        word.rotate_left(8 * turn)
    };
    let long = u64::from(word) << 32 | u64::from(word);
    let (eights, rest) = bytes.as_chunks_mut();
    for eight in eights {
        *eight = (u64::from_ne_bytes(*eight) ^ long).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(word.to_ne_bytes().iter().cycle()) {
        *byte ^= key;
    }
}

/// Cuts frames out of the bytes of a socket.
pub(crate) struct Cutter {
    rules: Rules,
    /// Frames come from the side that must mask: a visitor.
    from_client: bool,
    mask: [u8; 4],
    /// Payload bytes of the current frame that were passed on.
    at: u64,
    /// Payload bytes of the current frame still to come.
    left: u64,
}

impl Cutter {
    pub(crate) fn new(rules: Rules, from_client: bool) -> Cutter {
        Cutter { rules, from_client, mask: [0; 4], at: 0, left: 0 }
    }

    /// Whether the close frame is complete: nothing more may come.
    pub(crate) fn is_over(&self) -> bool {
        self.rules.closed() && self.left == 0
    }

    /// The next piece from the front of `input`, unmasked; `None` when more is needed.
    ///
    /// # Errors
    /// The fault of a peer that breaks RFC 6455 5; the size of a frame is judged before
    /// its payload comes.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Data>, Fault> {
        if self.left > 0 {
            return Ok((!input.is_empty()).then(|| self.payload(input, None)));
        }
        let Some((header, start, mask)) = self.header(input)? else { return Ok(None) };
        let is_close = start.tag & OPCODE == CLOSE;
        let wanted = match start.length {
            0 => 0,
            // Close frames are small, and their code is checked.
            length if is_close => length as usize,
            _ => 1,
        };
        // The start travels with the first bytes of its frame.
        if input.len() < header + wanted {
            if start.length > self.rules.max_message && !is_close {
                return self.rules.admit(start).map(|()| None);
            }
            return Ok(None);
        }
        self.rules.admit(start)?;
        input.advance(header);
        (self.mask, self.at, self.left) = (mask, 0, start.length);
        let data = self.payload(input, Some(start));
        if is_close && !may_close(&data) {
            return Err(Fault::because(self.rules.blame, "an invalid close code"));
        }
        Ok(Some(data))
    }

    /// The header at the front of `input`, when it is complete: its length, the frame's
    /// start and mask.
    fn header(&self, input: &[u8]) -> Result<Option<(usize, MessageStart, [u8; 4])>, Fault> {
        let wrong = |why: &'static str| Err(Fault::because(self.rules.blame, why));
        let [tag, second, rest @ ..] = input else { return Ok(None) };
        if (second & MASKED != 0) != self.from_client {
            return wrong("frames are masked by clients and only by them");
        }
        let (length, extra) = match second & !MASKED {
            126 => match rest {
                [a, b, ..] => (u64::from(u16::from_be_bytes([*a, *b])), 2),
                _ => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(eight) => (u64::from_be_bytes(*eight), 8),
                None => return Ok(None),
            },
            length => (u64::from(length), 0),
        };
        let least = [0, 0, 126, 0, 0, 0, 0, 0, 1 << 16][extra];
        if length < least || length >> 63 != 0 {
            return wrong("a length in the wrong form");
        }
        let start = MessageStart { tag: *tag, length };
        if !self.from_client {
            return Ok(Some((2 + extra, start, [0; 4])));
        }
        Ok(rest[extra..].first_chunk::<4>().map(|mask| (6 + extra, start, *mask)))
    }

    fn payload(&mut self, input: &mut BytesMut, start: Option<MessageStart>) -> Data {
        let n = (input.len() as u64).min(self.left);
        // Most frames come alone, and have their buffer for themselves.
        let mut bytes = match n == input.len() as u64 {
            true => std::mem::take(input),
            false => input.split_to(n as usize),
        };
        if self.from_client {
            mask_at(&mut bytes, self.mask, self.at);
        }
        self.at += n;
        self.left -= n;
        Data { bytes: bytes.freeze(), start, ends_message: self.left == 0 }
    }
}

/// Writes frames towards a socket.
pub(crate) struct Writer {
    rules: Rules,
    /// This side must mask: it is the client of a backend.
    as_client: bool,
    mask: [u8; 4],
    at: u64,
    left: u64,
    /// The beginning of a close frame: credit may have cut it, and its code is judged whole.
    closing: Option<Box<Data>>,
}

impl Writer {
    pub(crate) fn new(rules: Rules, as_client: bool) -> Writer {
        Writer { rules, as_client, mask: [0; 4], at: 0, left: 0, closing: None }
    }

    /// Whether a close frame was written: nothing may follow it.
    pub(crate) fn is_over(&self) -> bool {
        self.rules.closed() && self.left == 0
    }

    /// Whether a frame of our own may be written here.
    pub(crate) fn at_boundary(&self) -> bool {
        self.left == 0
    }

    /// Writes a piece to `out`. A large payload that needs no mask is not copied but
    /// returned, to be written after `out`.
    ///
    /// # Errors
    /// The fault of a source whose pieces make no valid frames.
    pub(crate) fn put(&mut self, data: Data, out: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
        let blame = self.rules.blame;
        let wrong = |why: &'static str| Err(Fault::because(blame, why));
        let Some(data) = self.whole_close(data)? else { return Ok(None) };
        match data.start {
            // Before it counts as written: our own close frame can still take its place.
            Some(start) if start.tag & OPCODE == CLOSE && !may_close(&data) => {
                return wrong("an invalid close frame");
            }
            Some(start) if self.left == 0 => {
                self.rules.admit(start)?;
                out.reserve(14 + if self.is_copied(&data.bytes) { data.bytes.len() } else { 0 });
                self.header(start, out)?;
            }
            None if self.left > 0 => {}
            _ => return wrong("a piece does not fit into its frame"),
        }
        let Some(left) = self.left.checked_sub(data.bytes.len() as u64) else {
            return wrong("a frame is longer than it announced");
        };
        if data.ends_message != (left == 0) {
            return wrong("a frame is not as long as it announced");
        }
        self.left = left;
        if !self.is_copied(&data.bytes) {
            return Ok(Some(data.bytes));
        }
        let from = out.len();
        out.extend_from_slice(&data.bytes);
        if self.as_client {
            mask_at(&mut out[from..], self.mask, self.at);
            self.at += data.bytes.len() as u64;
        }
        Ok(None)
    }

    /// Whether a payload goes with its header: it has to be masked, or is small.
    fn is_copied(&self, payload: &[u8]) -> bool {
        self.as_client || payload.len() < 4096
    }

    /// Collects the pieces of a close frame, which is small; any other piece is given back.
    fn whole_close(&mut self, data: Data) -> Result<Option<Data>, Fault> {
        let begun = match (self.closing.take(), data.start) {
            (Some(mut begun), None) => {
                begun.bytes = [&begun.bytes[..], &data.bytes].concat().into();
                begun.ends_message = data.ends_message;
                begun
            }
            (None, Some(start)) if start.tag & OPCODE == CLOSE => Box::new(data),
            (None, _) => return Ok(Some(data)),
            (Some(_), Some(_)) => {
                return Err(Fault::because(self.rules.blame, "a frame within the close frame"));
            }
        };
        if begun.bytes.len() > CONTROL {
            return Err(Fault::because(self.rules.blame, "a control frame over 125 bytes"));
        }
        if begun.ends_message {
            return Ok(Some(*begun));
        }
        self.closing = Some(begun);
        Ok(None)
    }

    /// Writes a close frame of our own.
    pub(crate) fn close(&mut self, code: u16, out: &mut BytesMut) {
        let start = MessageStart { tag: FIN | CLOSE, length: 2 };
        let bytes = Bytes::copy_from_slice(&code.to_be_bytes());
        let data = Data { bytes, start: Some(start), ends_message: true };
        if self.at_boundary() && !self.rules.closed() {
            // Admitted by construction; without randomness the socket just closes.
            let _ = self.put(data, out);
        }
    }

    fn header(&mut self, start: MessageStart, out: &mut BytesMut) -> Result<(), Fault> {
        out.put_u8(start.tag);
        let masked = if self.as_client { MASKED } else { 0 };
        match start.length {
            0..126 => out.put_u8(masked | start.length as u8),
            126..0x1_0000 => {
                out.put_u8(masked | 126);
                out.put_u16(start.length as u16);
            }
            _ => {
                out.put_u8(masked | 127);
                out.put_u64(start.length);
            }
        }
        if self.as_client {
            self.mask = MASKS.with_borrow_mut(Masks::next)?;
            out.put_slice(&self.mask);
        }
        (self.at, self.left) = (0, start.length);
        Ok(())
    }
}

thread_local! {
    // Shared by all sockets of a thread: a socket holds none.
    static MASKS: RefCell<Masks> = const { RefCell::new(Masks { pool: [0; 1024], left: 0 }) };
}

/// Masks that nobody can predict (RFC 6455 10.3), some at a time from the system.
struct Masks {
    pool: [u8; 1024],
    left: usize,
}

impl Masks {
    fn next(&mut self) -> Result<[u8; 4], Fault> {
        if self.left == 0 {
            getrandom::fill(&mut self.pool).map_err(|error| {
                Fault::because(Reason::Internal, format!("no randomness: {error}"))
            })?;
            self.left = self.pool.len();
        }
        self.left -= 4;
        let mut mask = [0; 4];
        mask.copy_from_slice(&self.pool[self.left..self.left + 4]);
        Ok(mask)
    }
}

#[cfg(test)]
mod tests;
