//! Metrics in the Prometheus (OpenMetrics) text format.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, EncodeMetric, LabelSetEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use strait_engine::{Record, Recorder};
use strait_wire::Protocol;

use super::{AccessLog, Live, Refused, SessionStatus, Snapshot};

/// Routes are named by peers: more names than this share the label `(other)`, so that no
/// peer can fill the memory of whoever scrapes.
const MOST_ROUTES: usize = 500;

/// The label of routes beyond the limit. No service can have this name.
const OTHER: &str = "(other)";

/// Upper bounds of the time histograms, in seconds.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Request {
    protocol: &'static str,
    route: Arc<str>,
    status: u16,
    grpc_status: Option<u32>,
}

impl EncodeLabelSet for Request {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let status = if self.status == 0 { String::new() } else { self.status.to_string() };
        let grpc = self.grpc_status.map_or(String::new(), |status| status.to_string());
        ("protocol", self.protocol).encode(encoder.encode_label())?;
        ("route", &*self.route).encode(encoder.encode_label())?;
        ("status", status).encode(encoder.encode_label())?;
        ("grpc_status", grpc).encode(encoder.encode_label())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Route {
    protocol: &'static str,
    route: Arc<str>,
}

impl EncodeLabelSet for Route {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("protocol", self.protocol).encode(encoder.encode_label())?;
        ("route", &*self.route).encode(encoder.encode_label())
    }
}

type Pair = [(&'static str, &'static str); 2];
type Histograms = Family<Route, Histogram, fn() -> Histogram>;

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// What is counted for one protocol; found by index, not by a look-up.
struct OfProtocol {
    open: Gauge,
    bytes: [Counter; 2],
    messages: [Counter; 2],
}

/// What is counted for one route; found by one look-up for each request.
struct OfRoute {
    label: Arc<str>,
    protocols: [OnceLock<Times>; Protocol::ALL.len()],
}

/// What is counted for one route and protocol.
struct Times {
    durations: Histogram,
    /// Once an answer has come.
    first_bytes: OnceLock<Histogram>,
    /// By HTTP and gRPC status, those that came first.
    requests: Mutex<Vec<(Statuses, Counter)>>,
}

type Statuses = (u16, Option<u32>);

/// Pairs of statuses of a route that are found without a look-up.
const USUAL: usize = 8;

/// All metrics of a node. It is a [`Recorder`], and [`Metrics::render`] answers `/metrics`.
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    durations: Histograms,
    first_bytes: Histograms,
    errors: Family<Pair, Counter>,
    protocols: [OfProtocol; Protocol::ALL.len()],
    routes: RwLock<BTreeMap<Arc<str>, Arc<OfRoute>>>,
    sources: Sources,
}

/// Where the numbers come from that are not counted here.
#[derive(Clone, Default)]
struct Sources {
    live: Arc<OnceLock<Arc<dyn Live>>>,
    access: Arc<OnceLock<AccessLog>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// Metrics that have counted nothing yet.
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("strait");
        let requests = Family::default();
        registry.register("requests", "Requests that have ended", requests.clone());
        let durations: Histograms = Family::new_with_constructor(histogram);
        let help = "From a request's arrival to its end";
        registry.register_with_unit("request_duration", help, Unit::Seconds, durations.clone());
        let first_bytes: Histograms = Family::new_with_constructor(histogram);
        let help = "From a request's arrival to the head of its answer";
        registry.register_with_unit("first_byte", help, Unit::Seconds, first_bytes.clone());
        let errors = Family::default();
        registry.register("errors", "Requests ended by a fault, and whose it was", errors.clone());
        let open = Family::<[(&str, &str); 1], Gauge>::default();
        registry.register("requests_open", "Requests that have not ended", open.clone());
        let bytes = Family::<Pair, Counter>::default();
        registry.register("bytes", "Payload bytes", bytes.clone());
        let messages = Family::<Pair, Counter>::default();
        registry.register("messages", "gRPC messages and WebSocket frames", messages.clone());
        let protocols = Protocol::ALL.map(|protocol| {
            let protocol = ("protocol", protocol.as_str());
            let both = |family: &Family<Pair, Counter>| {
                ["in", "out"].map(|way| family.get_or_create_owned(&[protocol, ("direction", way)]))
            };
            OfProtocol {
                open: open.get_or_create_owned(&[protocol]),
                bytes: both(&bytes),
                messages: both(&messages),
            }
        });
        let sources = Sources::default();
        registry.register_collector(Box::new(sources.clone()));
        let routes = RwLock::default();
        Metrics { registry, requests, durations, first_bytes, errors, protocols, routes, sources }
    }

    /// Names the node whose sessions are shown. Only the first call counts.
    pub fn watch(&self, live: Arc<dyn Live>) {
        let _ = self.sources.live.set(live);
    }

    /// Names the access log whose lost lines are shown. Only the first call counts.
    pub fn watch_access(&self, log: AccessLog) {
        let _ = self.sources.access.set(log);
    }

    /// All metrics as text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// What is counted for `route`; together with others when there are too many.
    fn route(&self, route: &Arc<str>) -> Arc<OfRoute> {
        if let Some(known) = self.routes.read().unwrap_or_else(PoisonError::into_inner).get(route) {
            return known.clone();
        }
        let mut known = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let label = if known.len() < MOST_ROUTES { route.clone() } else { Arc::from(OTHER) };
        let new = || Arc::new(OfRoute { label: label.clone(), protocols: Default::default() });
        known.entry(label.clone()).or_insert_with(new).clone()
    }

    fn count(&self, route: &OfRoute, record: &Record) {
        let protocol = record.flight.protocol.as_str();
        let labels = || Route { protocol, route: route.label.clone() };
        let times = route.protocols[index(record.flight.protocol)].get_or_init(|| Times {
            durations: self.durations.get_or_create_owned(&labels()),
            first_bytes: OnceLock::new(),
            requests: Mutex::default(),
        });
        times.durations.observe(record.duration.as_secs_f64());
        if let Some(first) = record.first_byte {
            let histogram = || self.first_bytes.get_or_create_owned(&labels());
            times.first_bytes.get_or_init(histogram).observe(first.as_secs_f64());
        }
        // A caller's invention of a status must not become a label.
        let grpc_status = record.grpc_status.map(|status| status.min(17));
        let statuses = (record.status.unwrap_or(0), grpc_status);
        let mut usual = times.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counter)) = usual.iter().find(|(known, _)| *known == statuses) {
            counter.inc();
            return;
        }
        let (status, grpc_status) = statuses;
        let labels = Request { protocol, route: route.label.clone(), status, grpc_status };
        let counter = self.requests.get_or_create_owned(&labels);
        counter.inc();
        if usual.len() < USUAL {
            usual.push((statuses, counter));
        }
    }
}

fn index(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Http => 0,
        Protocol::Grpc => 1,
        Protocol::WebSocket => 2,
    }
}

impl Recorder for Metrics {
    fn started(&self, protocol: Protocol) {
        self.protocols[index(protocol)].open.inc();
    }

    fn finished(&self, record: &Record) {
        let of = &self.protocols[index(record.flight.protocol)];
        of.open.dec();
        of.bytes[0].inc_by(record.bytes_in);
        of.bytes[1].inc_by(record.bytes_out);
        of.messages[0].inc_by(record.messages_in);
        of.messages[1].inc_by(record.messages_out);
        self.count(&self.route(&record.flight.route), record);
        if let Some(fault) = &record.fault {
            let labels = [("kind", fault.reason.as_str()), ("side", fault.face().whose.as_str())];
            self.errors.get_or_create(&labels).inc();
        }
    }
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        if let Some(access) = self.access.get() {
            let help = "Access log lines lost because the output was full, slow or gone";
            counter(encoder, "access_lines_dropped", help, access.dropped())?;
        }
        let Some(live) = self.live.get() else { return Ok(()) };
        let snapshot = live.snapshot();
        node(encoder, &snapshot)?;
        sessions(encoder, &snapshot.sessions)?;
        refused(encoder, &snapshot.sessions)
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(value).encode(metric)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)
}

fn node(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let ready = u64::from(snapshot.readiness == super::Readiness::Ready);
    gauge(encoder, "ready", "1 when requests can be carried", ready)?;
    let count = snapshot.sessions.len() as u64;
    gauge(encoder, "sessions", "Live tunnels", count)?;
    gauge(encoder, "routes", "Services that requests can go to", snapshot.routes.len() as u64)?;
    let totals = &snapshot.totals;
    gauge(encoder, "budget_used_bytes", "Of the process's budget", totals.budget_used)?;
    gauge(encoder, "budget_bytes", "The process's budget", totals.budget)?;
    gauge(encoder, "tasks", "Tasks that live now", totals.tasks)?;
    counter(encoder, "sessions_started", "Tunnels set up", totals.sessions)?;
    counter(encoder, "reconnects", "Tunnels set up again after a loss", totals.reconnects)?;
    counter(encoder, "reloads", "Configurations put to use without a restart", totals.reloads)?;
    let help = "Reloads refused for a mistake: the configuration stayed as it was";
    counter(encoder, "reloads_refused", help, totals.reloads_refused)?;
    let help = "Violations of the tunnel's protocol by peers, connected or not";
    counter(encoder, "violations", help, totals.violations)?;
    let help =
        "Connections closed for a PROXY header that was missing, malformed, late or not allowed";
    counter(encoder, "proxy_headers_refused", help, totals.proxy_headers_refused)
}

/// A number of a session: its name, its help, how it is read, and by what it is divided to
/// be in base units.
type Column = (&'static str, &'static str, fn(&SessionStatus) -> u64, u64);

const GAUGES: [Column; 7] = [
    ("session_requests_open_ours", "Open requests that this node sent", |s| s.open_ours, 1),
    ("session_requests_open_theirs", "Open requests that the peer sent", |s| s.open_theirs, 1),
    ("session_budget_used_bytes", "Of the session's budget", |s| s.budget_used, 1),
    ("session_budget_bytes", "The session's budget", |s| s.budget, 1),
    ("session_credit_outstanding_bytes", "The peer may still send", |s| s.credit_outstanding, 1),
    ("session_buffered_bytes", "Received and not taken, or queued to be sent", |s| s.buffered, 1),
    ("session_rtt_seconds", "Round trip of the last ping", |s| s.rtt_us, 1_000_000),
];

const COUNTERS: [Column; 7] = [
    ("session_credit_wait_seconds", "Requests waited for credit", |s| s.credit_wait_ms, 1000),
    ("session_frames_received", "Frames received", |s| s.frames_in, 1),
    ("session_frames_sent", "Frames sent", |s| s.frames_out, 1),
    ("session_bytes_received", "Bytes received", |s| s.bytes_in, 1),
    ("session_bytes_sent", "Bytes sent", |s| s.bytes_out, 1),
    ("session_violations", "Violations of the protocol by the peer", |s| s.violations, 1),
    ("session_ignored", "Messages of the peer that changed nothing", |s| s.ignored, 1),
];

/// What a limit did to a request: whose request it was, and which limit, as labels.
type Limit = (&'static str, &'static str, fn(&Refused) -> u64);

const LIMITS: [Limit; 5] = [
    ("ours", "budget", |r| r.ours_budget),
    ("ours", "requests", |r| r.ours_requests),
    ("theirs", "budget", |r| r.theirs_budget),
    ("theirs", "requests", |r| r.theirs_requests),
    // Of either side: refused is what came, not the request, which is cut.
    ("any", "head", |r| r.heads),
];

fn refused(encoder: &mut DescriptorEncoder<'_>, sessions: &[SessionStatus]) -> fmt::Result {
    let help = "Requests that a limit refused or cut";
    let mut metric =
        encoder.encode_descriptor("session_refused", help, None, MetricType::Counter)?;
    for (peer, sessions) in by_peer(sessions) {
        for (whose, limit, read) in LIMITS {
            let sum: u64 = sessions.iter().map(|session| read(&session.refused)).sum();
            let labels = [("peer", peer), ("whose", whose), ("limit", limit)];
            ConstCounter::new(sum).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// Two tunnels of one peer, an old one and its successor, are one row: labels are unique.
fn by_peer(sessions: &[SessionStatus]) -> BTreeMap<&str, Vec<&SessionStatus>> {
    let mut peers: BTreeMap<&str, Vec<&SessionStatus>> = BTreeMap::new();
    for session in sessions {
        peers.entry(&session.peer).or_default().push(session);
    }
    peers
}

fn sessions(encoder: &mut DescriptorEncoder<'_>, sessions: &[SessionStatus]) -> fmt::Result {
    let peers = by_peer(sessions);
    let columns = GAUGES.iter().map(|column| (column, MetricType::Gauge));
    let columns = columns.chain(COUNTERS.iter().map(|column| (column, MetricType::Counter)));
    for ((name, help, read, unit), kind) in columns {
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for (peer, sessions) in &peers {
            let values = sessions.iter().map(|session| read(session));
            // A round trip is not twice as long because there are two tunnels.
            let time = matches!((kind, *unit), (MetricType::Gauge, 1_000_000));
            let sum: u64 = if time { values.max().unwrap_or(0) } else { values.sum() };
            let label = [("peer", *peer)];
            let row = metric.encode_family(&label)?;
            match (kind, *unit) {
                (MetricType::Counter, 1) => ConstCounter::new(sum).encode(row)?,
                (MetricType::Counter, unit) => {
                    ConstCounter::new(sum as f64 / unit as f64).encode(row)?;
                }
                (_, 1) => ConstGauge::new(i64::try_from(sum).unwrap_or(i64::MAX)).encode(row)?,
                (_, unit) => ConstGauge::new(sum as f64 / unit as f64).encode(row)?,
            }
        }
    }
    Ok(())
}
