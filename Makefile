.PHONY: help setup demo demo-stop test test-full lint bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

setup: ## what the others need, below .cache
	@scripts/setup

demo: ## deploy an example as production and test, and prove what is promised
	@scripts/demo

demo-stop: ## end what the demo left running
	@scripts/demo stop

test: setup ## lint and the core tests
	@scripts/test

test-full: setup ## all tests, in slices of less than an hour
	@scripts/test --full

lint: setup ## ruff, yamllint, mypy, ansible-lint, galaxy-importer, ansible-test sanity
	@scripts/lint

bench: setup ## what modules, deploys and restores cost, in ratios
	@tests/bench/run

clean: ## remove all that was set up
	@[ ! -d .cache/demo ] || scripts/demo stop || echo 'clean: what the demo left running could not be ended' >&2
	@rm -rf .cache
