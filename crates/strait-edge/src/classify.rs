//! From what was parsed to a request head: which protocol, for whom, valid or not.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderName, SEC_WEBSOCKET_KEY,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use strait_engine::{Fault, Protocol, Reason, RequestHead};

use crate::Settings;
use crate::http::hop::{Fields, content_length, decimal, has_token, strip_with};
use crate::websocket::handshake;

/// What an entry makes of a request's head.
pub(crate) struct Classified {
    pub(crate) protocol: Protocol,
    pub(crate) head: RequestHead,
    /// The body's length, when the visitor announced one.
    pub(crate) length: Option<u64>,
    /// Of a WebSocket handshake by HTTP/1.1.
    pub(crate) websocket_key: Option<HeaderValue>,
    /// As [`must_close`] says.
    pub(crate) must_close: bool,
    /// The visitor may wait to hear that its body is wanted (RFC 9110 10.1.1).
    pub(crate) awaits_continue: bool,
}

/// Why an entry refuses a request itself.
pub(crate) enum Refusal {
    /// By the fault table.
    Fault(Fault),
    /// 405: a method that no proxy of this kind serves.
    Method,
    /// 417: an expectation other than `100-continue` (RFC 9110 10.1.1).
    Expectation,
    /// 501: an extended CONNECT for anything but `websocket` (RFC 9220 3).
    ConnectProtocol,
    /// 426 or 400: a version of WebSocket other than 13 (RFC 6455 4.2.2).
    WebSocketVersion,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        Refusal::Fault(fault)
    }
}

fn bad(why: &'static str) -> Fault {
    Fault::because(Reason::BadRequest, why)
}

/// Whether these headers announce gRPC (not gRPC-Web, which is plain HTTP).
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    let value = value.as_bytes();
    let head = b"application/grpc";
    value.len() >= head.len()
        && value[..head.len()].eq_ignore_ascii_case(head)
        && matches!(value.get(head.len()), None | Some(b'+' | b';' | b' '))
}

/// Makes a request head of `parts`, which have `fields`, or says why not; then `parts` are as they
/// were. Applies the sizes of `settings`.
pub(crate) fn classify(
    parts: &mut Parts,
    fields: Fields,
    scheme: &Scheme,
    settings: &Settings,
) -> Result<Classified, Refusal> {
    let Parts { method, uri, version, headers, extensions, .. } = parts;
    let version = *version;
    let connect = match extensions.get::<h2::ext::Protocol>() {
        Some(protocol) if protocol.as_str() == "websocket" => true,
        Some(_) => return Err(Refusal::ConnectProtocol),
        None if *method == Method::CONNECT || *method == Method::TRACE => {
            return Err(Refusal::Method);
        }
        None => false,
    };
    check_sizes(uri, headers, settings)?;
    let http1 = version < Version::HTTP_2;
    let authority = authority(version, uri, headers)?;
    let chunked = http1 && fields.have(Fields::TRANSFER_ENCODING) && is_chunked(version, headers)?;
    if !http1 {
        check_values(headers)?;
    }
    let length = match fields.have(Fields::CONTENT_LENGTH) {
        true => content_length(headers).map_err(|()| bad("malformed Content-Length"))?,
        false => None,
    };
    let path = path(method, uri)?;
    let awaits_continue = fields.have(Fields::EXPECT) && awaits_continue(version, headers)?;
    let upgrade =
        http1 && fields.have(Fields::UPGRADE) && has_token(headers, &UPGRADE, "websocket");
    let protocol = if connect {
        handshake::check_version(headers)?;
        Protocol::WebSocket
    } else if upgrade {
        handshake::check_upgrade(method, version, headers)?;
        if chunked || length.is_some_and(|length| length > 0) {
            return Err(bad("a WebSocket handshake has no body").into());
        }
        Protocol::WebSocket
    } else if !http1 && is_grpc(headers) && *method == Method::POST {
        Protocol::Grpc
    } else {
        Protocol::Http
    };
    // Nothing is refused any more.
    let must_close =
        chunked || length.is_some() || (fields.have(Fields::CONNECTION) && asks_to_close(headers));
    // A handshake is a GET, whatever the leg that it came by.
    let method = if connect { Method::GET } else { std::mem::take(method) };
    let mut headers = std::mem::take(headers);
    // HTTP/2 has no key: its handshake cannot be forged by a plain request (RFC 8441 5).
    let websocket_key = if upgrade { headers.get(SEC_WEBSOCKET_KEY).cloned() } else { None };
    // The host travels as the authority. The messages of a call say their lengths themselves.
    let also = match protocol {
        Protocol::Grpc => Fields::HOST.and(Fields::CONTENT_LENGTH),
        Protocol::Http | Protocol::WebSocket => Fields::HOST,
    };
    strip_with(&mut headers, fields, also);
    if protocol == Protocol::WebSocket {
        handshake::strip_leg(&mut headers);
    }
    if fields.have(Fields::COOKIE) {
        join_cookies(&mut headers);
    }
    let head = RequestHead { method, scheme: scheme.clone(), authority, path, headers };
    Ok(Classified { protocol, head, length, websocket_key, must_close, awaits_continue })
}

/// Whether the visitor expects `100 Continue`. HTTP/1.0 has no expectations.
fn awaits_continue(version: Version, headers: &HeaderMap) -> Result<bool, Refusal> {
    if version < Version::HTTP_11 {
        return Ok(false);
    }
    let members = headers.get_all(EXPECT).iter().flat_map(|v| v.as_bytes().split(|b| *b == b','));
    let mut members =
        members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty()).peekable();
    let awaits = members.peek().is_some();
    match members.all(|member| member.eq_ignore_ascii_case(b"100-continue")) {
        true => Ok(awaits),
        false => Err(Refusal::Expectation),
    }
}

/// The path of a target in origin or absolute form, or the asterisk of `OPTIONS` (RFC 9112 3.2).
fn path(method: &Method, uri: &Uri) -> Result<Bytes, Fault> {
    let known = [Scheme::HTTP, Scheme::HTTPS];
    if uri.scheme().is_some_and(|scheme| !known.contains(scheme)) {
        return Err(bad("the request target has a scheme that is not served"));
    }
    let is_authority_form = uri.scheme().is_none() && uri.authority().is_some();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let is_asterisk = path == "*" && method == Method::OPTIONS;
    if is_authority_form || !(path.starts_with('/') || is_asterisk) {
        return Err(bad("the request target is not in origin form"));
    }
    Ok(Bytes::copy_from_slice(path.as_bytes()))
}

fn check_sizes(uri: &Uri, headers: &HeaderMap, settings: &Settings) -> Result<(), Fault> {
    let target = uri.path_and_query().map_or(0, |path| path.as_str().len());
    if target > settings.max_uri {
        return Err(Fault::new(Reason::UriTooLong));
    }
    if fits(headers, settings) { Ok(()) } else { Err(Fault::new(Reason::HeaderTooLarge)) }
}

/// Whether the fields of a head, a request's or an answer's, are within the limits.
pub(crate) fn fits(headers: &HeaderMap, settings: &Settings) -> bool {
    // As HTTP/1.1 writes them: name, colon, space, value, CR, LF.
    let bytes: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    headers.len() <= settings.max_header_fields && bytes <= settings.max_header_bytes
}

/// Whether the body comes in chunks. Refuses framing that could be read in two ways (RFC 9112
/// 6.3), as whoever has read it already did on HTTP/1.
fn is_chunked(version: Version, headers: &HeaderMap) -> Result<bool, Fault> {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(encoding) = encodings.next() else { return Ok(false) };
    if encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(bad("Transfer-Encoding is not exactly `chunked`"));
    }
    if version < Version::HTTP_11 || headers.contains_key(CONTENT_LENGTH) {
        return Err(bad("Transfer-Encoding beside Content-Length, or in HTTP/1.0"));
    }
    Ok(true)
}

/// Values that begin or end with white space, which HTTP/1 would not show (RFC 9113 8.2.1). The
/// HTTP library has refused what else makes a field malformed.
fn check_values(headers: &HeaderMap) -> Result<(), Fault> {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    match headers.values().any(|v| is_space(v.as_bytes().first()) || is_space(v.as_bytes().last()))
    {
        true => Err(bad("white space around the value of a field")),
        false => Ok(()),
    }
}

/// The one authority of a request: of its target and of `Host`, which must agree where
/// both are given. (RFC 9112 3.2.2 has the target win; what disagrees has no honest use.)
fn authority(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Bytes, Fault> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().map(|value| value.as_bytes());
    if hosts.next().is_some() {
        return Err(bad("several Host fields"));
    }
    let target = uri.authority().map(|authority| authority.as_str().as_bytes());
    let authority = match (target, host) {
        (Some(target), Some(host)) if !target.eq_ignore_ascii_case(host) => {
            return Err(bad("the request target and Host disagree"));
        }
        // RFC 9112 3.2: required also beside an absolute target.
        (Some(_), None) if version == Version::HTTP_11 => return Err(bad("no Host")),
        (Some(authority), _) | (None, Some(authority)) => authority,
        (None, None) => return Err(bad("no Host")),
    };
    if !is_authority(authority) {
        return Err(bad("malformed Host"));
    }
    Ok(Bytes::copy_from_slice(authority))
}

/// The characters of a host that is no literal (RFC 3986 3.2.2).
const REG_NAME: [bool; 256] = {
    let mut is_one = [false; 256];
    let mut byte = 0;
    while byte < 0x80 {
        is_one[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut others: &[u8] = b"-._~!$&'()*+,;=%";
    while let [byte, rest @ ..] = others {
        is_one[*byte as usize] = true;
        others = rest;
    }
    is_one
};

/// Whether `text` is `host[:port]` (RFC 3986 3.2, without user information).
pub(crate) fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text.first() {
        None => return false,
        Some(b'[') => {
            let Some(end) = text.iter().position(|b| *b == b']') else { return false };
            let literal = std::str::from_utf8(&text[1..end]).unwrap_or_default();
            if literal.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            (&text[..=end], &text[end + 1..])
        }
        Some(_) => {
            let end = text.iter().position(|byte| !REG_NAME[usize::from(*byte)]);
            text.split_at(end.unwrap_or(text.len()))
        }
    };
    let port_is_fine = match port {
        [] => true,
        [b':', digits @ ..] => decimal(digits).is_some_and(|port| port <= u64::from(u16::MAX)),
        _ => false,
    };
    !host.is_empty() && port_is_fine
}

/// HTTP/2 may split cookies into several fields; HTTP/1 and generic backends want one
/// (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(COOKIE).iter();
    if let (Some(first), Some(second)) = (all.next(), all.next()) {
        let mut joined = first.as_bytes().to_vec();
        for crumb in std::iter::once(second).chain(all) {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(crumb.as_bytes());
        }
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
            headers.insert(COOKIE, value);
        }
    }
}

const PRIORITY: HeaderName = HeaderName::from_static("priority");

/// The urgency of a `priority` field (RFC 9218 4.1), 3 without a valid one.
pub(crate) fn urgency(headers: &HeaderMap) -> u8 {
    let Some(value) = headers.get(PRIORITY) else { return 3 };
    value
        .as_bytes()
        .split(|b| *b == b',')
        .find_map(|item| match item.trim_ascii() {
            [b'u', b'=', digit @ b'0'..=b'7'] => Some(digit - b'0'),
            _ => None,
        })
        .unwrap_or(3)
}

/// Whether an HTTP/1 connection must be closed after a request like this was refused:
/// its end may not be where we think.
pub(crate) fn must_close(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers.contains_key(CONTENT_LENGTH)
        || asks_to_close(headers)
}

fn asks_to_close(headers: &HeaderMap) -> bool {
    has_token(headers, &CONNECTION, "close")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(build: impl FnOnce(http::request::Builder) -> http::request::Builder) -> Parts {
        let builder = http::Request::builder().uri("/p?q").header("host", "a.example:80");
        build(builder).body(()).unwrap().into_parts().0
    }

    fn run(mut parts: Parts) -> Result<Classified, Refusal> {
        let fields = Fields::of(&parts.headers);
        classify(&mut parts, fields, &Scheme::HTTP, &Settings::default())
    }

    fn reason(parts: Parts) -> Option<Reason> {
        match run(parts) {
            Err(Refusal::Fault(fault)) => Some(fault.reason),
            _ => None,
        }
    }

    #[test]
    fn one_authority_decides() {
        let good = run(request(|r| r)).ok().unwrap();
        assert_eq!(good.head.authority, "a.example:80");
        assert_eq!(good.head.path, "/p?q");
        assert!(!good.head.headers.contains_key(HOST));
        let bad = Some(Reason::BadRequest);
        assert_eq!(reason(request(|r| r.header("host", "b"))), bad);
        assert_eq!(reason(request(|r| r.uri("http://b.example/"))), bad);
        assert_eq!(reason(request(|r| r.uri("ftp://a.example:80/"))), bad);
        assert_eq!(reason(request(|r| r.uri("a.example:80"))), bad);
        let alone = http::Request::builder().uri("http://a.example/").body(()).unwrap();
        assert_eq!(reason(alone.into_parts().0), bad);
        assert_eq!(reason(http::Request::new(()).into_parts().0), bad);
        for host in ["", "a b", "a:b", "a:99999", "u@a", "[::1", "[x]", "a/b", ":80"] {
            assert!(!is_authority(host.as_bytes()), "{host}");
        }
        for host in ["a", "A.b:1", "[::1]:80", "127.0.0.1", "a_b"] {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn framing_that_reads_in_two_ways_is_refused() {
        let bad = Some(Reason::BadRequest);
        let te = |value: &'static str| request(move |r| r.header("transfer-encoding", value));
        assert_eq!(reason(te("chunked")), None);
        assert_eq!(reason(te("gzip, chunked")), bad);
        assert_eq!(
            reason(request(|r| {
                r.header("transfer-encoding", "chunked").header("content-length", "3")
            })),
            bad
        );
        assert_eq!(reason(request(|r| r.header("content-length", "3x"))), bad);
        for value in [" x", "x\t"] {
            assert_eq!(reason(request(|r| r.header("x", value).version(Version::HTTP_2))), bad);
        }
        assert_eq!(reason(request(|r| r.header("x", "").version(Version::HTTP_2))), None);
    }

    #[test]
    fn there_is_one_expectation() {
        let with = |values: &[&'static str], version| {
            let parts = request(|mut r| {
                for value in values {
                    r = r.header("expect", *value);
                }
                r.version(version)
            });
            run(parts).map(|c| (c.awaits_continue, c.head.headers.contains_key(EXPECT)))
        };
        let http1 = Version::HTTP_11;
        for yes in [&["100-continue"][..], &["100-CONTINUE"], &["100-continue", ", 100-continue"]] {
            for version in [http1, Version::HTTP_2] {
                assert_eq!(with(yes, version).ok(), Some((true, false)), "{yes:?}");
            }
        }
        for no in [&[][..], &[""], &[" , "]] {
            assert_eq!(with(no, http1).ok(), Some((false, false)), "{no:?}");
        }
        for bad in ["100-continued", "200-ok", "100-continue, x", "100-continue;x=1"] {
            assert!(matches!(with(&[bad], http1), Err(Refusal::Expectation)), "{bad}");
            assert_eq!(with(&[bad], Version::HTTP_10).ok(), Some((false, false)), "{bad}");
        }
        assert_eq!(with(&["100-continue"], Version::HTTP_10).ok(), Some((false, false)));
    }

    #[test]
    fn sizes_and_methods() {
        let long = "a".repeat(17 << 10);
        assert_eq!(reason(request(|r| r.uri(format!("/{long}")))), Some(Reason::UriTooLong));
        let many = request(|mut r| {
            for _ in 0..101 {
                r = r.header("x", "y");
            }
            r
        });
        assert_eq!(reason(many), Some(Reason::HeaderTooLarge));
        let big = request(|r| r.header("x", "y".repeat(65 << 10)));
        assert_eq!(reason(big), Some(Reason::HeaderTooLarge));
        assert!(matches!(run(request(|r| r.method("TRACE"))), Err(Refusal::Method)));
    }

    #[test]
    fn grpc_is_http2_and_not_grpc_web() {
        let with = |kind: &'static str, version| {
            let parts = request(|r| r.method("POST").header("content-type", kind).version(version));
            run(parts).ok().unwrap().protocol
        };
        assert_eq!(with("application/grpc", Version::HTTP_2), Protocol::Grpc);
        assert_eq!(with("application/grpc+proto", Version::HTTP_2), Protocol::Grpc);
        assert_eq!(with("application/grpc-web", Version::HTTP_2), Protocol::Http);
        assert_eq!(with("application/grpc", Version::HTTP_11), Protocol::Http);
    }

    #[test]
    fn the_length_travels_but_for_calls() {
        let length = |kind: &'static str| {
            let parts = request(|r| {
                let r = r.method("POST").version(Version::HTTP_2).header("content-length", "5");
                r.header("content-type", kind)
            });
            let made = run(parts).ok().unwrap();
            (made.length, made.head.headers.contains_key(CONTENT_LENGTH))
        };
        assert_eq!(length("text/plain"), (Some(5), true));
        assert_eq!(length("application/grpc"), (Some(5), false));
    }

    #[test]
    fn cookies_are_joined_and_urgency_is_read() {
        let parts = request(|r| r.header("cookie", "a=1").header("cookie", "b=2"));
        assert_eq!(run(parts).ok().unwrap().head.headers["cookie"], "a=1; b=2");
        let with = |value: &'static str| urgency(&request(|r| r.header("priority", value)).headers);
        assert_eq!((with("u=0"), with("i, u=6"), with("u=9"), with("x")), (0, 6, 3, 3));
    }
}
