//! Two ends and a wire: the reference model is that of `strait-mux`; only what chooses the
//! steps is a fuzzer here.
#![allow(dead_code, reason = "the property test uses more of the model than a fuzzer")]

use strait_mux::Settings;

use crate::input::Input;

#[path = "../../strait-mux/tests/model/app.rs"]
mod app;
#[path = "../../strait-mux/tests/model/check.rs"]
mod check;
#[path = "../../strait-mux/tests/model/ledger.rs"]
mod ledger;
#[path = "../../strait-mux/tests/model/ops.rs"]
mod ops;
#[path = "../../strait-mux/tests/model/turns.rs"]
mod turns;
#[path = "../../strait-mux/tests/model/world.rs"]
mod world;

use ops::{Finale, Op, Plan};

/// Steps that one input may have: more are only slower.
const STEPS: usize = 400;

/// Runs two ends of a tunnel: the first bytes are their settings, the rest what happens.
pub fn mux_pair(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let settings = [settings(&mut input), settings(&mut input)];
    let budgets = [(); 2].map(|()| input.pick(&[3_000usize, 12_000, 200_000, 64 << 20]));
    let finale = input.pick(&[Finale::Orderly, Finale::Abandon, Finale::Lost]);
    let codec = input.flag();
    let mut ops = vec![Op::Settle];
    while !input.is_empty() && ops.len() < STEPS {
        ops.push(op(&mut input));
    }
    let plan = Plan { settings, budgets, codec, ops, finale };
    if let Err(what) = world::run(&plan) {
        panic!("{what}\n{plan:?}");
    }
}

fn settings(input: &mut Input<'_>) -> Settings {
    let window_min = input.pick(&[256, 512, 4096]);
    let window = window_min * input.pick(&[1, 4, 64]);
    Settings {
        window_min,
        window,
        window_max: window * input.pick(&[1, 4, 16]),
        initial_credit: input.pick(&[0, 63, 64, 65, 70, 300, 4096, 65_536]),
        piece: input.pick(&[1, 64, 200, 1024, 16_384]),
        max_piece: input.pick(&[1, 1024, 4096, 65_536]),
        max_requests: input.pick(&[1, 3, 100]),
        ..Settings::default()
    }
}

fn op(input: &mut Input<'_>) -> Op {
    let (kind, side) = (input.byte() % 64, input.below(2));
    match kind {
        0..6 => {
            let (protocol, flags) = (input.byte() % 3, input.byte());
            let (body, waits) = (flags & 1 != 0, flags & 2 != 0);
            Op::Open { side, protocol, body, waits, head: input.size() % 300 }
        }
        6..11 => Op::Respond { side, pick: input.below(12) },
        11..23 => {
            let (pick, shape) = (input.below(12), input.byte() % 4);
            Op::Push { side, pick, size: input.size().min(ledger::LARGEST), shape }
        }
        23..27 => Op::Finish { side, pick: input.below(12), trailers: input.flag() },
        27..36 => Op::Take { side, pick: input.below(12), parts: 1 + input.below(8) },
        36 => Op::Reset { side, pick: input.below(12), retry_safe: input.flag() },
        37 | 38 => Op::DropReader { side, pick: input.below(12) },
        39 | 40 => Op::DropWriter { side, pick: input.below(12) },
        41..49 => Op::Pull { side, frames: 1 + input.below(12) },
        49..57 => Op::Deliver { side, frames: 1 + input.below(12) },
        57..59 => Op::Tick { millis: input.size() as u64 },
        59 => Op::Drain { side },
        60 => Op::Stall { side, pick: input.below(12) },
        61 => Op::Settle,
        62 => Op::Goodbye { side },
        _ => Op::Lose { side },
    }
}
