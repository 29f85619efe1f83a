//! The head of a request, as it is written to a service (RFC 9112 3).

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, HOST, TE};
use http::{HeaderMap, header};
use strait_engine::{Fault, Reason, RequestHead};

use crate::backend::Backend;
use crate::http::hop::{Fields, Hops, announced};
use crate::http1::head::field;

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
