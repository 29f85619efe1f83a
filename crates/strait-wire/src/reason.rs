//! Why a request or a session ended.

use std::fmt;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal $text:literal;)*) => {
        /// Why a request or a session ended; the codes of `Reset` and `GoAway`. How each
        /// looks to a caller is the engine's fault table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i32)]
        pub enum Reason { $($(#[doc = $doc])+ $name = $number,)* }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),*];

            /// The name used in logs, metrics and error bodies.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// Nothing went wrong: the answer had ended and the rest of the request is not wanted.
    None = 0 "none";
    /// The caller's request is malformed.
    BadRequest = 1 "bad_request";
    /// Header fields over the limit.
    HeaderTooLarge = 2 "header_too_large";
    /// Request target over the limit.
    UriTooLong = 3 "uri_too_long";
    /// Body over the limit.
    BodyTooLarge = 4 "body_too_large";
    /// gRPC message or WebSocket frame over the limit.
    MessageTooLarge = 5 "message_too_large";
    /// No route matches.
    NoRoute = 6 "no_route";
    /// A host that is never served here, on a connection made for another.
    Misdirected = 7 "misdirected";
    /// No or a bad credential.
    Unauthenticated = 8 "unauthenticated";
    /// A credential without the right.
    Forbidden = 9 "forbidden";
    /// The route is known, its owner is not connected.
    ClientOffline = 10 "client_offline";
    /// The tunnel broke while the request was on it.
    ClientLost = 11 "client_lost";
    /// The backend refused the connection.
    BackendRefused = 12 "backend_refused";
    /// The backend broke off.
    BackendReset = 13 "backend_reset";
    /// The backend's answer is not valid.
    BackendInvalid = 14 "backend_invalid";
    /// Connecting to the backend took too long.
    BackendConnectTimeout = 15 "backend_connect_timeout";
    /// The backend's answer took too long.
    BackendTimeout = 16 "backend_timeout";
    /// The caller's own deadline passed.
    Deadline = 17 "deadline";
    /// A limit of this node is reached.
    Overloaded = 18 "overloaded";
    /// A limit of this caller is reached.
    ClientLimit = 19 "client_limit";
    /// The node is going away.
    Draining = 20 "draining";
    /// The caller gave up.
    Cancelled = 21 "cancelled";
    /// The request passed too many tunnels.
    Loop = 22 "loop";
    /// The peer broke the tunnel's protocol.
    Protocol = 23 "protocol";
    /// The peer sent more than it was granted.
    FlowControl = 24 "flow_control";
    /// A bug of ours.
    Internal = 25 "internal";
    /// The caller's body stopped coming.
    RequestTimeout = 26 "request_timeout";
}

impl Reason {
    /// The reason of a wire code; codes of newer peers read as [`Reason::Internal`].
    pub fn from_code(code: i32) -> Reason {
        usize::try_from(code)
            .ok()
            .and_then(|i| Reason::ALL.get(i))
            .copied()
            .unwrap_or(Reason::Internal)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
