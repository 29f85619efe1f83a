//! What docs/protocol.md says about the multiplexer is what the multiplexer does.
#![allow(clippy::panic)] // how a test fails

mod common;

use common::{Node, chunk, open, opening, plain};
use strait_mux::{Settings, Taken};
use strait_wire::{First, Frame, Protocol, StreamFrame, StreamNo};

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol.md");
    std::fs::read_to_string(path).expect("docs/protocol.md is there")
}

#[test]
fn the_page_shows_the_life_of_a_half_as_it_is() {
    let block = format!("```mermaid\n{}```\n", strait_mux::diagram());
    assert!(page().contains(&block), "put this into docs/protocol.md:\n\n{block}");
}

#[test]
fn the_page_names_the_defaults() {
    let settings = Settings::default();
    let kib = |bytes: u32| {
        if bytes >= 1 << 20 {
            format!("{} MiB", bytes >> 20)
        } else {
            format!("{} KiB", bytes >> 10)
        }
    };
    let seconds = |time: std::time::Duration| format!("{} s", time.as_secs());
    let rows = [
        ("initial credit of a new request", kib(settings.initial_credit)),
        ("first window", kib(settings.window)),
        ("largest window", kib(settings.window_max)),
        ("smallest window, and the first one of a WebSocket", kib(settings.window_min)),
        ("requests of the peer open at once", settings.max_requests.to_string()),
        ("largest piece accepted", kib(settings.max_piece)),
        ("piece while several requests send", kib(settings.piece)),
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
    assert_eq!(node.pull_chunks()[0].data[0].bytes.len(), 25_408);
    assert_eq!((left(&node), node.mux.room(no)), (0, Ok(0)));
    node.give(Frame::Credit(no, 196_608));
    assert_eq!(node.pull_chunks()[0].data[0].bytes.len(), 34_592);
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
        let data = vec![plain(size)];
        node.give(Frame::Stream(StreamFrame { data, ..chunk(2, sequence, true) }));
    }
    assert_eq!(node.mux.accounts(StreamNo(2)).expect("open").buffered, 100_192);
    for _ in 0..3 {
        assert!(matches!(node.take(StreamNo(2)), Taken::Data(_)));
    }
    assert!(!node.mux.has_frame(), "no grant yet");
}
