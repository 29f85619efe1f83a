//! Who the visitor is, for the backend; the trace that a request belongs to, and how many
//! tunnels it has passed.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use strait_engine::RequestId;

use crate::Settings;
use crate::http::hop::retain;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const HOPS: HeaderName = HeaderName::from_static("strait-hops");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The address of a connection's other end, as every request on it needs it.
pub(crate) struct Peer {
    ip: IpAddr,
    text: HeaderValue,
}

impl Peer {
    pub(crate) fn new(ip: IpAddr) -> Peer {
        let ip = ip.to_canonical();
        let text = HeaderValue::from_str(&ip.to_string());
        Peer { ip, text: text.expect("an address is visible ASCII") }
    }
}

/// Sets `X-Forwarded-For`, `-Proto` and `-Host`. What an untrusted peer said there goes;
/// what a trusted proxy said stays and is extended.
pub(crate) fn set(
    headers: &mut HeaderMap,
    peer: &Peer,
    scheme: &'static str,
    authority: &[u8],
    settings: &Settings,
) {
    let trusted = settings.trusted_proxies.iter().any(|net| net.contains(&peer.ip));
    let mut chain = Vec::new();
    if trusted {
        for value in headers.get_all(FOR) {
            chain.extend_from_slice(value.as_bytes());
            chain.extend_from_slice(b", ");
        }
    } else {
        retain(headers, |name| ![FORWARDED, PROTO, HOST].contains(name));
    }
    if chain.is_empty() {
        headers.insert(FOR, peer.text.clone());
    } else {
        chain.extend_from_slice(peer.text.as_bytes());
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(chain)) {
            headers.insert(FOR, value);
        }
    }
    if !headers.contains_key(PROTO) {
        headers.insert(PROTO, HeaderValue::from_static(scheme));
    }
    if !headers.contains_key(HOST)
        && let Ok(value) = HeaderValue::from_bytes(authority)
    {
        headers.insert(HOST, value);
    }
}

/// The request's trace context: the caller's own when it is well formed, else a new one,
/// which the headers then carry too.
pub(crate) fn trace(headers: &mut HeaderMap) -> Arc<str> {
    let mut all = headers.get_all(TRACEPARENT).iter();
    if let (Some(value), None) = (all.next(), all.next())
        && let Some(text) = value.to_str().ok().filter(|text| is_traceparent(text))
    {
        return text.into();
    }
    let made = RequestId::new_traceparent();
    if let Ok(value) = HeaderValue::from_bytes(&made) {
        headers.insert(TRACEPARENT, value);
    }
    std::str::from_utf8(&made).unwrap_or_default().into()
}

/// How many tunnels a request has passed before, as the last one noted in its fields, where
/// this one is counted then: a service may lead back to an entry.
pub(crate) fn hops(headers: &mut HeaderMap) -> u32 {
    let passed = headers.get(HOPS).and_then(|value| value.to_str().ok());
    let passed: u32 = passed.and_then(|text| text.parse().ok()).unwrap_or(0);
    headers.insert(HOPS, HeaderValue::from(passed.saturating_add(1)));
    passed
}

/// Whether `text` is `version-traceid-parentid-flags` (W3C Trace Context 3.2). Later
/// versions may have more fields after these.
fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let nonzero = |part: &str| part.bytes().any(|b| b != b'0');
    let parts: Vec<&str> = text.split('-').collect();
    text.len() <= 128
        && parts.len() >= 4
        && hex(parts[0], 2)
        && parts[0] != "ff"
        && (parts[0] != "00" || parts.len() == 4)
        && hex(parts[1], 32)
        && nonzero(parts[1])
        && hex(parts[2], 16)
        && nonzero(parts[2])
        && hex(parts[3], 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn lies() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(FOR, HeaderValue::from_static("10.9.9.9"));
        headers.insert(PROTO, HeaderValue::from_static("https"));
        headers.insert(FORWARDED, HeaderValue::from_static("for=10.9.9.9"));
        headers
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let mut headers = lies();
        set(&mut headers, &Peer::new(PEER), "http", b"a.example", &Settings::default());
        assert_eq!(headers[FOR], "192.0.2.7");
        assert_eq!(headers[PROTO], "http");
        assert_eq!(headers[HOST], "a.example");
        assert!(!headers.contains_key(FORWARDED));
    }

    #[test]
    fn a_trusted_proxy_is_extended() {
        let mut headers = lies();
        let trusted_proxies = vec!["192.0.2.0/24".parse().unwrap()];
        let settings = Settings { trusted_proxies, ..Settings::default() };
        set(&mut headers, &Peer::new(PEER), "http", b"a.example", &settings);
        assert_eq!(headers[FOR], "10.9.9.9, 192.0.2.7");
        assert_eq!(headers[PROTO], "https");
    }

    #[test]
    fn tunnels_passed_are_counted_whatever_a_visitor_says() {
        for (said, before, after) in [
            (None, 0, "1"),
            (Some("3"), 3, "4"),
            (Some("-1"), 0, "1"),
            (Some("many"), 0, "1"),
            (Some("4294967295"), u32::MAX, "4294967295"),
            (Some("99999999999"), 0, "1"),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(said) = said {
                headers.insert(HOPS, HeaderValue::from_static(said));
            }
            assert_eq!(hops(&mut headers), before, "{said:?}");
            assert_eq!(headers[HOPS], after, "{said:?}");
        }
    }

    #[test]
    fn a_trace_passes_or_is_made() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(good));
        assert_eq!(*trace(&mut headers), *good);
        for bad in ["", "x", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
            headers.insert(TRACEPARENT, HeaderValue::from_str(bad).unwrap());
            let made = trace(&mut headers);
            assert!(is_traceparent(&made) && *made != *bad);
            assert_eq!(headers[TRACEPARENT], &*made);
        }
    }
}
