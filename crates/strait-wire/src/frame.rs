//! One unit on the tunnel.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use crate::{
    Announced, Announcement, Data, GoAway, Hello, PIECE_WEIGHT, Pieces, Protocol, Reason,
    RequestHead, RequestId, ResponseHead, Settings, StreamNo,
};

/// One unit on the tunnel, the same in both directions.
#[derive(Clone, Debug)]
pub enum Frame {
    /// Something of one request.
    Stream(StreamFrame),
    /// More credit for a request, in bytes.
    Credit(StreamNo, u32),
    /// The end of a request, at once.
    Reset(Reset),
    /// The first frame of a side.
    Hello(Box<Hello>),
    /// To be answered with a pong of the same nonce.
    Ping(u64),
    /// The answer to a ping.
    Pong(u64),
    /// The peer is leaving.
    GoAway(GoAway),
    /// New settings of the peer.
    Settings(Settings),
    /// The services that the peer offers.
    Announce(Announcement),
    /// The peer's answer to our announcement.
    Announced(Announced),
    /// Content that is wrong within one request, and what is wrong: costs that request alone.
    Malformed(StreamNo, &'static str),
    /// A payload of a newer peer: ignored and counted.
    Unknown,
}

impl Frame {
    /// What handling it costs, in bytes moved: its payload and a little for itself.
    pub fn weight(&self) -> usize {
        match self {
            Frame::Stream(frame) => {
                PIECE_WEIGHT + frame.data.iter().map(Data::weight).sum::<usize>()
            }
            _ => PIECE_WEIGHT,
        }
    }
}

/// Up to a whole request or answer: its head, pieces of its body, its end.
#[derive(Clone, Debug)]
pub struct StreamFrame {
    /// The request.
    pub no: StreamNo,
    /// Position among the frames of this request in this direction.
    pub sequence: u32,
    /// The request's protocol.
    pub protocol: Protocol,
    /// Whether this belongs to the request (`true`) or to its answer. Filled in for
    /// readers of the wire and for the choice of payload type.
    pub is_request: bool,
    /// The head, on the first frame of a direction.
    pub first: Option<First>,
    /// Pieces of the body, in order.
    pub data: Pieces,
    /// Trailers; only together with `end`.
    pub trailers: Option<Box<HeaderMap>>,
    /// This direction ends here.
    pub end: bool,
}

/// The head of a direction.
#[derive(Clone, Debug)]
pub enum First {
    /// Opens a request.
    Request(Box<Opening>),
    /// Opens its answer.
    Response(Box<ResponseHead>),
}

/// All that the first frame of a request says.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The request's id; `None` when the peer sent a malformed one.
    pub id: Option<RequestId>,
    /// The caller's name for itself. Never trusted.
    pub client_id: String,
    /// W3C traceparent, or empty.
    pub trace: Arc<str>,
    /// Time left until the caller gives up.
    pub deadline: Option<Duration>,
    /// Tunnels passed.
    pub hops: u32,
    /// RFC 9218 urgency, 0 to 7; 3 is the default.
    pub urgency: u8,
    /// The service that shall answer.
    pub service: Arc<str>,
    /// Bytes of answer granted at once.
    pub answer_credit: u32,
    /// The body waits for the first grant (RFC 9110 10.1.1): nothing may be sent of it before.
    pub awaits_continue: bool,
    /// The head itself. Shared so that a refused request can be tried elsewhere.
    pub head: Arc<RequestHead>,
}

/// The end of a request, at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The request.
    pub no: StreamNo,
    /// Why.
    pub reason: Reason,
    /// Nothing reached a backend: the request may be tried elsewhere.
    pub retry_safe: bool,
    /// For logs, never for visitors.
    pub message: String,
}
