//! Messages of the tunnel itself.

use bytes::Bytes;

use crate::{Protocol, Reason, StreamNo};

/// The first message of each side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Oldest protocol version spoken.
    pub version_min: u32,
    /// Newest protocol version spoken.
    pub version_max: u32,
    /// Optional abilities, by name.
    pub features: Vec<String>,
    /// `server` or `client`, for people.
    pub role: String,
    /// Chosen by the client, stable over reconnects.
    pub client_id: String,
    /// Random, new with every process.
    pub instance: Bytes,
    /// Counts the connections of this client; the larger is the newer.
    pub connection: u64,
    /// Bytes the peer may send on a new request before it is granted more.
    pub initial_credit: u32,
    /// Largest piece of body in one message, in bytes.
    pub max_piece: u32,
    /// Requests of the peer that may be open at once.
    pub max_requests: u32,
    /// Name and version of the software.
    pub software: String,
    /// Which of this client's tunnels it is, from 0.
    pub tunnel: u32,
}

impl Hello {
    /// The feature of a side that knows [`Opening::awaits_continue`](crate::Opening).
    pub const CONTINUE: &str = "continue";
}

/// New values for what Hello said; 0 leaves a value as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// See [`Hello::initial_credit`].
    pub initial_credit: u32,
    /// See [`Hello::max_requests`].
    pub max_requests: u32,
}

/// A side is leaving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoAway {
    /// `None`: open no more. `Some(n)`: requests above `n` will not be handled.
    pub last: Option<StreamNo>,
    /// Why.
    pub reason: Reason,
    /// For logs.
    pub message: String,
}

/// A service that a side offers to its peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Unique within its side.
    pub name: String,
    /// Protocols it takes; empty: all.
    pub protocols: Vec<Protocol>,
    /// Hosts it answers to, exact or `*.suffix`; empty: any.
    pub hosts: Vec<String>,
    /// Path prefix; empty or `/`: any path.
    pub path_prefix: String,
}

/// All services that a side offers; each announcement replaces the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// Counts from 1.
    pub revision: u64,
    /// The services.
    pub services: Vec<Service>,
}

/// A service that the peer did not accept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The service's name.
    pub service: String,
    /// Why, for people.
    pub message: String,
}

/// The peer's answer to an [`Announcement`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// The announcement's revision.
    pub revision: u64,
    /// What was not accepted; everything else was.
    pub refused: Vec<Refusal>,
    /// Where the accepted services can be reached, for people.
    pub addresses: Vec<String>,
}
