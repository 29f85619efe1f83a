//! gRPC statuses for faults, and for what an HTTP/2 peer did to a stream.

use http::{HeaderMap, HeaderName, HeaderValue};
use strait_engine::{Fault, RequestId, fault};

pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Trailers (or the headers of a trailers-only answer) with `status` and `message`.
pub(crate) fn trailers(status: u8, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(4);
    trailers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status)));
    if let Ok(value) = HeaderValue::from_str(&percent_encode(message)) {
        trailers.insert(GRPC_MESSAGE, value);
    }
    trailers
}

/// The trailers that tell a caller of `fault`.
pub(crate) fn of_fault(fault: &Fault, id: &RequestId) -> HeaderMap {
    trailers(fault.face().grpc, fault::line(fault.reason, id).trim_end())
}

/// The status for a stream that the peer reset
/// (PROTOCOL-HTTP2.md, "HTTP2 Transport Mapping", Errors).
pub(crate) fn of_reset(reason: h2::Reason) -> u8 {
    match reason {
        h2::Reason::REFUSED_STREAM => 14,
        h2::Reason::CANCEL => 1,
        h2::Reason::ENHANCE_YOUR_CALM => 8,
        h2::Reason::INADEQUATE_SECURITY => 7,
        _ => 13,
    }
}

/// `grpc-message` as PROTOCOL-HTTP2.md wants it: printable ASCII but `%` as is.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_encoded() {
        let made = trailers(13, "100 % schön");
        assert_eq!(made[GRPC_STATUS], "13");
        assert_eq!(made[GRPC_MESSAGE], "100 %25 sch%C3%B6n");
    }
}
