PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint bench bench-methods format

demo: $(READY)
	$(BIN)/distillnet demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What collecting statistics costs over plain inference: time as a ratio, and memory.
bench: $(READY)
	$(BIN)/python benchmarks/collect.py

# The table of methods in docs/results.md, hours of it; an interrupted one goes on where it was.
bench-methods: $(READY)
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/methods.py --resume

# Installed once; again when the dependencies change.
$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@
