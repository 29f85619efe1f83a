//! The head of an answer, as it is written to a visitor (RFC 9112 4 to 6).

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderName, StatusCode, Version, response};

use crate::http::date::with_date;
use crate::http::hop::has_token;
use crate::http1::head::{announced_trailers, field};

/// What the request says about its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) version: Version,
    pub(crate) is_head: bool,
    /// It takes trailers.
    pub(crate) trailers: bool,
    /// The connection may be used for another request.
    pub(crate) keep_alive: bool,
}

/// A head that is ready to be sent.
pub(crate) struct Written {
    pub(crate) head: BytesMut,
    /// A body follows.
    pub(crate) has_body: bool,
    /// It comes in chunks.
    pub(crate) chunked: bool,
    /// The trailer fields that may end it.
    pub(crate) trailers: Vec<HeaderName>,
    /// The connection stays open after it.
    pub(crate) keep_alive: bool,
}

/// The head of the answer to a request like `asked`, whose body has `size` bytes, if that is known.
pub(crate) fn write(parts: &response::Parts, size: Option<u64>, asked: Asked) -> Written {
    let response::Parts { status, headers, .. } = parts;
    let bare = status.is_informational()
        || matches!(*status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let has_body = !bare && !asked.is_head && size != Some(0);
    let length = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let mut head = BytesMut::with_capacity(length.sum::<usize>() + 160);
    let old = asked.version == Version::HTTP_10;
    head.extend_from_slice(if old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    head.extend_from_slice(status.as_str().as_bytes());
    head.extend_from_slice(b" ");
    head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    head.extend_from_slice(b"\r\n");
    let (mut sized, mut dated, mut closes) = (false, false, false);
    for (name, value) in headers {
        sized |= name == CONTENT_LENGTH;
        dated |= name == DATE;
        closes |= name == CONNECTION && has_token(headers, name, "close");
        if !(bare && name == CONTENT_LENGTH) {
            field(&mut head, name, value.as_bytes());
        }
    }
    let unsized_body = has_body && !sized && size.is_none();
    let chunked = unsized_body && asked.version == Version::HTTP_11;
    // RFC 9112 9.3: a body that the connection ends takes it along.
    let keep_alive = asked.keep_alive && !closes && (chunked || !unsized_body);
    if chunked {
        field(&mut head, &TRANSFER_ENCODING, b"chunked");
    } else if let (Some(size), false, false) = (size, sized, bare)
        // How long the answer to a GET would be is not known.
        && !(asked.is_head && size == 0)
    {
        field(&mut head, &CONTENT_LENGTH, size.to_string().as_bytes());
    }
    match (keep_alive, old) {
        (true, true) => field(&mut head, &CONNECTION, b"keep-alive"),
        (false, false) if !closes && *status != StatusCode::SWITCHING_PROTOCOLS => {
            field(&mut head, &CONNECTION, b"close");
        }
        _ => {}
    }
    if !dated {
        with_date(|date| field(&mut head, &DATE, date.as_bytes()));
    }
    head.extend_from_slice(b"\r\n");
    let trailers = if chunked && asked.trailers { announced_trailers(headers) } else { Vec::new() };
    Written { head, has_body, chunked, trailers, keep_alive }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Response};

    const ASKED: Asked =
        Asked { version: Version::HTTP_11, is_head: false, trailers: false, keep_alive: true };

    fn parts(status: u16, fields: &[(&'static str, &'static str)]) -> response::Parts {
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = StatusCode::from_u16(status).unwrap();
        parts.headers.insert(DATE, HeaderValue::from_static("d"));
        for (name, value) in fields {
            parts.headers.append(*name, HeaderValue::from_static(value));
        }
        parts
    }

    /// The lines of the head but for its date, and whether there is a body and the connection stays.
    fn lines(
        parts: &response::Parts,
        size: Option<u64>,
        asked: Asked,
    ) -> (Vec<String>, bool, bool) {
        let written = write(parts, size, asked);
        let text = String::from_utf8(written.head.to_vec()).unwrap();
        let text = text.strip_suffix("\r\n\r\n").unwrap();
        let lines = text.split("\r\n").filter(|line| *line != "date: d").map(str::to_owned);
        (lines.collect(), written.has_body, written.keep_alive)
    }

    #[test]
    fn every_kind_of_body_has_its_framing() {
        let ok = parts(200, &[]);
        let said = parts(200, &[("content-length", "7")]);
        let head = Asked { is_head: true, ..ASKED };
        let old = Asked { version: Version::HTTP_10, keep_alive: false, ..ASKED };
        let old_kept = Asked { version: Version::HTTP_10, ..ASKED };
        let (status, old_status) = ("HTTP/1.1 200 OK", "HTTP/1.0 200 OK");
        let rows = [
            (&ok, Some(3), ASKED, vec![status, "content-length: 3"], true, true),
            (&ok, Some(0), ASKED, vec![status, "content-length: 0"], false, true),
            (&ok, None, ASKED, vec![status, "transfer-encoding: chunked"], true, true),
            (&said, None, ASKED, vec![status, "content-length: 7"], true, true),
            (&ok, Some(0), head, vec![status], false, true),
            (&ok, Some(3), head, vec![status, "content-length: 3"], false, true),
            (&said, Some(0), head, vec![status, "content-length: 7"], false, true),
            (&ok, None, old, vec![old_status], true, false),
            (&ok, None, old_kept, vec![old_status], true, false),
            (
                &said,
                None,
                old_kept,
                vec![old_status, "content-length: 7", "connection: keep-alive"],
                true,
                true,
            ),
        ];
        for (parts, size, asked, wanted, has_body, keep_alive) in rows {
            let wanted: Vec<_> = wanted.into_iter().map(str::to_owned).collect();
            assert_eq!(
                lines(parts, size, asked),
                (wanted, has_body, keep_alive),
                "{size:?} {asked:?}"
            );
        }
        for status in [101, 204, 304] {
            let said = parts(status, &[("content-length", "7")]);
            let (lines, has_body, _) = lines(&said, Some(0), ASKED);
            assert_eq!((lines.len(), has_body), (1, false), "{lines:?}");
        }
    }

    #[test]
    fn a_connection_that_closes_says_so_once() {
        let closing = Asked { keep_alive: false, ..ASKED };
        let wanted = ["HTTP/1.1 200 OK", "content-length: 0", "connection: close"];
        assert_eq!(lines(&parts(200, &[]), Some(0), closing).0, wanted);
        let (said, _, keep_alive) = lines(&parts(200, &[("connection", "close")]), Some(0), ASKED);
        assert_eq!(said, ["HTTP/1.1 200 OK", "connection: close", "content-length: 0"]);
        assert!(!keep_alive);
    }

    #[test]
    fn an_answer_has_the_time_of_now() {
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.headers.clear();
        let text = String::from_utf8(write(&parts, Some(0), ASKED).head.to_vec()).unwrap();
        let date = text.split("\r\n").find_map(|line| line.strip_prefix("date: ")).unwrap();
        let told = httpdate::parse_http_date(date).unwrap();
        assert!(told.elapsed().unwrap().as_secs() < 3, "{date}");
    }

    #[test]
    fn trailers_are_sent_to_those_who_take_them() {
        let parts = parts(200, &[("trailer", "x-a, x-b")]);
        let taking = Asked { trailers: true, ..ASKED };
        assert_eq!(write(&parts, None, taking).trailers, ["x-a", "x-b"]);
        assert!(write(&parts, None, ASKED).trailers.is_empty());
    }
}
