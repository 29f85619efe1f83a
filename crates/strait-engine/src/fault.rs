//! What went wrong, and the one table that turns it into every protocol's answer.

use std::borrow::Cow;
use std::fmt;

use http::{Method, StatusCode};
use strait_wire::{Reason, RequestId};
use tracing::Level;

/// Something that ended an exchange before its proper end.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What kind of fault; the key of the table.
    pub reason: Reason,
    /// Nothing reached a backend, so the request may be tried elsewhere.
    pub retry_safe: bool,
    /// For logs on this node only: may name private addresses.
    pub detail: Cow<'static, str>,
}

impl Fault {
    /// A fault without detail.
    pub const fn new(reason: Reason) -> Fault {
        Fault { reason, retry_safe: false, detail: Cow::Borrowed("") }
    }

    /// A fault with a detail for the log.
    pub fn because(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Fault {
        Fault { reason, retry_safe: false, detail: detail.into() }
    }

    /// The same fault, marked as safe to try elsewhere.
    #[must_use]
    pub fn retry_safe(mut self) -> Fault {
        self.retry_safe = true;
        self
    }

    /// The fault's line in the table.
    pub fn face(&self) -> &'static Face {
        face(self.reason)
    }

    /// Whether a request of this method, of which nothing is used up, may be carried once
    /// more, by another tunnel.
    pub fn may_retry(&self, method: &Method) -> bool {
        match self.face().retry {
            Retry::Never => false,
            Retry::Unsent | Retry::Awaited => self.retry_safe,
            Retry::Safe => self.retry_safe || is_safe(method),
        }
    }

    /// Whether another tunnel is worth waiting for.
    pub(crate) fn awaits(&self) -> bool {
        matches!(self.face().retry, Retry::Awaited | Retry::Safe)
    }

    /// Tells the log that this fault ended request `id`, at the level of the table.
    pub fn log(&self, id: &RequestId) {
        const WHAT: &str = "a request ended by a fault";
        match self.face().level {
            Level::ERROR => tracing::error!(%id, fault = %self, "{WHAT}"),
            Level::WARN => tracing::warn!(%id, fault = %self, "{WHAT}"),
            _ => tracing::debug!(%id, fault = %self, "{WHAT}"),
        }
    }
}

/// Methods that may be sent twice when no answer came (RFC 9110 9.2.1).
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// Whose fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The visitor's.
    Caller,
    /// The backend's.
    Upstream,
    /// The tunnel's, or its absence.
    Tunnel,
    /// Ours.
    Us,
}

impl Whose {
    /// The `side` label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Whose::Caller => "caller",
            Whose::Upstream => "upstream",
            Whose::Tunnel => "tunnel",
            Whose::Us => "us",
        }
    }
}

/// How an HTTP/2 stream ends whose answer, or whose request, is cut (RFC 9113 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// CANCEL: the rest is not wanted.
    Cancel,
    /// INTERNAL_ERROR: the rest is missing.
    InternalError,
}

impl Reset {
    /// The error code on the wire.
    pub fn code(self) -> u32 {
        match self {
            Reset::InternalError => 0x2,
            Reset::Cancel => 0x8,
        }
    }

    /// The name in RFC 9113.
    pub fn as_str(self) -> &'static str {
        match self {
            Reset::InternalError => "INTERNAL_ERROR",
            Reset::Cancel => "CANCEL",
        }
    }
}

/// When a request that failed is carried once more, by another tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Never.
    Never,
    /// When nothing of it reached a service, whatever its method, and there is another
    /// tunnel.
    Unsent,
    /// The same; and if there is no other tunnel, one is waited for.
    Awaited,
    /// The same; and GET, HEAD and OPTIONS without a body also when they were sent, while
    /// no head of an answer has come.
    Safe,
}

impl Retry {
    /// As the reference says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Retry::Never => "no",
            Retry::Unsent => "unsent",
            Retry::Awaited => "unsent, waits",
            Retry::Safe => "unsent or safe, waits",
        }
    }
}

/// The close code that stands for no close frame at all (RFC 6455 7.1.5): the cut itself is
/// what the other end sees.
pub const NO_CLOSE_FRAME: u16 = 1006;

/// How one kind of fault looks to each protocol, and what we do about it.
#[derive(Clone, Copy, Debug)]
pub struct Face {
    /// The kind.
    pub reason: Reason,
    /// Whose fault it is.
    pub whose: Whose,
    /// Status of the answer while its head has not been sent.
    pub http: u16,
    /// Status in the trailers (<https://grpc.io/docs/guides/status-codes/>).
    pub grpc: u8,
    /// WebSocket close code after the handshake (RFC 6455 7.4.1 and the IANA registry).
    pub close: u16,
    /// The reset after the head, over HTTP/2.
    pub reset: Reset,
    /// Whether the request is tried again.
    pub retry: Retry,
    /// How loud the log is.
    pub level: Level,
    /// What happened and what to do, for the caller; names nothing private.
    pub hint: &'static str,
}

impl Face {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Seconds after which the caller may come again, for `Retry-After` (RFC 9110 10.2.3).
    pub fn retry_after(&self) -> Option<u16> {
        matches!(self.http, 429 | 503).then_some(1)
    }

    /// Whether an HTTP/1 connection ends with the answer (RFC 9112 9.6).
    pub fn closes(&self) -> bool {
        self.reason == Reason::Draining
    }
}

macro_rules! faces {
    ($($reason:ident $whose:ident $http:literal $grpc:literal $close:literal
       $reset:ident $retry:ident $level:ident $hint:literal;)*) => {
        const FACES: &[Face] = &[$(Face {
            reason: Reason::$reason, whose: Whose::$whose,
            http: $http, grpc: $grpc, close: $close, reset: Reset::$reset,
            retry: Retry::$retry, level: Level::$level, hint: $hint,
        }),*];
    };
}

// In the order of `Reason`; a test checks it.
faces! {
    None Us 500 13 1000 Cancel Never DEBUG "the exchange had already ended";
    BadRequest Caller 400 13 1002 InternalError Never DEBUG "the request is malformed; send a valid one";
    HeaderTooLarge Caller 431 8 1009 InternalError Never DEBUG "header fields are over the limit; send fewer or smaller ones";
    UriTooLong Caller 414 8 1009 InternalError Never DEBUG "the request target is over the limit; shorten it";
    BodyTooLarge Caller 413 8 1009 InternalError Never DEBUG "the body is over the limit; send a smaller one";
    MessageTooLarge Caller 413 8 1009 InternalError Never DEBUG "a message is over the limit; split it or raise the limit";
    NoRoute Caller 404 12 1008 InternalError Never DEBUG "no route matches this host and path; check the address";
    Misdirected Caller 421 12 1008 InternalError Never DEBUG "this host is not served on this connection; open a new one";
    Unauthenticated Caller 401 16 1008 InternalError Never DEBUG "a credential is required; send a valid one";
    Forbidden Caller 403 7 1008 InternalError Never DEBUG "this credential does not allow that";
    ClientOffline Tunnel 503 14 1013 InternalError Awaited DEBUG "the other end of the tunnel is not connected; try again shortly";
    ClientLost Tunnel 502 14 1014 InternalError Safe DEBUG "the tunnel broke while this request was on it; try again";
    BackendRefused Upstream 502 14 1014 InternalError Unsent DEBUG "the service does not accept connections; check that it runs";
    BackendReset Upstream 502 14 1006 InternalError Never DEBUG "the service broke off; check its log";
    BackendInvalid Upstream 502 14 1014 InternalError Never DEBUG "the service sent an invalid answer; check its log";
    BackendConnectTimeout Upstream 504 14 1014 InternalError Never DEBUG "connecting to the service took too long; check that it is reachable";
    BackendTimeout Upstream 504 4 1014 InternalError Never DEBUG "the service did not answer in time";
    Deadline Caller 504 4 1013 Cancel Never DEBUG "the caller's deadline passed";
    Overloaded Us 503 14 1013 InternalError Unsent DEBUG "a limit of this node is reached; try again shortly";
    ClientLimit Us 429 8 1013 InternalError Never DEBUG "a limit for this caller is reached; slow down";
    Draining Us 503 14 1001 InternalError Awaited DEBUG "this node is going away; try again";
    Cancelled Caller 499 1 1006 Cancel Never DEBUG "the caller gave up";
    Loop Us 508 10 1011 InternalError Never WARN "the request passed too many tunnels; check the routes for a loop";
    Protocol Tunnel 502 13 1011 InternalError Never WARN "the other end of the tunnel broke its protocol; compare the versions";
    FlowControl Tunnel 502 13 1011 InternalError Never WARN "the other end of the tunnel sent more than it was granted; compare the versions";
    Internal Us 500 13 1011 InternalError Never ERROR "an error of this node; its log tells more";
    RequestTimeout Caller 408 4 1008 InternalError Never DEBUG "the body stopped coming; send it without pauses";
}

/// The table's line for `reason`.
pub fn face(reason: Reason) -> &'static Face {
    &FACES[reason as usize]
}

/// The table, for the generated reference.
pub fn faces() -> &'static [Face] {
    FACES
}

/// The one-line body of an error answer: `<kind>: <what happened, what to do> (request <id>)`.
pub fn line(reason: Reason, id: &RequestId) -> String {
    format!("{reason}: {} (request {id})\n", face(reason).hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_one_line_for_each_reason_in_order() {
        let reasons: Vec<Reason> = FACES.iter().map(|face| face.reason).collect();
        assert_eq!(reasons, Reason::ALL);
    }

    #[test]
    fn every_line_is_a_valid_answer_in_every_protocol() {
        for face in FACES {
            assert_eq!(face.status().as_u16(), face.http, "{}", face.reason);
            assert!(face.grpc <= 16 && face.grpc != 0, "{}", face.reason);
            assert!((1000..1016).contains(&face.close), "{}", face.reason);
            assert!(!face.hint.contains('\n'), "{}", face.reason);
        }
    }

    #[test]
    fn what_was_sent_goes_again_only_if_it_is_safe() {
        let (lost, refused) = (Fault::new(Reason::ClientLost), Fault::new(Reason::BackendRefused));
        let reset = Fault::new(Reason::BackendReset).retry_safe();
        for (fault, get, post) in [
            (lost.clone(), true, false),
            (lost.retry_safe(), true, true),
            (refused.clone(), false, false),
            (refused.retry_safe(), true, true),
            (reset, false, false),
        ] {
            assert_eq!(fault.may_retry(&Method::GET), get, "GET {fault:?}");
            assert_eq!(fault.may_retry(&Method::POST), post, "POST {fault:?}");
        }
    }
}
