# Each target sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
SPACE ?= alexnet_space
# Instead of the space's 36, so that the first sweep takes minutes.
EPOCHS ?= 16
# The reports' own AlexNets stay at chance for their first 900 steps, which is longer than this sweep.
BASELINES ?= none
OUT ?= runs
# Processes that run the fast tests.
JOBS ?= 2
# One process runs all tests of a file, which share their set-up; in the order of the folders, so that the longest are not last.
TOGETHER = -n $(JOBS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help run test test-long test-all coverage test-minimum check docs format ui benchmark gpu-check gpu-rows clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: .venv/installed  ## set up .venv, then sweep AlexNet over synthetic faces
	$(BIN)/python -m sweeps.run $(SPACE) --epochs $(EPOCHS) --baselines $(BASELINES) --out $(OUT)

test: .venv/installed  ## set up .venv, then run the fast tests
	$(BIN)/pytest $(TOGETHER)

test-long: .venv/installed  ## run the tests marked long, as CI does too
	$(BIN)/pytest $(TOGETHER) -m "long and not slow"

test-all: test test-long  ## run also the slow tests; FER2013_CSV=path adds those on the real faces
	$(BIN)/pytest -m slow

coverage: .venv/installed  ## the fast and long tests, and which lines of the packages they run
	rm -rf build/coverage
	$(BIN)/coverage run -m pytest $(TOGETHER) -m 'not slow' -o timeout=120
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-minimum: .venv-minimum/installed  ## run the fast and long tests with the oldest libraries that pyproject.toml allows
	.venv-minimum/bin/pytest $(TOGETHER) -m "not slow"

check: .venv/installed docs  ## check lint, format, types and documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed  ## build the documentation site in build/site/, without network; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

format: .venv/installed  ## format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ui: .venv/installed  ## open the latest sweep in the MLflow UI, at http://127.0.0.1:5000
	$(BIN)/python -m sweeps ui --out "$(OUT)"

benchmark: .venv/installed  ## measure overhead per trial and speed per step, compared with peers
	$(BIN)/python -m tests.benchmarks.overhead

gpu-check: .venv/installed  ## check correctness and speed on this machine's GPU, in 4 minutes; DATA=fer2013.csv
	$(BIN)/python -m tests.gpu.check $(if $(DATA),--data $(DATA))

gpu-rows: .venv/installed  ## train the reports' nets on this machine's GPU, resumable; DATA=fer2013.csv
	$(BIN)/python -m tests.gpu.rows $(if $(DATA),--data $(DATA)) --out $(OUT)/gpu

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "FER Sweeps needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try: make run PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

.venv-minimum/installed: pyproject.toml
	$(PYTHON) -m venv .venv-minimum
	$(PYTHON) -m tests.oldest_versions > .venv-minimum/constraints.txt
	.venv-minimum/bin/python -m pip install --disable-pip-version-check --quiet --constraint .venv-minimum/constraints.txt --editable '.[dev]'
	@touch $@

clean:  ## remove .venv and build files; runs stay
	rm -rf .venv .venv-minimum build *.egg-info .mypy_cache .ruff_cache .pytest_cache
