# topicd. `make help` lists the targets.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

# === SETUP ===

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^# === / {gsub(/[#= ]/, ""); printf "\n%s\n", $$0} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

.PHONY: install
install: .venv/installed ## install topicd with the embedded backends into .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "topicd needs Python 3.11 or newer; PYTHON=/path/to/python3 make … names another"; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "the venv module is missing: sudo apt install python3-venv"; exit 1; }

.venv/installed: .venv/bin/python constraints.txt pyproject.toml
	scripts/pins.sh base embedded | $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r /dev/stdin
	scripts/pins.sh build | $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r /dev/stdin
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	scripts/pins.sh dev | $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r /dev/stdin
	@touch $@

.PHONY: env-example
env-example: .venv/installed ## write .env.example anew from the settings
	$(BIN)/python -c 'from topicd.settings import example; print(example(), end="")' > .env.example

# === RUN ===

.PHONY: demo
demo: .venv/installed ## make a finished folder from examples/tides.md, and show how it goes
	@scripts/demo.sh

.PHONY: run
run: .venv/installed ## run the daemon here; drop topics into input/
	@$(BIN)/topicd run

# === TEST ===

.PHONY: test
test: lint types imports unit integration acceptance ## everything: lint, types, import rules, every test

.PHONY: lint
lint: .venv/installed-dev ## ruff: all rules, and the format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: types
types: .venv/installed-dev ## mypy, strict
	$(BIN)/mypy

.PHONY: imports
imports: .venv/installed-dev ## the import rules of pyproject.toml
	$(BIN)/lint-imports --no-logo

.PHONY: unit integration acceptance
unit integration acceptance: .venv/installed-dev ## one tier of the tests
	$(BIN)/pytest -q tests/$@

.PHONY: coverage
coverage: .venv/installed-dev ## which lines the unit and integration tests reach
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q tests/unit tests/integration
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

.PHONY: bench
bench: .venv/installed-dev ## print figures: pickup latency, the demo, the idle daemon
	$(BIN)/python bench/pickup.py
	$(BIN)/python bench/demo.py
	$(BIN)/python bench/idle.py

# === RELEASE ===

.PHONY: lock
lock: ## pin every dependency anew (needs uv)
	scripts/lock.py

# === CLEANUP ===

.PHONY: clean
clean: ## remove what the targets above made, but no home's content
	rm -rf .venv .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
