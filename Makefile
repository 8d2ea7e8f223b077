# Every target makes .venv on first use and reuses it after; only Python >= 3.11 and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo quick test kernels mutants soak bench check format docs figures options-page wheel-test lowest clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

demo: $(VENV)/.runtime  ## train on a synthetic ocean, evaluate, search, a page to look around; results in demo/
	$(BIN)/nenya demo

quick: $(VENV)/.dev  ## the tests that only compute, for while you write
	$(BIN)/pytest -m "not slow" --numprocesses 2 --dist worksteal

test: $(VENV)/.dev  ## the test-suite (about 5 minutes on 2 cores)
	$(BIN)/pytest --numprocesses 5 --dist worksteal

kernels: $(VENV)/.dev  ## the test-suite under five choices of kernels and threads; docs/reliability.md (about 30 minutes)
	$(BIN)/python -m tests.kernels.settings

mutants: $(VENV)/.dev  ## change the code in small ways, see that the tests notice; docs/reliability.md (about 40 minutes)
	@$(PIP) --editable '.[mutants]'
	$(BIN)/python -m tests.mutation

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

docs: $(VENV)/.dev  ## build the site, build/docs/index.html; a warning is an error
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs build/docs

figures: $(VENV)/.dev  ## draw the figures of the docs again, from the code (about half a minute)
	$(BIN)/python -m docs.figures.draw

options-page: $(VENV)/.runtime  ## renew docs/options.md from the options table
	$(BIN)/nenya options --markdown > docs/options.md

wheel-test: $(VENV)/.dev  ## build wheel and sdist, install the wheel in empty environments, train for a moment
	$(BIN)/python -m tests.installs.wheel $(WHEEL_PYTHON)

# The lowest torch comes with CUDA, 3 GB; `make lowest LOWEST=torch=2.13.0` leaves that out.
lowest: $(VENV)/.dev  ## run the tests of one process with the lowest version of every requirement (.venv-lowest)
	$(BIN)/python -m tests.installs.lowest $(LOWEST) > .venv-lowest.txt
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --requirement .venv-lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --no-deps --editable .
	.venv-lowest/bin/python -m pytest -p no:cacheprovider tests/data tests/models tests/kernels tests/machine tests/training \
	    tests/test_losses.py tests/test_page.py tests/test_train.py tests/test_options.py tests/test_resume.py

clean:  ## remove .venv and caches; never your data or models
	rm -rf $(VENV) .venv-lowest .venv-lowest.txt .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache nenya.egg-info build dist
