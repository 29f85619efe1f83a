//! The `grpc-timeout` field: up to eight digits and a unit.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use strait_engine::{Fault, Reason};

pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The caller's timeout, if it set one.
///
/// # Errors
/// `BadRequest` (INTERNAL to the caller) for a malformed field.
pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Duration>, Fault> {
    let Some(value) = headers.get(GRPC_TIMEOUT) else { return Ok(None) };
    parse(value.as_bytes())
        .map(Some)
        .ok_or_else(|| Fault::because(Reason::BadRequest, "malformed grpc-timeout"))
}

fn parse(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The field for what is left of a timeout, in the finest unit that eight digits allow.
pub(crate) fn write(left: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    // At least one nanosecond: servers disagree about what zero means.
    let nanos = left.as_nanos().max(1);
    let (number, unit) = [('n', 1), ('u', 1_000), ('m', 1_000_000), ('S', 1_000_000_000)]
        .into_iter()
        .map(|(unit, size)| (nanos / size, unit))
        .find(|(number, _)| *number <= MOST)
        .unwrap_or_else(|| ((nanos / 3_600_000_000_000).min(MOST), 'H'));
    HeaderValue::from_maybe_shared(bytes::Bytes::from(format!("{number}{unit}")))
        .unwrap_or_else(|_| HeaderValue::from_static("0n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_read_and_write() {
        for (text, nanos) in
            [("1S", 1_000_000_000), ("250m", 250_000_000), ("7n", 7), ("2H", 7_200_000_000_000)]
        {
            let read = parse(text.as_bytes()).unwrap();
            assert_eq!(read.as_nanos(), nanos);
            assert_eq!(parse(write(read).as_bytes()), Some(read), "{text}");
        }
        for bad in ["", "S", "1", "123456789S", "-1S", "1.5S", "1s"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(write(Duration::ZERO), "1n");
        assert_eq!(write(Duration::from_millis(1500)), "1500000u");
    }
}
