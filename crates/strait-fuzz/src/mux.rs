//! One end against a hostile peer and an arbitrary application: the steps and what must
//! hold after each are those of the property test of `strait-mux`.

use strait_mux::Settings;

use crate::frames::frame;
use crate::input::Input;

#[path = "../../strait-mux/tests/common/mod.rs"]
pub(crate) mod common;
#[path = "../../strait-mux/tests/anything/steps.rs"]
mod steps;

use steps::{Step, run};

/// Steps that one input may have: more are only slower.
const STEPS: usize = 400;

/// Runs one end of a tunnel: the first bytes are its settings, the rest its steps.
pub fn mux_end(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let window_min = input.pick(&[256u32, 4096]);
    let settings = Settings {
        window_min,
        window: window_min * 4,
        window_max: window_min * 16,
        initial_credit: input.pick(&[0u32, 100, 65_536]),
        max_requests: input.pick(&[1u32, 3, 100]),
        max_violations: 20,
        ..Settings::default()
    };
    let limit = input.pick(&[2_000usize, 20_000, 64 << 20]);
    let mut steps = Vec::new();
    while !input.is_empty() && steps.len() < STEPS {
        steps.push(step(&mut input));
    }
    run(settings, limit, steps);
}

fn step(input: &mut Input<'_>) -> Step {
    match input.byte() % 32 {
        0..14 => Step::Receive(Box::new(frame(input))),
        14..17 => Step::Open { protocol: input.below(3), end: input.flag() },
        17..25 => Step::Use { pick: input.below(8), what: input.byte() % 8, size: input.size() },
        25..29 => Step::Pull(1 + input.below(20)),
        29 => Step::Expire(input.size() as u64),
        30 => Step::Leave(input.flag()),
        _ => Step::Lose,
    }
}
