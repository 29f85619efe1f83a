//! Header fields that belong to one connection and never travel (RFC 9110 7.6.1).

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TE, TRAILER};
use http::{HeaderMap, HeaderValue};

/// Some of the fields that mean something to whoever passes a message on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(u32);

impl Fields {
    const NONE: Fields = Fields(0);
    pub(crate) const CONNECTION: Fields = Fields(1 << 0);
    pub(crate) const TRANSFER_ENCODING: Fields = Fields(1 << 1);
    pub(crate) const UPGRADE: Fields = Fields(1 << 2);
    /// The others of one connection.
    const HOP: Fields = Fields(1 << 3);
    pub(crate) const TE: Fields = Fields(1 << 4);
    pub(crate) const EXPECT: Fields = Fields(1 << 5);
    pub(crate) const HOST: Fields = Fields(1 << 6);
    pub(crate) const CONTENT_LENGTH: Fields = Fields(1 << 7);
    pub(crate) const TRAILER: Fields = Fields(1 << 8);
    pub(crate) const COOKIE: Fields = Fields(1 << 9);
    pub(crate) const FORWARDED: Fields = Fields(1 << 10);
    pub(crate) const TRACEPARENT: Fields = Fields(1 << 11);
    pub(crate) const STRAIT_HOPS: Fields = Fields(1 << 12);
    pub(crate) const PRIORITY: Fields = Fields(1 << 13);

    /// What never travels. The one expectation there is travels beside the head: each leg says
    /// it anew.
    const HOP_BY_HOP: Fields = Fields::CONNECTION
        .and(Fields::TRANSFER_ENCODING)
        .and(Fields::UPGRADE)
        .and(Fields::HOP)
        .and(Fields::TE)
        .and(Fields::EXPECT);

    /// The set of this field alone; of none when it is another.
    fn one(name: &HeaderName) -> Fields {
        match name.as_str() {
            "connection" => Fields::CONNECTION,
            "transfer-encoding" => Fields::TRANSFER_ENCODING,
            "upgrade" => Fields::UPGRADE,
            "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "http2-settings" => Fields::HOP,
            "te" => Fields::TE,
            "expect" => Fields::EXPECT,
            "host" => Fields::HOST,
            "content-length" => Fields::CONTENT_LENGTH,
            "trailer" => Fields::TRAILER,
            "cookie" => Fields::COOKIE,
            "forwarded" => Fields::FORWARDED,
            "traceparent" => Fields::TRACEPARENT,
            "strait-hops" => Fields::STRAIT_HOPS,
            "priority" => Fields::PRIORITY,
            _ => Fields::NONE,
        }
    }

    /// Those that a head has: one look at each name, in place of a search for each of them.
    pub(crate) fn of(headers: &HeaderMap) -> Fields {
        Fields(headers.keys().fold(0, |all, name| all | Fields::one(name).0))
    }

    /// Whether one of `others` is among them.
    pub(crate) fn have(self, others: Fields) -> bool {
        self.0 & others.0 != 0
    }

    /// These and `others`.
    pub(crate) const fn and(self, others: Fields) -> Fields {
        Fields(self.0 | others.0)
    }
}

/// Whether a comma-separated field contains `token`, in any case.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let is_token = |item: &[u8]| item.eq_ignore_ascii_case(token.as_bytes());
    headers.get_all(name).iter().map(HeaderValue::as_bytes).any(|value| {
        // Most fields have one item.
        is_token(value) || value.split(|b| *b == b',').any(|item| is_token(item.trim_ascii()))
    })
}

/// Fields that a sender may not have removed by naming them in `Connection`: doing so
/// would change what the request means to the backend.
fn is_essential(name: &HeaderName) -> bool {
    name == HOST || name == CONTENT_LENGTH || name.as_str().starts_with("x-forwarded-")
}

/// Keeps the fields that `keep` accepts, in their order: the map's own removal puts the
/// last field into the gap.
pub(crate) fn retain(headers: &mut HeaderMap, keep: impl Fn(&HeaderName) -> bool) {
    if headers.keys().all(&keep) {
        return;
    }
    // With room for what an entry adds: to grow would mean to hash all names again.
    let mut kept = HeaderMap::with_capacity(headers.len() + 5);
    let mut fields = std::mem::take(headers).into_iter().peekable();
    // A name comes with the first of its values only. It goes with the last: most have one, and
    // a copy would be memory.
    while let Some((Some(name), mut value)) = fields.next() {
        let keeps = keep(&name);
        while let Some((_, next)) = fields.next_if(|(name, _)| name.is_none()) {
            let before = std::mem::replace(&mut value, next);
            if keeps {
                kept.append(&name, before);
            }
        }
        if keeps {
            kept.append(name, value);
        }
    }
    *headers = kept;
}

/// Removes one field, and leaves the others in their order.
pub(crate) fn remove(headers: &mut HeaderMap, name: &HeaderName) {
    retain(headers, |other| other != name);
}

/// Removes what is hop-by-hop from a request or an answer. `TE: trailers` stays on
/// requests: whoever relays it must be able to deliver trailers, and we are.
pub(crate) fn strip(headers: &mut HeaderMap) {
    strip_with(headers, Fields::of(headers), Fields::NONE);
}

/// The same from a head that has `fields`, and those in `also`: one pass for all that goes, since
/// it makes the map anew.
pub(crate) fn strip_with(headers: &mut HeaderMap, fields: Fields, also: Fields) {
    let going = Fields(fields.0 & Fields::HOP_BY_HOP.and(also).0);
    let trailers_alone = fields.have(Fields::TE) && takes_trailers_alone(headers);
    if going == Fields::NONE || (going == Fields::TE && trailers_alone) {
        return;
    }
    let hops = Hops::of(headers, fields);
    retain(headers, |name| {
        let one = Fields::one(name);
        !also.have(one) && (hops.pass(name) || (hops.trailers && one == Fields::TE))
    });
    if hops.trailers && !trailers_alone {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Whether `TE` says `trailers` and nothing else, as that of every gRPC call does: so it travels.
fn takes_trailers_alone(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(TE).iter();
    matches!((all.next(), all.next()), (Some(value), None) if value == "trailers")
}

/// What a head says about the connection that it came by.
pub(crate) struct Hops {
    /// Fields that it takes along no further.
    listed: Vec<HeaderName>,
    /// Its sender takes trailers.
    pub(crate) trailers: bool,
}

impl Hops {
    /// Of a head that has `fields`.
    pub(crate) fn of(headers: &HeaderMap, fields: Fields) -> Hops {
        let listed = if fields.have(Fields::CONNECTION) { listed(headers) } else { Vec::new() };
        Hops { listed, trailers: fields.have(Fields::TE) && has_token(headers, &TE, "trailers") }
    }

    /// Whether a field travels as it is.
    pub(crate) fn pass(&self, name: &HeaderName) -> bool {
        !(Fields::HOP_BY_HOP.have(Fields::one(name)) || self.listed.contains(name))
    }
}

/// The fields that `Connection` lists.
fn listed(headers: &HeaderMap) -> Vec<HeaderName> {
    let items = headers.get_all(CONNECTION).iter().flat_map(|v| v.as_bytes().split(|b| *b == b','));
    items
        .filter_map(|item| HeaderName::from_bytes(item.trim_ascii()).ok())
        .filter(|name| name != TE && !is_essential(name))
        .collect()
}

/// Removes from a body's trailers what is hop-by-hop, and what says how a message is framed or
/// whom it is for: whoever merges trailers into the head would read it anew (RFC 9110 6.5.1).
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    strip(trailers);
    let of_the_head = [HOST, CONTENT_LENGTH, TRAILER, TE];
    retain(trailers, |name| !of_the_head.contains(name));
}

/// The number that up to nineteen digits say: more may be beyond what a number can hold.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    let is_one = (1..=19).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_one.then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// The length that a head announces: `Ok(None)` when it does not. Where it is said twice it
/// is said once afterwards.
///
/// # Errors
/// When it is malformed, or there are several that differ (RFC 9110 8.6).
pub(crate) fn content_length(headers: &mut HeaderMap) -> Result<Option<u64>, ()> {
    let (length, times) = announced(headers)?;
    if let (Some(length), 2..) = (length, times) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(length)
}

/// The length that a head announces, and how often it says so.
///
/// # Errors
/// When it is malformed, or there are several that differ (RFC 9110 8.6).
pub(crate) fn announced(headers: &HeaderMap) -> Result<(Option<u64>, usize), ()> {
    let (mut length, mut times) = (None, 0);
    for value in headers.get_all(CONTENT_LENGTH) {
        let number = decimal(value.as_bytes()).ok_or(())?;
        if length.replace(number).is_some_and(|before: u64| before != number) {
            return Err(());
        }
        times += 1;
    }
    Ok((length, times))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_connection_lists_goes_but_not_what_routes() {
        let mut headers = map(&[
            ("connection", "close, X-Mine, host, x-forwarded-for"),
            ("x-mine", "1"),
            ("host", "a"),
            ("x-forwarded-for", "1.2.3.4"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "secret"),
            ("upgrade", "h2c"),
            ("te", "deflate, Trailers"),
            ("accept", "text/plain"),
        ]);
        let fields = Fields::of(&headers);
        strip_with(&mut headers, fields, Fields::HOST);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "te", "x-forwarded-for"]);
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn only_trailers_are_asked_for_onwards() {
        for (said, passed) in [
            (&["trailers"][..], &["trailers"][..]),
            (&["Trailers"], &["trailers"]),
            (&["trailers;q=1"], &[]),
            (&["trailers, deflate"], &["trailers"]),
            (&["trailers", "deflate"], &["trailers"]),
            (&["deflate"], &[]),
        ] {
            for also in ["x-a", "expect"] {
                let mut headers = map(&[(also, "1")]);
                for value in said {
                    headers.append(TE, HeaderValue::from_static(value));
                }
                strip(&mut headers);
                assert!(headers.get_all(TE).iter().eq(passed), "{said:?}: {headers:?}");
            }
        }
    }

    #[test]
    fn what_stays_keeps_its_order() {
        let mut headers = map(&[
            ("connection", "x-mine"),
            ("x-mine", "1"),
            ("x-a", "1"),
            ("x-b", "1"),
            ("expect", "100-continue"),
            ("x-a", "2"),
            ("x-c", "1"),
            ("te", "trailers"),
            ("x-d", "1"),
        ]);
        strip(&mut headers);
        remove(&mut headers, &HeaderName::from_static("x-b"));
        let left: Vec<_> =
            headers.iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap())).collect();
        assert_eq!(left, ["x-a=1", "x-a=2", "x-c=1", "te=trailers", "x-d=1"]);
    }

    #[test]
    fn trailers_say_nothing_about_the_message_itself() {
        let mut trailers = map(&[
            ("connection", "x-mine"),
            ("x-mine", "1"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("host", "b"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("x-sum", "1"),
            ("grpc-status", "0"),
        ]);
        strip_trailers(&mut trailers);
        let left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-sum", "grpc-status"]);
    }

    #[test]
    fn lengths_that_differ_or_are_malformed_are_errors() {
        assert_eq!(content_length(&mut map(&[])), Ok(None));
        assert_eq!(content_length(&mut map(&[("content-length", "5")])), Ok(Some(5)));
        let mut twice = map(&[("content-length", "5"), ("content-length", "5")]);
        assert_eq!(content_length(&mut twice), Ok(Some(5)));
        assert_eq!(twice.get_all("content-length").iter().count(), 1);
        for pairs in [
            &[("content-length", "5"), ("content-length", "6")][..],
            &[("content-length", "+5")],
            &[("content-length", "5, 5")],
            &[("content-length", "")],
            &[("content-length", "99999999999999999999")],
        ] {
            assert_eq!(content_length(&mut map(pairs)), Err(()), "{pairs:?}");
        }
    }
}
