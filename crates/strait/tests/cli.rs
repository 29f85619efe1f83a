//! The real program, as people and scripts start it.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

fn strait(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strait"));
    command.args(words.split_whitespace()).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STRAIT_")) {
        command.env_remove(name);
    }
    command.env("STRAIT_STATE", std::env::temp_dir().join("strait-cli-none"));
    command
}

/// A started program; it ends when this is dropped.
struct Running {
    child: Child,
    seen: std::sync::mpsc::Receiver<String>,
    said: String,
}

impl Running {
    fn start(command: &mut Command) -> Running {
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
        let mut stderr = child.stderr.take().expect("is piped");
        let (send, seen) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                if send.send(text).is_err() {
                    break;
                }
            }
        });
        Running { child, seen, said: String::new() }
    }

    /// Waits until all of what was said contains `text`.
    fn until(&mut self, text: &str) {
        let end = Instant::now() + LIMIT;
        while !self.said.contains(text) {
            let left = end.saturating_duration_since(Instant::now());
            match self.seen.recv_timeout(left) {
                Ok(more) => self.said.push_str(&more),
                Err(_) => panic!("never said {text:?}, only:\n{}", self.said),
            }
        }
    }

    /// The first word after `label` in what was said.
    fn word_after(&self, label: &str) -> String {
        let rest = self.said.split(label).nth(1).unwrap_or_else(|| panic!("no {label}"));
        rest.split_whitespace().next().unwrap_or_default().to_owned()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("kill").success());
    }

    fn code(&mut self) -> Option<i32> {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("waits") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("did not end; it said:\n{}", self.said);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("strait-cli-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("is made");
    path
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

const SERVER: &str = "server --listen 127.0.0.1:0 --tunnel 127.0.0.1:0 --admin 127.0.0.1:0";

#[test]
fn usage_mistakes_end_with_2_and_say_what_is_allowed() {
    for (words, expected) in [
        ("", "Usage: strait"),
        ("sevrer", "similar subcommand"),
        ("server --listn 1", "--listen"),
        ("server --tunnel", "--tunnel <ADDR>"),
        ("server --tunnel 0.0.0.0:1 --no-tls", "loopback only"),
        ("client http 3000", "--server https://HOST:7443"),
        ("client --server https://x:1", "nothing to do"),
        ("client --server x:1 http 3000", "has no scheme"),
        ("client --server https://x:1 tcp 22", "HTTP, WebSocket and gRPC"),
        ("client --server https://x:1 http 3000 http 3000", "have the same host"),
        ("client --server http://x:1 --pin 00 http 3000", "not a pin"),
        ("server --no-tls --tls-cert a --tls-key b", "drop one of them"),
        ("server --insecure-no-auth --token x", "drop one of them"),
        ("status --admin off", "name one with --admin"),
    ] {
        let output = strait(words).output().expect("runs");
        let (stdout, stderr) = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{words}: {stderr}");
        assert!(stderr.contains(expected), "{words}: {stderr}");
        assert_eq!(stdout, "", "{words}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for words in ["--help", "--version", "server --help", "client --help", "check --help"] {
        let output = strait(words).output().expect("runs");
        let (stdout, stderr) = texts(&output);
        assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{words}");
        assert!(stdout.len() > 10 && stdout.lines().all(|line| line.len() <= 100), "{stdout}");
    }
}

#[test]
fn a_bad_file_ends_with_78_and_a_good_one_is_summed_up() {
    let folder = folder("check");
    let file = |text: &str| {
        let path = folder.join("strait.toml");
        fs::write(&path, text).expect("is written");
        path.display().to_string()
    };
    let bad = file("[server]\nlisten = 70000\n");
    for words in
        [format!("check {bad}"), format!("server --config {bad}"), "check /no/such".to_owned()]
    {
        let output = strait(&words).output().expect("runs");
        let (stdout, stderr) = texts(&output);
        assert_eq!((output.status.code(), stdout.as_str()), (Some(78), ""), "{words}: {stderr}");
        let place = if words.contains("/no/such") { "/no/such: " } else { "strait.toml:2:10: " };
        assert!(stderr.contains(place), "{stderr}");
    }
    let good = file("[client]\nserver = \"http://example.org\"\n");
    let (stdout, stderr) = texts(&strait(&format!("check {good}")).output().expect("runs"));
    assert!(stdout.contains("good: a client of http://example.org:80"), "{stdout}");
    assert!(stderr.contains("warning: http://example.org:80 is not encrypted"), "{stderr}");
    let _ = fs::remove_dir_all(folder);
}

#[test]
fn closed_outputs_are_no_crash() {
    for words in ["--help", "token", "status", "client http 1"] {
        let shell = format!("exec {} {words} >&- 2>&-", env!("CARGO_BIN_EXE_strait"));
        let status = Command::new("sh").args(["-c", &shell]).status().expect("runs");
        assert!(matches!(status.code(), Some(0..=2)), "{words}: {status}");
        let shell = format!("{} {words} 2>&1 | true", env!("CARGO_BIN_EXE_strait"));
        assert!(Command::new("sh").args(["-c", &shell]).status().expect("runs").success());
    }
}

#[test]
fn a_token_is_told_with_its_digest_and_is_new_each_time() {
    let made: Vec<String> =
        (0..2).map(|_| texts(&strait("token").output().expect("runs")).0).collect();
    assert!(made[0].starts_with("token   st_") && made[0].contains("sha256  "), "{}", made[0]);
    assert_ne!(made[0], made[1]);
}

#[test]
fn a_server_shows_its_token_once_and_remembers_its_digest() {
    let state = folder("state");
    let start = |extra: &str| {
        let mut command = strait(&format!("{SERVER} {extra}"));
        let mut running = Running::start(command.env("STRAIT_STATE", &state));
        running.until("strait client --server https://127.0.0.1:");
        running.until(" http 3000\n");
        running
    };
    let first = start("");
    let (token, pin) = (first.word_after("--token "), first.word_after("--pin "));
    assert!(token.starts_with("st_") && pin.starts_with("sha256:"), "{}", first.said);
    drop(first);
    let second = start("");
    assert_eq!(second.word_after("--token "), "TOKEN", "{}", second.said);
    assert_eq!(second.word_after("--pin "), pin);
    drop(second);
    let third = start("--new-token");
    assert!(third.word_after("--token ").starts_with("st_"), "{}", third.said);
    assert_ne!(third.word_after("--token "), token);
    drop(third);
    for entry in fs::read_dir(&state).expect("is there") {
        let text = fs::read_to_string(entry.expect("is read").path()).expect("is text");
        assert!(!text.contains(&token));
    }
    let given = start("--token st_mine");
    assert!(!given.said.contains("st_mine"), "{}", given.said);
    let _ = fs::remove_dir_all(state);
}

#[test]
fn a_start_that_fails_does_not_use_up_the_token() {
    let state = folder("failed");
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("has one");
    let words = format!("server --listen {address} --tunnel 127.0.0.1:0 --admin off");
    let output = strait(&words).env("STRAIT_STATE", &state).output().expect("runs");
    let (_, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&address.to_string()) && !stderr.contains("st_"), "{stderr}");
    let mut command = strait(SERVER);
    let mut next = Running::start(command.env("STRAIT_STATE", &state));
    next.until("--token st_");
    let _ = fs::remove_dir_all(&state);
}

#[test]
fn an_admin_address_that_was_asked_for_must_be_free() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("has one").to_string();
    let words = format!("server --listen 127.0.0.1:0 --tunnel 127.0.0.1:0 --admin {address}");
    let output = strait(&words).arg("--insecure-no-auth").output().expect("runs");
    let (_, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!("admin address {address}")), "{stderr}");
}

#[test]
fn json_logs_are_json_and_the_access_log_has_standard_output_for_itself() {
    let mut running =
        Running::start(&mut strait(&format!("{SERVER} --insecure-no-auth --log json")));
    running.until("started");
    running.signal("-TERM");
    running.until("draining");
    assert_eq!(running.code(), Some(0));
    for line in running.said.lines() {
        let read: serde_json::Value = serde_json::from_str(line).expect("is JSON");
        assert!(read["level"].is_string() && read["message"].is_string(), "{line}");
    }
}

#[test]
fn without_a_home_it_starts_and_says_what_that_means() {
    let mut command = strait(SERVER);
    let command =
        command.env_remove("STRAIT_STATE").env_remove("HOME").env_remove("XDG_STATE_HOME");
    let mut running = Running::start(command);
    running.until("warning: there is no HOME");
    running.until("--token st_");
}

#[test]
fn a_signal_ends_it_well() {
    for name in ["-TERM", "-INT"] {
        let mut running = Running::start(&mut strait(&format!("{SERVER} --insecure-no-auth")));
        running.until(" http 3000\n");
        running.signal(name);
        assert_eq!(running.code(), Some(0));
    }
}

#[test]
fn status_asks_a_running_node() {
    let mut running = Running::start(&mut strait(&format!("{SERVER} --insecure-no-auth")));
    running.until(" http 3000\n");
    let admin = running.word_after("admin    ");
    let (stdout, stderr) =
        texts(&strait(&format!("status --admin {admin}")).output().expect("runs"));
    assert!(stdout.starts_with("server ") && stdout.contains("Sessions"), "{stdout}{stderr}");
    let (json, _) =
        texts(&strait(&format!("status --json --admin {admin}")).output().expect("runs"));
    let read: serde_json::Value = serde_json::from_str(&json).expect("is JSON");
    assert_eq!(read["role"], "server");
}

#[test]
fn status_of_nothing_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("has one");
    let stranger = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepts");
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
    });
    let output = strait(&format!("status --admin {address}")).output().expect("runs");
    let (_, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("does not speak HTTP"), "{stderr}");
    stranger.join().expect("ends");
    let output = strait(&format!("status --admin {address}")).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(texts(&output).1.contains("is a node running"));
}

#[test]
fn variables_are_flags() {
    let mut command = strait("client http 3000");
    command.env("STRAIT_SERVER", "example.org:1");
    let (_, stderr) = texts(&command.output().expect("runs"));
    assert!(stderr.contains("has no scheme"), "{stderr}");
    for (value, asked) in [("true", false), ("0", true)] {
        let mut command = strait("server --tunnel 127.0.0.1:0 --admin off");
        command.env("STRAIT_INSECURE_NO_AUTH", value).env("STRAIT_LISTEN", "127.0.0.1:0");
        let mut running = Running::start(command.env_remove("STRAIT_STATE").env_remove("HOME"));
        running.until(" http 3000\n");
        assert_eq!(running.said.contains("--token "), asked, "{}", running.said);
    }
    let mut command = strait("client --server https://x:1 http 3000");
    command.env("STRAIT_TOKEN", "a b");
    let output = command.output().expect("runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(texts(&output).1.contains("visible ASCII"));
}
