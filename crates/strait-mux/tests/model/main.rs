//! Two muxes and a wire between them against a reference model: whatever the two sides do,
//! and however the wire delays, stalls or breaks, the invariants of docs/protocol.md hold
//! after every step.
//!
//! `PROPTEST_CASES` says how many cases to try; the default is meant for every build.

mod app;
mod check;
mod ledger;
mod ops;
mod plan;
mod turns;
mod world;

use ops::{Op, Plan};
use plan::plan;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngAlgorithm};
use world::run;

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    ProptestConfig {
        cases,
        max_shrink_iters: 20_000,
        // The default generator takes two thirds of the time in an unoptimised build.
        rng_algorithm: RngAlgorithm::XorShift,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_step_keeps_the_invariants(plan in plan()) {
        if let Err(what) = run(&plan) {
            return Err(TestCaseError::fail(what));
        }
    }
}

#[test]
fn the_model_notices_lost_data() {
    // The checks themselves are checked: a wire that loses one frame must be noticed.
    let mut ops =
        vec![Op::Settle, Op::Open { side: 0, protocol: 0, body: true, waits: false, head: 10 }];
    ops.extend([Op::Push { side: 0, pick: 0, size: 50, shape: 0 }; 3]);
    ops.extend([Op::Pull { side: 0, frames: 10 }, Op::DropFrame { side: 0 }, Op::Settle]);
    let plan = Plan { ops, ..Plan::plain() };
    run(&plan).expect_err("a frame is missing");
}
