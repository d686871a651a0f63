# Everything a user or a developer does here. Needs Python 3.11 or newer, pip and make; the rest goes into $(VENV).
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

# Python keeps what it has compiled, also where the environment says it should not (as many containers' does): every process that
# imports PyTorch, Transformers and Ray would otherwise compile them again, which makes each start two to three times as long.
export PYTHONDONTWRITEBYTECODE :=

##@ Use
.PHONY: demo
demo: $(VENV)/.demo-installed ## fine-tune a digit classifier on real images, serve, test and gate it, train on messy ones, and across sites
	$(BIN)/python examples/digits/make_data.py
	$(BIN)/tunesmith train examples/digits/recipe.yaml
	PATH="$$(cd $(BIN) && pwd):$$PATH" bash examples/digits/release.sh
	$(BIN)/tunesmith compare-recipes examples/digits/messy.yaml examples/digits/messy-cleaned.yaml examples/digits/messy-protected.yaml
	$(BIN)/tunesmith federate examples/digits/federated.yaml

.PHONY: install
install: $(VENV)/.installed ## make the virtual environment with everything that the other targets need

##@ Develop
.PHONY: check
check: $(VENV)/.installed ## lint, format, types, import floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.PHONY: test
test: $(VENV)/.installed ## the fast tests in parallel, then one real path of each part (under 15 minutes)
	$(PYTEST) tests/unit -n 2
	$(PYTEST) tests/integration

.PHONY: test-all
test-all: $(VENV)/.installed ## the slow ones, two at a time: commands, the README, the browser, killed workers (under 60 minutes)
	$(PYTEST) tests/e2e tests/chaos -n 2 --dist loadfile --durations 20

.PHONY: bench
bench: $(VENV)/.installed ## measure speed and memory and print the tables of docs/benchmarks.md
	for one in text text_quality images augment adaptation scaling startup serve evaluate prepare care imbalance forgetting self_training robustness tune bench report federated federated_deployed federated_quality; do echo "== $$one"; $(BIN)/python tests/benchmarks/bench_$$one.py; done

.PHONY: docs
docs: $(VENV)/.installed ## rewrite the pages that are made from the code
	$(BIN)/python tests/tools/recipe_reference.py

.PHONY: constraints
constraints: $(VENV)/.installed ## pin the newest versions that pyproject.toml allows
	$(BIN)/python tests/tools/constraints.py

.PHONY: browser-deps
browser-deps: ## install the Chromium that the browser tests look through, where this user may
	@if command -v chromium chromium-browser google-chrome >/dev/null; then \
	  echo "A browser is there."; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    chromium fonts-dejavu-core >/dev/null && echo "Chromium is installed." \
	    || echo "Chromium could not be installed: the browser tests will say so."; \
	else \
	  echo "Install Chromium (package chromium) to run the browser tests; without it they are skipped."; \
	fi

.PHONY: clean
clean: ## remove the virtual environment, caches and built files; runs/ stays
	rm -rf $(VENV) build dist .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis examples/*/data
	find platform federated serving cluster examples tests -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' \
	  $(firstword $(MAKEFILE_LIST))

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Tunesmith needs Python 3.11 or newer, this is " \
	  + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

# Installed again whenever what is to be installed has changed. Nothing is compiled ahead: it takes half the time of an install,
# and Python compiles what is imported.
$(VENV)/.demo-installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[examples]"
	touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[dev,examples,trackers]"
	touch $@ $(VENV)/.demo-installed
