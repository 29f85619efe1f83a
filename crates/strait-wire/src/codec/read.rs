//! Reading protobuf fields where they lie.

use super::DecodeError;

/// Depth of nested groups, which no message of ours has.
const DEPTH: u32 = 100;

/// The number that two bytes say.
fn pair(low: u8, high: u8) -> u32 {
    u32::from(low & 0x7F) | u32::from(high) << 7
}

/// The content of a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a kind that no field of ours has.
    Other,
}

impl<'a> Value<'a> {
    #[inline]
    pub(super) fn number(self) -> Result<u64, DecodeError> {
        match self {
            Value::Number(number) => Ok(number),
            _ => Err(DecodeError("a field that is a number has something else")),
        }
    }

    pub(super) fn flag(self) -> Result<bool, DecodeError> {
        self.number().map(|number| number != 0)
    }

    #[inline]
    pub(super) fn bytes(self) -> Result<&'a [u8], DecodeError> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(DecodeError("a field that is bytes has something else")),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError("a text is not UTF-8"))
    }

    /// A text that is wanted as bytes: almost all are ASCII, which is found out sooner.
    pub(super) fn text_bytes(self) -> Result<&'a [u8], DecodeError> {
        match self.bytes()? {
            ascii if ascii.is_ascii() => Ok(ascii),
            _ => self.text().map(str::as_bytes),
        }
    }
}

/// The fields of a message, one by one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// The number and content of the next field. A call would cost more than most fields do.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        // Almost all have a key of one byte or two, and so has what follows: a number or a length.
        let (key, rest) = match self.0 {
            [] => return Ok(None),
            [key @ 8..0x80, rest @ ..] => (u32::from(*key), rest),
            [low @ 0x80..=0xFF, high @ 1..0x80, rest @ ..] => (pair(*low, *high), rest),
            _ => return self.any(),
        };
        let (small, rest) = match rest {
            [small @ ..0x80, rest @ ..] => (u32::from(*small), rest),
            [low, high @ ..0x80, rest @ ..] => (pair(*low, *high), rest),
            _ => return self.any(),
        };
        let (value, rest) = match key & 7 {
            0 => (Value::Number(u64::from(small)), rest),
            2 if let Some((bytes, rest)) = rest.split_at_checked(small as usize) => {
                (Value::Bytes(bytes), rest)
            }
            _ => return self.any(),
        };
        self.0 = rest;
        Ok(Some((key >> 3, value)))
    }

    fn any(&mut self) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        let (number, kind) = self.key()?;
        let value = self.value(number, kind, DEPTH)?;
        Ok(Some((number, value)))
    }

    fn key(&mut self) -> Result<(u32, u8), DecodeError> {
        let key = self.varint()?;
        let number = u32::try_from(key).map_err(|_| DecodeError("a field number is too large"))?;
        match number >> 3 {
            0 => Err(DecodeError("a field has the number 0")),
            field => Ok((field, (number & 7) as u8)),
        }
    }

    fn value(&mut self, number: u32, kind: u8, depth: u32) -> Result<Value<'a>, DecodeError> {
        match kind {
            0 => self.varint().map(Value::Number),
            1 => self.take(8).map(|_| Value::Other),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                self.take(length).map(Value::Bytes)
            }
            3 => self.group(number, depth).map(|()| Value::Other),
            5 => self.take(4).map(|_| Value::Other),
            _ => Err(DecodeError("a field has no known wire type")),
        }
    }

    /// Skips a group (obsolete, and still legal in unknown fields).
    fn group(&mut self, number: u32, depth: u32) -> Result<(), DecodeError> {
        let depth = depth.checked_sub(1).ok_or(DecodeError("groups are nested too deeply"))?;
        loop {
            let (inner, kind) = self.key()?;
            if kind == 4 {
                return match inner == number {
                    true => Ok(()),
                    false => Err(DecodeError("a group ends that did not begin")),
                };
            }
            self.value(inner, kind, depth)?;
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) =
            self.0.split_at_checked(length).ok_or(DecodeError("a field is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        // Most are one byte or two.
        match self.0 {
            [byte @ ..0x80, rest @ ..] => {
                self.0 = rest;
                Ok(u64::from(*byte))
            }
            [low, high @ ..0x80, rest @ ..] => {
                self.0 = rest;
                Ok(u64::from(pair(*low, *high)))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7F) << (7 * at);
            if *byte < 0x80 {
                // The tenth byte has room for one bit.
                if at == 9 && *byte > 1 {
                    break;
                }
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(DecodeError("a number is cut short or too long"))
    }
}
