//! Which pages of other origins may call by gRPC-Web (<https://fetch.spec.whatwg.org/#http-cors-protocol>).

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use strait_engine::RequestHead;

use crate::http::hop::has_token;

/// Fields of an answer that a page may read, beside those that the answer has.
const READABLE: [&str; 4] =
    ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-strait-error"];

/// How long a browser may remember that it may ask, in seconds.
const REMEMBERED: HeaderValue = HeaderValue::from_static("7200");

/// The origins whose pages may call by gRPC-Web; none by default. They are never granted
/// credentials: cookies of a visitor do not travel from one origin to another.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    origins: Arc<[String]>,
}

/// An origin that was granted.
pub(crate) struct Grant(HeaderValue);

impl Cors {
    /// Grants these origins (`https://app.example.org`, RFC 6454 6.2); `*` is any.
    pub fn new(origins: Vec<String>) -> Cors {
        Cors { origins: origins.into() }
    }

    /// The grant for the page that sent these fields, if its origin has one.
    pub(crate) fn grant(&self, headers: &HeaderMap) -> Option<Grant> {
        let origin = headers.get(ORIGIN)?;
        let known = |granted: &String| granted == "*" || granted.as_bytes() == origin.as_bytes();
        self.origins.iter().any(known).then(|| Grant(origin.clone()))
    }

    /// The fields of the answer to a browser that asks whether a page may call; `None` for
    /// every other request.
    pub(crate) fn preflight(&self, head: &RequestHead) -> Option<HeaderMap> {
        if head.method != Method::OPTIONS {
            return None;
        }
        let asked = head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS)?;
        let calls = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD).is_some_and(|m| m == "POST")
            && has_token(&head.headers, &ACCESS_CONTROL_REQUEST_HEADERS, "x-grpc-web");
        let grant = self.grant(&head.headers).filter(|_| calls)?;
        let mut headers = HeaderMap::with_capacity(5);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        headers.insert(ACCESS_CONTROL_MAX_AGE, REMEMBERED);
        grant.allow(&mut headers);
        Some(headers)
    }
}

impl Grant {
    fn allow(&self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.0.clone());
        headers.append(VARY, HeaderValue::from_static("origin"));
    }

    /// Lets the page read the answer and all of its fields.
    pub(crate) fn expose(&self, headers: &mut HeaderMap) {
        let fields = headers.keys().map(HeaderName::as_str).filter(|name| !READABLE.contains(name));
        let names: Vec<&str> = READABLE.into_iter().chain(fields).collect();
        if let Ok(names) = HeaderValue::from_str(&names.join(",")) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names);
        }
        self.allow(headers);
    }
}
