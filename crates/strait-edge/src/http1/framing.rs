//! Where a body ends (RFC 9112 6.3).

use http::header::TRANSFER_ENCODING;
use http::{HeaderMap, Method, StatusCode, Version};

use crate::http::hop::{Fields, announced};

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes; none for what has no body.
    Length(u64),
    /// Chunks, perhaps with trailers.
    Chunked,
    /// The connection's end.
    UntilClose,
}

impl Framing {
    /// Of the answer to a request by `method`.
    ///
    /// # Errors
    /// What is wrong with a head that frames its body in none, or in more than one way: somebody
    /// on the way may have read it differently (RFC 9112 11.2).
    pub(crate) fn of_answer(
        method: &Method,
        status: StatusCode,
        version: Version,
        headers: &HeaderMap,
    ) -> Result<Framing, &'static str> {
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if bodiless || *method == Method::HEAD {
            return Ok(Framing::Length(0));
        }
        Ok(Framing::said(version, headers)?.unwrap_or(Framing::UntilClose))
    }

    /// Of a request that has `fields`: it has no body unless its head says so.
    ///
    /// # Errors
    /// As of an answer.
    pub(crate) fn of_request(
        version: Version,
        headers: &HeaderMap,
        fields: Fields,
    ) -> Result<Framing, &'static str> {
        if !fields.have(Fields::CONTENT_LENGTH.and(Fields::TRANSFER_ENCODING)) {
            return Ok(Framing::Length(0));
        }
        Ok(Framing::said(version, headers)?.unwrap_or(Framing::Length(0)))
    }

    /// As a head says, if it does.
    fn said(version: Version, headers: &HeaderMap) -> Result<Option<Framing>, &'static str> {
        let (length, _) = announced(headers).map_err(|()| "malformed Content-Length")?;
        let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
        let Some(encoding) = encodings.next() else { return Ok(length.map(Framing::Length)) };
        if encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("Transfer-Encoding is not exactly `chunked`");
        }
        if version < Version::HTTP_11 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        if length.is_some() {
            return Err("Transfer-Encoding beside Content-Length");
        }
        Ok(Some(Framing::Chunked))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn framing(
        method: Method,
        status: u16,
        fields: &[(&str, &str)],
    ) -> Result<Framing, &'static str> {
        of_version(Version::HTTP_11, method, status, fields)
    }

    fn of_version(
        version: Version,
        method: Method,
        status: u16,
        fields: &[(&str, &str)],
    ) -> Result<Framing, &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        Framing::of_answer(&method, StatusCode::from_u16(status).unwrap(), version, &headers)
    }

    const LENGTH: (&str, &str) = ("content-length", "5");
    const CHUNKED: (&str, &str) = ("transfer-encoding", "Chunked");

    #[test]
    fn every_row_of_the_rfc() {
        use Framing::{Chunked, Length, UntilClose};
        for fields in [&[][..], &[LENGTH], &[CHUNKED]] {
            assert_eq!(framing(Method::HEAD, 200, fields), Ok(Length(0)));
            assert_eq!(framing(Method::GET, 204, fields), Ok(Length(0)));
            assert_eq!(framing(Method::GET, 304, fields), Ok(Length(0)));
        }
        assert_eq!(framing(Method::GET, 200, &[LENGTH]), Ok(Length(5)));
        assert_eq!(framing(Method::GET, 200, &[LENGTH, LENGTH]), Ok(Length(5)));
        assert_eq!(framing(Method::GET, 200, &[CHUNKED]), Ok(Chunked));
        assert_eq!(framing(Method::POST, 500, &[]), Ok(UntilClose));
        assert_eq!(of_version(Version::HTTP_10, Method::GET, 200, &[]), Ok(UntilClose));
        assert_eq!(of_version(Version::HTTP_10, Method::GET, 200, &[LENGTH]), Ok(Length(5)));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for fields in [
            &[LENGTH, ("content-length", "6")][..],
            &[("content-length", "5, 5")],
            &[("content-length", "-1")],
            &[("content-length", "")],
            &[LENGTH, CHUNKED],
            &[CHUNKED, LENGTH],
            &[CHUNKED, CHUNKED],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "chunked, gzip")],
            &[("transfer-encoding", "identity")],
            &[("transfer-encoding", "")],
            &[CHUNKED, ("content-length", "x")],
        ] {
            assert!(framing(Method::GET, 200, fields).is_err(), "{fields:?}");
        }
        assert!(of_version(Version::HTTP_10, Method::GET, 200, &[CHUNKED]).is_err());
        let mut headers = HeaderMap::new();
        let of_request = |headers: &HeaderMap| {
            Framing::of_request(Version::HTTP_11, headers, Fields::of(headers))
        };
        assert_eq!(of_request(&headers), Ok(Framing::Length(0)));
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        assert_eq!(of_request(&headers), Ok(Framing::Chunked));
        headers.insert("content-length", HeaderValue::from_static("5"));
        assert!(of_request(&headers).is_err());
    }
}
