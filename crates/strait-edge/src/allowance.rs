//! What an HTTP/2 visitor may send that serves no request.
//!
//! The HTTP library answers pings and settings, and takes back streams, for as long as anybody
//! likes. Each costs little, and a visitor can send millions (CVE-2019-9512, -9515, CVE-2023-44487).

use std::io;
use std::time::Instant;

/// Length of a frame's header (RFC 9113 4.1).
const HEADER: usize = 9;

/// What a stream that the visitor takes back costs, in frames: it may have gone all the way to
/// a backend.
const RESET: f64 = 10.0;

/// Reads the headers of the frames of one visitor, and keeps the account: each frame that is
/// neither a head nor a piece of a body costs one. A tenth of the allowance comes back each
/// second.
pub(crate) struct Allowance {
    most: f64,
    left: f64,
    since: Instant,
    /// The header that is being read, and how much of it is there.
    header: [u8; HEADER],
    have: usize,
    /// Bytes of the connection's preface or of a payload that are still to come.
    skip: usize,
}

impl Allowance {
    /// For a connection that begins with `preface` bytes before its first frame.
    pub(crate) fn new(frames: u32, preface: usize, now: Instant) -> Allowance {
        let most = f64::from(frames);
        Allowance { most, left: most, since: now, header: [0; HEADER], have: 0, skip: preface }
    }

    /// Looks at what was read.
    ///
    /// # Errors
    /// When the allowance is used up: the connection must end.
    pub(crate) fn read(&mut self, mut bytes: &[u8], now: Instant) -> io::Result<()> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return Ok(());
            }
            let taken = (HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEADER {
                self.have = 0;
                self.frame(now)?;
            }
        }
    }

    /// A frame begins.
    fn frame(&mut self, now: Instant) -> io::Result<()> {
        let [high, middle, low, kind, ..] = self.header;
        self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
        let cost = match kind {
            // DATA that is not empty, and HEADERS.
            0 if self.skip > 0 => return Ok(()),
            1 => return Ok(()),
            3 => RESET,
            _ => 1.0,
        };
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.left = (self.left + passed * self.most / 10.0).min(self.most) - cost;
        if self.left < 0.0 {
            return Err(io::Error::other("too many frames that serve no request"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 1]);
        frame.resize(HEADER + length, 0xAA);
        frame
    }

    /// How many of these frames are taken at one moment, a few bytes at a time.
    fn taken(frames: u32, kind: u8, length: usize, step: usize) -> usize {
        let now = Instant::now();
        let mut allowance = Allowance::new(frames, 3, now);
        allowance.read(b"PRI", now).unwrap();
        let frame = frame(kind, length);
        (0..1000)
            .take_while(|_| frame.chunks(step).all(|piece| allowance.read(piece, now).is_ok()))
            .count()
    }

    #[test]
    fn what_serves_no_request_is_counted_however_it_arrives() {
        for step in [1, 2, 5, 100] {
            for (kind, length) in [(6, 8), (4, 0), (8, 4), (2, 5), (9, 7), (0, 0), (99, 200)] {
                assert_eq!(taken(100, kind, length, step), 100, "{kind}");
            }
            assert_eq!(taken(100, 3, 4, step), 10);
            assert_eq!(taken(100, 1, 30, step), 1000);
            assert_eq!(taken(100, 0, 1, step), 1000);
        }
    }

    #[test]
    fn a_tenth_comes_back_each_second() {
        let start = Instant::now();
        let mut allowance = Allowance::new(100, 0, start);
        let ping = frame(6, 8);
        for _ in 0..100 {
            allowance.read(&ping, start).unwrap();
        }
        let later = start + Duration::from_secs(1);
        for _ in 0..10 {
            allowance.read(&ping, later).unwrap();
        }
        assert!(allowance.read(&ping, later).is_err());
    }
}
