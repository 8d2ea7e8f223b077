# Every target makes .venv on first use and reuses it after; only Python >= 3.11 and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test soak bench check format docs clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"nenya needs Python >= 3.11, {sys.executable} is {v.major}.{v.minor}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing nenya into $(VENV) (once)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "installing the test and lint tools into $(VENV) (once)"
	@$(PIP) --editable '.[dev]'
	@touch $@

demo: $(VENV)/.runtime  ## train on a synthetic ocean in about 3 minutes; results in demo/
	$(BIN)/nenya demo

test: $(VENV)/.dev  ## the test-suite (about 4 minutes on 2 cores)
	$(BIN)/pytest --numprocesses 3 --dist worksteal

soak: $(VENV)/.dev  ## kill, fill, damage and fuzz by the hundred; docs/reliability.md (about 15 minutes on 2 quiet cores)
	$(BIN)/python -m tests.faults.soak

bench: $(VENV)/.dev  ## measure speed and memory; benchmarks/RESULTS.md (about 9 minutes on 2 cores)
	$(BIN)/python -m benchmarks

check: $(VENV)/.dev  ## ruff, mypy, import-linter, codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(VENV)/.dev  ## let ruff format and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.runtime  ## renew docs/options.md from the options table
	$(BIN)/nenya options --markdown > docs/options.md

clean:  ## remove .venv and caches; never your data or models
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache nenya.egg-info build
