//! The head of an answer, as a service sends it (RFC 9112 4 and 5).

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version};
use httparse::{ParserConfig, Status};
use strait_engine::{Fault, Reason};

use crate::http1::framing::Framing;
use crate::http1::head::{Room, Seen, keeps_alive, map, what};
use crate::settings::Settings;

/// Interim answers before the final one. Services send one or two; one that sends nothing else
/// would be read for ever.
const INTERIM: u32 = 100;

/// The head of an answer, with all that it says about the connection.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) framing: Framing,
    /// The connection may serve another request after this one.
    pub(crate) keep_alive: bool,
}

/// What came of an answer's head.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Not all of it.
    Part,
    /// `100 Continue`: the body is asked for.
    Continue,
    Head(Head),
}

/// Reads the head of one answer, however it is cut on the way.
pub(crate) struct Heads {
    seen: Seen,
    interim: u32,
}

impl Heads {
    pub(crate) fn new() -> Heads {
        Heads { seen: Seen::default(), interim: 0 }
    }

    /// Whether nothing has come.
    pub(crate) fn is_silent(&self) -> bool {
        self.seen.is_nothing() && self.interim == 0
    }

    /// Takes a head from the begin of `input`, the answer to a request by `method`.
    ///
    /// # Errors
    /// `BackendInvalid` for what is no answer of HTTP/1, or is over the limits.
    pub(crate) fn next(
        &mut self,
        input: &mut BytesMut,
        method: &Method,
        settings: &Settings,
    ) -> Result<Heard, Fault> {
        let invalid = |what| Fault::because(Reason::BackendInvalid, what);
        while self.seen.may_be_whole(input) {
            let Some(raw) = Raw::read(input, settings).map_err(invalid)? else { break };
            self.seen = Seen::default();
            let (code, upgrade) = (raw.status.as_u16(), StatusCode::SWITCHING_PROTOCOLS);
            if !raw.status.is_informational() || raw.status == upgrade {
                return raw.judge(method).map(Heard::Head).map_err(invalid);
            }
            self.interim += 1;
            if self.interim > INTERIM {
                return Err(invalid("interim answers without end"));
            }
            if code == 100 {
                return Ok(Heard::Continue);
            }
        }
        self.seen.all_of(input);
        if input.len() > settings.head_buffer() {
            return Err(invalid("the head of the answer is over the limit"));
        }
        Ok(Heard::Part)
    }
}

/// A head before it is known what it means.
struct Raw {
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
}

impl Raw {
    /// Takes a head from `input` when all of it is there.
    fn read(input: &mut BytesMut, settings: &Settings) -> Result<Option<Raw>, &'static str> {
        let mut room = Room::new(settings);
        let mut answer = httparse::Response::new(&mut []);
        let parser = ParserConfig::default();
        let read = parser.parse_response_with_uninit_headers(&mut answer, input, room.fields());
        let Status::Complete(length) = read.map_err(what)? else { return Ok(None) };
        let code = answer.code.ok_or("no status")?;
        let status = StatusCode::from_u16(code).map_err(|_| "the status is no number of HTTP")?;
        let version = if answer.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
        let headers = map(answer.headers, input, &Bytes::copy_from_slice(&input[..length]))?;
        input.advance(length);
        Ok(Some(Raw { status, version, headers }))
    }

    /// What it means as an answer to a request by `method`.
    fn judge(self, method: &Method) -> Result<Head, &'static str> {
        let Raw { status, version, headers } = self;
        let framing = Framing::of_answer(method, status, version, &headers)?;
        let keep_alive = framing != Framing::UntilClose && keeps_alive(version, &headers);
        Ok(Head { status, headers, framing, keep_alive })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A:  1 \r\nx-a: \x80\r\n\r\n";

    /// All that is heard of `wire` when it comes in these pieces, and what is left of it.
    fn hear<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        settings: &Settings,
    ) -> Result<(Option<Head>, u32, Vec<u8>), Fault> {
        let (mut heads, mut input, mut head, mut asked) = (Heads::new(), BytesMut::new(), None, 0);
        for piece in pieces {
            input.extend_from_slice(piece);
            while head.is_none() {
                match heads.next(&mut input, &Method::GET, settings)? {
                    Heard::Part => break,
                    Heard::Continue => asked += 1,
                    Heard::Head(found) => head = Some(found),
                }
            }
        }
        Ok((head, asked, input.to_vec()))
    }

    fn of(wire: &[u8]) -> Result<Head, &'static str> {
        let settings = Settings::default();
        let whole = hear([wire], &settings);
        for at in 0..wire.len() {
            let cut = hear([&wire[..at], &wire[at..]], &settings);
            assert_eq!(cut.is_ok(), whole.is_ok(), "{wire:?} cut at {at}");
        }
        match whole {
            Ok((Some(head), ..)) => Ok(head),
            Ok((None, ..)) => Err("part"),
            Err(fault) => {
                assert_eq!(fault.reason, Reason::BackendInvalid);
                Err("invalid")
            }
        }
    }

    #[test]
    fn a_head_is_the_same_however_it_is_cut() {
        let wire =
            [b"HTTP/1.1 102 Processing\r\nx: y\r\n\r\nHTTP/1.1 100\r\n\r\n", OK, b"hello"].concat();
        let settings = Settings::default();
        let mut cuts: Vec<Vec<&[u8]>> = vec![wire.chunks(1).collect()];
        cuts.extend((0..wire.len()).map(|at| vec![&wire[..at], &wire[at..]]));
        for pieces in cuts {
            let (head, asked, rest) = hear(pieces, &settings).unwrap();
            let head = head.unwrap();
            assert_eq!((head.status.as_u16(), asked, &rest[..]), (200, 1, &b"hello"[..]));
            assert_eq!((head.framing, head.keep_alive), (Framing::Length(5), true));
            let fields: Vec<_> = head.headers.get_all("x-a").iter().collect();
            assert_eq!(fields, [&b"1"[..], b"\x80"]);
        }
        for at in 0..wire.len() - 5 {
            assert!(hear([&wire[..at]], &settings).unwrap().0.is_none(), "cut at {at}");
        }
    }

    #[test]
    fn connections_are_kept_where_both_sides_may() {
        let kept = |head: &str| of(format!("{head}\r\n\r\n").as_bytes()).unwrap().keep_alive;
        assert!(kept("HTTP/1.1 200 OK\r\nContent-Length: 0"));
        assert!(kept("HTTP/1.1 204 No Content"));
        assert!(!kept("HTTP/1.1 200 OK"));
        assert!(!kept("HTTP/1.1 204 No\r\nConnection: keep-alive, Close"));
        assert!(!kept("HTTP/1.1 204 No\r\nConnection: close\r\nConnection: keep-alive"));
        assert!(!kept("HTTP/1.0 204 No"));
        assert!(kept("HTTP/1.0 204 No\r\nConnection: Keep-Alive"));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for wire in [
            &b"nonsense\r\n\r\n"[..],
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 099 No\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nname : x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nx: \0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        ] {
            assert_eq!(of(wire).unwrap_err(), "invalid", "{}", String::from_utf8_lossy(wire));
        }
        for wire in [&b""[..], b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nx: y\r\n"] {
            assert_eq!(of(wire).unwrap_err(), "part");
        }
    }

    #[test]
    fn heads_have_limits() {
        let settings = Settings { max_header_fields: 300, ..Settings::default() };
        let head = |fields: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(fields));
        assert!(hear([head(100).as_bytes()], &Settings::default()).is_ok());
        assert!(hear([head(101).as_bytes()], &Settings::default()).is_err());
        assert!(hear([head(300).as_bytes()], &settings).is_ok());
        assert!(hear([head(301).as_bytes()], &settings).is_err());
        let endless = vec![b'x'; settings.head_buffer()];
        let begin = &b"HTTP/1.1 200 OK\r\nx: "[..];
        assert!(hear([begin, &endless], &settings).is_err());
        assert!(hear([begin, &endless[begin.len()..]], &settings).is_ok());
        let interim = b"HTTP/1.1 103 Early Hints\r\n\r\n";
        let all = |times: usize| [interim.repeat(times), OK.to_vec()].concat();
        assert!(hear([&all(100)[..]], &settings).unwrap().0.is_some());
        assert!(hear([&all(101)[..]], &settings).is_err());
        assert!(hear([&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(101)[..]], &settings).is_err());
    }
}
