# `make up` is all a newcomer needs; `make check` is what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Processes that test side by side, file by file; each starts its own Prefect server and its own Azure bench, and mostly
# waits. Whole platforms don't: they train.
WORKERS ?= 4
PYTEST := -m pytest --numprocesses $(WORKERS) --dist loadfile
E2E := -m pytest --numprocesses 2 --dist loadfile -m e2e
SBOM := environment --output-reproducible --spec-version 1.6 --of JSON

.PHONY: install up test test-azure test-containers test-e2e benchmark lint types layers check sbom clean

install: $(STAMP)

# Only when a pin, an extra or the interpreter changed.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else f"Python 3.11 to 3.13 is needed; this is {v[0]}.{v[1]}. Name another one: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

up: install
	$(BIN)/ahc up

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

layers: install
	$(BIN)/lint-imports

test: install
	$(BIN)/python $(PYTEST) -m "not azure and not containers and not e2e and not benchmark"

# On the Azure bench; skipped with the reason where it is not there.
test-azure: install
	$(BIN)/python $(PYTEST) -m "azure and not e2e"

# The shipped images, built and run with podman; likewise.
test-containers: install
	$(BIN)/python $(PYTEST) -m containers

test-e2e: install
	$(BIN)/python $(E2E)

benchmark: install
	$(BIN)/pytest -m benchmark -s

check: lint types layers
	$(BIN)/coverage erase
	$(BIN)/coverage run $(PYTEST) -m "not e2e and not benchmark"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	$(BIN)/python $(E2E)

# What is in the Python environments of the images, as CycloneDX JSON with licences: build/sbom/IMAGE.cdx.json. Each is
# installed as in its Dockerfile: the extra's packages only, for this machine's Python.
sbom: build/sbom/scoring.cdx.json build/sbom/training.cdx.json

build/sbom/scoring.cdx.json: EXTRA := container
build/sbom/training.cdx.json: EXTRA := azure
build/sbom/%.cdx.json: pyproject.toml constraints.txt install
	mkdir -p build/sbom/project
	version=$$($(BIN)/python -c 'from infra.revision import version; print(version())') && \
	sed -e '/^readme = /d' -e "s/^version = .*/version = \"$$version\"/" pyproject.toml > build/sbom/project/pyproject.toml
	$(BIN)/python -m venv --clear --without-pip build/sbom/$*
	$(BIN)/python -m pip --python build/sbom/$*/bin/python install --quiet --constraint constraints.txt \
		'./build/sbom/project[$(EXTRA)]'
	$(BIN)/cyclonedx-py $(SBOM) --pyproject build/sbom/project/pyproject.toml -o $@ build/sbom/$*/bin/python

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage*
