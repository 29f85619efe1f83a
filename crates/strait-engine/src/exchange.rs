//! One request and its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use strait_wire::{Protocol, RequestHead, RequestId, ResponseHead};

use crate::BoxBody;

/// One request, as it came: from a visitor through an entry, or from the peer through a
/// session. What carries it cannot tell which.
pub struct Exchange {
    /// The head. Shared, so that a request that reached nobody can be tried elsewhere.
    pub head: Arc<RequestHead>,
    /// What is known about the request beside its head. Boxed, because an exchange is handed
    /// on many times.
    pub context: Box<Context>,
    /// The request's body.
    pub body: BoxBody,
}

/// The answer to an [`Exchange`]. Dropping its body before the end cancels the request.
pub struct Answer {
    /// Status and header fields.
    pub head: ResponseHead,
    /// The answer's body.
    pub body: BoxBody,
}

/// What is known about a request beside its head.
#[derive(Clone, Debug)]
pub struct Context {
    /// The request's protocol.
    pub protocol: Protocol,
    /// The same id on every node that the request passes.
    pub id: RequestId,
    /// W3C traceparent; made at the entry when the caller sent none.
    pub trace: Arc<str>,
    /// When the caller gives up.
    pub deadline: Option<Instant>,
    /// Tunnels passed so far.
    pub hops: u32,
    /// RFC 9218 urgency, 0 to 7; 3 is the default.
    pub urgency: u8,
    /// The service that the caller's node chose; empty: this node's routes decide.
    pub service: Arc<str>,
    /// The caller sends the body when it is asked for, and hears so: the 100-continue expectation
    /// (RFC 9110 10.1.1). Polling the body is what asks for it.
    pub awaits_continue: bool,
    /// It came over a connection that was made for another host: without a route it should be
    /// tried over one of its own (RFC 9110 15.5.20).
    pub misdirected: bool,
    /// Where the request came from.
    pub caller: Caller,
}

/// Where a request came from.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Which kind of door.
    pub origin: Origin,
    /// The visitor's address, when the request came through an entry; its port is 0 where a
    /// proxy named the address alone.
    pub address: Option<SocketAddr>,
    /// The version of HTTP that the visitor speaks, when the request came through an entry.
    pub version: Option<http::Version>,
}

/// The kind of door a request came through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A port of this node, by the name of the entry.
    Entry(Arc<str>),
    /// A tunnel, by the name of the authenticated peer.
    Session(Arc<str>),
}

impl Origin {
    /// The name of the entry or peer.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Origin::Entry(name) | Origin::Session(name) => name,
        }
    }
}

impl Context {
    /// The context of a new request.
    pub fn new(
        id: RequestId,
        protocol: Protocol,
        origin: Origin,
        address: Option<SocketAddr>,
    ) -> Box<Context> {
        Box::new(Context {
            protocol,
            id,
            trace: Arc::default(),
            deadline: None,
            hops: 0,
            urgency: 3,
            service: Arc::default(),
            awaits_continue: false,
            misdirected: false,
            caller: Caller { origin, address, version: None },
        })
    }
}
