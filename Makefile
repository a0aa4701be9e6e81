# Two commands matter: `make up` runs everything, `make test` proves it. See README.md.
# The system's Python is only asked to make .venv; set PYTHON to choose another.

PYTHON ?= python3
PYTEST_ARGS ?=
BIN := .venv/bin
LAUNCH := platform/slipway/launch
BOOTSTRAP = @command -v "$(PYTHON)" >/dev/null 2>&1 || { echo "slipway: There is no $(PYTHON) here; install Python 3.11 or newer, or run: make PYTHON=/path/to/python $@" >&2; exit 1; }; "$(PYTHON)" $(LAUNCH)/bootstrap.py

.PHONY: up test check types style pytest install install-test lock clean
.DEFAULT_GOAL := up

up: install  ## Start everything in the foreground; Ctrl-C stops it
	@exec $(BIN)/python -m slipway.launch.up --with-parent

test: install-test check pytest  ## Everything that must hold before a commit

check: install-test  ## Style, types, import direction, Django's own checks; types beside all others
	@$(MAKE) --no-print-directory -j2 types style

types: install-test
	$(BIN)/mypy engine serving $(wildcard */services.py platform/slipway/*/services.py)

style: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python manage.py check --deploy --fail-level WARNING
	$(BIN)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run

# A file stays in one process; tests/order.py says which file begins first.
SPREAD := --dist loadfile --no-loadscope-reorder -p tests.order

# Both runs of the tests use the same prepared environments.
pytest: export SLIPWAY_TEST_ENVIRONMENTS ?= $(CURDIR)/.slipway/test-environments
# uv takes half of pip's time for the same packages; the tests of installing itself try both.
pytest: export SLIPWAY_INSTALLER ?= uv
pytest: install-test
	@$(BIN)/python -m slipway.launch.browser
	$(BIN)/python -m pytest -n 3 $(SPREAD) -m "not e2e and not chaos" $(PYTEST_ARGS)
	$(BIN)/python -m pytest -n 2 $(SPREAD) -m "e2e or chaos" tests/e2e tests/chaos $(PYTEST_ARGS)

install:
	$(BOOTSTRAP) base

install-test:
	$(BOOTSTRAP) test

lock: install-test  ## Resolve anew; the locks hold hashes and no address
	$(BIN)/python -m slipway.launch.lock

clean:  ## Remove what can be made again; never SLIPWAY_HOME
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache staticfiles test-results
	find . -name __pycache__ -type d -not -path './.slipway/*' -prune -exec rm -rf {} +
