//! What a greedy peer can make this side hold, counted by the allocator: the budget bounds
//! the real memory, and all of it comes back. One test: the counters are of the whole process.
#![allow(clippy::panic)] // how a test fails

mod common;

use std::alloc::System;

use bytes::{Bytes, BytesMut};
use common::{Node, answer, chunk, fields, opening, plain, with_head};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use strait_mux::Settings;
use strait_wire::{Frame, Protocol, StreamFrame, StreamNo, codec};

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
