//! What the heads of requests and of answers have in common (RFC 9112 5).

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{self, CONNECTION, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use httparse::{Header, Status};

use crate::backend::OVER_THE_LIMIT;
use crate::http::hop::has_token;
use crate::settings::Settings;

/// Fields of a head for which there is room without an allocation.
const FIELDS: usize = 100;

/// Room for the fields of one head.
pub(crate) struct Room<'a> {
    few: [MaybeUninit<Header<'a>>; FIELDS],
    many: Vec<MaybeUninit<Header<'a>>>,
}

impl<'a> Room<'a> {
    /// For as many as `settings` allow.
    pub(crate) fn new(settings: &Settings) -> Room<'a> {
        let mut many = Vec::new();
        if settings.max_header_fields > FIELDS {
            many.resize(settings.max_header_fields, MaybeUninit::uninit());
        }
        Room { few: [const { MaybeUninit::uninit() }; FIELDS], many }
    }

    pub(crate) fn fields(&mut self) -> &mut [MaybeUninit<Header<'a>>] {
        if self.many.is_empty() { &mut self.few } else { &mut self.many }
    }
}

/// How much of a head that is still incomplete was looked at.
#[derive(Default)]
pub(crate) struct Seen(usize);

impl Seen {
    /// Whether nothing was.
    pub(crate) fn is_nothing(&self) -> bool {
        self.0 == 0
    }

    /// Whether it pays to read `input` from its begin: the first time, for what is wrong from the
    /// start, and then when an end may have come. A head that trickles in is not read for each byte.
    pub(crate) fn may_be_whole(&self, input: &[u8]) -> bool {
        let new = &input[self.0.saturating_sub(3).min(input.len())..];
        let ends = || new.windows(2).any(|two| two == b"\n\n" || two == b"\n\r");
        !input.is_empty() && (self.0 == 0 || ends())
    }

    /// All of `input` was, in vain.
    pub(crate) fn all_of(&mut self, input: &BytesMut) {
        self.0 = input.len();
    }
}

/// Whether the connection stays open after a message with this head (RFC 9112 9.3).
pub(crate) fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    !has_token(headers, &CONNECTION, "close")
        && (version == Version::HTTP_11 || has_token(headers, &CONNECTION, "keep-alive"))
}

/// What is wrong with a head or with trailers.
pub(crate) fn what(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a malformed field name",
        httparse::Error::HeaderValue => "a malformed field value",
        httparse::Error::NewLine => "a malformed line end",
        httparse::Error::Status => "a malformed status",
        httparse::Error::Token => "a malformed first line",
        httparse::Error::TooManyHeaders => OVER_THE_LIMIT,
        httparse::Error::Version => "not a message of HTTP/1",
    }
}

/// The bytes of `text`, which was read from `from`, as a part of `block`, which begins with the same
/// bytes.
pub(crate) fn part(text: &[u8], from: &[u8], block: &Bytes) -> Bytes {
    let at = (text.as_ptr() as usize).wrapping_sub(from.as_ptr() as usize);
    match block.get(at..at.wrapping_add(text.len())) {
        Some(part) => block.slice_ref(part),
        None => Bytes::copy_from_slice(text),
    }
}

/// The fields that were read from `from`, as parts of `block`, which begins with the same bytes.
pub(crate) fn map(
    fields: &[Header<'_>],
    from: &[u8],
    block: &Bytes,
) -> Result<HeaderMap, &'static str> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let name = name.map_err(|_| "a malformed field name")?;
        let value = HeaderValue::from_maybe_shared(part(field.value, from, block));
        let value = value.map_err(|_| "a malformed field value")?;
        headers.try_append(name, value).map_err(|_| OVER_THE_LIMIT)?;
    }
    Ok(headers)
}

/// The trailer fields in `block`, which ends with an empty line.
pub(crate) fn trailers(block: &Bytes, max_fields: usize) -> Result<HeaderMap, &'static str> {
    let mut room = vec![httparse::EMPTY_HEADER; max_fields];
    match httparse::parse_headers(block, &mut room).map_err(what)? {
        Status::Complete((length, fields)) if length == block.len() => map(fields, block, block),
        _ => Err("malformed trailers"),
    }
}

/// Writes one field.
pub(crate) fn field(out: &mut BytesMut, name: &HeaderName, value: &[u8]) {
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
