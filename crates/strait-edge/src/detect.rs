//! Which version of HTTP a new connection speaks.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The start of every HTTP/2 connection (RFC 9113 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The version that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// Waits for the first bytes; `None` when the peer closes without sending any.
pub(crate) async fn first_bytes<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<Option<BytesMut>> {
    let mut bytes = BytesMut::with_capacity(1024);
    let n = io.read_buf(&mut bytes).await?;
    Ok((n > 0).then_some(bytes))
}

/// The version that these first bytes tell, if they do.
pub(crate) fn told(bytes: &[u8]) -> Option<Version> {
    let n = bytes.len().min(PREFACE.len());
    match bytes[..n] == PREFACE[..n] {
        true => (n == PREFACE.len()).then_some(Version::Http2),
        false => Some(Version::Http1),
    }
}

/// Reads on until it is clear which version is spoken; nothing is lost.
pub(crate) async fn version<T: AsyncRead + Unpin>(
    io: &mut T,
    mut bytes: BytesMut,
) -> io::Result<(Version, Bytes)> {
    loop {
        if let Some(version) = told(&bytes) {
            return Ok((version, bytes.freeze()));
        }
        if io.read_buf(&mut bytes).await? == 0 {
            return Ok((Version::Http1, bytes.freeze()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    async fn detect(pieces: &[&[u8]]) -> Version {
        let (mut near, mut far) = tokio::io::duplex(4);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let all = pieces.concat();
        let writer = tokio::spawn(async move {
            for piece in pieces {
                far.write_all(&piece).await.unwrap();
            }
        });
        let first = first_bytes(&mut near).await.unwrap().unwrap();
        let (version, read) = version(&mut near, first).await.unwrap();
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.unwrap();
        writer.await.unwrap();
        assert_eq!([&read[..], &rest].concat(), all);
        version
    }

    #[tokio::test]
    async fn the_preface_decides_however_it_arrives() {
        assert_eq!(detect(&[PREFACE, b"frames"]).await, Version::Http2);
        assert_eq!(detect(&[b"P", b"RI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]).await, Version::Http2);
        assert_eq!(detect(&[b"P", b"OST / HTTP/1.1\r\n"]).await, Version::Http1);
        assert_eq!(detect(&[b"PRI * HTTP/2.0\r\n"]).await, Version::Http1);
        assert_eq!(detect(&[b"GET / HTTP/1.1\r\n\r\n"]).await, Version::Http1);
    }
}
