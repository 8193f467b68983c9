# `make demo` and `make test` are all the set-up there is: each makes .venv, installs what it needs at the exact versions
# of constraints.txt, and does its job. A second run installs nothing.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do $$python -c \
	'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install --constraint constraints.txt
WORKERS ?= 2

.PHONY: help demo test slow wheel lint fix docs numbers studies reference constraints clean
.DEFAULT_GOAL := help

help: ## print this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do printf 'make %-12s %s\n' "$$name" "$$what"; done

demo: $(VENV)/.installed ## build a small model that sees, and the report on it
	$(BIN)/lorgnette demo

test: lint ## lint, type-check and run every test, those of training with the kernels of an old processor too
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE $(BIN)/pytest -n $(WORKERS) -m kernels tests/train

slow: $(VENV)/.installed-test ## run the tests that take minutes: a server under load, workers that restart, Ray Serve, the container's steps
	$(PIP) --no-build-isolation --editable '.[ray,test]'
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow

wheel: $(VENV)/.installed-test ## write the wheel to dist, for the Dockerfile
	rm -f dist/lorgnette-*.whl
	$(BIN)/python -m hatchling build --target wheel

lint: $(VENV)/.installed-test ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(VENV)/.installed-test ## let ruff format and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-test ## write the site of documentation to build/site
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=$(CURDIR) $(BIN)/mkdocs build --strict --quiet

numbers: $(VENV)/.installed ## refill the numbers of README.md and docs/backbones.md from benchmarks/results
	$(BIN)/python scripts/readme_numbers.py

studies: $(VENV)/.installed ## make the pages of docs/studies from the rows in studies/results
	PYTHONPATH=$(CURDIR) $(BIN)/python scripts/studies.py

reference: $(VENV)/.installed ## make the pages of docs/reference from the code
	PYTHONPATH=$(CURDIR) $(BIN)/python scripts/reference.py

constraints: ## choose the newest versions afresh and write constraints.txt
	scripts/constraints $(PYTHON)

clean: ## remove .venv and caches (runs/ stays)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "lorgnette needs Python 3.11 or newer with venv; install it, or: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing lorgnette into $(VENV) (once, a few minutes)"
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation --editable '.[data,lora]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "Installing the test tools into $(VENV) (once, a minute or two)"
	$(PIP) --no-build-isolation --editable '.[test]'
	@touch $@
