//! Whose turn it is: what the scheduler promises, seen on the wire.
#![allow(clippy::panic)] // how a test fails

mod common;

use std::collections::HashMap;

use common::{Node, hello, open, opening, plain};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngAlgorithm};
use strait_mux::Settings;
use strait_wire::{Data, First, Frame, Hello, Opening, Protocol, StreamFrame, StreamNo};

const PIECE: usize = 16 * 1024;

/// What one turn may carry: a quantum, and the piece that crosses its end.
const TURN: usize = 2 * PIECE + 128;

/// A node whose requests have all the credit they want.
fn generous() -> Node {
    let settings = Settings { window: 64 << 20, window_max: 64 << 20, ..Settings::default() };
    let mut node = Node::silent(settings, 64 << 30);
    node.give(Frame::Hello(Box::new(Hello { initial_credit: 64 << 20, ..hello() })));
    node.pull_all();
    node
}

fn flow(node: &mut Node, urgency: u8) -> StreamNo {
    let opening = Opening { urgency, ..opening() };
    node.mux.open(opening, Protocol::Http, false).expect("may open")
}

/// Keeps the queue of `no` full with pieces of `size` bytes.
fn fill(node: &mut Node, no: StreamNo, size: usize) {
    while node.mux.room(no).expect("open") > 0 {
        node.mux.push(no, plain(size)).expect("open");
    }
}

fn weight(frame: &StreamFrame) -> usize {
    frame.data.iter().map(Data::weight).sum::<usize>() + 64
}

/// One run of frames of a request without another's between.
#[derive(Clone, Copy, Debug)]
struct Served {
    no: StreamNo,
    bytes: usize,
}

/// Between two turns of one flow every other gets at most two quanta, and the piece that
/// crosses the end of each. New requests may cut such a turn in two, so bytes are counted.
fn assert_fair(turns: &[Served], without: Option<StreamNo>) {
    for (at, turn) in turns.iter().enumerate().filter(|(_, turn)| Some(turn.no) != without) {
        let next = turns[at + 1..].iter().position(|t| t.no == turn.no);
        let Some(next) = next else { continue };
        let mut others: HashMap<StreamNo, usize> = HashMap::new();
        for other in &turns[at + 1..at + 1 + next] {
            *others.entry(other.no).or_default() += other.bytes;
        }
        for (no, bytes) in others {
            assert!(
                bytes <= 2 * TURN,
                "{no} got {bytes} bytes between turns of {}: {turns:?}",
                turn.no
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: common::cases(64),
        rng_algorithm: RngAlgorithm::XorShift,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn between_two_turns_of_one_every_other_gets_two_at_most(
        sizes in prop::collection::vec(1..70_000usize, 2..6),
        // At these frames another flow comes, or the first one has nothing for a while.
        comings in prop::collection::vec((0..300usize, 1..70_000usize), 0..5),
        pauses in prop::collection::vec(0..300usize, 0..40),
    ) {
        let mut node = generous();
        let mut flows: Vec<_> = sizes.iter().map(|size| (flow(&mut node, 3), *size)).collect();
        let mut turns: Vec<Served> = Vec::new();
        for at in 0..300 {
            for (_, size) in comings.iter().filter(|(when, _)| *when == at) {
                flows.push((flow(&mut node, 3), *size));
            }
            for (i, (no, size)) in flows.iter().enumerate() {
                if i > 0 || !pauses.contains(&at) {
                    fill(&mut node, *no, *size);
                }
            }
            let Some(Frame::Stream(frame)) = node.pull() else { panic!("there is always more") };
            if pauses.is_empty() {
                prop_assert!(frame.data.iter().all(|d| d.bytes.len() <= PIECE), "not alone");
            }
            match turns.last_mut() {
                Some(turn) if turn.no == frame.no => turn.bytes += weight(&frame),
                _ => turns.push(Served { no: frame.no, bytes: weight(&frame) }),
            }
        }
        // One that had nothing to send has no claim on what was sent meanwhile.
        let paused = (!pauses.is_empty()).then_some(flows[0].0);
        assert_fair(&turns, paused);
    }
}

#[test]
fn a_new_request_waits_for_new_ones_ahead_only_and_numbers_go_out_in_order() {
    let mut node = generous();
    let bulk: Vec<_> = (0..5).map(|_| flow(&mut node, 3)).collect();
    for _ in 0..50 {
        bulk.iter().for_each(|no| fill(&mut node, *no, PIECE));
        node.pull();
    }
    // Of any urgency: numbers must increase on the wire.
    let new: Vec<_> = (0..20).map(|i| flow(&mut node, (i % 8) as u8)).collect();
    for no in &new {
        node.mux.push(*no, plain(1_000)).expect("open");
    }
    let mut firsts = Vec::new();
    while firsts.len() < new.len() {
        let Some(Frame::Stream(frame)) = node.pull() else { panic!("there is more") };
        assert!(!bulk.contains(&frame.no), "an old one went before a new one");
        firsts.extend(frame.first.is_some().then_some(frame.no));
    }
    assert_eq!(firsts, new);
}

#[test]
fn urgency_scales_the_share_and_starves_nobody() {
    let mut node = generous();
    let flows: Vec<_> = (0..8).map(|urgency| flow(&mut node, urgency)).collect();
    let mut sent: HashMap<StreamNo, usize> = HashMap::new();
    for _ in 0..4_000 {
        flows.iter().for_each(|no| fill(&mut node, *no, 8_000));
        let Some(Frame::Stream(frame)) = node.pull() else { panic!("there is more") };
        *sent.entry(frame.no).or_default() += weight(&frame);
    }
    let usual = sent[&flows[3]] as f64;
    for (urgency, no) in flows.iter().enumerate() {
        let share = sent[no] as f64 / usual;
        let due = (8 - urgency) as f64 / 5.0;
        assert!((share / due - 1.0).abs() < 0.1, "urgency {urgency}: {share} of {due}");
    }
}

#[test]
fn old_requests_go_on_while_new_ones_keep_coming() {
    let mut node = generous();
    let bulk = flow(&mut node, 3);
    let (mut old, mut all) = (0, 0);
    for _ in 0..10_000 {
        fill(&mut node, bulk, PIECE);
        // More new requests than the link can take: there is always one waiting.
        while node.mux.stats().opened < 50 {
            node.mux.open(opening(), Protocol::Http, true).expect("may open");
        }
        let Some(Frame::Stream(frame)) = node.pull() else { panic!("there is more") };
        all += weight(&frame);
        if frame.no == bulk {
            old += weight(&frame);
        } else {
            node.give(Frame::Stream(common::answer(frame.no.0, true)));
            node.drop_handles(frame.no);
        }
    }
    assert!(old * 10 > all, "{old} of {all} bytes");
}

#[test]
fn a_request_that_had_the_line_to_itself_owes_nothing_for_it() {
    let mut node = generous();
    let (a, size) = (flow(&mut node, 3), 64 * 1024);
    for _ in 0..5 {
        fill(&mut node, a, size);
        let Some(Frame::Stream(frame)) = node.pull() else { panic!("there is more") };
        if let (1, Some(data)) = (frame.data.len(), frame.data.front()) {
            assert_eq!(data.bytes.len(), size, "alone it sends the largest pieces");
        }
    }
    let b = flow(&mut node, 3);
    let mut wait = 0;
    loop {
        fill(&mut node, a, size);
        fill(&mut node, b, size);
        let Some(Frame::Stream(frame)) = node.pull() else { panic!("there is more") };
        if frame.no == a {
            break;
        }
        wait += weight(&frame);
    }
    assert!(wait <= 2 * TURN, "{wait}");
}

#[test]
fn a_request_cancelled_in_line_stalls_nobody() {
    let mut node = generous();
    let flows: Vec<_> = (0..9).map(|_| flow(&mut node, 3)).collect();
    flows.iter().for_each(|no| fill(&mut node, *no, 1_000));
    for _ in 0..4 {
        node.pull();
    }
    // Some were served, some stand in the new list, some in the old one.
    for no in flows.iter().step_by(2) {
        node.drop_handles(*no);
    }
    for no in flows.iter().skip(1).step_by(2) {
        node.mux.finish(*no, None).expect("open");
    }
    let chunks = node.pull_chunks();
    for (i, no) in flows.iter().enumerate() {
        let ended = chunks.iter().any(|chunk| chunk.no == *no && chunk.end);
        assert_eq!(ended, i % 2 == 1);
        assert!(i % 2 == 1 || chunks.iter().all(|chunk| chunk.no != *no), "{no} is cancelled");
    }
    for no in flows {
        node.drop_handles(no);
    }
    node.is_empty();
}

#[test]
fn a_line_of_tiny_pieces_and_low_urgency_moves() {
    for piece in [0, 1, 4, 64] {
        let settings = Settings { piece, ..Settings::default() };
        let mut node = Node::with(settings, 64 << 20);
        let flows: Vec<_> = (0..3).map(|_| flow(&mut node, 7)).collect();
        for no in &flows {
            node.mux.push(*no, plain(200)).expect("open");
            node.mux.finish(*no, None).expect("open");
        }
        let chunks = node.pull_chunks();
        assert_eq!(chunks.iter().filter(|chunk| chunk.end).count(), 3);
        let bytes: usize = chunks.iter().flat_map(|c| c.data.iter()).map(|d| d.bytes.len()).sum();
        assert_eq!(bytes, 600);
    }
}

#[test]
fn control_and_data_do_not_hold_each_other_up() {
    // A flood of refusals on one side, bulk on the other.
    let mut node = Node::with(Settings { max_requests: 1, ..Settings::default() }, 64 << 20);
    node.give(Frame::Stream(open(2, true)));
    let bulk = flow(&mut node, 3);
    fill(&mut node, bulk, PIECE);
    for i in 2..2_000u64 {
        node.give(Frame::Stream(open(i * 2, true)));
    }
    let mut run = 0;
    let mut longest = 0;
    let mut pieces = 0;
    for frame in node.pull_all() {
        match frame {
            Frame::Stream(frame) => {
                assert!(matches!(frame.first, None | Some(First::Request(_))));
                pieces += 1;
                run = 0;
            }
            _ => run += 1,
        }
        // What follows the last piece holds up nothing.
        if pieces < 4 {
            longest = longest.max(run);
        }
    }
    assert!(pieces >= 4);
    assert!(longest <= 8 * 1024 / 32, "{longest} control frames in a row");
    // A pong goes before all of them.
    for i in 2_000..2_100u64 {
        node.give(Frame::Stream(open(i * 2, true)));
    }
    node.give(Frame::Ping(5));
    assert!(matches!(node.pull(), Some(Frame::Pong(5))));
}
