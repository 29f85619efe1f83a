//! What was sent and what was received, by request: the reference.

use std::sync::LazyLock;

use bytes::Bytes;
use strait_wire::{Data, MessageStart};

/// A mark between bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Start(MessageStart),
    End,
}

/// One half of a request. Its bytes are a function of its key, so they need not be
/// kept to be compared.
#[derive(Debug, Default)]
pub(crate) struct Half {
    key: u64,
    sent: u64,
    marks: Vec<(u64, Mark)>,
    /// The trailers' only value, once the half is finished with trailers.
    trailers: Option<u64>,
    pub(crate) finished: bool,
    got: u64,
    got_marks: usize,
    got_trailers: bool,
    pub(crate) got_head: bool,
    pub(crate) ended: bool,
}

/// One request, known by its number.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// What the opener sends, then what it is answered.
    pub(crate) halves: [Half; 2],
    pub(crate) accepted: bool,
    /// Its body waits to be asked for, and nobody has asked.
    pub(crate) unasked: bool,
    /// The answering application said that a retry is safe.
    pub(crate) excused: bool,
    /// An application reset it or dropped a handle: it may be cut.
    pub(crate) touched: bool,
    /// The opener was told that a retry is safe.
    pub(crate) retry_safe: bool,
}

/// Bytes without a pattern, and the first of them again, so that every slice is in one piece.
static NOISE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut x = 1u32;
    let noise = (0..PERIOD).map(|_| {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x as u8
    });
    let mut noise: Vec<u8> = noise.collect();
    noise.extend_from_within(..LARGEST);
    noise.into()
});

const PERIOD: usize = 100_003;

/// Bytes of the largest piece.
pub(crate) const LARGEST: usize = 80_000;

/// What a half with `key` has at its position `at`.
fn noise(key: u64, at: u64, size: usize) -> Bytes {
    let from = (key.wrapping_mul(7919).wrapping_add(at) % PERIOD as u64) as usize;
    NOISE.slice(from..from + size)
}

impl Request {
    pub(crate) fn new(key: u64) -> Request {
        let half = |key| Half { key, ..Half::default() };
        Request { halves: [half(key), half(key + 1)], ..Request::default() }
    }
}

impl Half {
    /// A piece that may be pushed next; `shape` has the marks in its two lowest bits.
    pub(crate) fn piece(&self, size: usize, shape: u8, with_marks: bool) -> Data {
        let start = MessageStart { tag: 1, length: size as u64 };
        Data {
            bytes: noise(self.key, self.sent, size),
            start: (with_marks && shape & 1 != 0).then_some(start),
            ends_message: with_marks && shape & 2 != 0,
        }
    }

    pub(crate) fn pushed(&mut self, data: &Data) {
        self.marks.extend(data.start.map(|start| (self.sent, Mark::Start(start))));
        self.sent += data.bytes.len() as u64;
        self.marks.extend(data.ends_message.then_some((self.sent, Mark::End)));
    }

    pub(crate) fn finished(&mut self, trailers: Option<u64>) {
        self.finished = true;
        self.trailers = trailers;
    }

    pub(crate) fn trailers_value(&self) -> u64 {
        self.key * 3
    }

    /// A piece arrived at its reader.
    pub(crate) fn took(&mut self, data: &Data) -> Result<(), String> {
        if self.ended || self.got_trailers {
            return Err("data after the end".into());
        }
        if let Some(start) = data.start {
            self.mark(Mark::Start(start))?;
        }
        if data.bytes != noise(self.key, self.got, data.bytes.len()) {
            return Err(format!("other bytes than were sent, from {}", self.got));
        }
        self.got += data.bytes.len() as u64;
        if self.got > self.sent {
            return Err("more bytes than were sent".into());
        }
        if let Some((at, mark)) = self.marks.get(self.got_marks)
            && *at < self.got
        {
            return Err(format!("{mark:?} at {at} was skipped"));
        }
        if data.ends_message { self.mark(Mark::End) } else { Ok(()) }
    }

    fn mark(&mut self, mark: Mark) -> Result<(), String> {
        let next = self.marks.get(self.got_marks);
        if next != Some(&(self.got, mark)) {
            return Err(format!("{mark:?} at {} where {next:?} was next", self.got));
        }
        self.got_marks += 1;
        Ok(())
    }

    fn complete(&self) -> Result<(), String> {
        if !self.finished {
            return Err("an end that was not sent".into());
        }
        if (self.got, self.got_marks) != (self.sent, self.marks.len()) {
            return Err(format!("an end after {} of {} bytes", self.got, self.sent));
        }
        Ok(())
    }

    pub(crate) fn took_trailers(&mut self, value: u64) -> Result<(), String> {
        self.complete()?;
        if self.ended || self.got_trailers || self.trailers != Some(value) {
            return Err(format!("trailers {value}, sent {:?}", self.trailers));
        }
        self.got_trailers = true;
        Ok(())
    }

    pub(crate) fn took_end(&mut self) -> Result<(), String> {
        self.complete()?;
        if self.trailers.is_some() != self.got_trailers {
            return Err("an end without the trailers before it".into());
        }
        self.ended = true;
        Ok(())
    }
}
