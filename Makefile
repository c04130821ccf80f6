# All that this repository does, on a machine with Python >= 3.11, pip and make.

PYTHON ?= python3
EXTRA ?=
WORKERS ?= 2
UV ?= uv
PEER ?= $(BIN)/python
TFPEER ?= $(PEER)
RATES := benchmarks/results

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
LOCK := requirements$(if $(EXTRA),-$(EXTRA)).txt
RUNTIME := $(VENV)/.runtime$(if $(EXTRA),-$(EXTRA))
DEV := $(VENV)/.dev

# Compiled programs are kept: once a machine, not once a test process.
test test-all parity: export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/.cache/jax
test test-all parity: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0.1
# Without it pyright asks the network at each run whether it is the newest.
check: export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup train test test-all parity check format bench build lock clean

help:  ## show this list
	@echo "usage: make TARGET [PYTHON=python3.12]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(RUNTIME)  ## build .venv from the locked requirements (EXTRA=cuda on a GPU host)

train: setup  ## train on the built-in digits, evaluate, predict one held-out picture
	$(BIN)/alexnet train
	$(BIN)/alexnet eval
	@set -e; \
	run=$$(ls -td runs/digits-*/ | head -n 1); run=$${run%/}; \
	picture=$$(ls "$$run"/samples/*.png | head -n 1); \
	echo "$(BIN)/alexnet predict $$picture"; \
	$(BIN)/alexnet predict "$$picture"; \
	echo; \
	echo "The run is in $$run: checkpoints, metrics.jsonl, figures; open report.html in it."; \
	echo "Next:"; \
	echo "  source $(BIN)/activate"; \
	echo "  alexnet predict PICTURE...        # your own handwriting"; \
	echo "  alexnet describe digits           # the network, layer by layer"; \
	echo "  alexnet train cifar10-quick       # colour photographs"; \
	echo "  alexnet --help"

test: $(DEV)  ## run the tests, except those that need a GPU
	$(PYTEST) -m "not gpu"

test-all: $(DEV)  ## run all tests and measure the coverage
	$(PYTEST) --cov --cov-report=term-missing:skip-covered

parity: $(DEV)  ## compare full-size networks with PyTorch's operators (installs PyTorch)
	$(PIP) install --quiet -r requirements-parity.txt
	$(PYTEST) -n 0 -rP tests/test_parity.py

check: $(DEV)  ## lint, formatting, types, the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --project .
	$(BIN)/lint-imports --no-logo

format: $(DEV)  ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Both sides of a comparison are processes that take turns. PEER and TFPEER are
# interpreters that have torch and tensorflow; what they have not is left out.
bench: setup  ## measure this machine's rates, beside PEER=python (torch) and TFPEER=python
	@mkdir -p $(RATES)
	$(BIN)/alexnet bench --out $(RATES)/rates.jsonl
	$(BIN)/alexnet bench --scaling
	$(BIN)/python benchmarks/input.py --torch-python $(PEER) --tensorflow-python $(TFPEER) --json $(RATES)/input.json
	$(BIN)/python benchmarks/steps.py --peer-python $(PEER) --json $(RATES)/steps.json \
		--peer "own channels_last compiled" --peer "banded channels_last compiled"
	@echo "The measurements are in $(RATES) too."

build: setup  ## build the wheel into dist/
	$(BIN)/hatchling build --target wheel

lock:  ## solve the locked requirements anew (needs uv; LOCK_FLAGS=--upgrade for newer versions)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: pip install uv, or name it with UV=" >&2; exit 1; }
	$(SOLVE) pyproject.toml --output-file requirements.txt
	$(SOLVE) pyproject.toml --group dev --constraint requirements.txt --output-file requirements-dev.txt
	$(SOLVE) pyproject.toml --extra cuda --constraint requirements.txt --output-file requirements-cuda.txt
	$(SOLVE) --group build --constraint requirements-dev.txt --output-file requirements-build.txt

# No index in the files: they are good for any mirror. Universal: for every platform and
# every Python from 3.11 on, where older Pythons get the last versions made for them.
SOLVE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-strip-extras --custom-compile-command "make lock" $(LOCK_FLAGS)

clean:  ## remove the environment, builds and caches; never runs/
	rm -rf $(VENV) dist .cache .pytest_cache .ruff_cache .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) here: name a Python 3.11 or newer with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "alexnet-jax needs Python 3.11 or newer, not $$($(PYTHON) --version 2>&1): make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make environments: install its venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps say which lock file .venv holds; they go stale with the lock or pyproject.
$(RUNTIME): $(LOCK) requirements-build.txt pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements-build.txt
	$(PIP) install --require-hashes --no-build-isolation --use-pep517 -r $(LOCK)
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements-dev.txt | $(RUNTIME)
	$(PIP) install --quiet --require-hashes --no-build-isolation --use-pep517 -r requirements-dev.txt
	@touch $@
