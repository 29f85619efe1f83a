# Two commands for a newcomer: `make demo` and `make test`.

.PHONY: demo build release test bench explore fuzz mutants clean

demo:            ## build, then run server, client and sample backends in one process
	cargo build --release --locked
	./target/release/strait demo

build:
	cargo build --release --locked

release:         ## build for production: laid out by what it does under load (ten minutes)
	@python3 bench/release.py

test:            ## install what the tests need, then run every check
	@bash tests/run.sh

bench:           ## install peers, then measure Strait beside them; BENCH="--quick" and the like
	@python3 bench/run.py $(BENCH)

explore:         ## random cases that `make test` does not try; CASES=1000000 for more of each
	PROPTEST_CASES=$(or $(CASES),200000) cargo test --locked --no-fail-fast -p strait-wire -p strait-mux \
	  --test codec --test model --test anything --test fairness

fuzz:            ## run every fuzz target for a minute; SECONDS=600 for longer
	cargo xtask fuzz $(or $(SECONDS),60)

mutants:         ## break one law at a time and require that the tests notice (half an hour)
	python3 tests/mutations.py

clean:
	cargo clean
