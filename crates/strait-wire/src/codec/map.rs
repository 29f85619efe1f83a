//! Header fields, read straight into a map.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::decode::Wrong;
use super::field;
use super::read::{Fields, Value};
use super::{COPY_BELOW, DecodeError, MAX_FIELDS};

/// Header fields, and the first thing that is wrong with them.
pub(super) struct Map {
    map: HeaderMap,
    /// For how many fields there shall be room with the first one.
    room: usize,
    pub(super) wrong: Option<Wrong>,
}

impl Map {
    /// Of a head: most have about so many fields, and to grow means to hash all names again.
    pub(super) fn of_head() -> Map {
        Map { map: HeaderMap::new(), room: 12, wrong: None }
    }

    /// Of what has few fields: trailers, and the head of an answer to a call.
    pub(super) fn of_few() -> Map {
        Map { room: 6, ..Map::of_head() }
    }

    pub(super) fn read(&mut self, block: &Bytes, value: Value<'_>) -> Result<(), DecodeError> {
        let (name, content) = header(value.bytes()?)?;
        if self.wrong.is_none() {
            self.wrong = self.append(block, name, content).err();
        }
        Ok(())
    }

    fn append(&mut self, block: &Bytes, name: &[u8], value: &[u8]) -> Result<(), Wrong> {
        if self.map.capacity() == 0 {
            self.map.reserve(self.room);
        }
        if self.map.len() == MAX_FIELDS {
            return Err("too many header fields");
        }
        let name = match known(name) {
            Some(name) => name,
            None => HeaderName::from_bytes(name).map_err(|_| "not a header name")?,
        };
        // A head that waits must not keep alive a block in which other requests are too.
        let value = match block.len() <= COPY_BELOW {
            true => HeaderValue::from_maybe_shared(block.slice_ref(value)),
            false => HeaderValue::from_bytes(value),
        };
        let value = value.map_err(|_| "not a header value")?;
        self.map.try_append(name, value).map_err(|_| "too many header fields")?;
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Option<HeaderMap>, Wrong> {
        match self.wrong {
            Some(wrong) => Err(wrong),
            None => Ok((!self.map.is_empty()).then_some(self.map)),
        }
    }
}

/// Name and value of the header field in `message`.
fn header(message: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
    use field::header::{NAME, NAME_KEY, VALUE, VALUE_KEY};
    // Almost all are a short name and a short value.
    if let [NAME_KEY, length @ ..0x80, rest @ ..] = message
        && let Some((name, [VALUE_KEY, length @ ..0x80, value @ ..])) =
            rest.split_at_checked(usize::from(*length))
        && usize::from(*length) == value.len()
    {
        return Ok((name, value));
    }
    let (mut name, mut content) = (&b""[..], &b""[..]);
    let mut fields = Fields(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            NAME => name = value.bytes()?,
            VALUE => content = value.bytes()?,
            _ => {}
        }
    }
    Ok((name, content))
}

/// Which of these names it is, if any.
macro_rules! one_of {
    ($name:expr, $($text:literal)*) => {
        match $name {
            $(name if name == $text.as_bytes() => Some(const { HeaderName::from_static($text) }),)*
            _ => None,
        }
    };
}

/// A name that travels often and that is none of the `http` crate's own, which copies the text of
/// others for each head, and once more for whoever clones it.
fn known(name: &[u8]) -> Option<HeaderName> {
    // The first five are in every request: from its entry.
    one_of!(name,
        "x-forwarded-for" "x-forwarded-proto" "x-forwarded-host" "strait-hops" "traceparent"
        "grpc-status" "grpc-message" "grpc-timeout" "grpc-encoding" "grpc-accept-encoding"
    )
}
