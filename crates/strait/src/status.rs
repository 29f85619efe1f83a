//! `strait status`: asks a running node and shows what it says.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use strait_node::observe::time::{bytes, span};
use strait_node::observe::{Readiness, Snapshot};

use crate::cli::StatusArguments;
use crate::{EXIT_USAGE, fail, say};

/// The usual admin addresses of this machine: a server's and a client's.
const USUAL: [&str; 2] = ["127.0.0.1:7600", "127.0.0.1:7601"];

/// An answer is never larger, in bytes.
const LARGEST: u64 = 16 << 20;

/// Requests that are listed at most.
const LISTED: usize = 20;

/// Shows every node that is asked.
pub(crate) fn run(arguments: &StatusArguments) -> ExitCode {
    let named = arguments.admin.as_deref();
    if named == Some("off") {
        return fail(EXIT_USAGE, "the admin address is off: name one with --admin HOST:PORT");
    }
    let asked: Vec<String> = match named {
        Some(name) => vec![complete(name)],
        None => USUAL.iter().map(|name| (*name).to_owned()).collect(),
    };
    let answers: Vec<_> = asked.iter().map(|address| (address, get(address, "/status"))).collect();
    if answers.iter().all(|(_, answer)| answer.is_err()) {
        let why: Vec<String> = answers.into_iter().filter_map(|(_, answer)| answer.err()).collect();
        let help = "is a node running, with this admin address (--admin HOST:PORT)?";
        return fail(1, format_args!("{}\n{help}", why.join("\n")));
    }
    let mut code = ExitCode::SUCCESS;
    for (address, answer) in answers {
        let Ok(body) = answer else { continue };
        if arguments.json {
            say(body.trim_end());
            continue;
        }
        match serde_json::from_str::<Snapshot>(&body) {
            Ok(snapshot) => say(render(address, &snapshot)),
            Err(error) => {
                let message = format!("{address}: the answer is not a status of Strait: {error}");
                code = fail(1, message);
            }
        }
    }
    code
}

/// A bare port is one of this machine.
fn complete(name: &str) -> String {
    let name = name.trim_start_matches("http://").trim_end_matches('/');
    let port = name.trim_start_matches(':');
    if port.bytes().all(|byte| byte.is_ascii_digit()) {
        return format!("127.0.0.1:{port}");
    }
    name.to_owned()
}

/// A GET over HTTP/1.1, for an admin address and nothing else.
fn get(address: &str, path: &str) -> Result<String, String> {
    let said = |error: std::io::Error| format!("{address}: {error}");
    let limit = Duration::from_secs(5);
    let mut targets = address.to_socket_addrs().map_err(said)?;
    let target = targets.next().ok_or_else(|| format!("{address}: names no address"))?;
    let mut stream = TcpStream::connect_timeout(&target, limit).map_err(said)?;
    stream.set_read_timeout(Some(limit)).map_err(said)?;
    stream.set_write_timeout(Some(limit)).map_err(said)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(said)?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).map_err(said)?;
    body(&answer).map_err(|error| format!("{address}: {error}"))
}

fn body(answer: &[u8]) -> Result<String, String> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (Some(end), true) = (end, answer.starts_with(b"HTTP/1.")) else {
        return Err("this does not speak HTTP: not an admin address".to_owned());
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    let text = String::from_utf8_lossy(&answer[end + 4..]).into_owned();
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        let first: String = text.lines().next().unwrap_or_default().chars().take(200).collect();
        return Err(format!("HTTP {status}: {}", first.escape_debug()));
    }
    Ok(text)
}

/// Rows of text under their headings, aligned.
struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    fn new(heads: &[&str]) -> Columns {
        Columns { rows: vec![heads.iter().map(|head| (*head).to_owned()).collect()] }
    }

    fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.into_iter().map(|cell| visible(&cell)).collect());
    }

    fn text(&self) -> String {
        let count = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |i: usize| {
            self.rows.iter().filter_map(|row| row.get(i)).map(|c| c.chars().count()).max()
        };
        let widths: Vec<usize> = (0..count).map(|i| width(i).unwrap_or(0)).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            text += &format!("  {}\n", cells.join("  ").trim_end());
        }
        text
    }
}

/// A cell that a peer or visitor may have written: never a control character, never long.
fn visible(cell: &str) -> String {
    let safe = |c: char| if c.is_control() { '?' } else { c };
    let short: String = cell.chars().take(60).map(safe).collect();
    if cell.chars().nth(60).is_some() { format!("{short}...") } else { short }
}

fn age(millis: u64) -> String {
    span(Duration::from_millis(millis))
}

fn render(address: &str, snapshot: &Snapshot) -> String {
    let totals = &snapshot.totals;
    let name = if snapshot.name.is_empty() { address } else { &snapshot.name };
    let mut text = format!(
        "{} {} ({}), Strait {}, up {}\n{} requests, {} open, {} ended by a fault; in {}, out {}; {} \
         reconnects\n",
        snapshot.role,
        visible(name),
        match snapshot.readiness {
            Readiness::Ready => "ready",
            Readiness::Connecting => "not connected",
            Readiness::Draining => "draining",
        },
        visible(&snapshot.version),
        age(snapshot.uptime_ms),
        totals.requests,
        totals.open,
        totals.faults,
        bytes(totals.bytes_in),
        bytes(totals.bytes_out),
        totals.reconnects,
    );
    section(&mut text, "Sessions", "no tunnel is connected", &sessions(snapshot));
    section(&mut text, "Routes", "no service is offered", &routes(snapshot));
    section(&mut text, "In flight", "nothing", &in_flight(snapshot));
    let listed = snapshot.in_flight.len().min(LISTED) as u64;
    if totals.open > listed {
        text += &format!("  ... and {} more\n", totals.open - listed);
    }
    text
}

fn section(text: &mut String, title: &str, none: &str, columns: &Columns) {
    if columns.rows.len() == 1 {
        *text += &format!("\n{title}: {none}\n");
    } else {
        *text += &format!("\n{title}\n{}", columns.text());
    }
}

fn sessions(snapshot: &Snapshot) -> Columns {
    let heads = [
        "PEER",
        "ADDRESS",
        "AGE",
        "RTT",
        "OPEN OURS/THEIRS",
        "BUDGET",
        "CREDIT",
        "BUFFERED",
        "REFUSED",
        "IN",
        "OUT",
    ];
    let mut columns = Columns::new(&heads);
    for session in &snapshot.sessions {
        let rtt = match session.rtt_us {
            0 => "-".to_owned(),
            micros => span(Duration::from_micros(micros)),
        };
        let peer = match session.tunnel {
            0 => session.peer.clone(),
            number => format!("{}/{number}", session.peer),
        };
        columns.row(vec![
            peer,
            session.address.clone(),
            age(session.age_ms),
            rtt,
            format!("{}/{}", session.open_ours, session.open_theirs),
            format!("{} of {}", bytes(session.budget_used), bytes(session.budget)),
            bytes(session.credit_outstanding),
            bytes(session.buffered),
            session.refused.sum().to_string(),
            bytes(session.bytes_in),
            bytes(session.bytes_out),
        ]);
    }
    columns
}

fn routes(snapshot: &Snapshot) -> Columns {
    let mut columns = Columns::new(&["SERVICE", "PROTOCOLS", "HOSTS", "PATH", "OWNER"]);
    let or = |list: &[String], none: &str| {
        if list.is_empty() { none.to_owned() } else { list.join(",") }
    };
    for route in &snapshot.routes {
        let owner = if route.owner.is_empty() { "this node" } else { &route.owner };
        let offline = if route.online { "" } else { " (offline)" };
        columns.row(vec![
            route.service.clone(),
            or(&route.protocols, "all"),
            or(&route.hosts, "any"),
            route.path.clone(),
            format!("{owner}{offline}"),
        ]);
    }
    columns
}

fn in_flight(snapshot: &Snapshot) -> Columns {
    let mut columns = Columns::new(&["AGE", "PROTOCOL", "ROUTE", "IN", "OUT", "FROM", "REQUEST"]);
    for exchange in snapshot.in_flight.iter().take(LISTED) {
        columns.row(vec![
            age(exchange.age_ms),
            exchange.protocol.clone(),
            exchange.route.clone(),
            bytes(exchange.bytes_in),
            bytes(exchange.bytes_out),
            exchange.from.clone(),
            exchange.what.clone(),
        ]);
    }
    columns
}

#[cfg(test)]
mod tests {
    use strait_node::observe::{ExchangeStatus, Refused, RouteStatus, SessionStatus, Totals};

    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            role: "server".to_owned(),
            name: "gate".to_owned(),
            version: "0.1.0".to_owned(),
            uptime_ms: 3_723_000,
            readiness: Readiness::Ready,
            sessions: vec![SessionStatus {
                peer: "laptop".to_owned(),
                address: "192.0.2.7:50000".to_owned(),
                age_ms: 61_000,
                rtt_us: 23_400,
                open_ours: 2,
                budget_used: 1 << 20,
                budget: 64 << 20,
                credit_outstanding: 512 << 10,
                refused: Refused { theirs_budget: 7, ..Refused::default() },
                bytes_in: 2048,
                ..SessionStatus::default()
            }],
            routes: vec![RouteStatus {
                service: "web".to_owned(),
                protocols: vec!["http".to_owned(), "websocket".to_owned()],
                path: "/".to_owned(),
                owner: "laptop".to_owned(),
                online: true,
                ..RouteStatus::default()
            }],
            in_flight: vec![ExchangeStatus {
                protocol: "http".to_owned(),
                route: "web".to_owned(),
                what: "GET /\u{1b}[2Jbig".to_owned(),
                from: "entry:web".to_owned(),
                age_ms: 1500,
                bytes_out: 10 << 20,
                ..ExchangeStatus::default()
            }],
            totals: Totals { open: 5, requests: 1234, faults: 2, ..Totals::default() },
        }
    }

    #[test]
    fn a_status_is_aligned_and_complete() {
        let expected = "\
server gate (ready), Strait 0.1.0, up 1h02m
1234 requests, 5 open, 2 ended by a fault; in 0 B, out 0 B; 0 reconnects

Sessions
  PEER    ADDRESS          AGE    RTT     OPEN OURS/THEIRS  BUDGET               CREDIT     BUFFERED  REFUSED  IN       OUT
  laptop  192.0.2.7:50000  1m01s  23.4ms  2/0               1.0 MiB of 64.0 MiB  512.0 KiB  0 B       7        2.0 KiB  0 B

Routes
  SERVICE  PROTOCOLS       HOSTS  PATH  OWNER
  web      http,websocket  any    /     laptop

In flight
  AGE    PROTOCOL  ROUTE  IN   OUT       FROM       REQUEST
  1.50s  http      web    0 B  10.0 MiB  entry:web  GET /?[2Jbig
  ... and 4 more
";
        assert_eq!(render("127.0.0.1:7600", &snapshot()), expected);
    }

    #[test]
    fn what_is_not_an_admin_address_is_said() {
        assert!(body(b"SSH-2.0-OpenSSH\r\n\r\n").unwrap_err().contains("does not speak HTTP"));
        let refused = body(b"HTTP/1.1 403 Forbidden\r\nx: y\r\n\r\nnot\x1b here\n").unwrap_err();
        assert_eq!(refused, "HTTP 403: not\\u{1b} here");
        assert_eq!(body(b"HTTP/1.1 200 OK\r\n\r\n{}\n").as_deref(), Ok("{}\n"));
    }

    #[test]
    fn a_bare_port_is_one_of_this_machine() {
        assert_eq!(complete("7600"), "127.0.0.1:7600");
        assert_eq!(complete(":7600"), "127.0.0.1:7600");
        assert_eq!(complete("http://localhost:7600/"), "localhost:7600");
    }
}
