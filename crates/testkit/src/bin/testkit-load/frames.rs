//! WebSocket frames as the bench uses them: short binary messages of one frame.

use std::io;

/// Final, binary (RFC 6455 5.2).
const BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
const LONGEST: usize = 125;
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The frame of a client around `payload` of at most 125 bytes.
pub(crate) fn masked(payload: &[u8]) -> Vec<u8> {
    debug_assert!(payload.len() <= LONGEST);
    let mut frame = vec![BINARY, MASKED | payload.len() as u8];
    frame.extend(KEY);
    frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// The frame of a server around `payload` of at most 125 bytes.
pub(crate) fn plain(payload: &[u8]) -> Vec<u8> {
    [&[BINARY, payload.len() as u8], payload].concat()
}

/// What a server answers to the whole frames of a client in `bytes`, and how many bytes
/// those are.
///
/// # Errors
/// When it is no frame that this bench sends.
pub(crate) fn unmasked(bytes: &[u8]) -> io::Result<(Vec<u8>, usize)> {
    let (mut answers, mut used) = (Vec::new(), 0);
    while let [kind, length, rest @ ..] = &bytes[used..] {
        let size = usize::from(length & !MASKED);
        if *kind != BINARY || length & MASKED == 0 || size > LONGEST {
            return Err(wrong("not a short binary frame of a client"));
        }
        let (Some(key), Some(payload)) = (rest.get(..4), rest.get(4..4 + size)) else { break };
        let payload: Vec<u8> =
            payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        answers.extend(plain(&payload));
        used += 2 + 4 + size;
    }
    Ok((answers, used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_masked_comes_back_plain_and_a_part_of_a_frame_waits() {
        let mut bytes = [masked(b"one"), masked(b"second")].concat();
        let whole = bytes.len();
        bytes.extend(&masked(b"third")[..5]);
        let (answers, used) = unmasked(&bytes).unwrap();
        assert_eq!((answers, used), ([plain(b"one"), plain(b"second")].concat(), whole));
        assert!(unmasked(&plain(b"not of a client")).is_err());
    }
}
