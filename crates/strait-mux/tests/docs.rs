//! What docs/protocol.md and docs/reference/memory.md say about the multiplexer is
//! what the multiplexer does.
#![allow(clippy::panic)] // how a test fails

mod common;

use common::{Node, answer, chunk, open, opening, plain};
use strait_mux::{Settings, Taken};
use strait_wire::{First, Frame, PIECE_WEIGHT, Protocol, StreamFrame, StreamNo, codec};

fn read(page: &str) -> String {
    let path = format!("{}/../../docs/{page}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("the page is there")
}

fn page() -> String {
    read("protocol.md")
}

/// Bytes as the pages write them.
fn kib(bytes: u32) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

#[test]
fn the_page_shows_the_life_of_a_half_as_it_is() {
    let block = format!("```mermaid\n{}```\n", strait_mux::diagram());
    assert!(page().contains(&block), "put this into docs/protocol.md:\n\n{block}");
}

#[test]
fn the_page_names_the_defaults() {
    let settings = Settings::default();
    let seconds = |time: std::time::Duration| format!("{} s", time.as_secs());
    let rows = [
        ("initial credit of a new request", kib(settings.initial_credit)),
        ("first window", kib(settings.window)),
        ("largest window", kib(settings.window_max)),
        ("smallest window, and the first one of a WebSocket", kib(settings.window_min)),
        ("requests of the peer open at once", settings.max_requests.to_string()),
        ("largest piece accepted", kib(settings.max_piece)),
        ("piece while several requests send, at least", kib(settings.piece)),
        ("or what the link carries in", format!("{} µs", settings.piece_time.as_micros())),
        ("time between pings", seconds(settings.ping_interval)),
        ("time for the pong", seconds(settings.ping_timeout)),
        ("violations that a session survives", settings.max_violations.to_string()),
        ("control messages that may wait", settings.max_control.to_string()),
        ("price of a piece beside its payload", strait_wire::PIECE_WEIGHT.to_string() + " bytes"),
        ("largest message", kib(strait_wire::codec::MAX_MESSAGE as u32)),
        ("fields in a head or in trailers", strait_wire::codec::MAX_FIELDS.to_string()),
    ];
    let page = page();
    for (what, value) in rows {
        let row = format!("| {what} | {value} |");
        assert!(page.contains(&row), "docs/protocol.md has no row\n{row}");
    }
}

#[test]
fn the_worked_example_adds_up() {
    // The opener.
    let mut node = Node::new();
    let no = node.mux.open(opening(), Protocol::Http, false).expect("may open");
    let chunks = node.pull_chunks();
    let Some(First::Request(sent)) = &chunks[0].first else { panic!("an opening") };
    assert_eq!(sent.answer_credit, 262_144);
    let left = |node: &Node| node.mux.accounts(no).expect("open").credit;
    assert_eq!(left(&node), 65_536);
    node.mux.push(no, plain(40_000)).expect("open");
    node.pull_all();
    assert_eq!(left(&node), 25_472);
    node.mux.push(no, plain(60_000)).expect("open");
    assert_eq!(node.pull_chunks()[0].data.front().unwrap().bytes.len(), 25_408);
    assert_eq!((left(&node), node.mux.room(no)), (0, Ok(0)));
    node.give(Frame::Credit(no, 196_608));
    assert_eq!(node.pull_chunks()[0].data.front().unwrap().bytes.len(), 34_592);
    assert_eq!(left(&node), 161_952);

    // The answering side.
    let mut node = Node::new();
    let mut first = open(2, false);
    if let Some(First::Request(opening)) = &mut first.first {
        opening.answer_credit = 262_144;
    }
    node.give(Frame::Stream(first));
    let frames = node.pull_all();
    assert!(matches!(frames[..], [Frame::Credit(StreamNo(2), 196_608)]), "{frames:?}");
    for (sequence, size) in [(1, 40_000), (2, 25_408), (3, 34_592)] {
        let data = plain(size).into();
        node.give(Frame::Stream(StreamFrame { data, ..chunk(2, sequence, true) }));
    }
    assert_eq!(node.mux.accounts(StreamNo(2)).expect("open").buffered, 100_192);
    for _ in 0..3 {
        assert!(matches!(node.take(StreamNo(2)), Taken::Data(_)));
    }
    let frames = node.pull_all();
    assert!(matches!(frames[..], [Frame::Credit(StreamNo(2), 65_536)]), "{frames:?}");
}

#[test]
fn the_page_about_memory_has_the_numbers_of_the_code() {
    let page = read("reference/memory.md");
    let settings = Settings::default();
    let has =
        |line: String| assert!(page.contains(&line), "docs/reference/memory.md lacks\n{line}");
    has(format!("| largest window | {} |", kib(settings.window_max)));
    let smallest = kib(settings.window_min);
    has(format!("| smallest window, and the first one of a WebSocket | {smallest} |"));
    has(format!("| fields in a head or in trailers, on the tunnel | {} |", codec::MAX_FIELDS));
    has(format!("{} for each tunnel, without payload", settings.max_control));
    has(format!("| one message being put together | {} ", kib(codec::MAX_MESSAGE as u32)));
    has(format!("payload + {PIECE_WEIGHT} bytes for each piece"));
    has(format!("its payload + {PIECE_WEIGHT} bytes"));

    // What one request is counted, from its opening to its answer.
    let mut node = Node::new();
    let opening = opening();
    let text = opening.head.path.len() + opening.head.authority.len();
    let no = node.mux.open(opening, Protocol::WebSocket, false).expect("may open");
    let opened = node.budget.used();
    node.pull_all();
    let head = StreamFrame { protocol: Protocol::WebSocket, ..answer(no.0, false) };
    node.give(Frame::Stream(head));
    assert!(matches!(node.take(no), Taken::Head(_)));
    let idle = node.budget.used();
    let entry = idle - settings.window_min as usize;
    let aside = opened - idle - text;
    has(format!("| requests | {entry} for each that is open |"));
    has(format!("The opener sets {} aside", kib(aside as u32)));
    has(format!("also holds its head and {aside} bytes for the answer's"));
    let all = 10_000 * idle;
    let grouped = format!("{},{:03},{:03}", all / 1_000_000, all / 1000 % 1000, all % 1000);
    let share = (all as f64 / f64::from(64 << 20) * 100.0).round();
    has(format!(
        "10,000 x ({} + {entry}) = {grouped} bytes, {share} % of the default",
        settings.window_min
    ));

    // What a field costs, from an answer with a few of them.
    let mut map = http::HeaderMap::with_capacity(1000);
    map.insert("x-name", http::HeaderValue::from_static("value"));
    let cost = map.capacity() * 112 + "x-name".len() + "value".len();
    node.give(Frame::Stream(open(2, true)));
    let before = node.budget.used();
    node.mux.respond(StreamNo(2), common::ok()).expect("open");
    let answered = node.budget.used();
    assert!(answered <= before, "the request's head went");
    node.mux.finish(StreamNo(2), Some(map)).expect("open");
    assert_eq!(node.budget.used() - answered, cost);
    has("and 112 for each field that the map has room for".to_owned());
}

#[test]
fn windows_shrink_as_the_page_about_memory_says() {
    let page = read("reference/memory.md");
    let settings = Settings::default();
    let steps = [(4, 1.0), (3, 0.316), (2, 1.0 / 16.0), (1, 1.0 / 64.0)];
    for (quarters, share) in steps {
        let mut node = Node::new();
        assert!(node.budget.reserve((64 << 20) / 4 * (4 - quarters)));
        let no = node.mux.open(opening(), Protocol::Http, true).expect("may open");
        let window = node.mux.accounts(no).expect("open").window;
        let first = f64::from(settings.window) * share;
        assert!((window as f64 - first).abs() <= first / 25.0, "{quarters} quarters: {window}");
    }
    for words in ["fourth power", "three tenths of it when three quarters", "a sixteenth when half"]
    {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn so_many_small_requests_fit_the_default_budget() {
    let mut node = Node::new();
    let mut open = 0;
    let refused = loop {
        match node.mux.open(opening(), Protocol::Http, true) {
            Ok(_) => open += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, strait_mux::Refused::NoBudget);
    assert!((4_800..5_400).contains(&open), "{open}");
    assert!(read("reference/memory.md").contains("4,800 small ones at once"));
}
