//! The access log: one line for each exchange, on standard output.

use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use strait_engine::{Origin, Record, Recorder};
use strait_wire::Protocol;

use super::queue::Queue;
use super::time::{bytes, span, utc};
use crate::config::LogFormat;

/// Hosts and paths longer than this are cut, in characters.
const LONGEST: usize = 1024;

/// The access log. Recording clones the record and leaves the rest to another thread.
#[derive(Clone)]
pub struct AccessLog {
    queue: Queue<(SystemTime, Record)>,
}

impl AccessLog {
    /// Starts a log that writes to `out`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(format: LogFormat, out: Box<dyn Write + Send>) -> std::io::Result<AccessLog> {
        let line = match format {
            LogFormat::Text => text,
            LogFormat::Json => json,
        };
        let format = Box::new(move |(time, record): &(SystemTime, Record), out: &mut Vec<u8>| {
            out.extend_from_slice(line(*time, record).as_bytes());
        });
        Ok(AccessLog { queue: Queue::start("strait-access", out, format)? })
    }

    /// Lines that were lost because the output was full, slow or gone.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Writes what is at hand, for at most `limit`, and takes no more.
    pub fn finish(&self, limit: Duration) {
        self.queue.finish(limit);
    }
}

impl Recorder for AccessLog {
    fn started(&self, _: Protocol) {}

    fn finished(&self, record: &Record) {
        self.queue.push((SystemTime::now(), record.clone()));
    }
}

/// Standard output as it was when the process began, without Rust's line buffer.
///
/// # Errors
/// When it is closed.
pub fn standard_output() -> std::io::Result<Box<dyn Write + Send>> {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;
        let own = std::io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Box::new(std::fs::File::from(own)))
    }
    #[cfg(not(unix))]
    Ok(Box::new(std::io::stdout()))
}

/// A line for people. The fields before the path have fixed widths.
pub fn text(time: SystemTime, record: &Record) -> String {
    let mut status = record.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    if let Some(grpc) = record.grpc_status {
        let _ = write!(status, "/{grpc}");
    }
    let amount = |count: u64, messages: u64| {
        let size = bytes(count).replace(' ', "");
        if messages > 0 { format!("{messages}x{size}") } else { size }
    };
    let ttfb = record.first_byte.map_or_else(|| "-".to_owned(), span);
    let mut line = format!(
        "{} {:<9} {status:<6} {:>8} ttfb {ttfb:>7} in {:>9} out {:>9} {} {}{}",
        utc(time),
        record.flight.protocol,
        span(record.duration),
        amount(record.bytes_in, record.messages_in),
        amount(record.bytes_out, record.messages_out),
        escaped(record.flight.method.as_str()),
        escaped(&record.flight.asked.host()),
        escaped(&record.flight.asked.path()),
    );
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { escaped(text) };
    let _ = write!(line, " route={} from={}", or_dash(&record.flight.route), from(record));
    if let Some(version) = version(record) {
        let _ = write!(line, " http={version}");
    }
    match &record.fault {
        None => line.push_str(" end=complete"),
        Some(fault) => {
            let _ = write!(line, " end={}", fault.reason);
            if !fault.detail.is_empty() {
                let _ = write!(line, " why=\"{}\"", escaped(&fault.detail).replace("\\x20", " "));
            }
        }
    }
    let _ = writeln!(
        line,
        " id={} trace={}",
        record.flight.id,
        or_dash(trace_id(&record.flight.trace))
    );
    line
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    protocol: &'a str,
    status: Option<u16>,
    grpc_status: Option<u32>,
    http_version: Option<&'static str>,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    route: &'a str,
    via: &'static str,
    door: &'a str,
    caller: Option<String>,
    bytes_in: u64,
    bytes_out: u64,
    messages_in: u64,
    messages_out: u64,
    first_byte_ms: Option<f64>,
    duration_ms: f64,
    end: &'a str,
    side: Option<&'a str>,
    detail: Option<&'a str>,
    id: String,
    trace_id: &'a str,
}

/// A line for machines: one JSON object.
pub fn json(time: SystemTime, record: &Record) -> String {
    let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let (via, door) = match &record.flight.caller.origin {
        Origin::Entry(name) => ("entry", name),
        Origin::Session(peer) => ("session", peer),
    };
    let fault = record.fault.as_ref();
    let (host, path) = (record.flight.asked.host(), record.flight.asked.path());
    let line = Line {
        time: utc(time),
        protocol: record.flight.protocol.as_str(),
        status: record.status,
        grpc_status: record.grpc_status,
        http_version: version(record),
        method: record.flight.method.as_str(),
        host: clipped(&host),
        path: clipped(&path),
        route: &record.flight.route,
        via,
        door,
        caller: record.flight.caller.address.map(visitor),
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        messages_in: record.messages_in,
        messages_out: record.messages_out,
        first_byte_ms: record.first_byte.map(millis),
        duration_ms: millis(record.duration),
        end: fault.map_or("complete", |fault| fault.reason.as_str()),
        side: fault.map(|fault| fault.face().whose.as_str()),
        detail: fault.map(|fault| clipped(&fault.detail)).filter(|detail| !detail.is_empty()),
        id: record.flight.id.to_string(),
        trace_id: clipped(trace_id(&record.flight.trace)),
    };
    // Plain fields only: there is nothing in it that JSON cannot say.
    let mut line = serde_json::to_string(&line).unwrap_or_default();
    line.push('\n');
    line
}

/// `203.0.113.7:51234` through an entry, `session:NAME` through a tunnel.
fn from(record: &Record) -> String {
    match (&record.flight.caller.origin, record.flight.caller.address) {
        (Origin::Entry(_), Some(address)) => visitor(address),
        (Origin::Entry(name), None) => format!("entry:{}", escaped(name)),
        (Origin::Session(peer), _) => format!("session:{}", escaped(peer)),
    }
}

/// A visitor's address, without the port where it is not known.
fn visitor(address: SocketAddr) -> String {
    match address.port() {
        0 => address.ip().to_string(),
        _ => address.to_string(),
    }
}

/// The version of HTTP that the visitor speaks; not known of what came through a tunnel.
fn version(record: &Record) -> Option<&'static str> {
    record.flight.caller.version.map(|version| match version {
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_2 => "2",
        _ => "1.1",
    })
}

/// The trace id of a W3C traceparent; anything else as it is, cut at 128 bytes.
fn trace_id(traceparent: &str) -> &str {
    let mut fields = traceparent.split('-');
    match (fields.next(), fields.next()) {
        (Some(version), Some(id))
            if version.len() == 2
                && id.len() == 32
                && id.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            id
        }
        _ => cut(traceparent, 128),
    }
}

fn cut(text: &str, mut length: usize) -> &str {
    if text.len() <= length {
        return text;
    }
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    &text[..length]
}

fn clipped(text: &str) -> &str {
    cut(text, LONGEST)
}

/// Visible ASCII as it is, everything else escaped: a visitor's text cannot break a line,
/// pass for another field, or speak to a terminal.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let short = clipped(text);
    for c in short.chars() {
        match c {
            '\\' | '"' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_graphic() => out.push(c),
            c if c.is_ascii() => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => {
                let _ = write!(out, "{}", c.escape_unicode());
            }
        }
    }
    if short.len() < text.len() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Instant, UNIX_EPOCH};

    use strait_engine::{Asked, Caller, Counters, Fault, Flight, Reason};

    use super::*;

    fn flight() -> Flight {
        Flight {
            id: "0190163d-8694-739b-aea5-966c26f8ad90".parse().unwrap(),
            trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
            protocol: Protocol::Http,
            caller: Caller {
                origin: Origin::Entry(Arc::from("web")),
                address: Some("203.0.113.7:51234".parse().unwrap()),
                version: Some(http::Version::HTTP_2),
            },
            route: Arc::from("app"),
            method: http::Method::GET,
            asked: Asked::new(b"app.example", b"/users"),
            since: Instant::now(),
            counters: Counters::default(),
        }
    }

    fn record(flight: Flight) -> Record {
        Record {
            flight: Arc::new(flight),
            status: Some(200),
            grpc_status: None,
            bytes_in: 0,
            bytes_out: 1229,
            messages_in: 0,
            messages_out: 0,
            first_byte: Some(Duration::from_micros(900)),
            duration: Duration::from_micros(1234),
            fault: None,
        }
    }

    fn moment() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_767_225_600_042)
    }

    #[test]
    fn a_text_line_tells_everything_once() {
        assert_eq!(
            text(moment(), &record(flight())),
            "2026-01-01T00:00:00.042Z http      200       1.2ms ttfb   900us in        0B out    \
             1.2KiB GET app.example/users route=app from=203.0.113.7:51234 http=2 end=complete \
             id=0190163d-8694-739b-aea5-966c26f8ad90 trace=4bf92f3577b34da6a3ce929d0e0e4736\n"
        );
    }

    #[test]
    fn a_port_that_nobody_said_is_not_shown() {
        for (address, shown) in
            [("203.0.113.7:0", "203.0.113.7"), ("[2001:db8::1]:0", "2001:db8::1")]
        {
            let mut flight = flight();
            flight.caller.address = Some(address.parse().unwrap());
            let record = record(flight);
            let line = text(moment(), &record);
            assert!(line.contains(&format!(" from={shown} ")), "{line}");
            let line = json(moment(), &record);
            assert!(line.contains(&format!("\"caller\":\"{shown}\"")), "{line}");
        }
    }

    #[test]
    fn a_grpc_call_that_failed_shows_both_statuses_messages_and_the_reason() {
        let origin = Origin::Session(Arc::from("laptop"));
        let caller = Caller { origin, address: None, version: None };
        let mut record = record(Flight { protocol: Protocol::Grpc, caller, ..flight() });
        record.grpc_status = Some(14);
        record.messages_in = 3;
        record.bytes_in = 36;
        record.fault = Some(Fault::because(Reason::BackendReset, "read \"x\": reset\nby peer"));
        let line = text(moment(), &record);
        assert!(line.contains(" grpc      200/14 "), "{line}");
        assert!(line.contains(" in     3x36B "), "{line}");
        assert!(line.contains(" from=session:laptop end=backend_reset "), "{line}");
        assert!(line.contains(" why=\"read \\\"x\\\": reset\\nby peer\" "), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn hostile_text_stays_within_its_field_and_line() {
        let mut record = record(Flight {
            asked: Asked::new(
                b"a b\r\nhttp 200 evil",
                "/\n2026 fake\u{1b}[2J\u{202e}\0 end=complete\u{e9}".as_bytes(),
            ),
            trace: "x\ny".repeat(1000).into(),
            ..flight()
        });
        record.fault = Some(Fault::because(Reason::Cancelled, "\u{1b}]0;title\u{7}\n"));
        let line = text(moment(), &record);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.trim_end().bytes().all(|byte| (0x20..0x7F).contains(&byte)), "{line}");
        assert!(line.contains("a\\x20b\\r\\nhttp\\x20200\\x20evil/\\n2026"), "{line}");
        let line = json(moment(), &record);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["path"], *record.flight.asked.path());
        assert!(read["trace_id"].as_str().unwrap().len() <= 128);
    }

    #[test]
    fn long_text_is_cut() {
        let record = record(Flight {
            asked: Asked::new(b"a", "/\u{e9}".repeat(100_000).as_bytes()),
            ..flight()
        });
        assert!(text(moment(), &record).len() < 8000);
        assert!(json(moment(), &record).len() < 4000);
    }

    #[test]
    fn a_json_line_has_all_fields() {
        let read: serde_json::Value =
            serde_json::from_str(&json(moment(), &record(flight()))).unwrap();
        assert_eq!(
            read,
            serde_json::json!({
                "time": "2026-01-01T00:00:00.042Z", "protocol": "http", "status": 200,
                "grpc_status": null, "http_version": "2", "method": "GET", "host": "app.example", "path": "/users",
                "route": "app", "via": "entry", "door": "web", "caller": "203.0.113.7:51234",
                "bytes_in": 0, "bytes_out": 1229, "messages_in": 0, "messages_out": 0,
                "first_byte_ms": 0.9, "duration_ms": 1.234, "end": "complete", "side": null,
                "detail": null, "id": "0190163d-8694-739b-aea5-966c26f8ad90",
                "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"
            })
        );
    }
}
