# One door: `make help`. Every target does all of its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help run test check format lock speed soak clean

help: ## what can be done here
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(READY): requirements-dev.lock pyproject.toml
	@echo "Making the environment in $(VENV) (once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip --disable-pip-version-check -q install --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip --disable-pip-version-check -q install --no-deps --no-build-isolation -e .
	@touch $@

run: $(READY) ## start Weir on its own Redis with the echo backend; prints a key and a curl line
	@$(BIN)/weir serve $(ARGS)

test: $(READY) ## run every test
	@$(BIN)/pytest $(ARGS)

check: $(READY) ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## rewrite what a tool can rewrite
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format .

lock: $(READY) ## compile both lock files again from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --no-header -q -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --no-header -q \
		--extra embedded --extra grpc --group dev -o requirements-dev.lock

speed: $(READY) ## Weir beside a bare nginx and a plain FastAPI gateway, in one run
	@$(BIN)/python -m tests.speed

soak: $(READY) ## ten minutes of mixed load with faults; says whether anything leaks
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),10)

clean: ## forget the environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
