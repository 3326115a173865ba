PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Each worker begins with a part of the rooms, so that what a room's tests share is made once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

.PHONY: readme results demo test quick exhaustive lint bench bench-methods format fuzz oldest sbom

demo: $(READY)
	$(BIN)/distillnet demo

test: $(READY)
	$(PYTEST) -m "not exhaustive"

# All cases of all tables: before a release, and after a change to operators or code generation.
exhaustive: $(READY)
	$(PYTEST)

# The most telling tests, for daily work.
quick: $(READY)
	$(PYTEST) -m "not slow and not exhaustive"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Damaged files of every kind for SECONDS in all, and what was tried of each reader, guided by
# coverage where atheris is installed; then random networks as C, under sanitizers.
SECONDS ?= 1800
fuzz: $(READY)
	$(BIN)/pip install --quiet atheris || true
	OMP_NUM_THREADS=1 nice -n 19 $(BIN)/python tests/fuzz/run.py --seconds $(SECONDS)
	OMP_NUM_THREADS=1 nice -n 19 $(BIN)/python tests/fuzz/engine.py --seconds $(SECONDS)

# The daily tests with the oldest versions that pyproject.toml allows, in an environment of 7 GB.
OLDEST := .venv-oldest/bin
oldest:
	$(PYTHON) -m venv .venv-oldest
	$(OLDEST)/pip install --quiet uv
	$(OLDEST)/uv pip compile --quiet --resolution lowest-direct --extra dev pyproject.toml \
		--output-file .venv-oldest/oldest.txt
	$(OLDEST)/uv pip install --python $(OLDEST)/python --requirements .venv-oldest/oldest.txt
	$(OLDEST)/uv pip install --python $(OLDEST)/python --no-deps --editable .
	OMP_NUM_THREADS=1 $(OLDEST)/python -m pytest -n 2 --dist worksteal -m "not slow and not exhaustive"

# What a release stands on, with versions and licences: dist/sbom.json.
sbom: $(READY)
	$(BIN)/pip install --quiet cyclonedx-bom
	$(BIN)/python scripts/sbom.py

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The table of results in README.md, from docs/results.md.
readme: $(READY)
	$(BIN)/python scripts/readme.py

# The tables of docs/results.md again, into results/: all that are missing there (days), or
# TABLES="nin table3". Images and weights in DATA, see CONTRIBUTING.md; `--list` prints the commands.
DATA ?= ../shared/data
results: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/results.py --data $(DATA) $(TABLES)

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
