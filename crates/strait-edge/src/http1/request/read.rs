//! The head of a request, as a visitor sends it (RFC 9112 3 and 5).

use bytes::{Buf, Bytes, BytesMut};
use http::header::TE;
use http::request::Parts;
use http::{Method, Request, Uri, Version};
use httparse::{ParserConfig, Status};
use strait_engine::{Fault, Reason};

use crate::http::hop::{Fields, has_token};
use crate::http1::framing::Framing;
use crate::http1::head::{Room, Seen, keeps_alive, map, part, what};
use crate::settings::Settings;

/// Bytes of a request's target that a [`Uri`] can hold.
const TARGET: usize = u16::MAX as usize - 1;

/// The head of a request, with all that it says about the connection.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) parts: Parts,
    /// What it has.
    pub(crate) fields: Fields,
    pub(crate) framing: Framing,
    /// The visitor may ask for something else after this.
    pub(crate) keep_alive: bool,
    /// It takes trailers.
    pub(crate) trailers: bool,
}

/// Takes a head from the begin of `input`, of which `seen` was looked at before; `None` when not
/// all of it is there.
///
/// # Errors
/// `BadRequest` for what is no request of HTTP/1, `HeaderTooLarge` and `UriTooLong` for what is
/// beyond any limit: those of `settings` are for whoever reads the head.
pub(crate) fn take(
    input: &mut BytesMut,
    seen: &mut Seen,
    settings: &Settings,
) -> Result<Option<Head>, Fault> {
    if !seen.may_be_whole(input) {
        return too_large(input, settings);
    }
    // What is read of it stays where it is, if nothing else came with it.
    let block = std::mem::take(input).freeze();
    let found = read(&block, settings)?;
    let behind = found.as_ref().map_or(0, |(_, length)| *length);
    if behind < block.len() {
        *input = block.try_into_mut().unwrap_or_else(|block| BytesMut::from(&block[..]));
        input.advance(behind);
    }
    let Some((head, _)) = found else {
        seen.all_of(input);
        return too_large(input, settings);
    };
    *seen = Seen::default();
    Ok(Some(head))
}

fn too_large(input: &BytesMut, settings: &Settings) -> Result<Option<Head>, Fault> {
    let room = (settings.max_header_bytes + settings.max_uri).max(128 << 10);
    if input.len() > room { Err(Fault::new(Reason::HeaderTooLarge)) } else { Ok(None) }
}

/// The head at the begin of `block`, and its length.
fn read(block: &Bytes, settings: &Settings) -> Result<Option<(Head, usize)>, Fault> {
    let bad = |what| Fault::because(Reason::BadRequest, what);
    let mut room = Room::new(settings);
    let mut request = httparse::Request::new(&mut []);
    let parser = ParserConfig::default();
    let length = match parser.parse_request_with_uninit_headers(&mut request, block, room.fields())
    {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Fault::new(Reason::HeaderTooLarge)),
        Err(error) => return Err(bad(what(error))),
    };
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes());
    let method = method.map_err(|_| bad("a malformed method"))?;
    let target = request.path.unwrap_or_default();
    if target.len() > TARGET {
        return Err(Fault::new(Reason::UriTooLong));
    }
    // What stands behind it shall not be kept for as long as the head is.
    let kept = match length == block.len() {
        true => block.clone(),
        false => Bytes::copy_from_slice(&block[..length]),
    };
    let uri = Uri::from_maybe_shared(part(target.as_bytes(), block, &kept));
    let uri = uri.map_err(|_| bad("a malformed request target"))?;
    let version = if request.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let headers = map(request.headers, block, &kept).map_err(bad)?;
    let fields = Fields::of(&headers);
    let framing = Framing::of_request(version, &headers, fields).map_err(bad)?;
    let keep_alive = match fields.have(Fields::CONNECTION) {
        true => keeps_alive(version, &headers),
        false => version == Version::HTTP_11,
    };
    let trailers = fields.have(Fields::TE) && has_token(&headers, &TE, "trailers");
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri, parts.version, parts.headers) = (method, uri, version, headers);
    Ok(Some((Head { parts, fields, framing, keep_alive, trailers }, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: h\r\nX-A:  1 \r\nx-a: \x80\r\n\r\n";

    /// The heads of `wire` when it comes in these pieces, and what is left of it.
    fn heads<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        settings: &Settings,
    ) -> Result<(Vec<Head>, Vec<u8>), Fault> {
        let (mut input, mut seen, mut found) = (BytesMut::new(), Seen::default(), Vec::new());
        for piece in pieces {
            input.extend_from_slice(piece);
            while let Some(head) = take(&mut input, &mut seen, settings)? {
                found.push(head);
            }
        }
        Ok((found, input.to_vec()))
    }

    fn of(wire: &[u8]) -> Result<Head, Option<Reason>> {
        let settings = Settings::default();
        let whole = heads([wire], &settings);
        for at in 0..wire.len() {
            let cut = heads([&wire[..at], &wire[at..]], &settings);
            assert_eq!(cut.is_ok(), whole.is_ok(), "{wire:?} cut at {at}");
        }
        let (mut heads, _) = whole.map_err(|fault| Some(fault.reason))?;
        heads.pop().ok_or(None)
    }

    #[test]
    fn heads_are_the_same_however_they_are_cut() {
        let wire = [GET, b"\r\nPOST * HTTP/1.0\r\ncontent-length: 2\r\n\r\n", b"\x01\x02"].concat();
        let settings = Settings::default();
        let whole = heads([&wire[..wire.len() - 2]], &settings).unwrap().0;
        assert_eq!(whole.len(), 2);
        let mut cuts: Vec<Vec<&[u8]>> = vec![wire[..wire.len() - 2].chunks(1).collect()];
        cuts.extend((0..wire.len() - 2).map(|at| vec![&wire[..at], &wire[at..wire.len() - 2]]));
        for pieces in cuts {
            let (found, rest) = heads(pieces, &settings).unwrap();
            assert!(rest.is_empty());
            let [get, post] = &found[..] else { panic!("{} heads", found.len()) };
            assert_eq!((get.parts.method.as_str(), get.parts.uri.path()), ("GET", "/a"));
            assert_eq!((get.framing, get.keep_alive), (Framing::Length(0), true));
            let fields: Vec<_> = get.parts.headers.get_all("x-a").iter().collect();
            assert_eq!(fields, [&b"1"[..], b"\x80"]);
            assert_eq!(
                (post.parts.method.as_str(), post.parts.version),
                ("POST", Version::HTTP_10)
            );
            assert_eq!((post.framing, post.keep_alive), (Framing::Length(2), false));
        }
    }

    #[test]
    fn a_head_keeps_nothing_of_what_is_behind_it() {
        let settings = Settings::default();
        let behind = vec![b'x'; 30_000];
        let mut input = BytesMut::from(&[GET, &behind[..]].concat()[..]);
        let before = input.as_ptr();
        let head = take(&mut input, &mut Seen::default(), &settings).unwrap().unwrap();
        assert_eq!(input, behind);
        // Nobody else holds the block: it was not copied, and goes with what is behind.
        assert_eq!(input.as_ptr(), before.wrapping_add(GET.len()));
        assert_eq!(head.parts.headers["host"], "h");
        assert_eq!(head.parts.uri, "/a?b");
    }

    #[test]
    fn connections_are_kept_where_the_visitor_says_so() {
        let kept = |head: &str| of(format!("{head}\r\n\r\n").as_bytes()).unwrap().keep_alive;
        assert!(kept("GET / HTTP/1.1"));
        assert!(!kept("GET / HTTP/1.1\r\nConnection: keep-alive, Close"));
        assert!(!kept("GET / HTTP/1.0"));
        assert!(kept("GET / HTTP/1.0\r\nConnection: Keep-Alive"));
        assert!(!kept("GET / HTTP/1.0\r\nConnection: Keep-Alive, close"));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for wire in [
            &b"nonsense\r\n\r\n"[..],
            b"GET / HTTP/2\r\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"G\x01T / HTTP/1.1\r\n\r\n",
            b"GET /\x7f HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nbad name: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nname : x\r\n\r\n",
            b"GET / HTTP/1.1\r\nx: a\r\n b\r\n\r\n",
            b"GET / HTTP/1.1\r\nx: a\rb\r\n\r\n",
            b"GET / HTTP/1.1\r\nx: \0\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            let refused = of(wire).unwrap_err();
            assert_eq!(refused, Some(Reason::BadRequest), "{}", String::from_utf8_lossy(wire));
        }
        for wire in [&b""[..], b"\r\n", b"GET / HTT", b"GET / HTTP/1.1\r\nx: y\r\n"] {
            assert_eq!(of(wire).unwrap_err(), None);
        }
    }

    #[test]
    fn heads_have_limits() {
        let settings = Settings::default();
        let reason = |wire: &[u8]| heads([wire], &settings).map_err(|fault| fault.reason).err();
        let fields = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(n));
        assert_eq!(reason(fields(settings.max_header_fields.max(100)).as_bytes()), None);
        let many = fields(settings.max_header_fields.max(100) + 1);
        assert_eq!(reason(many.as_bytes()), Some(Reason::HeaderTooLarge));
        let endless = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'x'; 256 << 10]].concat();
        assert_eq!(reason(&endless), Some(Reason::HeaderTooLarge));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(TARGET));
        assert_eq!(reason(long.as_bytes()), Some(Reason::UriTooLong));
    }
}
