# Kumulus. `make up` starts a cloud on this machine, `make test` runs every test.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
# Tests start Kumulus hundreds of times: not without its byte code.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/.venv/bin:$(PATH):$(CURDIR)/.cache/bin
UP ?=
TESTS ?= tests

.PHONY: help up down test unit faults integration e2e conformance lint format generate bench bench-apiserver lock clean dev run-env

help: ## Show what there is to make.
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

up: run-env ## Start the embedded cloud (options: make up UP="--hosts 5 --api-port 7443").
	@kumulus up $(UP)

down: run-env ## Stop it. Its data stay in .kumulus.
	@kumulus down

test: dev ## Install what tests need and run everything (CI runs this).
	@scripts/install-test-deps
	$(MAKE) --no-print-directory lint
	scripts/test $(TESTS)

unit: dev ## Unit tests only.
	@scripts/test tests/unit

faults: dev ## Every fault at every step of every flow, in virtual time.
	@scripts/test tests/faults

integration: dev ## Tests of single parts with the real thing: libvirt, MariaDB, processes.
	@scripts/test tests/integration

e2e: dev ## The whole cloud.
	@scripts/test tests/e2e

conformance: dev ## API conformance, on the embedded server or on KUBECONFIG=….
	@scripts/test tests/conformance

lint: dev ## Style, types, layers, and that generated files are fresh.
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	python -m crds.generate --check
	python -m controller.chart --check

format: dev ## Put the code in its format.
	ruff check --fix .
	ruff format .

generate: dev ## Write crds/manifests and docs/kinds.md from the models, the chart's roles from the code.
	python -m crds.generate
	python -m controller.chart

bench: run-env ## VMs per second, CPU, memory and writes per VM, as a table.
	python -m bench $(BENCH)

bench-apiserver: dev ## The API server's rates, CPU per request and memory, beside the reference.
	python -m bench.apiserver $(BENCH)

lock: dev ## Renew the lock files.
	python -m uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate --upgrade pyproject.toml -o requirements.lock
	python -m uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate pyproject.toml -c requirements.lock --group dev -o requirements-dev.lock

clean: ## Stop the cloud and remove the environment, caches and its data.
	@[ ! -x $(BIN)/kumulus ] || kumulus down
	rm -rf .venv .cache .kumulus build dist ./*.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

run-env:
	@scripts/venv run

dev:
	@scripts/venv dev
