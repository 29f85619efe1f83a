//! A peer that breaks the protocol: each violation costs the request it concerns, and many
//! of them the session; nothing is left behind and nothing panics.
#![allow(clippy::panic)] // how a test fails

mod common;

use common::{Node, answer, chunk, hello, open, opening, plain};
use http::{HeaderMap, HeaderValue};
use strait_mux::{Event, Fatal, Refused, Settings, Taken};
use strait_wire::{
    Announcement, Data, First, Frame, GoAway, Hello, MessageStart, Opening, Protocol, Reason,
    Reset, Side, StreamFrame, StreamNo,
};

const PEERS: u64 = 2;

/// Gives `frames` to a node with an innocent request of each side; expects that the request
/// `no` is reset for `reason`, that the others go on, and that nothing stays.
fn costs_one_request(node: &mut Node, no: u64, frames: Vec<Frame>, reason: Reason) {
    let bystander = node.opened(true);
    node.give(Frame::Stream(open(1_000, false)));
    for frame in frames {
        node.give(frame);
    }
    let resets = node.pull_resets();
    assert_eq!(resets.len(), 1, "{resets:?}");
    assert_eq!((resets[0].no, resets[0].reason), (StreamNo(no), reason));
    assert_eq!(node.mux.violations(), 1);

    node.give(Frame::Stream(answer(bystander.0, true)));
    assert!(matches!(node.take(bystander), Taken::Head(_)));
    assert!(matches!(node.take(bystander), Taken::End));
    let more = StreamFrame { data: plain(10).into(), end: true, ..chunk(1_000, 1, true) };
    node.give(Frame::Stream(more));
    assert!(matches!(node.take(StreamNo(1_000)), Taken::Data(_)));
    assert!(matches!(node.take(StreamNo(1_000)), Taken::End));
    for n in [StreamNo(no), bystander, StreamNo(1_000)] {
        node.drop_handles(n);
    }
    node.is_empty();
}

/// A node that has opened a request, sent its head, and maybe got the answer's.
fn asking(answered: bool) -> (Node, u64) {
    let mut node = Node::new();
    let no = node.opened(false);
    if answered {
        node.give(Frame::Stream(answer(no.0, false)));
    }
    (node, no.0)
}

fn serving() -> Node {
    let mut node = Node::new();
    node.give(Frame::Stream(open(PEERS, false)));
    assert!(node.mux.accept(StreamNo(PEERS)).is_some());
    node
}

#[test]
fn a_chunk_before_the_first_one() {
    let (mut node, no) = asking(false);
    let early = StreamFrame { data: plain(1).into(), ..chunk(no, 0, false) };
    costs_one_request(&mut node, no, vec![Frame::Stream(early)], Reason::Protocol);
    let (mut node, no) = asking(false);
    let end = StreamFrame { end: true, ..chunk(no, 0, false) };
    costs_one_request(&mut node, no, vec![Frame::Stream(end)], Reason::Protocol);
    let (mut node, no) = asking(false);
    let empty = chunk(no, 0, false);
    costs_one_request(&mut node, no, vec![Frame::Stream(empty)], Reason::Protocol);
}

#[test]
fn a_second_first_chunk() {
    let (mut node, no) = asking(true);
    let again = StreamFrame { sequence: 1, ..answer(no, false) };
    costs_one_request(&mut node, no, vec![Frame::Stream(again)], Reason::Protocol);
    let mut node = serving();
    let again = StreamFrame { sequence: 1, ..open(PEERS, false) };
    costs_one_request(&mut node, PEERS, vec![Frame::Stream(again)], Reason::Protocol);
}

#[test]
fn a_chunk_after_the_last_one() {
    for late in [
        StreamFrame { data: plain(1).into(), ..chunk(PEERS, 2, true) },
        StreamFrame { end: true, ..chunk(PEERS, 2, true) },
        chunk(PEERS, 2, true),
    ] {
        let mut node = serving();
        node.give(Frame::Stream(StreamFrame { end: true, ..chunk(PEERS, 1, true) }));
        costs_one_request(&mut node, PEERS, vec![Frame::Stream(late)], Reason::Protocol);
    }
}

#[test]
fn a_second_answer_after_a_complete_one_changes_nothing() {
    let mut node = Node::new();
    let no = node.opened(true);
    node.give(Frame::Stream(answer(no.0, true)));
    node.give(Frame::Stream(StreamFrame { sequence: 1, ..answer(no.0, true) }));
    assert_eq!(node.mux.violations(), 1);
    assert!(matches!(node.take(no), Taken::Head(_)));
    assert!(matches!(node.take(no), Taken::End), "the visitor gets exactly one answer");
    node.drop_handles(no);
    node.is_empty();
}

#[test]
fn a_gap_in_the_sequence() {
    for sequence in [0, 2, u32::MAX] {
        let mut node = serving();
        let gap = StreamFrame { data: plain(1).into(), ..chunk(PEERS, sequence, true) };
        costs_one_request(&mut node, PEERS, vec![Frame::Stream(gap)], Reason::Protocol);
    }
}

#[test]
fn a_payload_of_another_protocol() {
    for (own, protocol) in pairs() {
        let mut node = Node::new();
        node.give(Frame::Stream(StreamFrame { protocol: own, ..open(PEERS, false) }));
        let other = StreamFrame { protocol, data: plain(1).into(), ..chunk(PEERS, 1, true) };
        costs_one_request(&mut node, PEERS, vec![Frame::Stream(other)], Reason::Protocol);

        let mut node = Node::new();
        let no = node.mux.open(opening(), own, false).expect("may open").0;
        node.pull_all();
        let other = StreamFrame { protocol, ..answer(no, false) };
        costs_one_request(&mut node, no, vec![Frame::Stream(other)], Reason::Protocol);
    }
}

fn pairs() -> impl Iterator<Item = (Protocol, Protocol)> {
    let all = Protocol::ALL.into_iter();
    all.flat_map(|a| Protocol::ALL.into_iter().map(move |b| (a, b))).filter(|(a, b)| a != b)
}

#[test]
fn what_this_version_does_not_know_is_counted_and_ignored() {
    let mut node = serving();
    for _ in 0..1_000 {
        node.give(Frame::Unknown);
    }
    assert_eq!((node.mux.stats().ignored, node.mux.violations()), (1_000, 0));
    node.drop_handles(StreamNo(PEERS));
    node.is_empty();
}

#[test]
fn a_payload_of_the_other_direction() {
    let mut node = serving();
    let other = StreamFrame { sequence: 1, ..answer(PEERS, false) };
    costs_one_request(&mut node, PEERS, vec![Frame::Stream(other)], Reason::Protocol);
    let (mut node, no) = asking(true);
    let other = StreamFrame { data: plain(1).into(), ..chunk(no, 1, true) };
    costs_one_request(&mut node, no, vec![Frame::Stream(other)], Reason::Protocol);
    // A head of the wrong kind under the right direction: only raw frames can say that.
    let (mut node, no) = asking(true);
    let first = Some(First::Request(Box::new(opening())));
    let other = StreamFrame { first, ..chunk(no, 1, false) };
    costs_one_request(&mut node, no, vec![Frame::Stream(other)], Reason::Protocol);
    let mut node = serving();
    let other = StreamFrame { is_request: true, sequence: 1, ..answer(PEERS, false) };
    costs_one_request(&mut node, PEERS, vec![Frame::Stream(other)], Reason::Protocol);
}

#[test]
fn data_beyond_the_credit() {
    let mut node = serving();
    let granted = node.mux.accounts(StreamNo(PEERS)).expect("in the table").outstanding;
    let data = [plain(granted - 64), plain(0)].into_iter().collect();
    let beyond = StreamFrame { protocol: Protocol::Http, data, ..chunk(PEERS, 1, true) };
    costs_one_request(&mut node, PEERS, vec![Frame::Stream(beyond)], Reason::FlowControl);
}

#[test]
fn credit_that_was_not_told_yet_is_none() {
    let mut node = Node::new();
    node.give(Frame::Stream(open(PEERS, false)));
    let accounts = node.mux.accounts(StreamNo(PEERS)).expect("in the table");
    assert!(accounts.credit_due > 0);
    let told = accounts.outstanding - accounts.credit_due;
    let all = StreamFrame { data: plain(told - 64).into(), ..chunk(PEERS, 1, true) };
    node.give(Frame::Stream(all));
    assert_eq!(node.mux.violations(), 0);
    node.give(Frame::Stream(StreamFrame { data: plain(1).into(), ..chunk(PEERS, 2, true) }));
    assert_eq!(node.pull_resets()[0].reason, Reason::FlowControl);
    node.drop_handles(StreamNo(PEERS));
    node.is_empty();
}

#[test]
fn an_opening_with_data_beyond_the_credit_is_refused() {
    for end in [false, true] {
        let mut node = Node::new();
        let data = plain(64 * 1024).into();
        node.give(Frame::Stream(StreamFrame { data, ..open(PEERS, end) }));
        let resets = node.pull_resets();
        assert_eq!((resets.len(), resets[0].reason), (1, Reason::FlowControl));
        assert!(node.events().is_empty(), "nobody hears of it");
        assert_eq!(node.mux.violations(), 1);
        node.is_empty();
    }
}

#[test]
fn a_grant_of_nothing_or_too_much() {
    for bytes in [0, i32::MAX as u32, u32::MAX] {
        let (mut node, no) = asking(false);
        let frames = vec![Frame::Credit(StreamNo(no), bytes)];
        costs_one_request(&mut node, no, frames, Reason::FlowControl);
    }
    let mut node = Node::new();
    let first = Opening { answer_credit: u32::MAX, ..opening() };
    let first = Some(First::Request(Box::new(first)));
    node.give(Frame::Stream(StreamFrame { first, ..open(PEERS, true) }));
    assert_eq!(node.pull_resets()[0].reason, Reason::FlowControl);
    node.is_empty();
}

#[test]
fn malformed_content_costs_its_request() {
    let mut node = serving();
    let frames = vec![Frame::Malformed(StreamNo(PEERS), "not a header name")];
    costs_one_request(&mut node, PEERS, frames, Reason::Protocol);
    // An opening that cannot be read is refused, and its number counts as used.
    let mut node = Node::new();
    node.give(Frame::Malformed(StreamNo(PEERS), "not a method"));
    assert!(node.pull_resets()[0].retry_safe);
    node.give(Frame::Stream(StreamFrame { data: plain(1).into(), ..chunk(PEERS, 1, true) }));
    node.give(Frame::Stream(open(PEERS, true)));
    assert_eq!(node.mux.violations(), 1, "what follows it is late, not wrong");
    node.is_empty();
}

#[test]
fn a_malformed_request_id() {
    let mut node = Node::new();
    let first = Some(First::Request(Box::new(Opening { id: None, ..opening() })));
    node.give(Frame::Stream(StreamFrame { first, ..open(PEERS, true) }));
    let resets = node.pull_resets();
    assert_eq!((resets[0].reason, resets[0].retry_safe), (Reason::Protocol, true));
    assert!(node.events().is_empty());
    node.is_empty();
}

#[test]
fn numbers_of_nobody() {
    for side in [Side::Dialer, Side::Listener] {
        let mut node = Node::on(side, Settings::default(), 64 << 20).greeted();
        let mine = side.first_number().0;
        let mut count = 0;
        for frame in [
            Frame::Stream(open(mine, true)),
            Frame::Stream(open(0, true)),
            Frame::Stream(answer(mine, true)),
            Frame::Stream(answer(0, true)),
            Frame::Stream(chunk(3 - mine, 0, true)),
            Frame::Credit(StreamNo(0), 5),
            Frame::Credit(StreamNo(77), 5),
        ] {
            let text = format!("{frame:?}");
            node.give(frame);
            count += 1;
            assert_eq!(node.mux.violations(), count, "{side:?} {text}");
        }
        node.give(Frame::Reset(reset(77)));
        node.give(Frame::Reset(reset(0)));
        assert_eq!(node.mux.violations(), count, "a reset of an unknown request is ignored");
        assert!(node.pull_resets().is_empty());
        node.is_empty();
    }
}

fn reset(no: u64) -> Reset {
    Reset { no: StreamNo(no), reason: Reason::Cancelled, retry_safe: false, message: "".into() }
}

#[test]
fn what_comes_late_for_a_finished_request_is_ignored() {
    let mut node = Node::new();
    let no = node.opened(true);
    node.mux.reset(no, Reason::Cancelled, false, "");
    node.drop_handles(no);
    node.give(Frame::Stream(open(PEERS, true)));
    node.give(Frame::Reset(reset(PEERS)));
    node.drop_handles(StreamNo(PEERS));
    node.is_empty();
    for late in [no.0, PEERS] {
        node.give(Frame::Credit(StreamNo(late), 10));
        node.give(Frame::Reset(reset(late)));
        let late = StreamFrame { data: plain(9).into(), ..chunk(late, 1, late == PEERS) };
        node.give(Frame::Stream(late));
    }
    assert_eq!(node.mux.violations(), 0);
    assert_eq!(node.mux.stats().ignored, 6);
    node.is_empty();
}

#[test]
fn the_first_frame_must_be_hello_and_the_only_one() {
    for frame in [
        Frame::Stream(open(PEERS, true)),
        Frame::Ping(1),
        Frame::Unknown,
        Frame::Credit(StreamNo(1), 1),
        Frame::Malformed(StreamNo(1), "what"),
    ] {
        let mut node = Node::silent(Settings::default(), 1 << 20);
        assert_eq!(node.try_give(frame), Err(Fatal::NoHello));
        assert!(node.events().is_empty());
    }
    let mut node = Node::new();
    assert_eq!(node.try_give(Frame::Hello(Box::new(hello()))), Err(Fatal::SecondHello));
}

#[test]
fn no_version_in_common() {
    for (min, max) in [(0, 0), (2, 99), (99, 99)] {
        let mut node = Node::silent(Settings::default(), 1 << 20);
        let hello = Hello { version_min: min, version_max: max, ..hello() };
        let fatal = node.try_give(Frame::Hello(Box::new(hello))).expect_err("no version");
        assert_eq!(fatal, Fatal::Version { min, max });
        assert!(fatal.to_string().contains(&format!("you offered {min}..{max}")), "{fatal}");
        assert_eq!(node.mux.open(opening(), Protocol::Http, true), Err(Refused::NotReady));
    }
}

#[test]
fn repeated_violations_end_the_session() {
    let mut node = Node::new();
    let limit = Settings::default().max_violations;
    for i in 0..limit {
        node.give(Frame::Malformed(StreamNo(u64::from(i + 1) * 2), "junk"));
    }
    let last = node.try_give(Frame::Malformed(StreamNo(9_998), "the last straw"));
    assert_eq!(last, Err(Fatal::Violations("the last straw")));
}

#[test]
fn a_hundred_thousand_opens_are_refused_beyond_the_limit() {
    let limit = 500;
    let mut node = Node::with(Settings { max_requests: limit, ..Settings::default() }, 64 << 20);
    let mut refused = 0;
    for i in 1..=100_000u64 {
        node.try_give(Frame::Stream(open(i * 2, true))).expect("the session goes on");
        assert!(node.mux.pending() <= limit as usize);
        for reset in node.pull_resets() {
            assert_eq!((reset.reason, reset.retry_safe), (Reason::Overloaded, true));
            refused += 1;
        }
    }
    assert_eq!(refused, 100_000 - limit as usize);
    assert_eq!(node.mux.violations(), 0);
    for i in 1..=u64::from(limit) {
        node.drop_handles(StreamNo(i * 2));
    }
    node.is_empty();
}

#[test]
fn opens_beyond_the_memory_are_refused_retry_safe() {
    let mut node = Node::with(Settings::default(), 1 << 20);
    let mut accepted = 0;
    for i in 1..=1_000u64 {
        node.give(Frame::Stream(open(i * 2, false)));
        for event in node.events() {
            accepted += u64::from(matches!(event, Event::Accepted(_)));
        }
        assert!(node.pull_resets().iter().all(|r| r.retry_safe && r.reason == Reason::Overloaded));
    }
    assert!((1..100).contains(&accepted), "{accepted}");
    assert!(node.budget.used() <= node.budget.limit());
}

#[test]
fn a_peer_that_opens_and_does_not_read_is_put_out() {
    let settings = Settings { max_control: 1_000, max_requests: 10, ..Settings::default() };
    // It is refused and never reads a refusal.
    let mut node = Node::with(settings.clone(), 64 << 20);
    let refused = |i: u64| Frame::Stream(open(i * 2, false));
    let fatal = (1..5_000).find_map(|i| node.try_give(refused(i)).err());
    assert_eq!(fatal, Some(Fatal::NotReading));
    // It opens and resets, again and again, and never reads the credit it is given.
    let mut node = Node::with(settings, 64 << 20);
    let fatal = (1..5_000u64).find_map(|i| {
        let outcome = node.try_give(Frame::Stream(open(i * 2, false)));
        node.try_give(Frame::Reset(reset(i * 2))).ok();
        node.drop_handles(StreamNo(i * 2));
        outcome.err()
    });
    assert_eq!(fatal, Some(Fatal::NotReading));
}

#[test]
fn pings_and_news_do_not_pile_up() {
    let mut node = Node::new();
    for nonce in 0..100_000 {
        node.try_give(Frame::Ping(nonce)).expect("the session goes on");
    }
    let pongs: Vec<_> = node.pull_all();
    assert!(matches!(pongs[..], [Frame::Pong(99_999)]), "one answer, to the last one");
    assert!(node.events().is_empty());
}

#[test]
fn announcements_to_a_peer_that_does_not_read_do_not_pile_up() {
    let mut node = Node::new();
    for revision in 1..=100_000 {
        node.mux.announce(Announcement { revision, services: Vec::new() });
    }
    node.mux.goodbye(Reason::Draining, "bye");
    let frames: Vec<_> = node.pull_all();
    let [Frame::Announce(last), Frame::GoAway(_)] = &frames[..] else {
        panic!("one announcement, and none after a goodbye: {frames:?}");
    };
    assert_eq!(last.revision, 100_000);
}

#[test]
fn after_a_goaway_opens_are_refused_retry_safe() {
    let mut node = Node::new();
    node.mux.goodbye(Reason::Draining, "bye");
    let Some(Frame::GoAway(GoAway { last: Some(last), .. })) = node.pull() else {
        panic!("a goaway with a number");
    };
    assert_eq!(last, StreamNo(0));
    node.give(Frame::Stream(open(PEERS, false)));
    let resets = node.pull_resets();
    assert_eq!((resets[0].reason, resets[0].retry_safe), (Reason::Draining, true));
    assert!(node.events().is_empty());
    assert_eq!(node.mux.open(opening(), Protocol::Http, true), Err(Refused::Leaving));
    node.is_empty();
}

#[test]
fn marks_and_fields_of_any_shape_do_no_harm() {
    // A peer may lie about messages; the mux passes marks on and believes none of them.
    let mut node = serving();
    let start = Some(MessageStart { tag: 255, length: u64::MAX });
    let piece = Data { bytes: "x".into(), start, ends_message: true };
    let data = std::iter::repeat_n(piece, 20).collect();
    let mut trailers = HeaderMap::new();
    trailers.insert("x", HeaderValue::from_static("y"));
    let chunk = chunk(PEERS, 1, true);
    node.give(Frame::Stream(StreamFrame { data, trailers: Some(trailers.into()), ..chunk }));
    for _ in 0..20 {
        assert!(matches!(node.take(StreamNo(PEERS)), Taken::Data(_)));
    }
    assert!(matches!(node.take(StreamNo(PEERS)), Taken::Pending), "trailers need an end");
    node.drop_handles(StreamNo(PEERS));
    node.is_empty();
}
