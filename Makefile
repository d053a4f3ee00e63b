# The first two commands: `make demo` and `make test`. Every command sets up what it needs first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SYSTEM := $(VENV)/.system
ALL_TESTS := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
CORE := tests/dn2/neighbors tests/dn2/store tests/dn2/test_*.py tests/test_docs.py

.PHONY: demo test coverage check fix e2e bench-orchestration bench-cleaning bench-thresholds bench-groups bench-neighbors bench-ingest bench-crops bench-truth deploy reference lint types install clean

demo: $(READY)
	$(BIN)/dn2 demo

# All tests; or some: make test T=tests/dn2/test_config.py::test_name
# Threads that wait for work sleep: those of several processes would keep each other's cores busy with waiting.
test coverage check: export OMP_WAIT_POLICY = PASSIVE
# What Python has compiled is kept: else every process compiles dn2, and pytest all tests and hypothesis, anew.
unexport PYTHONDONTWRITEBYTECODE
test: $(READY) $(SYSTEM)
ifdef T
	$(BIN)/python -m pytest $(T)
else
	$(ALL_TESTS)
endif

# All tests, and what they leave unrun: a third slower.
coverage: $(READY) $(SYSTEM)
	$(ALL_TESTS) --cov --cov-report=term --cov-fail-under=90

# What to run before every commit: rules, types, and the tests of the parts on which all others stand.
check: lint types
	$(ALL_TESTS) -q -m "not (slow or s3 or browser or gpu or server)" $(CORE)

# Mends what ruff can mend, and writes the reference anew.
fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m docs.reference

# A real server, worker, drop, crash and browser, from the first command to the last report.
e2e: $(READY) $(SYSTEM)
	$(BIN)/python -m tests.e2e

bench-orchestration: $(READY) $(SYSTEM)
	$(BIN)/python -m benchmarks.orchestration

bench-cleaning: $(READY) $(SYSTEM)
	$(BIN)/python -m benchmarks.cleaning

bench-thresholds: $(READY) $(SYSTEM)
	$(BIN)/python -m benchmarks.thresholds

bench-groups: $(READY) $(SYSTEM)
	$(BIN)/python -m benchmarks.groups

bench-neighbors: $(READY) $(SYSTEM)
	$(BIN)/python -m benchmarks.neighbors

bench-ingest: $(READY) $(SYSTEM)
	$(BIN)/python -m benchmarks.ingest

bench-crops: $(READY) $(SYSTEM)
	$(BIN)/python -m benchmarks.crops

bench-truth: $(READY) $(SYSTEM)
	$(BIN)/python -m benchmarks.truth

# Needs a running Prefect server (PREFECT_API_URL). Can be repeated.
deploy: $(READY)
	$(BIN)/python -m deployments.deploy

# docs/reference.md from the code: after every change of a setting or a column.
reference: $(READY)
	$(BIN)/python -m docs.reference

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

install: $(READY)

# The environment is made anew only when the project's dependencies change.
$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dn2 needs Python 3.11 or newer")'
	@echo "installing dn2 and what it needs into $(VENV): a few minutes, several GB"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

# Real pictures and a real browser for the tests: Debian packages, installed if that is possible here.
$(SYSTEM): tests/install-system-packages
	sh tests/install-system-packages
	touch $@

clean:
	rm -rf $(VENV) dn2-e2e build dist *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
