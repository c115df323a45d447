# `make demo` and `make test` create .venv and install into it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all test-cluster fuzz lint docs bench bench-quick bench-export gpu clean

demo: .venv/installed
	$(BIN)/tombola run demo
	@echo "Next: find a ticket in your own model, docs/how-to.md; or repeat a published study, $(BIN)/tombola presets"

# Skips the slow tests. `make test-all` runs them too, and kills more processes.
test: .venv/installed-test
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --maxprocesses 4

test-all: .venv/installed-test
	TOMBOLA_KILLS=20 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

# Kills workers of a Dask cluster at random, starts a local S3 server, and a real SLURM where slurm-wlm and munge are
# installed.
test-cluster: .venv/installed-test
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test-cluster]'
	TOMBOLA_KILLS=$${TOMBOLA_KILLS:-200} $(BIN)/python -m pytest tests/cluster --timeout 7200 -rs

# Runs FUZZ_CASES cases of each target in tests/fuzz, many more than `make test`.
FUZZ_CASES ?= 10000
fuzz: .venv/installed-test
	FUZZ_CASES=$(FUZZ_CASES) $(BIN)/python -m pytest tests/fuzz --timeout 0 --numprocesses auto --maxprocesses 4

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Builds build/docs/index.html from docs/, without network; runs the tutorial. Warnings are errors.
docs: .venv/installed-docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d build/doctrees docs build/docs
	@echo "Open build/docs/index.html"

# Measures the speed against a plain PyTorch loop: benchmarks/results/latest.json and docs/performance.md.
bench: .venv/installed
	$(BIN)/python -m benchmarks

bench-quick: .venv/installed
	$(BIN)/python -m benchmarks --quick

# Measures speed, size and accuracy of exported tickets: benchmarks/results and docs/practical.md.
bench-export: .venv/installed
	$(BIN)/python -m benchmarks.export
	$(BIN)/python -m benchmarks.packed

# On a machine with a GPU: the CUDA tests, the stacks, then as many of the paper's studies as fit into MINUTES.
MINUTES ?= 25
gpu: .venv/installed-test
	$(BIN)/python -m benchmarks.gpu --minutes $(MINUTES)

clean:
	rm -rf .venv build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tombola needs Python 3.11 or newer; call make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fast,report]'
	@touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	@touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@
