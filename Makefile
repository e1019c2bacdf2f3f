# Two commands matter: `make demo` and `make test`. Each builds .venv from the lock file and does its whole job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.built

.PHONY: demo test test-deep lint unit e2e format lock clean

demo: $(STAMP)
	$(BIN)/python -m simulators demo

test: lint unit e2e

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/gateway validate --config config/gateway.example.yaml
	$(BIN)/gateway profiles check
	$(BIN)/gateway schema --check

unit: $(STAMP)
	$(BIN)/pytest -q -m "not e2e and not deep" -n 2 --dist worksteal

e2e: $(STAMP)
	$(BIN)/pytest -q -m "e2e and not deep"

test-deep: $(STAMP)
	GATEWAY_HYPOTHESIS=deep $(BIN)/pytest -q -n 2 --dist worksteal -m "not e2e"
	$(BIN)/pytest -q -m "e2e or deep"

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Needs uv on the PATH; the result is universal (every platform, Python >= 3.11) and hash-pinned.
lock:
	uv pip compile pyproject.toml --all-extras --universal --generate-hashes --python-version 3.11 --no-header -o requirements.lock

# A virtual environment made here, whole or not at all: the stamp is written last.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python >= 3.11 is needed, $$($(PYTHON) --version) was found; name another: make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "This Python cannot make virtual environments (Debian: apt-get install python3-venv)"; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
