//! How requests and sessions end: losses, goodbyes, resets that cross data, pings.
#![allow(clippy::panic)] // how a test fails

mod common;

use std::time::Duration;

use common::{Node, answer, chunk, ok, open, opening, plain};
use http::HeaderMap;
use strait_mux::{Event, Fatal, Gone, Refused, Settings, Taken};
use strait_wire::{Frame, GoAway, Protocol, Reason, Reset, ResponseHead, StreamFrame, StreamNo};

fn reset(no: StreamNo, reason: Reason) -> Frame {
    Frame::Reset(Reset { no, reason, retry_safe: false, message: String::new() })
}

#[test]
fn a_complete_answer_outlives_the_tunnel() {
    let mut node = Node::new();
    let no = node.opened(false);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "1".parse().expect("a value"));
    let whole = StreamFrame {
        data: plain(3_000).into(),
        trailers: Some(Box::new(trailers)),
        ..answer(no.0, true)
    };
    node.give(Frame::Stream(whole));
    node.mux.lose(Reason::ClientLost);
    assert!(node.mux.room(no).is_err(), "the rest of the request goes nowhere");
    assert!(matches!(node.take(no), Taken::Head(_)));
    assert!(matches!(node.take(no), Taken::Data(data) if data.bytes.len() == 3_000));
    assert!(matches!(node.take(no), Taken::Trailers(_)));
    for _ in 0..2 {
        assert!(matches!(node.take(no), Taken::End));
    }
    node.drop_handles(no);
    node.is_empty();
}

#[test]
fn a_cut_answer_never_looks_complete() {
    for way in 0..3 {
        let mut node = Node::new();
        let no = node.opened(true);
        node.give(Frame::Stream(StreamFrame { data: plain(3_000).into(), ..answer(no.0, false) }));
        assert!(matches!(node.take(no), Taken::Head(_)));
        match way {
            0 => node.mux.lose(Reason::ClientLost),
            1 => node.give(reset(no, Reason::BackendReset)),
            _ => node.give(Frame::Malformed(no, "junk")),
        }
        for _ in 0..2 {
            assert!(matches!(node.take(no), Taken::Gone(_)), "way {way}");
        }
        node.drop_handles(no);
        node.is_empty();
    }
}

#[test]
fn a_cut_between_the_end_and_its_delivery_is_a_cut() {
    // Of an answering side: the opener gave up, whatever had arrived of its request.
    let mut node = Node::new();
    let no = StreamNo(2);
    node.give(Frame::Stream(StreamFrame { data: plain(9).into(), ..open(2, true) }));
    node.give(reset(no, Reason::Cancelled));
    assert_eq!(node.reason(no), Reason::Cancelled);
    assert_eq!(node.mux.respond(no, ok()).map_err(|gone| gone.reason), Err(Reason::Cancelled));
    node.drop_handles(no);
    node.is_empty();
}

#[test]
fn a_loss_says_what_may_be_tried_again() {
    let mut node = Node::new();
    let sent = node.opened(true);
    let unsent = node.mux.open(opening(), Protocol::Http, true).expect("may open");
    node.mux.lose(Reason::ClientLost);
    for (no, retry_safe) in [(sent, false), (unsent, true)] {
        let gone = node.mux.gone(no);
        assert_eq!(gone, Some(Gone { reason: Reason::ClientLost, retry_safe, by_peer: true }));
    }
    assert!(!node.mux.has_frame());
    assert_eq!(node.mux.open(opening(), Protocol::Http, true), Err(Refused::Leaving));
    node.drop_handles(sent);
    node.drop_handles(unsent);
    node.is_empty();
}

#[test]
fn a_goaway_ends_what_is_above_its_number_retry_safe_and_once() {
    let mut node = Node::new();
    let (kept, cut) = (node.opened(true), node.opened(true));
    let queued = node.mux.open(opening(), Protocol::Http, true).expect("may open");
    node.events();
    let goaway = |last| GoAway { last, reason: Reason::Draining, message: String::new() };
    node.give(Frame::GoAway(goaway(None)));
    assert_eq!(node.mux.open(opening(), Protocol::Http, true), Err(Refused::Leaving));
    assert_eq!(node.mux.gone(queued), None, "asked to open no more, not told to stop");
    node.give(Frame::GoAway(goaway(Some(kept))));
    node.give(reset(cut, Reason::Internal));
    for no in [cut, queued] {
        let draining = Gone { reason: Reason::Draining, retry_safe: true, by_peer: true };
        assert_eq!(node.mux.gone(no), Some(draining));
    }
    assert!(node.pull_all().is_empty(), "what was not sent is not sent any more");
    let leaving = node.events().into_iter().filter(|e| matches!(e, Event::Leaving(_))).count();
    assert_eq!(leaving, 2);
    node.give(Frame::Stream(answer(kept.0, true)));
    assert!(matches!(node.take(kept), Taken::Head(_)));
    assert!(matches!(node.take(kept), Taken::End));
    for no in [kept, cut, queued] {
        node.drop_handles(no);
    }
    node.is_empty();
}

#[test]
fn draining_lets_what_is_open_finish_and_what_was_on_its_way_in() {
    let mut node = Node::new();
    node.mux.drain();
    node.mux.drain();
    assert!(matches!(node.pull_all()[..], [Frame::GoAway(GoAway { last: None, .. })]));
    node.give(Frame::Stream(open(2, true)));
    assert!(matches!(node.events()[..], [Event::Readable(_), Event::Accepted(StreamNo(2))]));
    node.mux.respond(StreamNo(2), ok()).expect("open");
    node.mux.finish(StreamNo(2), None).expect("open");
    assert!(node.pull_chunks()[0].end, "one message");
    node.drop_handles(StreamNo(2));
    node.mux.goodbye(Reason::None, "");
    node.mux.goodbye(Reason::None, "");
    let frames = node.pull_all();
    assert!(matches!(frames[..], [Frame::GoAway(GoAway { last: Some(StreamNo(2)), .. })]));
    node.is_empty();
}

#[test]
fn the_rest_of_a_request_is_given_up_once_the_answer_is_out() {
    let mut node = Node::new();
    let no = StreamNo(2);
    node.give(Frame::Stream(open(2, false)));
    node.pull_all();
    node.mux.respond(no, ok()).expect("open");
    node.mux.finish(no, None).expect("open");
    node.mux.drop_writer(no);
    assert!(node.pull_chunks()[0].end);
    assert_eq!(node.mux.pending(), 1, "the reader is still there");
    node.mux.drop_reader(no);
    let resets = node.pull_resets();
    assert_eq!((resets.len(), resets[0].reason), (1, Reason::None));
    node.is_empty();

    // At the opener: the answer stays whole, its writer hears that no more is wanted.
    let mut node = Node::new();
    let no = node.opened(false);
    while node.mux.room(no).expect("open") > 0 {
        node.mux.push(no, plain(5_000)).expect("open");
    }
    node.give(Frame::Stream(answer(no.0, true)));
    node.give(reset(no, Reason::None));
    assert!(node.writable(no));
    assert_eq!(node.mux.room(no).map_err(|gone| gone.reason), Err(Reason::None));
    node.mux.drop_writer(no);
    assert!(node.pull_all().is_empty(), "nothing of it is sent");
    assert!(matches!(node.take(no), Taken::Head(_)));
    assert!(matches!(node.take(no), Taken::End));
    node.mux.drop_reader(no);
    node.is_empty();
}

#[test]
fn a_reset_that_crosses_data_gives_every_byte_back() {
    // Ours crosses theirs.
    let mut node = Node::new();
    let no = node.opened(false);
    node.give(Frame::Stream(StreamFrame { data: plain(4_000).into(), ..answer(no.0, false) }));
    for _ in 0..5 {
        node.mux.push(no, plain(9_000)).expect("open");
    }
    node.mux.reset(no, Reason::Deadline, false, "too late");
    node.mux.reset(no, Reason::Internal, false, "again");
    node.give(Frame::Stream(StreamFrame { data: plain(4_000).into(), ..chunk(no.0, 1, false) }));
    node.give(Frame::Credit(no, 4_000));
    node.give(reset(no, Reason::BackendReset));
    let frames = node.pull_all();
    assert!(matches!(&frames[..], [Frame::Reset(r)] if r.reason == Reason::Deadline), "{frames:?}");
    assert_eq!(node.reason(no), Reason::Deadline, "the first reason stays");
    assert_eq!(node.mux.violations(), 0);
    node.drop_handles(no);
    node.is_empty();
    // Theirs crosses ours.
    let mut node = Node::new();
    let no = node.opened(false);
    for _ in 0..5 {
        node.mux.push(no, plain(9_000)).expect("open");
    }
    node.pull();
    node.give(reset(no, Reason::BackendReset));
    assert!(node.mux.push(no, plain(9_000)).is_err());
    assert!(node.pull_all().is_empty());
    node.drop_handles(no);
    node.is_empty();
}

#[test]
fn dropping_handles_cancels_what_is_not_finished_and_nothing_else() {
    // An opener that drops its reader cancels; before anything was sent nobody is told.
    for sent in [false, true] {
        let mut node = Node::new();
        let no = node.mux.open(opening(), Protocol::Http, true).expect("may open");
        if sent {
            node.pull_all();
        }
        node.drop_handles(no);
        let resets = node.pull_all();
        assert_eq!(resets.len(), usize::from(sent), "{resets:?}");
        node.is_empty();
    }
    // One that drops a finished writer does not.
    let mut node = Node::new();
    let no = node.opened(false);
    node.mux.finish(no, None).expect("open");
    node.mux.drop_writer(no);
    let frames = node.pull_all();
    assert!(matches!(&frames[..], [Frame::Stream(chunk)] if chunk.end), "{frames:?}");
    node.mux.drop_reader(no);
    assert_eq!(node.pull_resets().len(), 1);
    node.is_empty();
}

#[test]
fn pings_go_at_once_and_at_their_interval_and_time_out() {
    let mut node = Node::new();
    let second = Duration::from_secs(1);
    node.mux.expire(node.now).expect("alive");
    assert!(matches!(node.pull_all()[..], [Frame::Ping(1)]));
    assert_eq!(node.mux.next_deadline(), node.now + 10 * second);
    node.pass(second);
    node.give(Frame::Pong(99));
    assert_eq!(node.mux.stats().rtt, None, "not an answer to ours");
    node.give(Frame::Pong(1));
    node.give(Frame::Pong(1));
    assert_eq!(node.mux.stats().rtt, Some(second));
    node.mux.expire(node.now).expect("alive");
    assert!(!node.mux.has_frame(), "not yet");
    node.pass(9 * second);
    node.mux.expire(node.now).expect("alive");
    assert!(matches!(node.pull_all()[..], [Frame::Ping(2)]));
    // Data from the peer is no answer.
    node.pass(9 * second);
    node.give(Frame::Stream(open(2, true)));
    node.mux.expire(node.now).expect("alive");
    node.pass(second);
    assert_eq!(node.mux.expire(node.now), Err(Fatal::PingTimeout));
}

#[test]
fn a_ping_is_answered_whatever_readers_and_writers_do() {
    let mut node = Node::with(Settings::default(), 1 << 20);
    // The budget is used up, all readers stall, all writers are out of credit.
    let mut open_requests = Vec::new();
    while let Ok(no) = node.mux.open(opening(), Protocol::Http, false) {
        while node.mux.room(no).expect("open") > 0 {
            node.mux.push(no, plain(8_000)).expect("open");
            node.pull_all();
        }
        open_requests.push(no);
    }
    for no in &open_requests {
        let room = node.mux.accounts(*no).expect("open").outstanding - 64;
        let data = plain(room).into();
        node.give(Frame::Stream(StreamFrame { data, ..answer(no.0, false) }));
    }
    assert!(node.pull().is_none(), "everything stalls");
    for nonce in 0..100 {
        node.give(Frame::Ping(nonce));
        assert!(matches!(node.pull(), Some(Frame::Pong(n)) if n == nonce));
    }
    for no in open_requests {
        node.drop_handles(no);
    }
    node.is_empty();
}

#[test]
fn a_wait_for_credit_is_measured() {
    let mut node = Node::new();
    let no = node.opened(false);
    while node.mux.room(no).expect("open") > 0 {
        node.mux.push(no, plain(8_000)).expect("open");
        node.pull_all();
    }
    node.pass(Duration::from_secs(2));
    node.give(Frame::Credit(no, 100_000));
    assert_eq!(node.mux.stats().credit_wait, Duration::from_secs(2));
    node.pull_all();
    node.drop_handles(no);
    node.is_empty();
}

#[test]
fn what_the_peer_would_call_a_violation_is_not_sent() {
    let many = || {
        let mut map = HeaderMap::new();
        for _ in 0..1_025 {
            map.append("n", http::HeaderValue::from_static("v"));
        }
        map
    };
    let head = |code, headers| ResponseHead {
        status: http::StatusCode::from_u16(code).expect("a status"),
        headers,
    };
    let none = HeaderMap::new;
    for wrong in [head(100, none()), head(101, none()), head(103, none()), head(200, many())] {
        let mut node = Node::new();
        let no = StreamNo(2);
        node.give(Frame::Stream(open(2, true)));
        let gone = node.mux.respond(no, wrong).expect_err("it is not sent");
        assert_eq!(gone.reason, Reason::BackendInvalid);
        let resets = node.pull_resets();
        assert_eq!((resets.len(), resets[0].reason), (1, Reason::BackendInvalid));
        node.drop_handles(no);
        node.is_empty();
    }
    let mut node = Node::new();
    let no = node.opened(false);
    let gone = node.mux.finish(no, Some(many())).expect_err("it is not sent");
    assert_eq!(gone.reason, Reason::HeaderTooLarge);
    assert_eq!(node.pull_resets().len(), 1);
    node.drop_handles(no);
    node.is_empty();
}

#[test]
fn a_request_that_nobody_holds_can_still_be_cut() {
    let mut node = Node::new();
    let no = StreamNo(2);
    node.give(Frame::Stream(open(2, true)));
    node.mux.respond(no, ok()).expect("open");
    node.mux.finish(no, None).expect("open");
    node.drop_handles(no);
    assert_eq!(node.mux.pending(), 1, "its answer is still to be sent");
    node.mux.reset(no, Reason::Internal, false, "");
    node.is_empty();
}
