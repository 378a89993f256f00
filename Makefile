# One door: `make help`. Every target does all of its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help run test check format lock speed soak clean dashboards dashboards-report

help: ## what can be done here
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

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

lock: $(READY) ## compile the lock files again from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --no-header -q -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --no-header -q \
		--extra embedded --extra grpc --group dev -o requirements-dev.lock
	$(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --no-header -q \
		--extra grpc -c requirements-dev.lock -o requirements-grpc.lock
	$(BIN)/uv pip compile --group build --universal --generate-hashes --python-version 3.11 --no-header -q \
		-c requirements-dev.lock -o requirements-build.lock
	for name in requirements requirements-openai2; do \
		$(BIN)/uv pip compile tests/clients/$$name.in --universal --generate-hashes --no-strip-extras --python-version 3.11 \
			--no-header --no-emit-index-url --no-annotate -q -o tests/clients/$$name.lock; done
	cd tests/clients && npm install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund \
		--before "$$(date -d '-7 days' +%F)"

.PHONY: clients
clients: $(READY) ## try the real clients against a running Weir, in environments of their own: build/clients
	@$(BIN)/python -m tests.clients $(ARGS)

.PHONY: local
local: $(READY) ## a tiny model in this process and behind a real engine; some gigabytes in build/local, once
	@$(BIN)/python -m tests.local $(ARGS)

speed: $(READY) ## Weir beside a bare nginx and a plain FastAPI gateway, in one run
	@$(BIN)/python -m tests.speed $(ARGS)

soak: $(READY) ## ten minutes of mixed load with faults; says whether anything leaks
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),10)

dashboards: $(READY) ## write the chart's dashboards and rules from deploy/mixin
	@$(BIN)/python -m deploy.mixin

dashboards-report: $(READY) ## every panel, drawn from half a minute of real traffic: build/dashboards.html
	@$(BIN)/python -m tests.deploy.report

.PHONY: chart tools
chart: $(READY) ## write the chart's schema and the tables of its README from values.yaml
	@$(BIN)/python -m deploy.chart

tools: ## build what proves the chart and the workflows into .tools, by Go; minutes, once (TOOLS=kind: that one)
	@deploy/tools.sh $(TOOLS)

# BASE and BUILDER: see the Dockerfile; a release gives BASE with its digest. BUILD_ARGS: whatever else docker takes.
.PHONY: image image-test
DOCKER ?= docker
IMAGE ?= weir:$(VERSION)
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' service/weir/__init__.py)
REVISION ?= $(or $(shell git rev-parse HEAD 2>/dev/null),unknown)
CREATED ?= $(shell git log -1 --format=%cI 2>/dev/null)
image: ## build the container image
	DOCKER_BUILDKIT=1 $(DOCKER) build -t $(IMAGE) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
		--build-arg CREATED=$(CREATED) $(foreach name,BASE BUILDER EXTRAS,$(if $($(name)),--build-arg $(name)=$($(name)))) \
		$(BUILD_ARGS) .

image-test: $(READY) ## build the image and prove it in a container engine: one that answers, else one of its own
	@$(BIN)/pytest -m image tests/deploy/test_image.py $(ARGS)

# `kind` needs Docker, and takes the image that `make image` has built.
.PHONY: dist kind
kind: ## install the chart on a cluster of its own (kind), and replace every pod while streams run
	@IMAGE=$(IMAGE) deploy/kind/run.sh

dist: $(READY) ## build the wheel and the source archive into dist/
	@rm -rf dist
	@$(BIN)/python -m hatchling build -d dist

clean: ## forget the environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
