//! A session whose memory budget is used up, or overdrawn by what was in memory already.
#![allow(clippy::panic)] // how a test fails

mod common;

use common::{Node, answer, chunk, fields, open, opening, plain, with_head};
use strait_mux::{Refused, Settings, Taken};
use strait_wire::{Frame, Protocol, Reason, StreamFrame, StreamNo};

const KIB: usize = 1024;

/// A thousand answers that the transport does not take, each from a writer who has 1 MiB at hand.
#[test]
fn writers_who_wait_leave_room_for_others() {
    let mut node = Node::with(Settings::default(), 16 << 20);
    let all: Vec<_> = (1..=1000).map(|at| StreamNo(at * 2)).collect();
    for no in &all {
        node.give(Frame::Stream(open(no.0, true)));
        node.mux.respond(*no, common::ok()).expect("open");
        let mut left = 1 << 20;
        loop {
            let room = node.mux.room(*no).expect("open");
            if room == 0 {
                break;
            }
            let size = left.min(room).min(128 * KIB);
            left -= size;
            node.mux.push(*no, plain(size)).expect("open");
        }
    }
    assert!(node.budget.used() < 16 << 20, "{} bytes are used", node.budget.used());
    let other = node.mux.open(opening(), Protocol::Http, true).expect("there is room for another");
    for no in all.into_iter().chain([other]) {
        node.drop_handles(no);
    }
    node.pull_all();
    node.is_empty();
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
