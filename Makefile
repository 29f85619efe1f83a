# Two commands for a newcomer: `make demo` and `make test`.

.PHONY: demo test bench build check rust real clean

demo:            ## build, then run server, client and sample backends in one process
	cargo build --release --locked
	./target/release/strait demo

build:
	cargo build --release --locked

test:            ## install what the tests need, then run every check
	@bash tests/run.sh

bench:           ## install peers, then measure Strait beside them; BENCH="--quick" and the like
	@python3 bench/run.py $(BENCH)

clean:
	cargo clean
