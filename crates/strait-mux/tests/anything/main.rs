//! A peer that sends anything in any order, against an application that does anything in
//! any order: nothing panics, the mux agrees with itself after every step, what it takes in
//! stays within its limits, and when all handles are dropped nothing is left.
#![allow(clippy::panic)] // how a test fails

#[path = "../common/mod.rs"]
mod common;
mod steps;

use common::{ok, opening, plain};
use http::HeaderMap;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngAlgorithm};
use steps::{Step, run};
use strait_mux::Settings;
use strait_wire::{
    Data, First, Frame, GoAway, MessageStart, Opening, Protocol, Reason, Reset,
    Settings as PeerSettings, StreamFrame, StreamNo,
};

fn first() -> impl Strategy<Value = Option<First>> {
    let credit = prop_oneof![0..300u32, any::<u32>()];
    let request = (any::<bool>(), 0..9u8, credit, any::<bool>()).prop_map(
        |(has_id, urgency, answer_credit, awaits_continue)| {
            let id = opening().id.filter(|_| has_id);
            let opening = Opening { id, urgency, answer_credit, awaits_continue, ..opening() };
            First::Request(Box::new(opening))
        },
    );
    let response = Just(()).prop_map(|()| First::Response(Box::new(ok())));
    prop_oneof![4 => Just(None), 3 => request.prop_map(Some), 2 => response.prop_map(Some)]
}

fn stream() -> impl Strategy<Value = Frame> {
    let size = prop_oneof![Just(0usize), 1..100usize, 1_000..9_000usize];
    let piece = (size, any::<bool>(), any::<bool>()).prop_map(|(size, start, ends_message)| {
        let start = start.then_some(MessageStart { tag: 1, length: 5 });
        Data { start, ends_message, ..plain(size) }
    });
    let shape = (0..3usize, any::<bool>(), any::<bool>(), any::<bool>());
    (0..9u64, 0..4u32, shape, first(), prop::collection::vec(piece, 0..3)).prop_map(
        |(no, sequence, (protocol, is_request, end, trailers), first, data)| {
            // Mostly as it should be, so that the rest is reached too.
            let protocol = if protocol == 0 { Protocol::Grpc } else { Protocol::Http };
            let is_request = if first.is_none() { no % 2 == 0 } else { is_request };
            let trailers = trailers.then(|| Box::new(HeaderMap::new()));
            Frame::Stream(StreamFrame {
                no: StreamNo(no),
                sequence: if first.is_some() { 0 } else { sequence },
                protocol,
                is_request,
                first,
                data: data.into_iter().collect(),
                trailers,
                end,
            })
        },
    )
}

fn frame() -> impl Strategy<Value = Frame> {
    let no = || (0..9u64).prop_map(StreamNo);
    let reason = || prop::sample::select(Reason::ALL);
    prop_oneof![
        20 => stream(),
        4 => (no(), prop_oneof![Just(0u32), 1..500u32, any::<u32>()])
            .prop_map(|(no, bytes)| Frame::Credit(no, bytes)),
        4 => (no(), reason(), any::<bool>()).prop_map(|(no, reason, retry_safe)| {
            Frame::Reset(Reset { no, reason, retry_safe, message: String::new() })
        }),
        1 => any::<u64>().prop_map(Frame::Ping),
        1 => (0..3u64).prop_map(Frame::Pong),
        1 => (prop::option::of(no()), reason()).prop_map(|(last, reason)| {
            Frame::GoAway(GoAway { last, reason, message: String::new() })
        }),
        1 => any::<[u32; 2]>().prop_map(|[initial_credit, max_requests]| {
            Frame::Settings(PeerSettings { initial_credit, max_requests })
        }),
        1 => no().prop_map(|no| Frame::Malformed(no, "damaged")),
        1 => Just(Frame::Unknown),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => frame().prop_map(|frame| Step::Receive(Box::new(frame))),
        4 => (0..3usize, any::<bool>()).prop_map(|(protocol, end)| Step::Open { protocol, end }),
        12 => (0..8usize, 0..8u8, prop_oneof![0..200usize, 0..20_000usize])
            .prop_map(|(pick, what, size)| Step::Use { pick, what, size }),
        8 => (1..20usize).prop_map(Step::Pull),
        1 => (0..9_000u64).prop_map(Step::Expire),
        1 => any::<bool>().prop_map(Step::Leave),
        1 => Just(Step::Lose),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: common::cases(1_500),
        max_shrink_iters: 20_000,
        rng_algorithm: RngAlgorithm::XorShift,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn anything_in_any_order(
        window_min in prop::sample::select(vec![256u32, 4096]),
        initial_credit in prop::sample::select(vec![0u32, 100, 65_536]),
        max_requests in prop::sample::select(vec![1u32, 3, 100]),
        limit in prop::sample::select(vec![2_000usize, 20_000, 64 << 20]),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let settings = Settings {
            window_min,
            window: window_min * 4,
            window_max: window_min * 16,
            initial_credit,
            max_requests,
            max_violations: 20,
            ..Settings::default()
        };
        run(settings, limit, steps);
    }
}
