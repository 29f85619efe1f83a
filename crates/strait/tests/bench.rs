//! `strait bench` from end to end, as short as it can be. No speed is asserted.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// A process that runs; it ends when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(words: &str) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strait"));
    command.arg("bench").args(words.split_whitespace()).stdin(Stdio::null());
    // What the shell has set must not reach the nodes of a bench.
    command.env("STRAIT_ADMIN", "off").env("STRAIT_LISTEN", "127.0.0.1:1");
    Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

fn ended(bench: &mut Running) -> ExitStatus {
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        if let Some(status) = bench.0.try_wait().unwrap() {
            return status;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("did not end");
}

/// Runs a bench to its end and returns what it printed and what it told.
fn run(words: &str) -> (ExitStatus, String, String) {
    let mut bench = start(words);
    let mut stderr = bench.0.stderr.take().unwrap();
    let told = std::thread::spawn(move || {
        let mut told = String::new();
        stderr.read_to_string(&mut told).map(|_| told).unwrap()
    });
    let mut printed = String::new();
    bench.0.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    (ended(&mut bench), printed, told.join().unwrap())
}

/// The addresses at which the nodes of a bench could be looked at.
fn admins(told: &str) -> Vec<String> {
    let words = told.split("--admin ").skip(1);
    let words = words.map(|rest| rest.split([',', '\n']).next().unwrap().trim().to_owned());
    words.collect()
}

fn all_gone(admins: &[String]) {
    assert_eq!(admins.len(), 2);
    for address in admins {
        assert!(TcpStream::connect(address).is_err(), "{address} still listens");
    }
}

#[test]
fn isolation_measures_both_phases_and_leaves_nothing_behind() {
    let (status, printed, told) =
        run("isolation --seconds 1 --rate 50 --bulk 2 --bulk-rate 2MB/s --stalled 1 \
         --idle-websockets 3 --link 100mbit --delay 2ms --json");
    assert!(status.success(), "{told}");
    let report: Value = serde_json::from_str(&printed).unwrap();
    for phase in ["alone", "under_load"] {
        let outcome = &report[phase]["tunnel"];
        assert_eq!(outcome["requests"], 50, "{printed}");
        assert_eq!(outcome["failed"], 0, "{printed}");
        assert!(outcome["p50_ms"].as_f64() <= outcome["max_ms"].as_f64(), "{printed}");
        // There and back over the link.
        assert!(outcome["p50_ms"].as_f64().unwrap() >= 4.0, "{printed}");
        if cfg!(target_os = "linux") {
            assert!(report[phase]["costs"]["server"]["rss_bytes"].as_u64() > Some(1 << 20));
            assert!(report[phase]["costs"]["others_cores"].is_number(), "{printed}");
        }
    }
    // Two readers of 2 MB/s never get more than that, and get something.
    let bulk = report["bulk_bytes_per_second"].as_f64().unwrap();
    assert!((1.0..4.5e6).contains(&bulk), "{printed}");
    assert_eq!(report["downloads_cut"], 0, "{printed}");
    assert!(told.contains("phase 2"), "{told}");
    all_gone(&admins(&told));
}

/// A free port, for a backend that others must be able to find. It lies below those that the kernel
/// gives to the near ends of connections, and so is still free when the backend listens there.
fn free_port() -> u16 {
    let first = 10_000 + (std::process::id() % 20_000) as u16;
    (first..).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

#[test]
fn peers_are_measured_in_turn_over_tls_and_a_picture_is_written() {
    // Stands for a peer's process. Not this one: other tests start processes of it that end.
    let peer = Running(Command::new("sleep").arg("60").spawn().unwrap());
    let (port, own) = (free_port(), peer.0.id());
    let svg = std::env::temp_dir().join(format!("strait-bench-test-{own}.svg"));
    // The backend itself is a peer whose address is known.
    let (status, printed, told) = run(&format!(
        "isolation --seconds 0.15 --rate 100 --bulk 1 --bulk-rate 4MB/s --runs 2 --tls --direct \
         --backend 127.0.0.1:{port} --beside known=127.0.0.1:{port},{own} \
         --beside unknown=localhost:{port} --svg {} --json",
        svg.display()
    ));
    assert!(status.success(), "{told}");
    let report: Value = serde_json::from_str(&printed).unwrap();
    let contestants = report["contestants"].as_array().unwrap();
    let names: Vec<_> = contestants.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["strait", "direct", "known", "unknown"]);
    for (one, name) in contestants.iter().zip(&names) {
        for phase in ["alone", "under_load"] {
            let p99 = &one[phase]["p99_ms"];
            assert!(p99["least"].as_f64() <= p99["median"].as_f64(), "{printed}");
            assert!(p99["median"].as_f64() <= p99["most"].as_f64(), "{printed}");
            assert!(p99["least"].as_f64() > Some(0.0), "{printed}");
            let cost = &one[phase]["rss_bytes"];
            let known = cfg!(target_os = "linux") && ["strait", "known"].contains(name);
            assert_eq!(cost.is_object(), known, "{name}: {printed}");
        }
        // One reader of 4 MB/s through this one, and no other load that would be counted. So
        // short a phase may count 80 KB too many that were due before it, and a read at its end.
        let bulk = one["bulk_bytes_per_second"]["median"].as_f64().unwrap();
        assert!((1.0..6e6).contains(&bulk), "{name}: {printed}");
    }
    assert_eq!(report["under_load"]["direct"]["requests"], 30, "{printed}");
    // Another one begins the second run.
    let turns = told.lines().filter(|line| line.contains("phase 1"));
    let turns: Vec<_> = turns.filter_map(|line| line.split(", ").nth(1)).collect();
    let second = ["direct", "known", "unknown", "strait"];
    assert_eq!(turns, [&names[..], &second[..]].concat(), "{told}");
    let drawn = std::fs::read_to_string(&svg).unwrap();
    std::fs::remove_file(&svg).unwrap();
    assert_eq!(drawn.matches("<polyline").count(), 8, "{drawn}");
    all_gone(&admins(&told));
}

#[test]
fn a_plot_fits_into_80_columns() {
    let (status, printed, told) =
        run("isolation --seconds 1 --rate 50 --bulk 1 --bulk-rate 1MB/s --direct --plot");
    assert!(status.success(), "{told}");
    assert!(printed.contains('\u{2588}') && printed.matches("p99").count() >= 4, "{printed}");
    let wide = printed.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None, "{printed}");
}

#[test]
fn load_measures_and_prints_a_table() {
    let (status, printed, told) = run("load --seconds 1 --connections 4 --direct");
    assert!(status.success(), "{told}");
    for expected in ["through the tunnel", "direct", "req/s", "CPU/request", "server", "client"] {
        assert!(printed.contains(expected), "no {expected}:\n{printed}");
    }
    assert!(!printed.contains("FAILED"), "{printed}");
}

#[test]
fn what_cannot_be_measured_is_refused_with_what_can() {
    for (words, expected) in [
        ("", "Usage: strait bench"),
        ("isolation --rate 0", "1..=5000"),
        ("isolation --link 100", "100mbit"),
        ("isolation --bulk-rate fast", "15MB/s"),
        ("isolation --delay 10", "10ms"),
        ("isolation --seconds 0", "0.1 to 600"),
        ("isolation --runs 0", "1..=100"),
        ("isolation --beside a=127.0.0.1:1", "--backend"),
        ("isolation --backend 127.0.0.1:1 --beside nowhere", "rathole=127.0.0.1:9001"),
        ("isolation --backend 127.0.0.1:1 --beside a=127.0.0.1:1 --link 1mbit", "cannot be used"),
        ("isolation --direct --delay 1ms", "cannot be used"),
        ("isolation --plot --json", "cannot be used"),
        ("isolation --bulk 0 --stalled 0", "--idle-websockets"),
        ("isolation --bulk 0 --bulk-rate 1MB/s", "--bulk 0 wants none"),
        ("load --connections 0", "1..=10000"),
        ("nothing", "unrecognized subcommand"),
    ] {
        let (status, _, told) = run(words);
        assert_eq!(status.code(), Some(2), "{words}: {told}");
        assert!(told.contains(expected), "{words}: {told}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_bench_ends_what_it_started() {
    let mut bench = start("isolation --seconds 60");
    let mut told = String::new();
    let mut stderr = BufReader::new(bench.0.stderr.take().unwrap());
    while !told.contains("phase 1") {
        assert!(stderr.read_line(&mut told).unwrap() > 0, "{told}");
    }
    let admins = admins(&told);
    assert!(admins.iter().all(|address| TcpStream::connect(address).is_ok()), "{told}");
    let id = bench.0.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert_eq!(ended(&mut bench).code(), Some(130));
    all_gone(&admins);
}
