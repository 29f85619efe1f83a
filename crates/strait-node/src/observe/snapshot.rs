//! What a running node says about itself at one moment. `/status` is this, as JSON.

use serde::{Deserialize, Serialize};

/// Whoever can say how a node is: the node.
pub trait Live: Send + Sync + 'static {
    /// The state at this moment. Called for every scrape and status request: it may lock
    /// for microseconds, never wait.
    fn snapshot(&self) -> Snapshot;

    /// Whether the node can carry requests now.
    fn readiness(&self) -> Readiness;
}

/// Whether a node can carry requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Server: listening. Client: connected.
    Ready,
    /// Not yet, or not any more: the tunnel is down.
    #[default]
    Connecting,
    /// The node is going away.
    Draining,
}

impl Readiness {
    /// The name used in JSON and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Readiness::Ready => "ready",
            Readiness::Connecting => "connecting",
            Readiness::Draining => "draining",
        }
    }
}

/// One moment of a node. Times are ages in milliseconds, so that clocks need not agree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// `server` or `client`.
    pub role: String,
    /// This node's name: a client's id, a server's host name.
    pub name: String,
    /// Version of the software.
    pub version: String,
    /// Age of the process.
    pub uptime_ms: u64,
    /// Whether requests can be carried.
    pub readiness: Readiness,
    /// Live tunnels.
    pub sessions: Vec<SessionStatus>,
    /// Where requests can go.
    pub routes: Vec<RouteStatus>,
    /// Requests that have not ended, oldest first; at most [`Snapshot::MOST_IN_FLIGHT`].
    pub in_flight: Vec<ExchangeStatus>,
    /// Sums since the start.
    pub totals: Totals,
}

impl Snapshot {
    /// More requests than this are counted but not listed.
    pub const MOST_IN_FLIGHT: usize = 200;
}

/// One live tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionStatus {
    /// The authenticated peer's name.
    pub peer: String,
    /// Which of the tunnels between this client and this server it is, from 0.
    pub tunnel: u32,
    /// The peer's address.
    pub address: String,
    /// The peer's software, as it said in its Hello.
    pub software: String,
    /// Age of the session.
    pub age_ms: u64,
    /// Round trip measured by the last ping, in microseconds; 0: not measured yet.
    pub rtt_us: u64,
    /// Requests that this node opened and that are still open.
    pub open_ours: u64,
    /// Requests that the peer opened and that are still open.
    pub open_theirs: u64,
    /// Bytes of the session's budget in use.
    pub budget_used: u64,
    /// The session's budget in bytes.
    pub budget: u64,
    /// Bytes that the peer may still send.
    pub credit_outstanding: u64,
    /// Bytes received and not yet taken, or queued and not yet sent.
    pub buffered: u64,
    /// Milliseconds that requests waited for credit, summed over requests.
    pub credit_wait_ms: u64,
    /// Requests that a limit of this tunnel refused or cut.
    pub refused: Refused,
    /// The peer's violations of the protocol.
    pub violations: u64,
    /// Messages of the peer that changed nothing: violations, late ones, those of a newer
    /// version.
    pub ignored: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
}

/// One service that requests can go to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteStatus {
    /// The service.
    pub service: String,
    /// Its protocols; empty: all.
    pub protocols: Vec<String>,
    /// Its hosts; empty: any.
    pub hosts: Vec<String>,
    /// Its path prefix.
    pub path: String,
    /// Who offers it: a peer's name, or empty for this node.
    pub owner: String,
    /// Whether its owner is connected.
    pub online: bool,
}

/// One request that has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExchangeStatus {
    /// The request's id.
    pub id: String,
    /// Its protocol.
    pub protocol: String,
    /// The service that was chosen.
    pub route: String,
    /// Its method and path, without query.
    pub what: String,
    /// Where it came from: an entry or a peer.
    pub from: String,
    /// Age of the request.
    pub age_ms: u64,
    /// Payload bytes of the request so far.
    pub bytes_in: u64,
    /// Payload bytes of the answer so far.
    pub bytes_out: u64,
}

/// Sums since the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Requests that have not ended.
    pub open: u64,
    /// Requests begun.
    pub requests: u64,
    /// Requests ended by a fault.
    pub faults: u64,
    /// Payload bytes of requests.
    pub bytes_in: u64,
    /// Payload bytes of answers.
    pub bytes_out: u64,
    /// Tunnels set up.
    pub sessions: u64,
    /// Tunnels set up again after a loss.
    pub reconnects: u64,
    /// Configurations put to use without a restart.
    pub reloads: u64,
    /// Reloads refused for a mistake in the configuration.
    pub reloads_refused: u64,
    /// Violations of the tunnel's protocol by peers, connected or not.
    pub violations: u64,
    /// Connections to entries that were closed for their PROXY protocol header: missing,
    /// malformed, late or not allowed.
    pub proxy_headers_refused: u64,
    /// Bytes of the process's budget in use.
    pub budget_used: u64,
    /// The process's budget in bytes.
    pub budget: u64,
    /// Tasks that live now: those of tunnels, visitors, exchanges and the node itself.
    pub tasks: u64,
}

/// Requests that a limit of a tunnel refused or cut, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// Ours, because the memory budget was used up. Safe to try again.
    pub ours_budget: u64,
    /// Ours, because the peer allows no more at once. Safe to try again.
    pub ours_requests: u64,
    /// The peer's, because the memory budget was used up. Safe to try again.
    pub theirs_budget: u64,
    /// The peer's, because this node allows no more at once. Safe to try again.
    pub theirs_requests: u64,
    /// Cut, because the memory budget had no place for a head or trailers that came.
    pub heads: u64,
}

impl Refused {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.ours_budget
            + self.ours_requests
            + self.theirs_budget
            + self.theirs_requests
            + self.heads
    }
}
