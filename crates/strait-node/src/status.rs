//! What a running node says about itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strait_edge::ProxyProtocol;
use strait_engine::{Flight, Protocol, Record, Recorder, Refusals};

use crate::hub::{Hub, Peer};
use crate::observe::{
    ExchangeStatus, Live, Readiness, Refused, RouteStatus, SessionStatus, Snapshot, Totals,
};

/// Sums over all exchanges of a node, for its status.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    requests: AtomicU64,
    faults: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Recorder for Sums {
    fn started(&self, _: Protocol) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    fn finished(&self, record: &Record) {
        self.faults.fetch_add(u64::from(record.fault.is_some()), Ordering::Relaxed);
        self.bytes_in.fetch_add(record.bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(record.bytes_out, Ordering::Relaxed);
    }
}

/// The node, as admin and metrics see it.
pub(crate) struct View {
    pub(crate) hub: Arc<Hub>,
    pub(crate) sums: Arc<Sums>,
    pub(crate) proxy_protocol: ProxyProtocol,
}

impl Live for View {
    fn snapshot(&self) -> Snapshot {
        let hub = &self.hub;
        let peers: Vec<Peer> = hub.live().into_iter().filter(|peer| peer.hello.is_some()).collect();
        let tunnels = hub.tunnels.load(Ordering::Relaxed);
        let sum = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            role: hub.hello.role.clone(),
            name: hub.hello.client_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: millis(hub.started.elapsed()),
            readiness: self.readiness(),
            sessions: peers.iter().map(session).collect(),
            routes: self.routes(),
            in_flight: hub
                .dispatch
                .flights()
                .list(Snapshot::MOST_IN_FLIGHT)
                .iter()
                .map(|f| flight(f))
                .collect(),
            totals: Totals {
                open: hub.dispatch.flights().count() as u64,
                requests: sum(&self.sums.requests),
                faults: sum(&self.sums.faults),
                bytes_in: sum(&self.sums.bytes_in),
                bytes_out: sum(&self.sums.bytes_out),
                sessions: tunnels,
                reconnects: sum(&hub.reconnects),
                reloads: sum(&hub.reloads),
                reloads_refused: sum(&hub.reloads_refused),
                violations: hub.violations(),
                proxy_headers_refused: self.proxy_protocol.refused(),
                budget_used: hub.budget.used() as u64,
                budget: hub.budget.limit() as u64,
                tasks: hub.workers.tasks() as u64,
            },
        }
    }

    fn readiness(&self) -> Readiness {
        if self.hub.draining.is_cancelled() {
            Readiness::Draining
        } else if self.hub.hello.role == "server"
            || self.hub.peers(|peers| peers.iter().any(|p| p.hello.is_some()))
        {
            Readiness::Ready
        } else {
            Readiness::Connecting
        }
    }
}

impl View {
    fn routes(&self) -> Vec<RouteStatus> {
        let line = |line: strait_engine::RouteLine| RouteStatus {
            online: line.tunnels > 0 || line.owner == "local",
            owner: if line.owner == "local" { String::new() } else { line.owner },
            protocols: line.service.protocols.iter().map(|p| p.to_string()).collect(),
            service: line.service.name,
            hosts: line.service.hosts,
            path: line.service.path_prefix,
        };
        self.hub.directory.lines().into_iter().map(line).collect()
    }
}

fn session(peer: &Peer) -> SessionStatus {
    let stats = peer.session.stats();
    let hello = peer.hello.as_deref();
    SessionStatus {
        peer: hello
            .map_or_else(|| peer.session.name().to_string(), |hello| hello.client_id.clone()),
        tunnel: peer.tunnel,
        address: peer.address.clone(),
        software: hello.map(|hello| hello.software.clone()).unwrap_or_default(),
        age_ms: millis(peer.since.elapsed()),
        rtt_us: stats.rtt.map_or(0, |rtt| rtt.as_micros() as u64),
        open_ours: stats.opened as u64,
        open_theirs: stats.accepted as u64,
        budget_used: stats.budget_used as u64,
        budget: peer.budget.limit() as u64,
        credit_outstanding: stats.credit_outstanding as u64,
        buffered: stats.buffered as u64,
        credit_wait_ms: millis(stats.credit_wait),
        refused: refused(stats.refusals),
        violations: stats.violations,
        ignored: stats.ignored,
        frames_in: stats.frames_in,
        frames_out: stats.frames_out,
        bytes_in: stats.bytes_in,
        bytes_out: stats.bytes_out,
    }
}

fn refused(refusals: Refusals) -> Refused {
    let Refusals { ours_budget, ours_requests, theirs_budget, theirs_requests, heads } = refusals;
    Refused { ours_budget, ours_requests, theirs_budget, theirs_requests, heads }
}

fn flight(flight: &Flight) -> ExchangeStatus {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    ExchangeStatus {
        id: flight.id.to_string(),
        protocol: flight.protocol.to_string(),
        route: flight.route.to_string(),
        what: format!("{} {}", flight.method, flight.asked.path()),
        from: flight.caller.origin.name().to_string(),
        age_ms: millis(Instant::now().saturating_duration_since(flight.since)),
        bytes_in: read(&flight.counters.bytes_in),
        bytes_out: read(&flight.counters.bytes_out),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
