//! `strait bench` from end to end, as short as it can be. No speed is asserted.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// A bench that runs; it ends when this is dropped.
struct Bench(Child);

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(words: &str) -> Bench {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strait"));
    command.arg("bench").args(words.split_whitespace()).stdin(Stdio::null());
    // What the shell has set must not reach the nodes of a bench.
    command.env("STRAIT_ADMIN", "off").env("STRAIT_LISTEN", "127.0.0.1:1");
    Bench(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

fn ended(bench: &mut Bench) -> ExitStatus {
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
         --idle-websockets 3 --link 100mbit --delay 2ms --direct --json");
    assert!(status.success(), "{told}");
    let report: Value = serde_json::from_str(&printed).unwrap();
    for phase in ["alone", "under_load"] {
        for of in ["tunnel", "direct"] {
            let outcome = &report[phase][of];
            assert_eq!(outcome["requests"], 50, "{printed}");
            assert_eq!(outcome["failed"], 0, "{printed}");
            assert!(outcome["p50_ms"].as_f64() <= outcome["max_ms"].as_f64(), "{printed}");
        }
        // There and back over the link. The direct requests do not cross it.
        assert!(report[phase]["tunnel"]["p50_ms"].as_f64().unwrap() >= 4.0, "{printed}");
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
        ("isolation --seconds 0", "1..=600"),
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
