//! The head of a request, as it is written to a service (RFC 9112 3).

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, HOST, HeaderName, TE, TRAILER};
use http::{HeaderMap, header};
use strait_engine::{Fault, Reason, RequestHead};

use crate::backend::Backend;
use crate::http::hop::{Fields, Hops, announced};

/// What a request's head says about the body behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Framed {
    /// The length that it announces.
    pub(crate) length: Option<u64>,
    /// The body comes in chunks, because its length is not known.
    pub(crate) chunked: bool,
}

/// The head of a request with the fields of `head`, and `more` fields of this leg. Without
/// `has_body` there is none, and none is announced that was not announced before.
///
/// # Errors
/// `BadRequest` for what cannot be said in HTTP/1.1.
pub(crate) fn write(
    backend: &Backend,
    head: &RequestHead,
    has_body: bool,
    more: &HeaderMap,
) -> Result<(BytesMut, Framed), Fault> {
    let bad = |what| Fault::because(Reason::BadRequest, what);
    let (authority, path) = backend.target(head)?;
    let (length, _) = announced(&head.headers).map_err(|()| bad("malformed Content-Length"))?;
    if !has_body && length.is_some_and(|length| length > 0) {
        return Err(bad("a body was announced and is missing"));
    }
    let framed = Framed { length, chunked: has_body && length.is_none() };
    let size = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let mut out = BytesMut::with_capacity(size.sum::<usize>() + path.as_str().len() + 192);
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    if !path.as_str().starts_with(['/', '*']) {
        out.extend_from_slice(b"/");
    }
    out.extend_from_slice(path.as_str().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    field(&mut out, &HOST, authority);
    let hops = Hops::of(&head.headers, Fields::of(&head.headers));
    for (name, value) in &head.headers {
        let anew = name == HOST || name == CONTENT_LENGTH;
        if !anew && hops.pass(name) && !more.contains_key(name) {
            field(&mut out, name, value.as_bytes());
        }
    }
    if hops.trailers {
        field(&mut out, &TE, b"trailers");
    }
    for (name, value) in more {
        field(&mut out, name, value.as_bytes());
    }
    if framed.chunked {
        field(&mut out, &header::TRANSFER_ENCODING, b"chunked");
    } else if let Some(length) = length {
        field(&mut out, &CONTENT_LENGTH, length.to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    Ok((out, framed))
}

fn field(out: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The names of the trailer fields that a head announces.
pub(crate) fn announced_trailers(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(TRAILER).iter().flat_map(|v| v.as_bytes().split(|b| *b == b','));
    values.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
}

/// Writes the fields of `trailers` that were `announced`: others may be dropped on the way, and
/// whoever merges trailers into a head would believe them (RFC 9110 6.5.1).
pub(crate) fn write_trailers(out: &mut BytesMut, trailers: &HeaderMap, announced: &[HeaderName]) {
    let of_the_head = [
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONTENT_ENCODING,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::MAX_FORWARDS,
        header::SET_COOKIE,
    ];
    for (name, value) in trailers {
        if announced.contains(name) && !of_the_head.contains(name) {
            field(out, name, value.as_bytes());
        }
    }
}
