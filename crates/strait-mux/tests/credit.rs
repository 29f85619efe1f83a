//! Flow control: who may send how much, when more is granted, what a stalled reader costs.
#![allow(clippy::panic)] // how a test fails

mod common;

use std::time::Duration;

use common::{Node, answer, chunk, hello, ok, open, opening, plain};
use strait_mux::{Event, Refused, Settings, Taken};
use strait_wire::{
    Data, Frame, GoAway, Hello, MessageStart, PIECE_WEIGHT, Protocol, Reason, Reset, StreamFrame,
    StreamNo,
};

const KIB: usize = 1024;

/// The credit that goes out next, in bytes.
fn granted(node: &mut Node) -> Vec<u32> {
    let credit = |frame| if let Frame::Credit(_, bytes) = frame { Some(bytes) } else { None };
    node.pull_all().into_iter().filter_map(credit).collect()
}

/// Sends `weight` bytes of answer to `no` in pieces of 1 KiB, their price included.
fn feed(node: &mut Node, no: StreamNo, sequence: &mut u32, weight: usize) {
    for _ in 0..weight / KIB {
        *sequence += 1;
        let data = plain(KIB - PIECE_WEIGHT).into();
        node.give(Frame::Stream(StreamFrame { data, ..chunk(no.0, *sequence, false) }));
    }
}

fn consume(node: &mut Node, no: StreamNo, pieces: usize) {
    for _ in 0..pieces {
        assert!(matches!(node.take(no), Taken::Data(_)));
    }
}

#[test]
fn more_is_granted_in_steps_of_what_was_consumed_and_not_when_it_arrives() {
    let mut node = Node::new();
    let no = node.opened(true);
    node.give(Frame::Stream(answer(no.0, false)));
    node.take(no);
    let mut sequence = 0;
    feed(&mut node, no, &mut sequence, 128 * KIB);
    assert!(granted(&mut node).is_empty(), "receipt grants nothing");
    consume(&mut node, no, 63);
    assert!(granted(&mut node).is_empty(), "less than a step was consumed");
    consume(&mut node, no, 1);
    assert_eq!(granted(&mut node), [64 * KIB as u32]);
    consume(&mut node, no, 64);
    assert_eq!(granted(&mut node), [64 * KIB as u32]);
    node.drop_handles(no);
    node.is_empty();
}

#[test]
fn a_small_window_is_granted_again_at_half() {
    let settings = Settings { window: 16 * KIB as u32, ..Settings::default() };
    let mut node = Node::with(settings, 64 << 20);
    let no = node.opened(true);
    node.give(Frame::Stream(answer(no.0, false)));
    node.take(no);
    let mut sequence = 0;
    feed(&mut node, no, &mut sequence, 8 * KIB);
    consume(&mut node, no, 7);
    assert!(granted(&mut node).is_empty(), "less than half was consumed");
    consume(&mut node, no, 1);
    assert_eq!(granted(&mut node), [8 * KIB as u32]);
    node.drop_handles(no);
    node.is_empty();
}

/// A node that knows its round trip: 100 ms.
fn measured(settings: Settings, limit: usize) -> Node {
    let mut node = Node::with(settings, limit);
    node.mux.expire(node.now).expect("no ping is late");
    let Some(Frame::Ping(nonce)) = node.pull() else { panic!("the first ping goes at once") };
    node.pass(Duration::from_millis(100));
    node.give(Frame::Pong(nonce));
    assert_eq!(node.mux.stats().rtt, Some(Duration::from_millis(100)));
    node
}

/// Uses half a window again and again, each time within `pause`; returns the last window.
fn busy(node: &mut Node, rounds: usize, pause: Duration) -> usize {
    let no = node.opened(true);
    node.give(Frame::Stream(answer(no.0, false)));
    node.take(no);
    let mut sequence = 0;
    for _ in 0..rounds {
        let half = node.mux.accounts(no).expect("open").outstanding / 2;
        let half = half.next_multiple_of(KIB);
        feed(node, no, &mut sequence, half);
        consume(node, no, half / KIB);
        granted(node);
        node.pass(pause);
    }
    let window = node.mux.accounts(no).expect("open").window;
    node.drop_handles(no);
    node.is_empty();
    window
}

#[test]
fn a_window_grows_while_it_is_used_within_two_round_trips_and_never_beyond_its_limit() {
    let settings = Settings { window_max: 2048 * KIB as u32, ..Settings::default() };
    let mut node = measured(settings.clone(), 64 << 20);
    assert_eq!(busy(&mut node, 20, Duration::from_millis(50)), 2048 * KIB);
    assert_eq!(busy(&mut node, 20, Duration::from_millis(200)), 256 * KIB, "slow use");
    assert_eq!(busy(&mut node, 2, Duration::from_millis(199)), 512 * KIB, "two grants, one step");
    // Not while memory is scarce.
    let mut node = measured(settings, 512 * KIB + 600);
    assert_eq!(busy(&mut node, 20, Duration::from_millis(1)), 256 * KIB);
}

#[test]
fn a_window_shrinks_for_a_reader_who_is_slower_than_the_tunnel() {
    let mut node = measured(Settings::default(), 64 << 20);
    let no = node.opened(true);
    node.give(Frame::Stream(answer(no.0, false)));
    node.take(no);
    let mut sequence = 0;
    // The peer uses its credit at once; something always waits for the reader.
    let mut windows = Vec::new();
    for _ in 0..100 {
        let credit = node.mux.accounts(no).expect("open").outstanding;
        feed(&mut node, no, &mut sequence, credit);
        consume(&mut node, no, 16);
        granted(&mut node);
        node.pass(Duration::from_millis(5));
        windows.push(node.mux.accounts(no).expect("open").window / KIB);
    }
    assert!(windows.is_sorted_by(|before, after| before >= after), "{windows:?}");
    assert_eq!(windows.last(), Some(&64), "a quarter of a new one: {windows:?}");
    assert!(windows.contains(&256), "not at once: {windows:?}");
    // Once it keeps up, it grows again.
    for _ in 0..40 {
        let credit = node.mux.accounts(no).expect("open").outstanding;
        feed(&mut node, no, &mut sequence, credit);
        let waiting = node.mux.accounts(no).expect("open").buffered / KIB;
        consume(&mut node, no, waiting);
        granted(&mut node);
        node.pass(Duration::from_millis(5));
    }
    assert_eq!(node.mux.accounts(no).expect("open").window, 4096 * KIB);
    node.drop_handles(no);
    node.is_empty();
}

#[test]
fn windows_shrink_under_pressure_and_requests_are_refused_at_the_end() {
    let mut node = Node::with(Settings::default(), 4 << 20);
    let mut windows = Vec::new();
    let refused = loop {
        match node.mux.open(opening(), Protocol::Http, true) {
            Ok(no) => windows.push(node.mux.accounts(no).expect("open").window / KIB),
            Err(refused) => break refused,
        }
        node.mux.check().expect("consistent");
    };
    assert_eq!(refused, Refused::NoBudget);
    assert!(windows.is_sorted_by(|one, next| one >= next), "{windows:?}");
    assert_eq!((windows[0], windows[windows.len() - 1]), (256, 4));
    let half = 2 * 1024;
    let within = |sum: &mut usize, window: &usize| {
        *sum += window + 3;
        (*sum <= half).then_some(*window)
    };
    let last = windows.iter().scan(0, within).last();
    assert!(last.is_some_and(|window| (16..24).contains(&window)), "{last:?}: a sixteenth");
    assert!(node.budget.used() > (4 << 20) - 8 * KIB, "used up to the last window");
    assert!(node.pull_chunks().len() == windows.len(), "what was refused was not sent");
}

#[test]
fn a_stalled_reader_holds_its_window_and_stops_nobody() {
    let mut node = Node::new();
    let (stalled, live) = (node.opened(true), node.opened(true));
    for no in [stalled, live] {
        node.give(Frame::Stream(answer(no.0, false)));
        node.take(no);
    }
    let (mut a, mut b) = (0, 0);
    feed(&mut node, stalled, &mut a, 256 * KIB);
    let held = node.mux.stats().buffered;
    assert_eq!(held, 256 * KIB);
    for _ in 0..100 {
        feed(&mut node, live, &mut b, 128 * KIB);
        consume(&mut node, live, 128);
        assert_eq!(granted(&mut node), [128 * KIB as u32]);
        node.give(Frame::Ping(7));
        assert!(matches!(node.pull(), Some(Frame::Pong(7))));
    }
    assert_eq!(node.mux.stats().buffered, held);
    node.drop_handles(stalled);
    node.drop_handles(live);
    node.is_empty();
}

#[test]
fn a_request_under_pressure_can_always_get_its_body_through() {
    // Whatever the opener may send at first, what is let in can also be granted more.
    let settings = Settings { window_min: 4096, ..Settings::default() };
    for answer_credit in [0, 1, 64, 65, 4096, 64 * 1024] {
        for limit in (600..10_000).step_by(13) {
            let mut node = Node::with(settings.clone(), limit);
            let mut frame = open(2, false);
            if let Some(strait_wire::First::Request(opening)) = &mut frame.first {
                opening.answer_credit = answer_credit;
            }
            node.give(Frame::Stream(frame));
            let Some(accounts) = node.mux.accounts(StreamNo(2)) else {
                assert!(node.pull_resets()[0].retry_safe);
                continue;
            };
            assert!(accounts.outstanding >= 4096, "{answer_credit} {limit}: {accounts:?}");
        }
    }
}

#[test]
fn a_piece_is_cut_to_what_the_credit_allows() {
    let hello = Hello { initial_credit: 100, ..hello() };
    let mut node = Node::silent(Settings::default(), 64 << 20);
    node.give(Frame::Hello(Box::new(hello)));
    let no = node.mux.open(opening(), Protocol::Grpc, false).expect("may open");
    let start = Some(MessageStart { tag: 1, length: 50 });
    let data = Data { bytes: vec![b'm'; 50].into(), start, ends_message: true };
    node.mux.push(no, data).expect("open");
    let chunks = node.pull_chunks();
    let first = chunks[0].data.front().unwrap();
    assert_eq!((first.bytes.len(), first.start, first.ends_message), (36, start, false));
    assert_eq!(node.mux.room(no), Ok(0), "stalled with something queued");

    // 64 bytes buy no payload, one more buys one byte.
    for (credit, payload) in [(64, 0), (1, 1), (64 + 12, 12)] {
        node.give(Frame::Credit(no, credit));
        let sent: Vec<_> = node
            .pull_chunks()
            .into_iter()
            .flat_map(|c| c.data.iter().cloned().collect::<Vec<_>>())
            .collect();
        assert_eq!(sent.iter().map(|d| d.bytes.len()).sum::<usize>(), payload);
        assert!(sent.iter().all(|d| d.start.is_none() && !d.ends_message && !d.bytes.is_empty()));
    }
    node.give(Frame::Credit(no, 65));
    let last = node.pull_chunks().remove(0).data.pop_front().unwrap();
    assert_eq!((last.bytes.len(), last.ends_message), (1, true));
    assert!(node.writable(no), "there is room again");
    node.drop_handles(no);
    node.is_empty();
}

#[test]
fn empty_pieces_with_marks_travel_and_empty_ones_without_do_not() {
    for protocol in Protocol::ALL {
        let mut node = Node::new();
        let no = node.mux.open(opening(), protocol, false).expect("may open");
        node.pull_all();
        let before = node.mux.accounts(no).expect("open").credit;
        node.mux.push(no, plain(0)).expect("open");
        assert!(node.pull_chunks().is_empty(), "it says nothing");
        assert_eq!(node.mux.accounts(no).expect("open").credit, before, "and costs nothing");
        let start = Some(MessageStart { tag: 0, length: 0 });
        let data = Data { start, ends_message: true, ..Data::default() };
        node.mux.push(no, data).expect("open");
        node.pull_all();
        let cost = before - node.mux.accounts(no).expect("open").credit;
        assert_eq!(cost, if protocol == Protocol::Http { 0 } else { PIECE_WEIGHT }, "{protocol}");
        node.drop_handles(no);
        node.is_empty();
    }
}

#[test]
fn a_writer_without_room_hears_when_there_is_some() {
    // Because credit comes.
    let mut node = Node::new();
    let no = node.opened(false);
    while node.mux.room(no).expect("open") > 0 {
        node.mux.push(no, plain(KIB)).expect("open");
    }
    node.events();
    node.pull_all();
    assert!(node.writable(no), "the queue was sent up to the credit");
    while node.mux.room(no).expect("open") > 0 {
        node.mux.push(no, plain(KIB)).expect("open");
        node.pull_all();
    }
    assert!(!node.writable(no), "no credit is left");
    node.give(Frame::Credit(no, 100));
    assert!(node.writable(no));

    // Because the request is gone: reset by the peer, by this side, by a goaway, by a loss.
    for way in 0..5 {
        let mut node = Node::new();
        let no = node.opened(false);
        while node.mux.room(no).expect("open") > 0 {
            node.mux.push(no, plain(KIB)).expect("open");
            node.pull_all();
        }
        assert!(!node.writable(no));
        let reset = Reset { no, reason: Reason::None, retry_safe: false, message: String::new() };
        match way {
            0 => node.give(Frame::Reset(reset)),
            1 => node.mux.reset(no, Reason::Deadline, false, ""),
            2 => node.give(Frame::GoAway(GoAway {
                last: Some(StreamNo(0)),
                reason: Reason::Draining,
                message: String::new(),
            })),
            3 => node.mux.lose(Reason::ClientLost),
            // The answer is complete and the rest of the request is not wanted.
            _ => {
                node.give(Frame::Stream(answer(no.0, true)));
                node.give(Frame::Reset(reset));
            }
        }
        assert!(node.writable(no), "way {way}");
        assert!(node.mux.room(no).is_err(), "way {way}");
        node.drop_handles(no);
        node.is_empty();
    }
}

#[test]
fn an_abandoned_reader_gives_its_window_back_and_drops_what_still_comes() {
    let mut node = Node::new();
    node.give(Frame::Stream(open(2, false)));
    let no = StreamNo(2);
    node.give(Frame::Stream(StreamFrame { data: plain(5_000).into(), ..chunk(2, 1, true) }));
    let window = node.mux.accounts(no).expect("open").window;
    let before = node.budget.used();
    node.mux.drop_reader(no);
    assert_eq!(before - node.budget.used(), window);
    node.give(Frame::Stream(StreamFrame { data: plain(5_000).into(), ..chunk(2, 2, true) }));
    node.give(Frame::Stream(StreamFrame { end: true, ..chunk(2, 3, true) }));
    assert_eq!(node.mux.violations(), 0);
    assert!(node.pull_resets().is_empty(), "the answer is still to come");
    node.mux.respond(no, ok()).expect("open");
    node.mux.finish(no, None).expect("open");
    let frames = node.pull_all();
    assert!(matches!(&frames[0], Frame::Stream(chunk) if chunk.end), "{frames:?}");
    assert!(matches!(&frames[1], Frame::Reset(r) if r.reason == Reason::None));
    assert_eq!(frames.len(), 2);
    node.mux.drop_writer(no);
    node.is_empty();
}

#[test]
fn credit_of_a_request_that_ended_is_not_told() {
    let mut node = Node::new();
    let no = node.opened(true);
    node.give(Frame::Stream(answer(no.0, false)));
    node.take(no);
    let mut sequence = 0;
    feed(&mut node, no, &mut sequence, 200 * KIB);
    consume(&mut node, no, 150);
    assert!(node.mux.has_frame(), "credit is due");
    node.give(Frame::Stream(StreamFrame { end: true, ..chunk(no.0, sequence + 1, false) }));
    assert!(!node.mux.has_frame(), "nobody needs it any more");
    assert!(node.events().iter().any(|e| matches!(e, Event::Readable(n) if *n == no)));
    consume(&mut node, no, 50);
    assert!(matches!(node.take(no), Taken::End));
    node.drop_handles(no);
    node.is_empty();
}

#[test]
fn credit_is_told_before_the_pieces_of_others() {
    let mut node = Node::new();
    let (reading, writing) = (node.opened(true), node.opened(false));
    node.give(Frame::Stream(answer(reading.0, false)));
    node.take(reading);
    let mut sequence = 0;
    feed(&mut node, reading, &mut sequence, 64 * KIB);
    node.mux.push(writing, plain(40_000)).expect("open");
    consume(&mut node, reading, 64);
    // Whoever waits for credit would otherwise wait for all that this side has to send.
    assert!(matches!(node.pull(), Some(Frame::Credit(no, _)) if no == reading));
    assert!(matches!(node.pull(), Some(Frame::Stream(_))));
}
