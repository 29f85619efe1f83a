//! What docs/reference/memory.md says about a node is what the node does.
#![allow(clippy::panic)] // how a test fails

use strait_node::config::Limits;

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/memory.md");
    std::fs::read_to_string(path).expect("docs/reference/memory.md is there")
}

#[test]
fn the_limits_are_the_defaults() {
    let (page, limits) = (page(), Limits::default());
    let size = |bytes: u64| match bytes {
        0x10_0000.. => format!("{} MiB", bytes >> 20),
        _ => format!("{} KiB", bytes >> 10),
    };
    let rows = [
        ("budget of one tunnel", size(limits.session_budget), "session_budget"),
        ("budget of all tunnels of the process", size(limits.process_budget), "process_budget"),
        ("first window of a request", size(limits.initial_window), "initial_window"),
        ("largest window", size(limits.max_window), "max_window"),
        ("requests of the peer open at once", limits.max_requests.to_string(), "max_requests"),
    ];
    for (what, value, key) in rows {
        let row = format!("| {what} | {value} | `{key}` |");
        assert!(page.contains(&row), "docs/reference/memory.md has no row\n{row}");
    }
}

#[test]
fn the_metrics_it_names_exist() {
    let page = page();
    let scraped = include_str!("metrics.golden");
    let names: Vec<&str> = page.split('`').filter(|word| word.starts_with("strait_")).collect();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        assert!(
            scraped.lines().any(|line| line.split(['{', ' ']).next() == Some(name)),
            "no metric {name}"
        );
    }
}
