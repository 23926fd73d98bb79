# `make up` is all a newcomer needs, `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Processes that test side by side, file by file; each starts its own Prefect server and its own Azure bench, and mostly
# waits. Whole platforms don't: they train.
WORKERS ?= 4
# In the order in which tests/conftest.py puts the files: the longest first.
BY_FILE := --dist loadfile --no-loadscope-reorder
PYTEST := -m pytest --numprocesses $(WORKERS) $(BY_FILE)
NOT_HERE := azure or containers or e2e or benchmark or long
QUICK := not ($(NOT_HERE) or thorough)
# What `make check` measures; each part adds to it, and the last one holds the limit.
COVERAGE :=
E2E = -m pytest --numprocesses 3 $(BY_FILE) -m "e2e and not long" --junitxml=$(REPORTS)/e2e.xml
SBOM := environment --output-reproducible --spec-version 1.6 --of JSON


# Where the pipeline finds results.
REPORTS ?= build/reports
# Tools whose pins don't go together with ours, each in an environment of its own.
TOOLS ?= $(HOME)/.cache/ahclassifier
CHECKOV := $(TOOLS)/checkov-3.3.30
PIP_AUDIT := $(TOOLS)/pip-audit-2.10.1
# Lines that look like secrets: names of settings, checksums, trace ids and the fake key of tests.
NOT_LEAKED := AZURE_CLIENT_SECRET|enableSecretRotation|"passwordAuth"|_SHA256|TRACE = |BUILD = |SECRET = "a-key-|existingSecret: |secretName: |secretProviderClass: |SECRET_NAME"\] ==|secret = "env"|0123456789abcdef|somebody:secret@

.PHONY: help install up test test-azure test-containers test-e2e test-long benchmark lint types layers check check-rest sbom clean \
	reports audit leaks dockerfiles policies

help: ## this list
	@sed -nE 's/^([a-z][a-z0-9-]*):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | sort | awk -F'|' '{ printf "make %-16s %s\n", $$1, $$2 }'

install: $(STAMP) ## .venv with the pinned dependencies; quick when nothing changed

# Only when a pin, an extra or the interpreter changed.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else f"Python 3.11 to 3.13 is needed; this is {v[0]}.{v[1]}. Name another one: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

up: install ## starts the platform on this machine, trains on photos, releases; until Ctrl-C
	$(BIN)/ahc up

lint: install ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## mypy --strict
	$(BIN)/mypy

layers: install ## import-linter: who may import whom
	$(BIN)/lint-imports

test: install ## the quick tests: minutes, and nothing outside this repository
	$(BIN)/python $(PYTEST) -m "$(QUICK)" $(COVERAGE)

# On the Azure bench; skipped with the reason where it is not there.
test-azure: install ## on the Azure bench
	$(BIN)/python $(PYTEST) -m "azure and not long"

# The shipped images, built and run with podman; likewise.
test-containers: install ## the shipped images, with podman
	$(BIN)/python $(PYTEST) -m containers

test-e2e: install ## the platform as a whole, as its users run it
	$(BIN)/python $(E2E)

# What `make check` leaves out for the time that it takes: releases under load, each step of them killed, and the like.
test-long: install ## what CI has no time for; every night
	$(BIN)/python -m pytest --numprocesses 2 $(BY_FILE) -m long --junitxml=$(REPORTS)/long.xml

# As JUnit and Cobertura. Without what takes the Azure bench, podman or a whole platform; the limit of the coverage is
# for all tests, so it is `make check` that holds it.
reports: install
	$(BIN)/python $(PYTEST) -m "not ($(NOT_HERE))" --junitxml=$(REPORTS)/tests.xml \
		--cov --cov-report=xml:$(REPORTS)/coverage.xml --cov-fail-under=0

# Known vulnerabilities of the pinned packages, by the advisories of PyPI.
audit: $(PIP_AUDIT)/complete
	$(PIP_AUDIT)/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

leaks: install
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --no-verify --exclude-lines '$(NOT_LEAKED)'

dockerfiles: install
	$(BIN)/hadolint --no-color infra/docker/*.Dockerfile

# The ARM templates as they are composed, by a policy linter.
policies: install $(CHECKOV)/complete
	AHC_CHECKOV=$(CHECKOV)/bin/checkov $(BIN)/python -m pytest tests/infra/azure/provisioning/test_policies.py

$(CHECKOV)/complete:
	$(PYTHON) -m venv --clear $(@D) && $(@D)/bin/pip install --quiet checkov==3.3.30 && touch $@

$(PIP_AUDIT)/complete:
	$(PYTHON) -m venv --clear $(@D) && $(@D)/bin/pip install --quiet pip-audit==2.10.1 && touch $@

benchmark: install ## the numbers of docs/benchmarks.md
	$(BIN)/pytest -m benchmark -s

check: COVERAGE := --cov --cov-report= --cov-fail-under=0
check: test check-rest ## lint, types, layers and all tests but the nightly ones: what CI runs

# `make check` after `make test`.
check-rest: lint types layers
	$(BIN)/python $(PYTEST) -m "not ($(QUICK)) and not e2e and not benchmark and not long" --cov --cov-append
	$(BIN)/python $(E2E)

# What is in the Python environments of the images, as CycloneDX JSON with licences: build/sbom/IMAGE.cdx.json. Each is
# installed as in its Dockerfile: the extra's packages only, for this machine's Python.
sbom: build/sbom/scoring.cdx.json build/sbom/training.cdx.json

build/sbom/scoring.cdx.json: EXTRA := container
build/sbom/training.cdx.json: EXTRA := azure
build/sbom/%.cdx.json: pyproject.toml constraints.txt install
	mkdir -p build/sbom/project
	version=$$($(BIN)/python -c 'from infra.version import version; print(version())') && \
	sed -e '/^readme = /d' -e "s/^version = .*/version = \"$$version\"/" pyproject.toml > build/sbom/project/pyproject.toml
	$(BIN)/python -m venv --clear --without-pip build/sbom/$*
	$(BIN)/python -m pip --python build/sbom/$*/bin/python install --quiet --constraint constraints.txt \
		'./build/sbom/project[$(EXTRA)]'
	$(BIN)/cyclonedx-py $(SBOM) --pyproject build/sbom/project/pyproject.toml -o $@ build/sbom/$*/bin/python

clean: ## everything that was made here, .venv too
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage*
