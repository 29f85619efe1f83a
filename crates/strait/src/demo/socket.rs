//! The sample WebSocket (RFC 6455): gives every frame back as it came, piece by piece,
//! so that a large frame needs no memory. No extension is accepted.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::site::{Body, text};

const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
/// RFC 6455 7.4.1: the peer broke the protocol.
const PROTOCOL_ERROR: u16 = 1002;
/// Bytes of payload that are held at once.
const PIECE: usize = 16 * 1024;

/// Accepts the handshake, or says why not.
pub(crate) fn accept(mut request: Request<Incoming>) -> Response<Body> {
    let Some(key) = accept_key(request.headers()) else {
        let hint = "This is a WebSocket that echoes: open it with a WebSocket client.\n";
        return text(StatusCode::UPGRADE_REQUIRED, hint);
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(socket) = upgrade.await {
            // An end without a close frame is the visitor's business, not worth a word.
            let _ = echo(TokioIo::new(socket)).await;
        }
    });
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    response
}

/// The proof of RFC 6455 4.2.2; `None` when this is no handshake of version 13.
fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let upgrade = headers.get(header::UPGRADE)?.to_str().ok()?;
    let version = headers.get(header::SEC_WEBSOCKET_VERSION)?;
    if !upgrade.eq_ignore_ascii_case("websocket") || version != "13" {
        return None;
    }
    let mut proof = headers.get(header::SEC_WEBSOCKET_KEY)?.as_bytes().to_vec();
    proof.extend_from_slice(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let proof = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &proof));
    HeaderValue::from_str(&proof).ok()
}

/// Echoes frames until a close frame or the end of the connection.
///
/// # Errors
/// When the connection breaks.
pub(crate) async fn echo(socket: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut socket = BufReader::new(socket);
    loop {
        let first = match socket.read_u8().await {
            Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            first => first?,
        };
        let second = socket.read_u8().await?;
        let length = match second & 0x7F {
            126 => u64::from(socket.read_u16().await?),
            127 => socket.read_u64().await?,
            short => u64::from(short),
        };
        let opcode = first & 0x0F;
        let control = opcode >= CLOSE;
        let known = matches!(opcode, 0..=2 | CLOSE | PING | PONG);
        let masked = second & 0x80 != 0;
        let broken_control = control && (length > 125 || first & 0x80 == 0);
        if !masked || !known || first & 0x70 != 0 || broken_control {
            return close(&mut socket, PROTOCOL_ERROR).await;
        }
        let mut mask = [0; 4];
        socket.read_exact(&mut mask).await?;
        // A ping comes back as a pong; a pong nobody asked for is swallowed.
        let reply = match opcode {
            PING => Some(0x80 | PONG),
            PONG => None,
            _ => Some(first),
        };
        relay(&mut socket, reply, length, mask).await?;
        if opcode == CLOSE {
            return socket.shutdown().await;
        }
    }
}

/// Reads the payload of one frame and writes it, unmasked, behind the byte `reply`.
async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut BufReader<S>,
    reply: Option<u8>,
    length: u64,
    mask: [u8; 4],
) -> io::Result<()> {
    let mut out = Vec::with_capacity(10 + usize::try_from(length).unwrap_or(PIECE).min(PIECE));
    if let Some(first) = reply {
        out.push(first);
        match length {
            0..=125 => out.push(length as u8),
            126..=0xFFFF => {
                out.push(126);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                out.push(127);
                out.extend_from_slice(&length.to_be_bytes());
            }
        }
    }
    let mut done = 0;
    loop {
        let from = out.len();
        let want = (length - done).min(PIECE as u64) as usize;
        out.resize(from + want, 0);
        socket.read_exact(&mut out[from..]).await?;
        for (byte, position) in out[from..].iter_mut().zip(done..) {
            *byte ^= mask[(position % 4) as usize];
        }
        done += want as u64;
        if reply.is_some() {
            socket.write_all(&out).await?;
            socket.flush().await?;
        }
        out.clear();
        if done == length {
            return Ok(());
        }
    }
}

async fn close(socket: &mut (impl AsyncWrite + Unpin), code: u16) -> io::Result<()> {
    let [high, low] = code.to_be_bytes();
    socket.write_all(&[0x80 | CLOSE, 2, high, low]).await?;
    socket.shutdown().await
}
