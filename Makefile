# Two commands matter: `make demo` and `make test`. Each builds .venv from the lock file and does its whole job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.built
PYTEST := -q --durations=25 --durations-min=1
ifndef SEED
SEED := $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
endif

# The newest Python of another version than PYTHON, on the PATH or under pyenv, that runs and can make an environment.
OTHER := $(shell own=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	for v in 3.14 3.13 3.12; do for p in python$$v $$HOME/.pyenv/versions/$$v.*/bin/python$$v; do \
	[ $$v != $$own ] && "$$p" -c 'import ensurepip, venv' 2>/dev/null && echo "$$p" && exit; done; done)
OTHER_VENV := .venv-other

# A Python for client libraries of others, which need 3.13; each list of pins is an environment of its own.
FOREIGN := $(shell for v in 3.13 3.14; do for p in python$$v $$HOME/.pyenv/versions/$$v.*/bin/python$$v; do \
	"$$p" -c 'import ensurepip, venv' 2>/dev/null && echo "$$p" && exit; done; done)
FOREIGN_PINS := tests/foreign/environments
FOREIGN_VENVS := .venv-foreign .venv-foreign-sigenergy

.PHONY: demo test test-deep test-fresh lint unit e2e versions versions-ready foreign-ready format lock clean

demo: $(STAMP)
	$(BIN)/python -m simulators demo

# Three lanes run side by side, then real processes by themselves, since they keep to the time of the day; each prints what
# it did once it is done, and all are run whatever the others find.
test: $(STAMP) versions-ready foreign-ready
	@rc=0; $(MAKE) --no-print-directory --keep-going --jobs=3 --output-sync=target lint unit versions || rc=$$?; \
	  $(MAKE) --no-print-directory e2e || rc=$$?; exit $$rc

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/gateway validate --config config/gateway.example.yaml
	$(BIN)/gateway profiles check
	$(BIN)/gateway programs check
	$(BIN)/gateway schema --check

unit: $(STAMP)
	$(BIN)/pytest $(PYTEST) -m "not e2e and not deep" -n 4 --dist worksteal

e2e: $(STAMP) foreign-ready
	$(BIN)/pytest $(PYTEST) -m "e2e and not deep" -n 2 --dist worksteal

# The whole suite runs on the Python of .venv; what is pure or storage also on the newest other one that is found.
versions: versions-ready
	@if [ -z "$(OTHER)" ]; then echo "versions: no newer Python was found; only $$($(BIN)/python --version) was tried"; else \
	  set -x; $(OTHER_VENV)/bin/pytest $(PYTEST) -m "not e2e and not deep" tests/domain tests/profiles tests/storage; fi

versions-ready:
	@[ -z "$(OTHER)" ] || $(MAKE) --no-print-directory VENV=$(OTHER_VENV) PYTHON=$(OTHER) $(OTHER_VENV)/.built

foreign-ready:
	@if [ -z "$(FOREIGN)" ]; then echo "foreign: no Python 3.13 was found; no client library of others was run"; else \
	  $(MAKE) --no-print-directory $(FOREIGN_VENVS:%=%/.built); fi

.venv-foreign/.built: $(FOREIGN_PINS)/clients.txt
.venv-foreign-sigenergy/.built: $(FOREIGN_PINS)/sigenergy.txt
$(FOREIGN_VENVS:%=%/.built):
	$(FOREIGN) -m venv --clear $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

# Cases that are new each time, in full; `make test-deep SEED=N` tries those of a run that printed N.
test-deep: $(STAMP)
	@echo "seed of generated cases: $(SEED)"
	GATEWAY_HYPOTHESIS=deep GATEWAY_SEED=$(SEED) $(BIN)/pytest $(PYTEST) -n 2 --dist worksteal -m "not e2e" --hypothesis-seed=$(SEED)
	GATEWAY_HYPOTHESIS=deep GATEWAY_SEED=$(SEED) $(BIN)/pytest $(PYTEST) -m "e2e and deep"

# As many cases as every test run tries, but new ones, of the property tests in FRESH.
FRESH ?= tests
test-fresh: $(STAMP)
	@echo "seed of generated cases: $(SEED)"
	GATEWAY_HYPOTHESIS=fresh GATEWAY_SEED=$(SEED) $(BIN)/pytest -q -n 2 --dist worksteal -m "hypothesis and not e2e and not deep" --hypothesis-seed=$(SEED) $(FRESH)

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
	rm -rf $(VENV) $(OTHER_VENV) $(FOREIGN_VENVS) build *.egg-info
