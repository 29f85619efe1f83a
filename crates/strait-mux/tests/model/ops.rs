//! What may happen, and how it is generated.

use proptest::prelude::*;
use strait_mux::Settings;

use crate::ledger::LARGEST;

/// One step. `pick` chooses among the requests whose handles are held at that side, so
/// that every generated step means something.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Open {
        side: usize,
        protocol: u8,
        body: bool,
        head: usize,
    },
    Respond {
        side: usize,
        pick: usize,
    },
    Push {
        side: usize,
        pick: usize,
        size: usize,
        shape: u8,
    },
    Finish {
        side: usize,
        pick: usize,
        trailers: bool,
    },
    Take {
        side: usize,
        pick: usize,
        parts: usize,
    },
    Reset {
        side: usize,
        pick: usize,
        retry_safe: bool,
    },
    DropReader {
        side: usize,
        pick: usize,
    },
    DropWriter {
        side: usize,
        pick: usize,
    },
    /// The transport of `side` has room for so many frames.
    Pull {
        side: usize,
        frames: usize,
    },
    /// So many frames of `side` arrive at the other.
    Deliver {
        side: usize,
        frames: usize,
    },
    Tick {
        millis: u64,
    },
    Drain {
        side: usize,
    },
    Goodbye {
        side: usize,
    },
    /// `side` loses its link; the other end hears what is still under way.
    Lose {
        side: usize,
    },
    /// Everything that can move moves, and every reader reads.
    Settle,
    /// Only to check the checks: the first frame under way from `side` vanishes.
    DropFrame {
        side: usize,
    },
}

/// How a case ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Finale {
    /// Everyone finishes, everything is delivered and read.
    Orderly,
    /// All handles are dropped where they are, then everything is delivered.
    Abandon,
    /// The link breaks, then all is read and dropped.
    Lost,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) settings: [Settings; 2],
    pub(crate) budgets: [usize; 2],
    /// Frames become bytes and frames again.
    pub(crate) codec: bool,
    pub(crate) ops: Vec<Op>,
    pub(crate) finale: Finale,
}

impl Plan {
    /// A plan of default settings.
    pub(crate) fn plain() -> Plan {
        Plan {
            settings: [Settings::default(), Settings::default()],
            budgets: [64 << 20; 2],
            codec: false,
            ops: Vec::new(),
            finale: Finale::Orderly,
        }
    }
}

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
        5 => (side(), 0..3u8, any::<bool>(), 0..300usize)
            .prop_map(|(side, protocol, body, head)| Op::Open { side, protocol, body, head }),
        5 => (side(), pick()).prop_map(|(side, pick)| Op::Respond { side, pick }),
        12 => (side(), pick(), size, 0..4u8)
            .prop_map(|(side, pick, size, shape)| Op::Push { side, pick, size, shape }),
        4 => (side(), pick(), any::<bool>())
            .prop_map(|(side, pick, trailers)| Op::Finish { side, pick, trailers }),
        10 => (side(), pick(), 1..8usize)
            .prop_map(|(side, pick, parts)| Op::Take { side, pick, parts }),
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
