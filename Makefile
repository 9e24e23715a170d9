# One cargo profile (release) and one target folder for run, test and lint: RocksDB's C++ is compiled once per profile
# and takes most of a cold build. The folder lies outside the checkout, so a fresh clone finds a warm one.

TRICORD_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tricord
CARGO_TARGET_DIR ?= $(TRICORD_CACHE)/target
export TRICORD_CACHE CARGO_TARGET_DIR
# A shell that was opened before rustup was installed does not have it yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

TRICORD = $(CARGO_TARGET_DIR)/release/tricord
VENV = $(TRICORD_CACHE)/venv
ARGS ?=

SEEDS ?= 1..30
QUERIES ?= 400

.PHONY: help run build test simulate soak fuzz-promql bench bench-parts bench-choices bench-promql lint fmt deploy-check deps test-deps clean-data

help: ## shows this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## installs what is missing, builds, starts tricord (ARGS="--retention 7d" are passed on)
	exec $(TRICORD) $(ARGS)

build: deps ## builds the release binary
	@scripts/first-build.sh
	cargo build --release --locked --bin tricord

test: test-deps ## all tests: units, upstream PromQL cases where their folder is there, real processes, manifests
	@scripts/first-build.sh
	PATH="$(VENV)/bin:$$PATH" TRICORD_VENV="$(VENV)" cargo test --release --locked --workspace
	@if [ -x deploy/check.sh ]; then PATH="$(VENV)/bin:$$PATH" deploy/check.sh; fi

fuzz-promql: test-deps ## random queries against Debian's Prometheus, random texts for the parser (SEEDS=1..30 QUERIES=400)
	@scripts/first-build.sh
	FUZZ_SEED=$(firstword $(subst ., ,$(SEEDS))) FUZZ_TEXTS=5000000 \
		cargo test --release --locked --workspace --test parser_fuzz -- --nocapture
	FUZZ_SEEDS=$(SEEDS) FUZZ_QUERIES=$(QUERIES) \
		cargo test --release --locked --workspace --test integration differential -- --nocapture

simulate: SEEDS = 1..20000
simulate: deps ## the shard protocol and placement under random faults (SEEDS=1..20000), with bugs put in on purpose
	@scripts/first-build.sh
	SIMULATE_SEEDS=$(SEEDS) cargo test --release --locked --workspace --test simulation -- --nocapture

soak: test-deps ## kills, partitions, moves and upgrades of real processes for many minutes (SOAK_KILLS=100 SOAK_MOVES=20 SOAK_SEED=1 SOAK_OLD_BINARY=…)
	@scripts/first-build.sh
	PATH="$(VENV)/bin:$$PATH" TRICORD_VENV="$(VENV)" \
		cargo test --release --locked --workspace --test integration faults -- --ignored --nocapture --test-threads 1

bench: deps ## beside VictoriaMetrics and Prometheus: load, queries, memory, restart (ARGS="--parts query --asks 25")
	@scripts/install-deps.sh bench
	@scripts/first-build.sh
	cargo build --release --locked --workspace
	$(CARGO_TARGET_DIR)/release/tricord-bench --tricord $(TRICORD) --dir $(TRICORD_CACHE)/bench $(ARGS)

bench-parts: deps ## decoding, codecs, the head and selecting series, each alone (ARGS=head runs a part, ARGS=--quick all once)
	cargo bench --profile release --locked --workspace --bench decode --bench storage -- $(ARGS)

bench-choices: deps ## what the log and the order of series in blocks rest on: entries a second, bytes, reading
	cargo bench --profile release --locked --workspace --bench choices

bench-promql: deps ## the PromQL engine in memory (ARGS=range/1000/ runs a part, ARGS=--quick all once)
	cargo bench --profile release --locked --workspace --bench promql -- $(ARGS)

lint: deps ## formatting and clippy, with warnings as errors
	@scripts/first-build.sh
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

fmt: ## formats the code
	cargo fmt --all

deps:
	@scripts/install-deps.sh build

test-deps:
	@scripts/install-deps.sh build test

clean-data: ## removes ./tricord-data
	rm -rf tricord-data
