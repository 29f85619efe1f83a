#!/usr/bin/env bash
# Tries every order of steps of the threads that share a cell: the memory budget, the
# session and the line of bodies. Their locks and atomics are loom's for this build, which has a folder of its own
# because everything that depends on them is compiled again.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/interleavings
export RUSTFLAGS="${RUSTFLAGS:-} --cfg interleavings"
# Optimised: each test runs up to some ten thousand times.
export CARGO_PROFILE_DEV_OPT_LEVEL=1
cargo test --locked --quiet -p strait-mux --test interleavings
cargo test --locked --quiet -p strait-engine --lib interleavings
