# `make demo` and `make test` do all the set-up on a fresh machine (virtual environment, packages, compiled
# extension) and then run. DATA=<folder with the Omniglot zips> gives the demo real images.
PYTHON ?= python3
VENV ?= .venv
DATA ?=
PYTEST_ARGS ?= -n auto --maxprocesses 8
# The code for older processors is tested too, where this processor can run it.
ISAS ?= $(if $(shell grep -sm1 avx2 /proc/cpuinfo),avx2 baseline)

BIN := $(abspath $(VENV))/bin
BARE := $(abspath $(VENV))/without-extension
STAMP := $(VENV)/.installed
SOURCES := pyproject.toml setup.py constraints.txt $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu')

.PHONY: demo test lint bench gpu clean

demo: $(STAMP)
	$(BIN)/sparsemeta demo $(if $(DATA),--data "$(DATA)")

# The whole suite comes last, so that its summary is the last line. Before it what an instruction set or a missing
# extension can change: test_isa.py goes through the sets itself, and the Triton kernels use no extension.
test: lint
	set -e; for isa in $(ISAS); do \
		echo "== tests/ops on the $$isa kernels"; \
		SPARSEMETA_ISA=$$isa $(BIN)/python -m pytest $(PYTEST_ARGS) tests/ops --ignore tests/ops/test_isa.py; \
	done
	@echo "== an installation without the extension"
	rm -rf build/lib*
	SPARSEMETA_NO_EXTENSION=1 $(BIN)/python tests/packaging/environment.py $(BARE)
	cd $(BARE) && SPARSEMETA_NO_EXTENSION=1 bin/python -m pytest $(PYTEST_ARGS) \
		--rootdir $(CURDIR) -c $(CURDIR)/pyproject.toml -m "not packaging" $(CURDIR)/tests --ignore $(CURDIR)/tests/kernels
	@echo "== the installation"
	$(BIN)/python -m pytest $(PYTEST_ARGS) tests

lint: $(STAMP)
	$(BIN)/ruff check .

bench: $(STAMP)
	$(BIN)/sparsemeta bench conv

# For a machine with an NVIDIA GPU, offline too: its own Python has PyTorch, Triton and the build requirements.
# GPU_PARTS names parts of sparsemeta.bench.gpu to measure anew; without it, those that have no result in GPU_RESULTS
# yet. A test that fails does not keep the rest from being measured: every result is checked before it is timed.
GPU_PARTS ?=
GPU_RESULTS ?= bench/results
GPU_SECONDS ?= 540
gpu:
	begin=$$(date +%s); left() { echo $$(($(GPU_SECONDS) - $$(date +%s) + begin)); }; \
	$(PYTHON) -m pip install --quiet --no-build-isolation --no-deps -e . || exit 1; \
	workers=$$($(PYTHON) -c "import xdist" 2>/dev/null && echo "-n 8"); \
	timeout --signal=INT 200 $(PYTHON) -m pytest -o addopts=-ra $$workers -m gpu tests/kernels tests/cuda; failed=$$?; \
	$(PYTHON) -m sparsemeta.bench.gpu --results $(GPU_RESULTS) --seconds $$(left) $(GPU_PARTS) && exit $$failed

clean:
	rm -rf build dist *.egg-info $(VENV) sparsemeta/_C*.so sparsemeta/_build_info.json
	find . -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	@echo "== packages (torch alone is 200 MB) and the extension: some minutes"
	$(BIN)/pip install --quiet -c constraints.txt -e ".[test,bench]"
	$(BIN)/sparsemeta info
	touch $@
