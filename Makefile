# What people type. Each target is a script or a cargo command that can be run by hand as well.
.DEFAULT_GOAL := help
.PHONY: help test demo lint bench

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: ## every test, with throw-away PostgreSQL, MariaDB and Redis (installs what is missing on Debian and Ubuntu)
	@tests/run

demo: ## a real export through the real API, in ./rowgate-demo
	cargo run --release -- demo

lint: ## formatting, clippy, and the rules of tests/it/tidy.rs
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo test --quiet --test it tidy::

bench: ## rows/s, CPU and memory of whole exports, beside psql
	benches/run
