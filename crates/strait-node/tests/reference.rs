//! The tables of docs/reference/ that are written from the code. With STRAIT_GOLDEN=1 they
//! are written, without it they are compared.
#![allow(clippy::panic, clippy::unwrap_used)] // how a test fails

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use strait_engine::{MAX_HOPS, MAX_SERVICES, Reason, fault};
use strait_node::BACKLOG;
use strait_node::config::{Limits, Row, Timeouts};

fn path(page: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page)
}

/// Where the table `name` stands in a page: between two comments.
fn place(page: &str, name: &str) -> (usize, usize) {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let start = page.find(&begin).unwrap_or_else(|| panic!("the page has no {begin}"));
    let start = start + begin.len();
    let length = page[start..].find(&end).unwrap_or_else(|| panic!("the page has no {end}"));
    (start, start + length)
}

/// Holds the table `name` of `page` to `fresh`.
fn hold(page: &str, name: &str, fresh: &str) {
    let file = path(page);
    let text = fs::read_to_string(&file).unwrap();
    let (start, end) = place(&text, name);
    if std::env::var_os("STRAIT_GOLDEN").is_some() {
        fs::write(&file, format!("{}{fresh}{}", &text[..start], &text[end..])).unwrap();
        return;
    }
    assert_eq!(
        &text[start..end],
        fresh,
        "docs/{page} is stale: run this test with STRAIT_GOLDEN=1 and commit the page"
    );
}

#[test]
fn the_page_of_faults_is_the_table_of_the_code() {
    let mut table = "| kind | side | HTTP | gRPC | WebSocket | reset | tried again | log | what the caller reads |\n\
                     |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for face in fault::faces().iter().filter(|face| face.reason != Reason::None) {
        let mut http = face.http.to_string();
        if face.retry_after().is_some() {
            http += ", Retry-After";
        }
        if face.closes() {
            http += ", Connection: close";
        }
        let close = match face.close {
            fault::NO_CLOSE_FRAME => "none".to_owned(),
            code => code.to_string(),
        };
        let level = face.level.as_str().to_lowercase();
        let (reset, retry) = (face.reset.as_str(), face.retry.as_str());
        let (kind, side, grpc, hint) = (face.reason, face.whose.as_str(), face.grpc, face.hint);
        let _ = writeln!(
            table,
            "| `{kind}` | {side} | {http} | {grpc} | {close} | {reset} | {retry} | {level} | {hint} |"
        );
    }
    hold("reference/faults.md", "faults", &table);
}

fn table(rows: &[Row]) -> String {
    let mut table =
        "| key | default | allowed | what it bounds | at the limit |\n|---|---|---|---|---|\n"
            .to_owned();
    for Row { key, what, default, allowed: (least, most), then } in rows {
        // It depends on the machine.
        let default = if *key == "threads" { "half of the cores" } else { default };
        let _ = writeln!(table, "| `{key}` | {default} | {least} to {most} | {what} | {then} |");
    }
    table
}

#[test]
fn the_page_of_limits_is_the_table_of_the_code() {
    hold("reference/limits.md", "limits", &table(&Limits::rows()));
    hold("reference/limits.md", "timeouts", &table(&Timeouts::rows()));
}

#[test]
fn what_happens_at_a_limit_is_a_kind_of_fault() {
    let kinds: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    for row in Limits::rows().iter().chain(&Timeouts::rows()) {
        for kind in row.then.split('`').skip(1).step_by(2) {
            assert!(kinds.contains(&kind), "{}: no fault is called {kind}", row.key);
        }
    }
}

#[test]
fn limits_without_a_key_are_those_of_the_code() {
    let page = fs::read_to_string(path("reference/limits.md")).unwrap();
    let mux = strait_mux::Settings::default();
    for (what, value) in [
        ("tunnels that a request may pass", MAX_HOPS.to_string()),
        ("services that a node remembers", MAX_SERVICES.to_string()),
        ("violations that a tunnel survives", mux.max_violations.to_string()),
        ("control messages that wait on a tunnel", mux.max_control.to_string()),
        ("one message on a tunnel", format!("{} MiB", strait_wire::codec::MAX_MESSAGE >> 20)),
        ("fields in a head on a tunnel", strait_wire::codec::MAX_FIELDS.to_string()),
        ("a header of the PROXY protocol", {
            use strait_edge::{LONGEST_HEADER, LONGEST_TEXT};
            format!("{LONGEST_HEADER} bytes; one of version 1: {LONGEST_TEXT}")
        }),
        ("a token", format!("{} KiB", strait_node::secrets::LONGEST_TOKEN >> 10)),
        (
            "connections that wait to be accepted at one address",
            format!("{BACKLOG}, or fewer as the system allows (`net.core.somaxconn`)"),
        ),
        ("the answer to a wrong token waits", {
            use strait_node::secrets::{FIRST_REFUSAL, LONGEST_REFUSAL};
            format!(
                "{FIRST_REFUSAL:?}; from the fourth one of an address on twice as long each, up to {LONGEST_REFUSAL:?}"
            )
        }),
    ] {
        let row = format!("| {what} | {value} |");
        assert!(page.contains(&row), "docs/reference/limits.md has no row\n{row}");
    }
}

#[test]
fn the_page_of_reloads_says_of_every_key_when_it_takes_effect() {
    let page = fs::read_to_string(path("reference/reload.md")).unwrap();
    let example = fs::read_to_string(path("strait.example.toml")).unwrap();
    let mut table = "";
    for line in example.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_matches(['[', ']']);
        }
        let Some((key, _)) = line.split_once(" = ") else { continue };
        let plain = key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let row = page.lines().any(|row| {
            row.starts_with('|')
                && [format!("`{key}`"), format!("`{table}.{key}`")].iter().any(|k| row.contains(k))
        });
        assert!(!plain || row, "docs/reference/reload.md has no row with `{table}.{key}`");
    }
}

#[test]
fn the_example_file_names_every_key() {
    let example = fs::read_to_string(path("strait.example.toml")).unwrap();
    for row in Limits::rows().iter().chain(&Timeouts::rows()) {
        let shown = example.lines().any(|line| {
            let line = line.strip_prefix("# ").unwrap_or(line);
            line.split(' ').next() == Some(row.key)
        });
        assert!(shown, "docs/strait.example.toml has no line for `{}`", row.key);
    }
}
