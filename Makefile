# topicd. `make help` lists the targets.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# Most tests wait for a process or a disk, so three at once suit two cores. By file: what a file sets up is set up once.
SPREAD := -n 3 --dist loadfile

# === SETUP ===

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^# === / {gsub(/[#= ]/, ""); printf "\n%s\n", $$0} /^[a-z][a-z -]*:.*## / {n = split($$1, names, " "); for (i = 1; i <= n; i++) printf "  make %-14s %s\n", names[i], $$2}' Makefile

.PHONY: install
install: .venv/installed ## install topicd with the embedded backends into .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "topicd needs Python 3.11 or newer; PYTHON=/path/to/python3 make … names another"; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "the venv module is missing: sudo apt install python3-venv"; exit 1; }

.venv/installed: .venv/bin/python constraints.txt pyproject.toml
	scripts/pins.sh base otel embedded | $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r /dev/stdin
	scripts/pins.sh build | $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r /dev/stdin
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	scripts/pins.sh piper dev | $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r /dev/stdin
	@touch $@

.PHONY: env-example
env-example: .venv/installed ## write .env.example anew from the settings
	$(BIN)/python -c 'from topicd.settings import example; print(example(), end="")' > .env.example

.PHONY: reference
reference: .venv/installed ## write the tables of settings, events and metrics, and journald's catalogue, anew
	$(BIN)/python scripts/reference.py

.PHONY: hooks
hooks: .venv/installed-dev ## let git check each commit (.pre-commit-config.yaml)
	$(BIN)/pre-commit install

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

.PHONY: unit
unit: .venv/installed-dev ## the tests without real parts
	$(BIN)/pytest -q $(SPREAD) tests/unit

.PHONY: integration acceptance
integration acceptance: .venv/installed-dev ## one tier of the tests with real parts
	$(BIN)/pytest -q $(SPREAD) tests/$@

.PHONY: coverage
coverage: .venv/installed-dev ## which lines the unit and integration tests reach
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q tests/unit tests/integration
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

.PHONY: mutants
mutants: .venv/installed-dev ## plant every fault, and see each one caught by its test
	$(BIN)/python scripts/mutants.py

.PHONY: soak
soak: .venv/installed-dev ## the same tests, for long: more seeds, kills, races, faults of the disk
	POWER_SEEDS=6 $(BIN)/pytest -q -rP tests/integration/test_power_loss.py
	KILLS=70 RACE_S=180 $(BIN)/pytest -q -rP tests/acceptance/test_kills.py tests/acceptance/test_races.py
	SICK=all WATCH_BURST=20000 $(BIN)/pytest -q tests/acceptance/test_sick_disks.py tests/acceptance/test_watching.py
	FUZZ=large INSTANTS=all $(BIN)/pytest -q tests/unit/test_fuzz.py tests/integration/test_fuzz_spool.py tests/integration/test_backup.py

.venv/installed-bench: .venv/installed-dev
	scripts/pins.sh bench | $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r /dev/stdin
	@touch $@

.PHONY: bench
bench: .venv/installed-bench ## print figures: pickup latency, the spool, bursts, backlogs, the demo, downloads, the idle daemon, scrapes, the log
	$(BIN)/python bench/pickup.py
	$(BIN)/python -m bench.spool
	$(BIN)/python bench/burst.py
	$(BIN)/python bench/backlog.py
	$(BIN)/python bench/demo.py
	$(BIN)/python bench/download.py
	$(BIN)/python bench/idle.py
	$(BIN)/python -m bench.scrape
	$(BIN)/python -m bench.log

# === MONITORING ===

.PHONY: monitoring
monitoring: data/grafana/password ## start the daemon with Prometheus, Grafana, Loki and Tempo, by compose
	docker compose --profile monitoring up --detach --build --wait

# Readable for Grafana's user, in a folder that nobody else enters.
data/grafana/password:
	@install -d -m 700 data/grafana
	@od -An -N16 -tx1 /dev/urandom | tr -d ' \n' | install -m 644 /dev/stdin $@

.PHONY: dashboards
dashboards: .venv/installed ## write Grafana's dashboards anew
	$(BIN)/python scripts/dashboards.py

.PHONY: screenshots
screenshots: .venv/installed-dev ## write docs/overview.png and docs/job.png anew, from a daemon at work
	$(BIN)/python scripts/page_screenshots.py

# === RELEASE ===

.PHONY: lock
lock: ## pin every dependency anew (needs uv)
	scripts/lock.py

.PHONY: audit
audit: .venv/installed-dev ## ask the advisory service about every pinned version (needs the network)
	$(BIN)/pip-audit --disable-pip --require-hashes --requirement constraints.txt

.PHONY: dist
dist: .venv/installed ## the wheel and the source archive, in dist/
	$(BIN)/python -m hatchling build --directory dist

.PHONY: image
image: ## the images, labelled with the version and the commit
	for target in slim embedded piper; do scripts/image.sh $$target --tag topicd:$$target || exit 1; done

.PHONY: sbom
sbom: .venv/installed-dev ## the bill of materials of an installation with all extras, in dist/
	@mkdir -p dist
	SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct)" $(BIN)/python scripts/sbom.py base otel embedded systemd >dist/topicd.cdx.json

.PHONY: release-check
release-check: .venv/installed ## whether version, changelog and (TAG=v1.2.3) tag agree
	$(BIN)/python scripts/release_check.py $(TAG)

# === CLEANUP ===

.PHONY: clean
clean: ## remove what the targets above made, but no home's content
	rm -rf .venv .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
