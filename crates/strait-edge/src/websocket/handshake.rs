//! The opening handshake: by an upgrade of HTTP/1.1 (RFC 6455 4), or by an extended CONNECT of
//! HTTP/2 (RFC 8441 5), which has neither key nor accept. What belongs to one leg never travels;
//! extensions and subprotocols are negotiated end to end.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Version};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use strait_engine::{Fault, Reason};

use crate::classify::Refusal;
use crate::http::hop::{has_token, retain};

/// RFC 6455 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Checks a visitor's handshake by HTTP/1.1 (RFC 6455 4.2.1).
pub(crate) fn check_upgrade(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    let bad = |why: &'static str| Err(Fault::because(Reason::BadRequest, why).into());
    if *method != Method::GET || version != Version::HTTP_11 {
        return bad("a WebSocket handshake is a GET by HTTP/1.1");
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return bad("a WebSocket handshake has `Connection: Upgrade`");
    }
    check_version(headers)?;
    match only(headers, SEC_WEBSOCKET_KEY).and_then(|key| STANDARD.decode(key).ok()) {
        Some(key) if key.len() == 16 => Ok(()),
        _ => bad("Sec-WebSocket-Key is not 16 bytes in base64"),
    }
}

/// Checks the version that a visitor asks for, by HTTP/1.1 and by HTTP/2.
pub(crate) fn check_version(headers: &HeaderMap) -> Result<(), Refusal> {
    match only(headers, SEC_WEBSOCKET_VERSION) {
        Some(b"13") => Ok(()),
        _ => Err(Refusal::WebSocketVersion),
    }
}

/// The value of a field that is there exactly once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&[u8]> {
    let mut all = headers.get_all(name).iter();
    all.next().filter(|_| all.next().is_none()).map(HeaderValue::as_bytes)
}

/// Removes the fields that belong to one leg of a handshake, from a request or an answer.
pub(crate) fn strip_leg(headers: &mut HeaderMap) {
    let of_one_leg =
        [SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_ACCEPT, CONTENT_LENGTH];
    retain(headers, |name| !of_one_leg.contains(name));
}

/// The `Sec-WebSocket-Accept` for a key (RFC 6455 4.2.2).
pub(crate) fn accept(key: &[u8]) -> HeaderValue {
    let mut sha1 = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key);
    sha1.update(GUID);
    header(STANDARD.encode(sha1.finish()))
}

fn header(text: String) -> HeaderValue {
    // Base64 is always a valid value.
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Completes the fields of a handshake with a backend by HTTP/1.1; returns its key.
pub(crate) fn ask_upgrade(headers: &mut HeaderMap) -> Result<HeaderValue, Fault> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)
        .map_err(|error| Fault::because(Reason::Internal, format!("no randomness: {error}")))?;
    let key = header(STANDARD.encode(nonce));
    ask_connect(headers);
    upgrade(headers);
    headers.insert(SEC_WEBSOCKET_KEY, key.clone());
    Ok(key)
}

/// Completes the fields of a handshake with a backend by HTTP/2.
pub(crate) fn ask_connect(headers: &mut HeaderMap) {
    strip_leg(headers);
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
}

/// Adds `Connection: Upgrade` and `Upgrade: websocket`.
pub(crate) fn upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Checks a backend's 101 (RFC 6455 4.1).
pub(crate) fn check_answer(headers: &HeaderMap, key: &HeaderValue) -> Result<(), Fault> {
    let right = has_token(headers, &UPGRADE, "websocket")
        && has_token(headers, &CONNECTION, "upgrade")
        && headers.get(SEC_WEBSOCKET_ACCEPT) == Some(&accept(key.as_bytes()));
    match right {
        true => Ok(()),
        false => Err(Fault::because(Reason::BackendInvalid, "a wrong WebSocket handshake")),
    }
}

/// Whether this 101 agreed on an extension: then reserved bits have a meaning that is not
/// ours to judge.
pub(crate) fn extended(headers: &HeaderMap) -> bool {
    headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().any(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        headers
    }

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn handshakes_are_checked() {
        let check = |headers: &HeaderMap| check_upgrade(&Method::GET, Version::HTTP_11, headers);
        assert!(check(&good()).is_ok());
        assert!(check_upgrade(&Method::POST, Version::HTTP_11, &good()).is_err());
        assert!(check_upgrade(&Method::GET, Version::HTTP_10, &good()).is_err());
        let mut old = good();
        old.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("8"));
        assert!(matches!(check(&old), Err(Refusal::WebSocketVersion)));
        let mut short = good();
        short.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("AAAA"));
        assert!(matches!(check(&short), Err(Refusal::Fault(_))));
        let mut twice = good();
        twice.append(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(check(&twice).is_err());
    }

    #[test]
    fn an_answer_must_know_the_key() {
        let mut headers = HeaderMap::new();
        let key = ask_upgrade(&mut headers).unwrap();
        upgrade(&mut headers);
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept(key.as_bytes()));
        assert!(check_answer(&headers, &key).is_ok());
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept(b"another"));
        assert!(check_answer(&headers, &key).is_err());
    }
}
