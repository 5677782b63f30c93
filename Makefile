# What a developer can do: `make help`.
# Everything that is made lands in .venv; a stamp there tells whether it is up to date.

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
# Where bench-scheduler finds openb/ and swf/; BENCH_ARGS="--seeds 42-43 openb" makes it quicker.
TRACES ?= ../shared/traces
BENCH_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help machine engines setup demo test test-cluster lint format bench bench-scheduler torture clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- setting up ---------------------------------------------------------------------------------

machine: # Says in one sentence if this machine cannot run containers; installs crun and umoci
	@scripts/check-machine.sh

$(VENV)/.ready: pyproject.toml scripts/make-venv.sh
	@scripts/make-venv.sh "$(PYTHON)" "$(VENV)" .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	@scripts/make-venv.sh "$(PYTHON)" "$(VENV)" ".[dev]"
	@touch $@

engines: machine # Installs the engines that the tests of the docker runtime need
	@scripts/test-engines.sh

setup: machine engines $(VENV)/.ready-dev ## Make .venv and install what is missing of crun, umoci, dockerd, podman, faketime and more

# --- using --------------------------------------------------------------------------------------

demo: machine $(VENV)/.ready ## Run examples/flights: 336,776 flights through real containers
	@scripts/demo.sh

# --- checking -----------------------------------------------------------------------------------

test: setup lint ## Run all checks and all tests
	@scripts/run-tests.sh $(BIN)/pytest $(PYTEST_ARGS)

test-cluster: setup ## Run the tests of one machine against a server with two agents in network namespaces
	TOWLINE_TEST_MODE=cluster $(BIN)/pytest $(PYTEST_ARGS) tests/e2e

lint: $(VENV)/.ready-dev ## Run the checks only: ruff, layers, tidy, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tests/tidy.py
	$(BIN)/pyright

format: $(VENV)/.ready-dev ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-scheduler: $(VENV)/.ready-dev ## Print the table of the scheduler core beside the published ones
	$(BIN)/python -m benchmarks.scheduler --traces $(TRACES) $(BENCH_ARGS)

bench: machine $(VENV)/.ready-dev ## Run the benchmarks, as ratios in one run
	$(BIN)/python -m benchmarks

# So many in all, on three clusters: each says its seed, every fault with its verdict, and the verdict of all.
RANDOM_FAULTS = TOWLINE_FAULTS=$(or $(FAULTS),600) TOWLINE_SEED=$(SEED) \
	$(BIN)/pytest -s -q tests/e2e/test_server_torture.py tests/e2e/test_recovery_torture.py

ifdef FAULTS
torture: setup
	$(RANDOM_FAULTS)
else
torture: setup ## Run all that takes hours; FAULTS=N SEED=S: only N faults at random
	$(BIN)/tow simulate --faults --seeds 0-9999 --processes $$(nproc)
	TOWLINE_TEST_COLD=1 $(BIN)/pytest tests/e2e/test_jobs.py
	TOWLINE_KILLS=200 $(BIN)/pytest tests/e2e/test_kill.py
	TOWLINE_EPISODES=20 $(BIN)/pytest tests/e2e/test_recovery.py --timeout 3000
	TOWLINE_FULL_TIMES=1 $(BIN)/pytest tests/e2e/test_recovery.py --timeout 3000
	TOWLINE_ALONE_S=600 TOWLINE_LOSSY_S=240 $(BIN)/pytest tests/e2e/test_recovery_endurance.py
	$(RANDOM_FAULTS)
	TOWLINE_KILLS=200 $(BIN)/pytest -s tests/e2e/test_server_faults.py -k taken_once --timeout 3600
	TOWLINE_KILLS=20 TOWLINE_FULL_TIMES=1 $(BIN)/pytest -s tests/e2e/test_server_faults.py -k whatever --timeout 1200
	TOWLINE_FREEZES=200 $(BIN)/pytest tests/integration/postgresql/test_frozen.py --timeout 3000
	TOWLINE_OOMS=200 $(BIN)/pytest tests/integration/test_container_endings.py --timeout 1200
	TOWLINE_SLOW_ENGINES=1 $(BIN)/pytest tests/conformance/runtimes -k podman
	TOWLINE_KILLS=100 $(BIN)/pytest tests/conformance/runtimes -k random_moments --timeout 1800
	HYPOTHESIS_PROFILE=thorough $(BIN)/pytest tests/unit/core tests/conformance/stores --timeout 3000
endif

clean: ## Remove everything that make made
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
