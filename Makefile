# The commands that one needs all day. `make` alone lists them. Nothing here is needed to build: cargo does that.
# --release throughout, so that one build serves all.

.DEFAULT_GOAL := help
.PHONY: help build demo fmt lint unit test test-all doc schemas settings pictures deny services services-stop bench ci

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

build: ## the program, in target/release
	cargo build --release

demo: ## all of it at work, with nothing installed
	cargo run --release -- demo

fmt: ## format the code
	cargo fmt

lint: ## what rustfmt and clippy find; warnings are errors
	cargo fmt --check
	cargo clippy --release --all-targets -- -D warnings

unit: ## the tests that need no server, seconds
	cargo tests --lib

test: ## all that needs real Kafka and PostgreSQL; a part of it: make test ONLY=pipeline::
	tests/run $(ONLY)

test-all: ## these, and what needs Java, Node, Python, a browser, Prometheus or Helm
	tests/run --all $(ONLY)

doc: ## the crate's documentation; warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --release

schemas: ## write schemas/ from the types
	cargo run --release -- schema --write schemas

settings: ## write docs/configuration.md from the flags
	cargo run --release -- settings --write docs/configuration.md

pictures: ## write docs/images from the demo's live page, in a browser
	STOCK_VERIFIER_PICTURES=$(CURDIR)/docs/images tests/run browser::the_demo_fills -- --include-ignored

deny: ## licences, duplicate versions and sources of the dependencies; by deny.toml
	bash -c '. tests/lib.sh && ensure_cargo_deny'
	cargo deny check licenses bans sources -D warnings

services: ## start the servers for hand work; their names: eval "$(tests/services env)"
	tests/services start

services-stop: ## stop them
	tests/services stop

bench: ## the tables of docs/performance.md: 17 minutes
	cargo bench --bench pipeline -- --rounds 2

ci: ## what must pass before a change lands
	bash .ci/run
