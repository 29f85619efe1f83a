//! What visitors and backends send: gRPC messages, WebSocket frames, request heads.

use bytes::BytesMut;
use http::{HeaderName, HeaderValue, Method, Version};
use strait_edge::check::{self, Head};
use strait_wire::{Data, Protocol};

use crate::input::Input;

/// Messages of more than this many bytes are refused, so that the limit is reached.
const MAX_MESSAGE: u64 = 3_000;

/// How many bytes come at once, over and over.
fn sizes(input: &mut Input<'_>) -> Vec<usize> {
    (0..=input.below(4)).map(|_| 1 + input.below(40)).collect()
}

/// What the pieces say of messages: their starts, ends and bytes, however they were cut.
fn messages(pieces: &[Data]) -> Vec<(u8, u64, Vec<u8>, bool)> {
    let mut all: Vec<(u8, u64, Vec<u8>, bool)> = Vec::new();
    for data in pieces {
        if let Some(start) = data.start {
            assert!(all.last().is_none_or(|last| last.3), "a message within a message");
            all.push((start.tag, start.length, Vec::new(), false));
        }
        let last = all.last_mut().expect("a piece before any start");
        assert!(!last.3, "a piece after the end of its message");
        last.2.extend_from_slice(&data.bytes);
        last.3 = data.ends_message;
        assert!(last.2.len() as u64 <= last.1, "more than was announced");
        assert_eq!(last.3, last.2.len() as u64 == last.1, "the end is where it was announced");
    }
    all
}

/// Cuts any bytes at the prefixes of gRPC messages, in one piece and in many: the messages
/// are the same, none is over the limit, and joined they are the bytes that came.
pub fn grpc_messages(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let sizes = sizes(&mut input);
    let body = input.rest();
    let (whole, whole_end) = check::cut_grpc(body, &[body.len().max(1)], MAX_MESSAGE);
    let (many, many_end) = check::cut_grpc(body, &sizes, MAX_MESSAGE);
    assert_eq!(whole_end, many_end, "a fault does not depend on how bytes come");
    assert_eq!(messages(&whole), messages(&many));
    assert!(messages(&many).iter().all(|message| message.1 <= MAX_MESSAGE));
    if many_end.is_none() {
        assert_eq!(check::join_grpc(many).expect("whole messages"), body);
    }
}

/// Cuts any bytes into WebSocket frames of a visitor and of a backend, in one piece and in
/// many: the frames are the same, and written again they are the same frames.
pub fn websocket_frames(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (sizes, flags) = (sizes(&mut input), input.byte());
    let (from_client, extended) = (flags & 1 != 0, flags & 2 != 0);
    let body = input.rest();
    let cut =
        |sizes: &[usize]| check::cut_websocket(body, sizes, MAX_MESSAGE, from_client, extended);
    let (whole, whole_end) = cut(&[body.len().max(1)]);
    let (many, many_end) = cut(&sizes);
    assert_eq!(whole_end, many_end, "a fault does not depend on how bytes come");
    assert_eq!(messages(&whole), messages(&many));
    let seen = messages(&many);
    let complete = seen.iter().all(|message| message.3);
    // To the other leg and back: masked now if they were not, and the other way round.
    let mut wire = BytesMut::new();
    check::write_websocket(many, MAX_MESSAGE, !from_client, extended, &mut wire)
        .expect("what was read can be written");
    let (again, fault) = check::cut_websocket(&wire, &sizes, MAX_MESSAGE, !from_client, extended);
    assert_eq!(messages(&again), seen);
    assert!(fault.is_none() || !complete || many_end.is_some(), "{fault:?}");
}

/// Reads any bytes as a service's answer, at once and in many pieces: it is the same. An answer
/// that lacks its last byte is never complete.
pub fn service_answer(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let sizes = sizes(&mut input);
    let method = if input.flag() { Method::HEAD } else { Method::GET };
    let wire = input.rest();
    let (whole, whole_end) = check::answer(wire, &[wire.len().max(1)], &method);
    let (many, many_end) = check::answer(wire, &sizes, &method);
    if whole_end.is_some() && many_end.is_none() {
        // A head that comes in pieces is judged when its end is there.
        assert!(whole.head.is_none() && many.head.is_none(), "a fault is found in time");
        return;
    }
    assert_eq!(whole_end, many_end, "a fault does not depend on how bytes come");
    assert_eq!(whole, many);
    if many.ended {
        assert!(many_end.is_none() && many.head.is_some());
        let used = wire.len() - many.left.len();
        assert_eq!(many.left, &wire[used..]);
        let (cut, _) = check::answer(&wire[..used - 1], &sizes, &method);
        assert!(!cut.ended, "a cut is no end");
        assert!(many.body.starts_with(&cut.body));
    } else {
        assert!(many.trailers.is_none());
    }
}

/// Reads any bytes as a visitor's requests, at once and in many pieces: they are the same, and so is
/// where one ends and the next begins.
pub fn visitor_requests(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let sizes = sizes(&mut input);
    let wire = input.rest();
    let (whole, whole_end) = check::requests(wire, &[wire.len().max(1)]);
    let (many, many_end) = check::requests(wire, &sizes);
    assert_eq!(whole, many);
    // A head that comes in pieces is judged when its end is there.
    assert!(many_end.is_none() || many_end == whole_end, "{many_end:?} is not {whole_end:?}");
    for asked in &many {
        let fields = &asked.head.2;
        let lengths: Vec<_> = fields.get_all("content-length").iter().collect();
        let chunked = fields.contains_key("transfer-encoding");
        assert!(!chunked || lengths.is_empty(), "framed twice: {asked:?}");
        assert!(chunked || !lengths.is_empty() || asked.body.is_empty(), "{asked:?}");
        assert!(chunked || asked.trailers.is_none(), "{asked:?}");
    }
    if let Some((last, before)) = many.split_last() {
        assert!(before.iter().all(|asked| asked.ended), "a request within another");
        // A request that lacks its end is none, and those before it are what they were.
        let (cut, _) = check::requests(&wire[..wire.len() - 1], &sizes);
        let complete = |all: &[check::Asked]| all.iter().filter(|asked| asked.ended).count();
        assert!(complete(&cut) <= complete(&many) && complete(&cut) + 1 >= complete(&many));
        assert_eq!(cut[..complete(&cut)], many[..complete(&cut)], "{last:?}");
    }
}

/// Makes a request of lines of text (method, target, then `name:value`) and classifies it.
/// What is accepted has one authority, a path, and nothing hop-by-hop.
pub fn request_head(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let flags = input.byte();
    let version = if flags & 1 == 0 { Version::HTTP_11 } else { Version::HTTP_2 };
    let Ok(method) = Method::from_bytes(input.text()) else { return };
    let mut builder = http::Request::builder().method(method).version(version).uri(input.text());
    while !input.is_empty() {
        let line = input.text();
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(at);
        let name = HeaderName::from_bytes(name);
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            builder = builder.header(name, value);
        }
    }
    let Ok(request) = builder.body(()) else { return };
    let Some(classified) = check::request_head(request.into_parts().0, flags & 2 != 0) else {
        return;
    };
    judge(&classified);
}

fn judge(Head { visitor, protocol, head, length, trace, urgency }: &Head) {
    assert!(!head.authority.is_empty() && !head.authority.contains(&b'@'), "{head:?}");
    assert!(head.path.starts_with(b"/") || head.path == "*", "{head:?}");
    for name in ["connection", "host", "keep-alive", "proxy-connection", "transfer-encoding"] {
        assert!(!head.headers.contains_key(name), "{name}: {head:?}");
    }
    for name in ["upgrade", "proxy-authorization", "expect", "http2-settings", "forwarded"] {
        assert!(!head.headers.contains_key(name), "{name}: {head:?}");
    }
    let proto = &head.headers["x-forwarded-proto"];
    assert!(proto == "http" || proto == "https", "{head:?}");
    assert!(!visitor.ip().to_string().contains("::ffff:"), "{visitor}");
    for (name, least) in [
        ("x-forwarded-for", 1),
        ("x-forwarded-proto", 1),
        ("x-forwarded-host", 1),
        ("traceparent", 1),
        ("cookie", 0),
    ] {
        let count = head.headers.get_all(name).iter().count();
        assert!((least..=1).contains(&count), "{name}: {head:?}");
    }
    let lengths: Vec<_> = head.headers.get_all("content-length").iter().collect();
    assert!(lengths.len() <= 1, "{head:?}");
    let travels = length.is_some() && *protocol == Protocol::Http;
    assert_eq!(travels, lengths.len() == 1, "{protocol}: {head:?}");
    assert!(*urgency < 8 && trace.len() >= 55, "{trace}");
}
