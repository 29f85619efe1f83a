//! gRPC-Web at an entry: gRPC as browsers can speak it, by any version of HTTP
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md>). Only the visitor's leg
//! differs: what is carried is gRPC, and nothing beyond an entry knows.

use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method};
use http_body::Frame;
use strait_engine::{BoxBody, Data, Fault, Part, Reason, RequestHead};

use crate::grpc::body::Messages;
use crate::grpc::read::Source;
use crate::grpc::status;
use crate::grpc::web_cors::{Cors, Grant};
use crate::grpc::web_text::{self, Decoder};
use crate::http::body::Cut;
use crate::http::hop::retain;

const GRPC: &str = "application/grpc";
const WEB: &str = "application/grpc-web";
const TEXT: &str = "application/grpc-web-text";

/// The flag of the frame that carries the trailers.
const TRAILERS: u8 = 0x80;

/// How a caller speaks gRPC-Web.
pub(crate) struct Web {
    /// Its messages are in base64.
    sends_text: bool,
    /// It wants those of the answer in base64.
    wants_text: bool,
    /// The format of the messages: `+proto`, or empty.
    format: String,
    cors: Option<Grant>,
}

impl Web {
    /// How the caller of this request speaks it, if it does.
    pub(crate) fn of(head: &RequestHead, cors: &Cors) -> Option<Web> {
        if head.method != Method::POST {
            return None;
        }
        let kind = head.headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let rest = after(kind, WEB)?;
        let (sends_text, rest) = match after(rest, "-text") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let format = rest.split([';', ' ']).next().unwrap_or_default();
        if !format.is_empty() && !format.starts_with('+') {
            return None;
        }
        let wants_text = match head.headers.get(ACCEPT).and_then(|value| value.to_str().ok()) {
            Some(accept) if accepts(accept, TEXT) => true,
            Some(accept) if accepts(accept, WEB) => false,
            _ => sends_text,
        };
        let cors = cors.grant(&head.headers);
        Some(Web { sends_text, wants_text, format: format.to_ascii_lowercase(), cors })
    }

    /// Makes the header fields of the request those of gRPC.
    pub(crate) fn ask(&self, headers: &mut HeaderMap) {
        // What the body of the answer may be is said by the content type alone, and the messages
        // say their lengths themselves.
        let of_this_leg =
            [ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, HeaderName::from_static("x-grpc-web")];
        retain(headers, |name| !of_this_leg.contains(name));
        headers.insert(CONTENT_TYPE, kind(GRPC, &self.format));
    }

    /// Makes the header fields of an answer those of gRPC-Web.
    pub(crate) fn answer(&self, headers: &mut HeaderMap) {
        let format = headers.get(CONTENT_TYPE).and_then(|value| after(value.to_str().ok()?, GRPC));
        if let Some(format) = format {
            let value = kind(if self.wants_text { TEXT } else { WEB }, format);
            headers.insert(CONTENT_TYPE, value);
        }
        if let Some(cors) = &self.cors {
            cors.expose(headers);
        }
    }

    /// The messages in the request's body.
    pub(crate) fn decoded(&self, body: BoxBody) -> Decoded {
        Decoded { body, decoder: self.sends_text.then(Decoder::default) }
    }

    /// The body of an answer with these messages.
    pub(crate) fn encoded(&self, messages: Messages) -> Encoded {
        Encoded { messages, text: self.wants_text, over: false }
    }
}

/// What follows `start` in `text`, in any case.
fn after<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(start.len())?;
    head.eq_ignore_ascii_case(start).then_some(rest)
}

/// Whether an `Accept` field names exactly this content type, in whatever format.
fn accepts(accept: &str, kind: &str) -> bool {
    let names = |item: &str| {
        after(item.trim(), kind)
            .is_some_and(|rest| matches!(rest.bytes().next(), None | Some(b'+' | b';' | b' ')))
    };
    accept.split(',').any(names)
}

fn kind(start: &str, format: &str) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(format!("{start}{format}")))
        .unwrap_or_else(|_| HeaderValue::from_static(GRPC))
}

/// The bytes of a request's messages.
pub(crate) struct Decoded {
    body: BoxBody,
    /// Of base64.
    decoder: Option<Decoder>,
}

impl Source for Decoded {
    type Error = Fault;

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        loop {
            let part = ready!(self.body.poll_part(cx));
            let Some(decoder) = &mut self.decoder else { return Poll::Ready(part) };
            let decoded = match part {
                Some(Ok(Part::Data(data))) => decoder.decode(&data.bytes),
                None if !decoder.is_empty() => {
                    Err(Fault::because(Reason::BadRequest, "the body ended within base64"))
                }
                part => return Poll::Ready(part),
            };
            match decoded {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(Part::Data(Data::plain(bytes))))),
                Err(fault) => return Poll::Ready(Some(Err(fault))),
            }
        }
    }

    fn is_end(&self) -> bool {
        self.body.is_end() && self.decoder.as_ref().is_none_or(Decoder::is_empty)
    }
}

/// Messages on their way to a caller of gRPC-Web; the last frame carries the trailers.
pub(crate) struct Encoded {
    messages: Messages,
    text: bool,
    over: bool,
}

impl Encoded {
    /// Whether no frame will come.
    pub(crate) fn is_end(&self) -> bool {
        self.over
    }

    /// The next frame.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let bytes = match ready!(self.messages.poll_frame(cx)).transpose()?.map(Frame::into_data) {
            Some(Ok(bytes)) => bytes,
            Some(Err(frame)) => {
                self.over = true;
                if !self.messages.at_boundary() {
                    // A caller would take the status for bytes of the message.
                    let detail = "the answer was cut within a message";
                    return Poll::Ready(Some(Err(
                        Fault::because(Reason::BackendReset, detail).into()
                    )));
                }
                trailers(&frame.into_trailers().unwrap_or_default())
            }
            None => {
                self.over = true;
                trailers(&status::trailers(13, "the service sent no status"))
            }
        };
        let bytes = if self.text { web_text::encode(&bytes) } else { bytes };
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

/// The frame of `trailers`: lines as in HTTP/1, without the empty one.
fn trailers(trailers: &HeaderMap) -> Bytes {
    let mut lines = BytesMut::new();
    for (name, value) in trailers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    let mut frame = BytesMut::with_capacity(5 + lines.len());
    frame.put_u8(TRAILERS);
    // Trailers are of bounded size.
    frame.put_u32(u32::try_from(lines.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(&lines);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(content_type: &'static str, accept: &'static str) -> Option<(Web, HeaderValue)> {
        let mut head = RequestHead {
            method: Method::POST,
            scheme: http::uri::Scheme::HTTP,
            authority: Bytes::from_static(b"a"),
            path: Bytes::from_static(b"/p.S/M"),
            headers: HeaderMap::new(),
        };
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        head.headers.insert(ACCEPT, HeaderValue::from_static(accept));
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
        let web = Web::of(&head, &Cors::default())?;
        web.ask(&mut head.headers);
        assert!(head.headers.keys().eq([CONTENT_TYPE]));
        Some((web, head.headers[CONTENT_TYPE].clone()))
    }

    #[test]
    fn content_types_tell_the_encoding_and_keep_the_format() {
        for (asked, accept, sends, wants, carried) in [
            ("application/grpc-web", "*/*", false, false, "application/grpc"),
            ("application/grpc-web+proto", "", false, false, "application/grpc+proto"),
            ("Application/gRPC-Web+json; charset=x", "", false, false, "application/grpc+json"),
            ("application/grpc-web-text", "", true, true, "application/grpc"),
            (
                "application/grpc-web-text+proto",
                "application/grpc-web+proto",
                true,
                false,
                "application/grpc+proto",
            ),
            (
                "application/grpc-web+proto",
                "a/b, application/grpc-web-text",
                false,
                true,
                "application/grpc+proto",
            ),
        ] {
            let (web, kind) = web(asked, accept).unwrap();
            assert_eq!((web.sends_text, web.wants_text), (sends, wants), "{asked} {accept}");
            assert_eq!(kind, carried);
        }
        for other in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc-webby",
            "application/json",
            "",
        ] {
            assert!(web(other, "").is_none(), "{other}");
        }
        let (web, _) = web("application/grpc-web-text", "").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
        web.answer(&mut headers);
        assert_eq!(headers[CONTENT_TYPE], "application/grpc-web-text+proto");
    }

    #[test]
    fn trailers_are_lines_in_a_frame_of_their_own() {
        let made = trailers(&status::trailers(5, "no such thing"));
        let lines = b"grpc-status: 5\r\ngrpc-message: no such thing\r\n";
        assert_eq!(made[..5], [0x80, 0, 0, 0, lines.len() as u8]);
        assert_eq!(made[5..], lines[..]);
    }
}
