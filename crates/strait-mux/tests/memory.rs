//! What a greedy peer can make this side hold, counted by the allocator: the budget bounds
//! the real memory, and all of it comes back. One test: the counters are of the whole process.
#![allow(clippy::panic)] // how a test fails

mod common;

use std::alloc::System;

use bytes::{Bytes, BytesMut};
use common::{Node, answer, chunk, open, opening, plain};
use http::{HeaderMap, HeaderName, HeaderValue};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use strait_mux::{Refused, Settings, Taken};
use strait_wire::{First, Frame, Protocol, Reason, StreamFrame, StreamNo, codec};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const KIB: usize = 1024;
const LIMIT: usize = 16 << 20;

/// What the table, the queues of control and the events may take beside the budget, in bytes.
const BESIDE: usize = 1 << 20;

/// Live bytes since `region` began.
fn live(region: &Region<'_, System>) -> usize {
    let stats = region.change();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

fn fields(count: usize, size: usize) -> HeaderMap {
    let mut map = HeaderMap::new();
    for at in 0..count {
        let name = HeaderName::from_bytes(format!("x-{at}").as_bytes()).expect("a name");
        let value = HeaderValue::from_bytes(&vec![b'v'; size]).expect("a value");
        map.append(name, value);
    }
    map
}

/// Gives the node `frames` as they come from a transport: decoded from one block.
fn arrive(node: &mut Node, frames: Vec<Frame>) {
    let mut block = BytesMut::new();
    let mut ends = Vec::new();
    for frame in frames {
        codec::encode(frame, &mut block);
        ends.push(block.len());
    }
    let block: Bytes = block.freeze();
    let mut from = 0;
    for end in ends {
        let frame = codec::decode(block.slice(from..end)).expect("a frame");
        node.try_give(frame).expect("the session goes on");
        from = end;
    }
}

/// As many requests as get in, each answered by `reply`, whose answers nobody takes.
fn greedy(reply: impl Fn(StreamNo) -> Vec<StreamFrame>) -> (usize, u64) {
    let region = Region::new(ALLOCATOR);
    // Small windows leave most of the budget to the heads.
    let settings = Settings { window: 4096, ..Settings::default() };
    let mut node = Node::with(settings, LIMIT);
    let mut open = Vec::new();
    // What still comes for the first number is dropped.
    let first = node.opened(true);
    node.drop_handles(first);
    while let Ok(no) = node.mux.open(opening(), Protocol::Http, true) {
        open.push(no);
        node.pull_all();
        arrive(&mut node, reply(no).into_iter().map(Frame::Stream).collect());
        node.events();
        assert!(node.budget.used() <= LIMIT, "the budget is overdrawn");
    }
    node.mux.check().expect("consistent");
    assert!(open.len() > 100, "{} requests", open.len());
    assert_eq!(node.mux.violations(), 0, "too much is no violation");
    let (held, cut) = (live(&region), node.mux.stats().refusals.heads);
    for no in open {
        node.drop_handles(no);
    }
    node.is_empty();
    drop(node);
    (held, cut)
}

fn with_head(no: StreamNo, headers: HeaderMap) -> StreamFrame {
    let mut frame = answer(no.0, false);
    if let Some(First::Response(head)) = &mut frame.first {
        head.headers = headers;
    }
    frame
}

/// Tiny pieces in every window, none of which is taken.
fn tiny_pieces(size: usize) -> usize {
    let region = Region::new(ALLOCATOR);
    let mut node = Node::with(Settings::default(), LIMIT);
    let mut open = Vec::new();
    while let Ok(no) = node.mux.open(opening(), Protocol::Http, true) {
        let window = node.mux.accounts(no).expect("open").outstanding;
        open.push(no);
        node.pull_all();
        let mut frames = vec![Frame::Stream(answer(no.0, false))];
        let pieces = window / (size + 64);
        frames.extend((1..=pieces as u32).map(|sequence| {
            Frame::Stream(StreamFrame { data: plain(size).into(), ..chunk(no.0, sequence, false) })
        }));
        arrive(&mut node, frames);
        node.events();
    }
    node.mux.check().expect("consistent");
    let held = live(&region);
    open.into_iter().for_each(|no| node.drop_handles(no));
    node.is_empty();
    held
}

#[test]
fn the_budget_bounds_what_the_allocator_counts() {
    let case = |what: &str, (held, cut): (usize, u64), cuts: bool| {
        let bound = LIMIT + BESIDE;
        println!("{what}: {} KiB held of a budget of {} KiB", held / KIB, LIMIT / KIB);
        assert!(held <= bound, "{what}: {held} bytes held, {bound} allowed");
        assert_eq!(cut > 0, cuts, "{what}: {cut} heads had no place");
    };
    case("large heads", greedy(|no| vec![with_head(no, fields(60, KIB))]), true);
    case("many fields", greedy(|no| vec![with_head(no, fields(1000, 1))]), true);
    case("small heads", greedy(|no| vec![with_head(no, fields(8, 20))]), false);
    let trailers = |no: StreamNo| {
        let trailers = Some(Box::new(fields(60, KIB)));
        vec![answer(no.0, false), StreamFrame { trailers, end: true, ..chunk(no.0, 1, false) }]
    };
    case("trailers", greedy(trailers), true);
    // A small head beside 60 KiB that are dropped at once must not keep them alive.
    let beside = |no: StreamNo| {
        let waste = StreamFrame { data: plain(60 * KIB).into(), ..chunk(1, 7, false) };
        vec![with_head(no, fields(8, 20)), waste]
    };
    case("heads beside data", greedy(beside), false);
    case("pieces of one byte", (tiny_pieces(1), 0), false);
    // So many that a line which doubles would be half empty.
    case("pieces of 60 bytes", (tiny_pieces(60), 0), false);
    case("pieces of 1 KiB", (tiny_pieces(KIB), 0), false);
}

#[test]
fn heads_without_a_place_are_cut_and_seen_as_cut() {
    // Room for one request and the head of a usual answer, not for a large one.
    let mut node = Node::with(Settings::default(), 12 * KIB);
    let no = node.opened(true);
    node.give(Frame::Stream(with_head(no, fields(60, KIB))));
    let resets = node.pull_resets();
    assert_eq!(
        (resets[0].no, resets[0].reason, resets[0].retry_safe),
        (no, Reason::Overloaded, false)
    );
    assert_eq!(node.reason(no), Reason::Overloaded);
    node.drop_handles(no);
    node.is_empty();

    let no = node.opened(true);
    node.give(Frame::Stream(answer(no.0, false)));
    assert!(matches!(node.take(no), Taken::Head(_)));
    let trailers = Some(Box::new(fields(60, KIB)));
    node.give(Frame::Stream(StreamFrame { trailers, end: true, ..chunk(no.0, 1, false) }));
    assert_eq!(node.reason(no), Reason::Overloaded, "an end without its trailers is none");
    node.drop_handles(no);
    node.is_empty();
    assert_eq!((node.mux.stats().refusals.heads, node.mux.violations()), (2, 0));
}

/// Uploads are queued beyond the budget: the answers to what is open are not their victims.
#[test]
fn an_answer_of_usual_size_has_a_place_however_full_the_budget_is() {
    for protocol in [Protocol::Http, Protocol::Grpc, Protocol::WebSocket] {
        let mut node = Node::with(Settings::default(), 64 * KIB);
        let no = node.mux.open(opening(), protocol, false).expect("the only one");
        node.mux.push(no, plain(200 * KIB)).expect("open");
        assert!(node.budget.used() > 200 * KIB, "overdrawn");
        let frame = |frame| StreamFrame { protocol, ..frame };
        node.give(Frame::Stream(frame(with_head(no, fields(8, 20)))));
        assert!(matches!(node.take(no), Taken::Head(_)), "{protocol:?}");
        // The status of a call, and what a service says of it (`grpc-message`).
        let grpc = protocol == Protocol::Grpc;
        let trailers = grpc.then(|| Box::new(fields(3, 90)));
        node.give(Frame::Stream(frame(StreamFrame {
            trailers,
            end: true,
            ..chunk(no.0, 1, false)
        })));
        assert_eq!(matches!(node.take(no), Taken::Trailers(_)), grpc);
        assert!(matches!(node.take(no), Taken::End), "{protocol:?}");
        node.drop_handles(no);
        node.is_empty();
        assert_eq!(node.mux.stats().refusals.heads, 0);
    }
}

#[test]
fn what_a_writer_has_already_counts_even_when_it_does_not_fit() {
    let mut node = Node::with(Settings::default(), 64 * KIB);
    node.give(Frame::Stream(open(2, true)));
    let (no, before) = (StreamNo(2), node.budget.used());
    node.mux.respond(no, common::ok()).expect("open");
    node.mux.push(no, plain(200 * KIB)).expect("open");
    node.mux.finish(no, Some(fields(3, KIB))).expect("open");
    assert!(node.budget.used() > 203 * KIB);
    assert_eq!(node.mux.open(opening(), Protocol::Http, true), Err(Refused::NoBudget));
    node.mux.give_up(Refused::NoBudget);
    assert_eq!(node.mux.stats().refusals.ours_budget, 1);
    node.give(Frame::Stream(open(4, true)));
    assert_eq!(node.mux.stats().refusals.theirs_budget, 1);
    assert!(node.pull_resets().iter().any(|reset| reset.no == StreamNo(4) && reset.retry_safe));
    node.give(Frame::Credit(no, 1 << 20));
    node.pull_all();
    assert!(node.budget.used() <= before, "it left, and its memory with it");
    node.drop_handles(no);
    node.is_empty();
}
