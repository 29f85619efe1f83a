//! Who the visitor is, as far as its fields are believed, and for the backend; the trace that
//! a request belongs to, and how many tunnels it has passed.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use http::uri::Scheme;
use strait_engine::RequestId;

use crate::classify::is_authority;
use crate::http::hop::{Fields, remove};
use crate::peer::{Peer, TrustedProxies, canonical};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const HOPS: HeaderName = HeaderName::from_static("strait-hops");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The visitor's address: the peer's, or behind a trusted proxy the last one in
/// `X-Forwarded-For` that is no trusted proxy. Its port is 0 where nobody said it.
pub(crate) fn visitor(headers: &HeaderMap, peer: &Peer, trusted: &TrustedProxies) -> SocketAddr {
    let mut found = peer.address;
    if !peer.trusted {
        return found;
    }
    let said = headers.get_all(FOR).iter().rev();
    for item in said.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b',')) {
        // Whoever wrote what is no address knew no better: so it is who asks.
        let Some(address) = address(item) else { break };
        found = address;
        if !trusted.contains(found.ip()) {
            break;
        }
    }
    found
}

/// An address as proxies write it: with or without a port, and with or without the brackets
/// of IPv6.
fn address(item: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(item.trim_ascii()).ok()?;
    let bare = || text.parse::<IpAddr>().ok();
    let bracketed = || {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    };
    let alone = bare().or_else(bracketed).map(|ip| SocketAddr::new(ip, 0));
    alone.or_else(|| text.parse().ok()).map(canonical)
}

/// How the visitor came: as a trusted proxy says first, else by the scheme of the entry.
pub(crate) fn scheme(headers: &HeaderMap, peer: &Peer, own: Scheme) -> Scheme {
    if !peer.trusted {
        return own;
    }
    match first(headers, &PROTO).map(<[u8]>::to_ascii_lowercase).as_deref() {
        Some(b"https" | b"wss") => Scheme::HTTPS,
        Some(b"http" | b"ws") => Scheme::HTTP,
        _ => own,
    }
}

/// The first item of a list in a field: what was said nearest to the visitor.
fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let item = headers.get(name)?.as_bytes().split(|byte| *byte == b',').next()?;
    Some(item.trim_ascii())
}

/// Sets `X-Forwarded-For`, `-Proto` and `-Host` of a head that had `fields`: from what a trusted
/// proxy said, and from nothing that anybody else did.
///
/// `Forwarded` goes in either case, as RFC 7239 4 allows: proxies that set `X-Forwarded-For`
/// pass it on as the visitor sent it, and two fields that differ are a choice of lies.
pub(crate) fn set(
    fields: Fields,
    headers: &mut HeaderMap,
    peer: &Peer,
    scheme: &Scheme,
    authority: &[u8],
) {
    if fields.have(Fields::FORWARDED) {
        remove(headers, &FORWARDED);
    }
    let mut chain = Vec::new();
    let mut host = None;
    if peer.trusted {
        for value in headers.get_all(FOR) {
            chain.extend_from_slice(value.as_bytes());
            chain.extend_from_slice(b", ");
        }
        host = first(headers, &HOST).filter(|host| is_authority(host));
    }
    if let Ok(host) = HeaderValue::from_bytes(host.unwrap_or(authority)) {
        headers.insert(HOST, host);
    } else {
        remove(headers, &HOST);
    }
    let word = if *scheme == Scheme::HTTPS { "https" } else { "http" };
    headers.insert(PROTO, HeaderValue::from_static(word));
    let mut value = peer.text.clone();
    if !chain.is_empty() {
        chain.extend_from_slice(peer.text.as_bytes());
        value = HeaderValue::from_maybe_shared(bytes::Bytes::from(chain)).unwrap_or(value);
    }
    headers.insert(FOR, value);
}

/// The trace context of a request that had `fields`: the caller's own when it is well formed, else
/// a new one, which the headers then carry too.
pub(crate) fn trace(fields: Fields, headers: &mut HeaderMap) -> Arc<str> {
    if fields.have(Fields::TRACEPARENT) {
        let mut all = headers.get_all(TRACEPARENT).iter();
        if let (Some(value), None) = (all.next(), all.next())
            && let Some(text) = value.to_str().ok().filter(|text| is_traceparent(text))
        {
            return text.into();
        }
    }
    let made = RequestId::new_traceparent();
    if let Ok(value) = HeaderValue::from_bytes(&made) {
        headers.insert(TRACEPARENT, value);
    }
    std::str::from_utf8(&made).unwrap_or_default().into()
}

/// How many tunnels a request that had `fields` has passed before, as the last one noted in them,
/// where this one is counted then: a service may lead back to an entry.
pub(crate) fn hops(fields: Fields, headers: &mut HeaderMap) -> u32 {
    let passed = match fields.have(Fields::STRAIT_HOPS) {
        true => headers.get(HOPS).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0),
        false => 0_u32,
    };
    let value = match passed {
        0 => const { HeaderValue::from_static("1") },
        _ => HeaderValue::from(passed.saturating_add(1)),
    };
    headers.insert(HOPS, value);
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

    fn proxies() -> TrustedProxies {
        TrustedProxies::new(vec!["192.0.2.0/24".parse().unwrap(), "fd00::/8".parse().unwrap()])
    }

    fn stranger() -> Peer {
        Peer::new("[::ffff:203.0.113.9]:4000".parse().unwrap(), &proxies())
    }

    fn proxy() -> Peer {
        Peer::new("192.0.2.7:4000".parse().unwrap(), &proxies())
    }

    fn said(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn forwarded() -> HeaderMap {
        let mut headers = said(FOR, &["10.9.9.9"]);
        headers.insert(PROTO, HeaderValue::from_static("https"));
        headers.insert(HOST, HeaderValue::from_static("public.example:444"));
        headers.insert(FORWARDED, HeaderValue::from_static("for=10.8.8.8"));
        headers
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let (mut headers, peer) = (forwarded(), stranger());
        assert_eq!(visitor(&headers, &peer, &proxies()).to_string(), "203.0.113.9:4000");
        let scheme = scheme(&headers, &peer, Scheme::HTTP);
        set(Fields::of(&headers), &mut headers, &peer, &scheme, b"a.example");
        assert_eq!(headers[FOR], "203.0.113.9");
        assert_eq!(headers[PROTO], "http");
        assert_eq!(headers[HOST], "a.example");
        assert!(!headers.contains_key(FORWARDED));
    }

    #[test]
    fn a_trusted_proxy_is_extended() {
        let (mut headers, peer) = (forwarded(), proxy());
        assert_eq!(visitor(&headers, &peer, &proxies()).to_string(), "10.9.9.9:0");
        let scheme = scheme(&headers, &peer, Scheme::HTTP);
        set(Fields::of(&headers), &mut headers, &peer, &scheme, b"a.example");
        assert_eq!(headers[FOR], "10.9.9.9, 192.0.2.7");
        assert_eq!(headers[PROTO], "https");
        assert_eq!(headers[HOST], "public.example:444");
        assert!(!headers.contains_key(FORWARDED), "it would contradict the chain");
    }

    #[test]
    fn a_trusted_proxy_that_says_nothing_is_who_asks() {
        let (mut headers, peer) = (HeaderMap::new(), proxy());
        assert_eq!(visitor(&headers, &peer, &proxies()), peer.address);
        set(Fields::of(&headers), &mut headers, &peer, &Scheme::HTTPS, b"a.example");
        assert_eq!(headers[FOR], "192.0.2.7");
        assert_eq!(headers[PROTO], "https");
        assert_eq!(headers[HOST], "a.example");
    }

    #[test]
    fn the_visitor_is_the_last_in_the_chain_who_is_no_trusted_proxy() {
        for (values, expected) in [
            (&["198.51.100.1"][..], "198.51.100.1:0"),
            (&["1.1.1.1, 198.51.100.1"], "198.51.100.1:0"),
            (&["1.1.1.1", "198.51.100.1"], "198.51.100.1:0"),
            (&["1.1.1.1, 198.51.100.1, 192.0.2.8,fd00::1"], "198.51.100.1:0"),
            (&["198.51.100.1", "192.0.2.8", "[fd00::1]:80"], "198.51.100.1:0"),
            // All of them are trusted: the first is the one who asked.
            (&["192.0.2.9, 192.0.2.8"], "192.0.2.9:0"),
            (&["198.51.100.1:555"], "198.51.100.1:555"),
            (&["2001:db8::1"], "[2001:db8::1]:0"),
            (&["[2001:db8::1]"], "[2001:db8::1]:0"),
            (&["[2001:db8::1]:99"], "[2001:db8::1]:99"),
            (&["::ffff:198.51.100.1"], "198.51.100.1:0"),
            // Nothing beyond what is no address is believed.
            (&["198.51.100.1, unknown"], "192.0.2.7:4000"),
            (&["198.51.100.1, unknown, 192.0.2.8"], "192.0.2.8:0"),
            (&["198.51.100.1,"], "192.0.2.7:4000"),
            (&[""], "192.0.2.7:4000"),
            (&["[198.51.100.1]"], "192.0.2.7:4000"),
        ] {
            let found = visitor(&said(FOR, values), &proxy(), &proxies());
            assert_eq!(found.to_string(), expected, "{values:?}");
        }
    }

    #[test]
    fn only_words_for_a_scheme_are_one() {
        for (values, expected) in [
            (&["https"][..], Scheme::HTTPS),
            (&["HTTPS"], Scheme::HTTPS),
            (&["wss"], Scheme::HTTPS),
            (&["https, http"], Scheme::HTTPS),
            (&["https", "http"], Scheme::HTTPS),
            (&["http"], Scheme::HTTP),
            (&["ws"], Scheme::HTTP),
        ] {
            for own in [Scheme::HTTP, Scheme::HTTPS] {
                let found = scheme(&said(PROTO, values), &proxy(), own);
                assert_eq!(found, expected, "{values:?}");
            }
        }
        for values in [&["ftp"][..], &[""], &["https;"], &[]] {
            for own in [Scheme::HTTP, Scheme::HTTPS] {
                let mut headers = said(PROTO, values);
                assert_eq!(scheme(&headers, &proxy(), own.clone()), own, "{values:?}");
                set(Fields::of(&headers), &mut headers, &proxy(), &own, b"a");
                assert_eq!(headers[PROTO], own.as_str());
            }
        }
    }

    #[test]
    fn only_a_host_is_one() {
        for (values, expected) in [
            (&["a.example, b.example"][..], "a.example"),
            (&["a.example", "b.example"], "a.example"),
            (&["a b"], "own"),
            (&["u@a.example"], "own"),
            (&[""], "own"),
        ] {
            let mut headers = said(HOST, values);
            set(Fields::of(&headers), &mut headers, &proxy(), &Scheme::HTTP, b"own");
            let hosts: Vec<_> = headers.get_all(HOST).iter().collect();
            assert_eq!(hosts, [expected], "{values:?}");
        }
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
            assert_eq!(hops(Fields::of(&headers), &mut headers), before, "{said:?}");
            assert_eq!(headers[HOPS], after, "{said:?}");
        }
    }

    #[test]
    fn a_trace_passes_or_is_made() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(good));
        assert_eq!(*trace(Fields::of(&headers), &mut headers), *good);
        for bad in ["", "x", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
            headers.insert(TRACEPARENT, HeaderValue::from_str(bad).unwrap());
            let made = trace(Fields::of(&headers), &mut headers);
            assert!(is_traceparent(&made) && *made != *bad);
            assert_eq!(headers[TRACEPARENT], &*made);
        }
    }
}
