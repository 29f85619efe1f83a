//! How cases are generated.

use proptest::prelude::*;
use strait_mux::Settings;

use crate::ledger::LARGEST;
use crate::ops::{Finale, Op, Plan};

fn settings() -> impl Strategy<Value = Settings> {
    let sizes = (
        prop::sample::select(vec![256, 512, 4096]),
        prop::sample::select(vec![1, 4, 64]),
        prop::sample::select(vec![1, 4, 16]),
        prop::sample::select(vec![0, 63, 64, 65, 70, 300, 4096, 65_536]),
    );
    let pieces = (
        prop::sample::select(vec![1, 64, 200, 1024, 16_384]),
        prop::sample::select(vec![1, 1024, 4096, 65_536]),
        prop::sample::select(vec![1, 3, 100]),
    );
    (sizes, pieces).prop_map(|((min, times, grow, initial), (piece, max_piece, requests))| {
        Settings {
            window_min: min,
            window: min * times,
            window_max: min * times * grow,
            initial_credit: initial,
            piece,
            max_piece,
            max_requests: requests,
            ..Settings::default()
        }
    })
}

fn op() -> impl Strategy<Value = Op> {
    let side = || 0..2usize;
    let pick = || 0..12usize;
    let size = prop_oneof![
        4 => Just(0),
        8 => 1..200usize,
        4 => 200..5_000usize,
        1 => 5_000..LARGEST,
    ];
    prop_oneof![
        5 => (side(), 0..3u8, any::<bool>(), prop::bool::weighted(0.2), 0..300usize).prop_map(
            |(side, protocol, body, waits, head)| Op::Open { side, protocol, body, waits, head },
        ),
        5 => (side(), pick()).prop_map(|(side, pick)| Op::Respond { side, pick }),
        12 => (side(), pick(), size, 0..4u8)
            .prop_map(|(side, pick, size, shape)| Op::Push { side, pick, size, shape }),
        4 => (side(), pick(), any::<bool>())
            .prop_map(|(side, pick, trailers)| Op::Finish { side, pick, trailers }),
        10 => (side(), pick(), 1..8usize)
            .prop_map(|(side, pick, parts)| Op::Take { side, pick, parts }),
        1 => (side(), pick()).prop_map(|(side, pick)| Op::Stall { side, pick }),
        1 => (side(), pick(), any::<bool>())
            .prop_map(|(side, pick, retry_safe)| Op::Reset { side, pick, retry_safe }),
        2 => (side(), pick()).prop_map(|(side, pick)| Op::DropReader { side, pick }),
        2 => (side(), pick()).prop_map(|(side, pick)| Op::DropWriter { side, pick }),
        12 => (side(), 1..12usize).prop_map(|(side, frames)| Op::Pull { side, frames }),
        12 => (side(), 1..12usize).prop_map(|(side, frames)| Op::Deliver { side, frames }),
        3 => (0..3_000u64).prop_map(|millis| Op::Tick { millis }),
        1 => side().prop_map(|side| Op::Drain { side }),
        1 => Just(Op::Settle),
    ]
}

/// Steps that end a session come rarely and at most once each.
fn endings() -> impl Strategy<Value = Vec<Op>> {
    let one = prop_oneof![
        (0..2usize).prop_map(|side| Op::Goodbye { side }),
        (0..2usize).prop_map(|side| Op::Lose { side }),
    ];
    prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(one, 1..3)]
}

pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    let budget = || prop::sample::select(vec![3_000usize, 12_000, 200_000, 64 << 20]);
    let finale = prop_oneof![
        4 => Just(Finale::Orderly),
        2 => Just(Finale::Abandon),
        1 => Just(Finale::Lost),
    ];
    let ops = (prop::collection::vec(op(), 0..150), endings(), prop::collection::vec(op(), 0..40));
    // Most cases begin with a session that is up.
    let begin = prop_oneof![1 => Just(Vec::new()), 7 => Just(vec![Op::Settle])];
    let ends = ((settings(), settings()), (budget(), budget()));
    (ends, any::<bool>(), begin, ops, finale).prop_map(
        |(((a, b), (c, d)), codec, mut begin, (ops, endings, rest), finale)| {
            begin.extend(ops);
            begin.extend(endings);
            begin.extend(rest);
            Plan { settings: [a, b], budgets: [c, d], codec, ops: begin, finale }
        },
    )
}
