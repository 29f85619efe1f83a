//! Bodies that wait until they are asked for: the 100-continue expectation (RFC 9110 10.1.1).
#![allow(clippy::panic)] // how a test fails

mod common;

use common::{Node, answer, chunk, hello, ok, open, opening, plain, waiting};
use strait_mux::{Settings, Taken};
use strait_wire::{First, Frame, Hello, PIECE_WEIGHT, Protocol, Reason, StreamFrame, StreamNo};

const NO: StreamNo = StreamNo(2);

/// A dialler whose peer knows how to wait.
fn opener() -> Node {
    let mut node = Node::silent(Settings::default(), 64 << 20);
    let features = vec!["other".to_owned(), Hello::CONTINUE.to_owned()];
    node.give(Frame::Hello(Box::new(Hello { features, ..hello() })));
    let Some(Frame::Hello(hello)) = node.pull() else { panic!("Hello goes first") };
    assert!(hello.features.iter().any(|feature| feature == "continue"));
    node.events();
    node
}

/// The first frame of request [`NO`], whose body waits.
fn opened() -> StreamFrame {
    StreamFrame { first: Some(First::Request(Box::new(waiting()))), ..open(NO.0, false) }
}

/// Whether the only opening that goes out says that its body waits.
fn says_so(node: &mut Node) -> bool {
    match &node.pull_chunks()[..] {
        [StreamFrame { first: Some(First::Request(opening)), .. }] => opening.awaits_continue,
        other => panic!("an opening: {other:?}"),
    }
}

#[test]
fn the_answering_side_grants_when_its_reader_asks_for_the_body_and_not_before() {
    let mut node = Node::new();
    node.give(Frame::Stream(opened()));
    assert!(node.pull_all().is_empty(), "nobody has asked");
    let smallest = Settings::default().window_min as usize;
    assert_eq!(node.mux.accounts(NO).expect("open").window, smallest, "what it costs to wait");
    assert!(matches!(node.take(NO), Taken::Pending));
    assert!(matches!(node.pull_all()[..], [Frame::Credit(NO, 262_144)]));
    assert!(matches!(node.take(NO), Taken::Pending));
    assert!(node.pull_all().is_empty(), "once");
    let data = plain(100_000).into();
    node.give(Frame::Stream(StreamFrame { data, end: true, ..chunk(NO.0, 1, true) }));
    assert!(matches!(node.take(NO), Taken::Data(data) if data.bytes.len() == 100_000));
    assert!(matches!(node.take(NO), Taken::End));
    node.mux.reset(NO, Reason::Cancelled, false, "");
    node.drop_handles(NO);
    node.is_empty();
}

#[test]
fn the_opener_has_no_room_before_the_first_grant() {
    let mut node = opener();
    let no = node.mux.open(waiting(), Protocol::Http, false).expect("may open");
    assert!(says_so(&mut node), "the head does not wait");
    assert_eq!(node.mux.room(no), Ok(0));
    assert!(!node.writable(no));
    node.give(Frame::Credit(no, 300));
    assert!(node.writable(no), "the writer is told");
    assert_eq!(node.mux.room(no), Ok(usize::MAX));
    node.mux.push(no, plain(1000)).expect("open");
    assert_eq!(node.pull_chunks()[0].data.front().unwrap().bytes.len(), 300 - PIECE_WEIGHT);
    node.mux.reset(no, Reason::Cancelled, false, "");
    node.drop_handles(no);
    node.is_empty();
}

#[test]
fn a_final_answer_ends_the_wait_and_the_body_was_never_asked_for() {
    let mut node = Node::new();
    node.give(Frame::Stream(opened()));
    node.mux.respond(NO, ok()).expect("open");
    node.mux.drop_reader(NO);
    node.mux.finish(NO, None).expect("open");
    node.mux.drop_writer(NO);
    let frames = node.pull_all();
    assert!(
        matches!(&frames[..], [Frame::Stream(_), Frame::Reset(reset)] if reset.reason == Reason::None),
        "{frames:?}"
    );
    node.is_empty();

    let mut node = opener();
    let no = node.mux.open(waiting(), Protocol::Http, false).expect("may open");
    node.pull_all();
    assert_eq!(node.mux.room(no), Ok(0));
    node.give(Frame::Stream(answer(no.0, true)));
    let Some(Frame::Reset(reset)) = frames.into_iter().nth(1) else { panic!("a reset") };
    node.give(Frame::Reset(strait_wire::Reset { no, ..reset }));
    assert!(node.writable(no), "the writer hears that the rest is not wanted");
    assert_eq!(node.mux.room(no).map_err(|gone| gone.reason), Err(Reason::None));
    assert!(matches!(node.take(no), Taken::Head(_)));
    assert!(matches!(node.take(no), Taken::End), "the answer is complete");
    node.drop_handles(no);
    node.is_empty();
}

#[test]
fn a_peer_that_does_not_know_how_to_wait_is_not_asked_to() {
    let mut node = Node::new();
    let no = node.mux.open(waiting(), Protocol::Http, false).expect("may open");
    assert!(!says_so(&mut node));
    assert_eq!(node.mux.accounts(no).expect("open").credit, 65_536);
    assert_eq!(node.mux.room(no), Ok(usize::MAX));
    // Nor is it where there is no body to wait with.
    let mut node = opener();
    node.mux.open(waiting(), Protocol::Http, true).expect("may open");
    assert!(!says_so(&mut node));
    node.mux.open(opening(), Protocol::Http, false).expect("may open");
    assert!(!says_so(&mut node));
}

#[test]
fn what_comes_before_it_was_granted_cuts_the_request() {
    let mut node = Node::new();
    let data = || plain(1).into();
    node.give(Frame::Stream(StreamFrame { data: data(), ..opened() }));
    let resets = node.pull_resets();
    assert_eq!(resets[0].reason, Reason::FlowControl, "{resets:?}");
    let later = StreamFrame { no: StreamNo(4), ..opened() };
    node.give(Frame::Stream(later));
    node.give(Frame::Stream(StreamFrame { data: data(), ..chunk(4, 1, true) }));
    assert_eq!(node.reason(StreamNo(4)), Reason::FlowControl);
    node.drop_handles(StreamNo(4));
    // An end needs no credit: the caller had nothing to send after all.
    node.give(Frame::Stream(StreamFrame { no: StreamNo(6), ..opened() }));
    node.give(Frame::Stream(StreamFrame { end: true, ..chunk(6, 1, true) }));
    assert!(matches!(node.take(StreamNo(6)), Taken::End));
    node.mux.reset(StreamNo(6), Reason::Cancelled, false, "");
    node.drop_handles(StreamNo(6));
    node.is_empty();
}

#[test]
fn a_grant_is_never_of_nothing_however_full_the_budget() {
    let mut node = Node::new();
    node.give(Frame::Stream(opened()));
    let rest = (64 << 20) - node.budget.used();
    assert!(node.budget.reserve(rest));
    assert!(matches!(node.take(NO), Taken::Pending));
    assert!(matches!(node.pull_all()[..], [Frame::Credit(NO, 4096)]));
    node.budget.release(rest);
    node.mux.reset(NO, Reason::Cancelled, false, "");
    node.drop_handles(NO);
    node.is_empty();
}
