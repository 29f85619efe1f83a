//! The PROXY protocol, versions 1 and 2: a header before the first byte of a visitor's
//! connection, in which a proxy says whose it is
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
//!
//! Read here and not by a library, because what follows must be exact: the ones there are take
//! `PROXY-TCP4` for a header, or ports like `+80`, or fields of version 2 that do not fit.

use std::io::{Error, ErrorKind, Result as IoResult};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::peer::{Peer, TrustedProxies};
use crate::settings::or_never;

/// What an entry needs to know of proxies that begin every connection with a header of the
/// PROXY protocol. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct ProxyProtocol {
    refused: Arc<AtomicU64>,
}

impl ProxyProtocol {
    /// Connections that were closed because their header was missing, malformed, too long,
    /// late, or from an address that may send none.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Whose connection this is, as the header says that `proxy` must send `within` this time.
    /// Nothing behind the header is read. `None` when the proxy closes without a word.
    ///
    /// What fields say is believed of the one whom the header names, if that is a trusted proxy:
    /// whoever writes headers of this protocol passes on what visitors write.
    pub(crate) async fn introduced(
        &self,
        tcp: &mut TcpStream,
        mut proxy: Peer,
        trusted: &TrustedProxies,
        within: Duration,
    ) -> IoResult<Option<Peer>> {
        let header = if trusted.are_none() || proxy.trusted {
            let late = |_| Err(Error::new(ErrorKind::TimedOut, "the PROXY header is late"));
            timeout(or_never(within), read(tcp)).await.unwrap_or_else(late)
        } else {
            let detail = "only trusted proxies may send a PROXY header";
            Err(Error::new(ErrorKind::PermissionDenied, detail))
        };
        if header.is_err() {
            self.refused.fetch_add(1, Relaxed);
        }
        let named = |header: Header| match header.source {
            Some(source) => Peer::new(source, trusted),
            None => {
                proxy.trusted = false;
                proxy
            }
        };
        Ok(header?.map(named))
    }
}

/// A header that is all there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its length in bytes.
    pub(crate) length: usize,
    /// The visitor; `None` when the proxy speaks for itself, or does not know.
    pub(crate) source: Option<SocketAddr>,
}

/// Why bytes are no header.
type Malformed = &'static str;

/// Bytes of the longest header of version 1, its line end included (2.1).
pub const LONGEST_TEXT: usize = 107;
/// Bytes of the longest header of version 2 that is taken: addresses take 232 of them at most,
/// the rest is for fields.
pub const LONGEST_HEADER: usize = 4096;

const TEXT: &[u8] = b"PROXY ";
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads the header of a connection and nothing behind it, which belongs to TLS or to HTTP.
async fn read(tcp: &mut TcpStream) -> IoResult<Option<Header>> {
    let mut bytes = vec![0; LONGEST_HEADER];
    let mut taken = 0;
    loop {
        let there = tcp.peek(&mut bytes[taken..]).await?;
        if there == 0 {
            let cut = Error::new(ErrorKind::UnexpectedEof, "the PROXY header is cut");
            return if taken == 0 { Ok(None) } else { Err(cut) };
        }
        let header = parse(&bytes[..taken + there])
            .map_err(|why| Error::new(ErrorKind::InvalidData, why))?;
        let end = header.as_ref().map_or(taken + there, |header| header.length);
        // All of it is there already.
        tcp.read_exact(&mut bytes[taken..end]).await?;
        if header.is_some() {
            return Ok(header);
        }
        taken = end;
    }
}

/// The header at the start of `bytes`; `None` when more of it is still to come. Fewer than
/// [`LONGEST_HEADER`] bytes are enough to tell.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, wanted)| byte == wanted);
    if begins(TEXT) {
        text(bytes)
    } else if begins(BINARY) {
        binary(bytes)
    } else {
        Err("no PROXY header")
    }
}

/// Version 1: a line of text (2.1).
fn text(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let line = &bytes[..bytes.len().min(LONGEST_TEXT)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        let whole = line.len() == LONGEST_TEXT;
        return if whole { Err("the PROXY header is too long") } else { Ok(None) };
    };
    let malformed = "a malformed PROXY header";
    let line = line[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(TEXT));
    let line = line.and_then(|line| std::str::from_utf8(line).ok()).ok_or(malformed)?;
    let words: Vec<&str> = line.split(' ').collect();
    let source = match words[..] {
        ["UNKNOWN", ..] => None,
        ["TCP4", source, target, port, target_port] => {
            let ends: Option<(Ipv4Addr, Ipv4Addr)> = both(source, target);
            let (source, _) = ends.ok_or(malformed)?;
            Some((IpAddr::V4(source), port, target_port))
        }
        ["TCP6", source, target, port, target_port] => {
            let ends: Option<(Ipv6Addr, Ipv6Addr)> = both(source, target);
            let (source, _) = ends.ok_or(malformed)?;
            Some((IpAddr::V6(source), port, target_port))
        }
        _ => return Err(malformed),
    };
    let source = match source {
        None => None,
        Some((source, port, target_port)) => {
            self::port(target_port).ok_or(malformed)?;
            Some(SocketAddr::new(source, self::port(port).ok_or(malformed)?))
        }
    };
    Ok(Some(Header { length: end + 1, source }))
}

fn both<T: std::str::FromStr>(one: &str, other: &str) -> Option<(T, T)> {
    Some((one.parse().ok()?, other.parse().ok()?))
}

/// A port as it must be written: digits, the first of them no zero unless it is the only one.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text.len() == 1 || !text.starts_with('0');
    text.parse().ok().filter(|_| digits && canonical)
}

/// Version 2: addresses and fields in binary (2.2).
fn binary(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((&[command, family, high, low], rest)) =
        bytes.get(BINARY.len()..).and_then(|rest| rest.split_first_chunk())
    else {
        return Ok(None);
    };
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err("a PROXY header of an unknown version or command"),
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let whole = BINARY.len() + 4 + length;
    if whole > LONGEST_HEADER {
        return Err("the PROXY header is too long");
    }
    let Some(rest) = rest.get(..length) else { return Ok(None) };
    // Of a connection of the proxy's own nothing else matters.
    let source = if local { None } else { addresses(family, rest)? };
    Ok(Some(Header { length: whole, source }))
}

/// Whom the addresses name; of datagrams and unix sockets nobody whom a visitor of TCP could be.
fn addresses(family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, Malformed> {
    let short = "a PROXY header too short for its addresses";
    let (source, fields) = match family {
        0x00 => (None, rest),
        0x11 | 0x12 => {
            let (ends, fields) = rest.split_first_chunk::<12>().ok_or(short)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *ends;
            let source = SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])));
            (Some(source).filter(|_| family == 0x11), fields)
        }
        0x21 | 0x22 => {
            let (source, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
            let (others, fields) = rest.split_first_chunk::<20>().ok_or(short)?;
            let port = u16::from_be_bytes([others[16], others[17]]);
            (Some(SocketAddr::from((*source, port))).filter(|_| family == 0x21), fields)
        }
        0x31 | 0x32 => (None, rest.get(216..).ok_or(short)?),
        _ => return Err("a PROXY header of an unknown family"),
    };
    check_fields(fields)?;
    Ok(source)
}

/// Fields are passed over, but they must fit: a type, a length of two bytes, and the value
/// (2.2.1).
fn check_fields(mut fields: &[u8]) -> Result<(), Malformed> {
    let cut = "a PROXY header with a field that is cut";
    while !fields.is_empty() {
        let (&[_, high, low], rest) = fields.split_first_chunk().ok_or(cut)?;
        fields = rest.get(usize::from(u16::from_be_bytes([high, low]))..).ok_or(cut)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
