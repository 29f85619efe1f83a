//! What the fuzz targets may see of an entry and a backend. No part of the contract.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderMap, Method, StatusCode, Uri};
use strait_engine::{Body, BoxBody, Data, Fault, Part, Protocol, Reason, RequestHead};

use crate::classify::{classify, urgency};
use crate::grpc::message::{Cutter, Joined, Joiner};
use crate::http::hop::Fields;
use crate::http1::answer::read::{Heads, Heard};
use crate::http1::body::Decoder;
use crate::http1::chunked::Step;
use crate::http1::head::Seen;
use crate::http1::request::read;
use crate::peer::{Peer, TrustedProxies};
use crate::websocket::frame::{self, Rules, Writer};
use crate::{Settings, forwarded};

/// Pieces of `wire` when it comes in the given sizes, over and over, and the reason why no
/// more could be cut.
fn cut(
    wire: &[u8],
    sizes: &[usize],
    mut take: impl FnMut(&mut BytesMut) -> Result<Option<Data>, Fault>,
) -> (Vec<Data>, Option<Reason>) {
    let (mut pieces, mut rest, mut turn) = (Vec::new(), wire, 0);
    let mut input = BytesMut::new();
    while !rest.is_empty() {
        let size = sizes.get(turn % sizes.len().max(1)).copied().unwrap_or(1).clamp(1, rest.len());
        input.extend_from_slice(&rest[..size]);
        rest = &rest[size..];
        turn += 1;
        loop {
            match take(&mut input) {
                Ok(Some(data)) => pieces.push(data),
                Ok(None) => break,
                Err(fault) => return (pieces, Some(fault.reason)),
            }
        }
    }
    (pieces, None)
}

/// The gRPC messages of a body that comes in the given sizes, and the reason of its fault.
pub fn cut_grpc(body: &[u8], sizes: &[usize], max_message: u64) -> (Vec<Data>, Option<Reason>) {
    let mut cutter = Cutter::new(max_message, Reason::BadRequest);
    let (pieces, fault) = cut(body, sizes, |input| {
        let mut bytes = input.split().freeze();
        let piece = cutter.next(&mut bytes);
        input.extend_from_slice(&bytes);
        piece
    });
    (pieces, fault.or_else(|| cutter.end().map(|fault| fault.reason)))
}

struct Pieces(std::vec::IntoIter<Data>);

impl Body for Pieces {
    fn poll_part(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        Poll::Ready(self.0.next().map(|data| Ok(Part::Data(data))))
    }
}

/// The body that the messages of `pieces` make.
///
/// # Errors
/// The reason why they make none.
pub fn join_grpc(pieces: Vec<Data>) -> Result<Vec<u8>, Reason> {
    let mut joiner = Joiner::new();
    let mut body: BoxBody = Box::new(Pieces(pieces.into_iter()));
    let mut out = Vec::new();
    // The pieces are all there, so it is never pending.
    while let Poll::Ready(Some(frame)) =
        joiner.poll(&mut body, &mut Context::from_waker(Waker::noop()))
    {
        if let Joined::Data(bytes) = frame.map_err(|fault| fault.reason)? {
            out.extend_from_slice(&bytes);
        }
    }
    Ok(out)
}

/// The WebSocket frames of a socket from which bytes come in the given sizes, and the reason
/// of its fault.
pub fn cut_websocket(
    wire: &[u8],
    sizes: &[usize],
    max_message: u64,
    from_client: bool,
    extended: bool,
) -> (Vec<Data>, Option<Reason>) {
    let rules = Rules::new(extended, max_message, Reason::BadRequest);
    let mut cutter = frame::Cutter::new(rules, from_client);
    cut(wire, sizes, |input| if cutter.is_over() { Ok(None) } else { cutter.next(input) })
}

/// Writes `pieces` as WebSocket frames to `out`.
///
/// # Errors
/// The reason why they make no valid frames.
pub fn write_websocket(
    pieces: Vec<Data>,
    max_message: u64,
    as_client: bool,
    extended: bool,
    out: &mut BytesMut,
) -> Result<(), Reason> {
    let rules = Rules::new(extended, max_message, Reason::BadRequest);
    let mut writer = Writer::new(rules, as_client);
    for data in pieces {
        if let Some(large) = writer.put(data, out).map_err(|fault| fault.reason)? {
            out.extend_from_slice(&large);
        }
    }
    Ok(())
}

/// What a service said in answer to a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// How often it asked for the body.
    pub asked: u32,
    /// Status and fields of the answer.
    pub head: Option<(StatusCode, HeaderMap)>,
    /// The body as far as it came.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Option<HeaderMap>,
    /// The answer is complete, by what it announced itself.
    pub ended: bool,
    /// What came behind it.
    pub left: Vec<u8>,
}

impl Answered {
    /// Reads on; whether there was something to read.
    fn read(
        &mut self,
        input: &mut BytesMut,
        heads: &mut Heads,
        decoder: &mut Option<Decoder>,
        method: &Method,
    ) -> Result<bool, Fault> {
        let settings = Settings::default();
        let Some(decoder) = decoder else {
            match heads.next(input, method, &settings)? {
                Heard::Part => return Ok(false),
                Heard::Continue => self.asked += 1,
                Heard::Head(head) => {
                    *decoder = Some(Decoder::new(head.framing, settings.max_header_fields));
                    self.head = Some((head.status, head.headers));
                }
            }
            return Ok(true);
        };
        if self.ended {
            return Ok(false);
        }
        let invalid = |what| Fault::because(Reason::BackendInvalid, what);
        match decoder.next(input).map_err(invalid)? {
            None => return Ok(false),
            Some(Step::Data(bytes)) => self.body.extend_from_slice(&bytes),
            Some(Step::End(trailers)) => (self.ended, self.trailers) = (true, trailers),
        }
        Ok(true)
    }
}

/// Reads the answer to a request by `method` from what a service sends in the given sizes; and
/// the reason why it is none.
pub fn answer(wire: &[u8], sizes: &[usize], method: &Method) -> (Answered, Option<Reason>) {
    let (mut said, mut heads, mut decoder) = (Answered::default(), Heads::new(), None);
    let mut left = Vec::new();
    let (_, fault) = cut(wire, sizes, |input| {
        while said.read(input, &mut heads, &mut decoder, method)? {}
        left = input.to_vec();
        Ok(None)
    });
    if said.ended {
        said.left = left;
    }
    (said, fault)
}

/// A request of a visitor.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// Method, target and fields.
    pub head: (Method, Uri, HeaderMap),
    /// The body as far as it came.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Option<HeaderMap>,
    /// All of it came.
    pub ended: bool,
}

/// Reads what a visitor sends in the given sizes as requests, one behind the other; and the reason
/// why something is none.
pub fn requests(wire: &[u8], sizes: &[usize]) -> (Vec<Asked>, Option<Reason>) {
    let (mut asked, mut seen, settings) = (Vec::new(), Seen::default(), Settings::default());
    let mut body: Option<Decoder> = None;
    let mut read = |input: &mut BytesMut| {
        let Some(decoder) = &mut body else {
            let Some(head) = read::take(input, &mut seen, &settings)? else { return Ok(false) };
            body = Some(Decoder::new(head.framing, settings.max_header_fields));
            let Parts { method, uri, headers, .. } = head.parts;
            let head = (method, uri, headers);
            asked.push(Asked { head, body: Vec::new(), trailers: None, ended: false });
            return Ok(true);
        };
        let bad = |what| Fault::because(Reason::BadRequest, what);
        let step = decoder.next(input).map_err(bad)?;
        if let (Some(step), Some(last)) = (&step, asked.last_mut()) {
            match step {
                Step::Data(bytes) => last.body.extend_from_slice(bytes),
                Step::End(trailers) => {
                    (last.ended, last.trailers) = (true, trailers.clone());
                    body = None;
                }
            }
        }
        Ok(step.is_some())
    };
    let (_, fault) = cut(wire, sizes, |input| {
        while read(input)? {}
        Ok(None)
    });
    (asked, fault)
}

/// What an entry makes of a request's head.
#[derive(Debug)]
pub struct Head {
    /// The visitor's address.
    pub visitor: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// The head that travels.
    pub head: RequestHead,
    /// The length that the visitor announced.
    pub length: Option<u64>,
    /// The trace that it belongs to.
    pub trace: Arc<str>,
    /// Its urgency, 0 to 7.
    pub urgency: u8,
}

/// Classifies a request of a visitor, whose address is trusted or not, and says who it is;
/// `None` when it is refused.
pub fn request_head(mut parts: Parts, trusted: bool) -> Option<Head> {
    let address = SocketAddr::from(([192, 0, 2, 7], 4000));
    let trusted = trusted.then(|| ipnet::IpNet::from(address.ip())).into_iter().collect();
    let trusted = TrustedProxies::new(trusted);
    let peer = Peer::new(address, &trusted);
    let visitor = forwarded::visitor(&parts.headers, &peer, &trusted);
    let scheme = forwarded::scheme(&parts.headers, &peer, Scheme::HTTP);
    let fields = Fields::of(&parts.headers);
    let made = classify(&mut parts, fields, &scheme, &Settings::default()).ok()?;
    let mut head = made.head;
    forwarded::set(fields, &mut head.headers, &peer, &scheme, &head.authority);
    let trace = forwarded::trace(fields, &mut head.headers);
    let urgency = urgency(&head.headers);
    Some(Head { visitor, protocol: made.protocol, head, length: made.length, trace, urgency })
}
