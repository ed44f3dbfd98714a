# Every target sets up what it needs: on a bare machine with Python >= 3.11 and pip, `make demo` is the first command.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BUILD  ?= build

# Installed first and pinned with ==, because an open range takes the newest torch, and that brings gigabytes of CUDA
# libraries which nothing here needs. With == pip prefers a CPU build (2.13.0+cpu) wherever it can see one. To name the
# place of one:
#     make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH  ?= torch==2.13.0

PY    := $(VENV)/bin/python
STAMP := $(VENV)/.codesign-installed

# The models of `make demo`: small shapes, whose kernels are all checked against torch. `make demo DEMO=mlp` for one.
DEMO         ?= mlp naive_attention llama_block
DEMO_TARGETS ?= h100_sxm maia100

# One thread each: the linear algebra of the tests is small, and threads would only get into each other's way.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

##@ Start here

.PHONY: help
help:  ## This list
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(STAMP)  ## Compile the example models for a GPU and for an accelerator, and print the reports
	@set -e; for name in $(DEMO); do \
	  echo "$(PY) -m codesign.compile examples/$$name.py $(DEMO_TARGETS:%=--target %) -o $(BUILD)/demo/$$name"; \
	  $(PY) -m codesign.compile examples/$$name.py $(DEMO_TARGETS:%=--target %) -o $(BUILD)/demo/$$name; \
	done

.PHONY: test
test: $(STAMP)  ## The tests that need neither a GPU nor patience
	$(PY) -m pytest $(ARGS)

##@ Checks

.PHONY: lint
lint: $(STAMP)  ## ruff, and who may import whom
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports

.PHONY: typecheck
typecheck: $(STAMP)  ## mypy --strict
	$(PY) -m mypy

.PHONY: test-long
test-long: $(STAMP)  ## All tests that need no GPU, and ten times as many examples for each property
	HYPOTHESIS_PROFILE=long $(PY) -m pytest -m "not gpu and not conformance and not browser and not others" --timeout=3600 $(ARGS)

.PHONY: browser
browser: $(STAMP)  ## The pages of --report in a headless Chromium (Debian's, or CODESIGN_BROWSER, the path of one)
	$(VENV)/bin/pip install -q "playwright>=1.50,<2"
	$(PY) -m pytest -m browser --timeout=1800 -n 0 tests/browser $(ARGS)

HTA := $(BUILD)/trace-analysis

.PHONY: others
others: $(STAMP)  ## Kernel Tuner and HolisticTraceAnalysis, the real ones, read what is written here
	$(VENV)/bin/pip install -q -e ".[lab,kernel-tuner]"
	test -x $(HTA)/bin/python || $(PYTHON) -m venv $(HTA)
	$(HTA)/bin/pip install -q "HolisticTraceAnalysis>=0.5,<1"
	CODESIGN_TRACE_ANALYSIS=$(abspath $(HTA))/bin/python $(PY) -m pytest -m others -n 0 tests/codesign $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP)  ## 100,000 malformed and hostile files to every reader (ARGS="--inputs 5000 --seed 1" for others)
	$(PY) tests/fuzz/run.py $(ARGS)

.PHONY: mutants
mutants: $(STAMP)  ## Wrong lines, planted one at a time, that the tests must find: half an hour (ARGS="argmax L2" for some)
	$(PY) benchmarks/mutants.py $(ARGS)

.PHONY: conformance
conformance: $(STAMP)  ## Every sample of PyTorch's own operator tests through the tensor IR, then through kernels: two tables (LIMIT=5: fewer samples)
	$(PY) -m codesign.frontend.conformance $(if $(LIMIT),--limit $(LIMIT)) $(ARGS)
	$(PY) benchmarks/tiled_conformance.py $(if $(LIMIT),--limit $(LIMIT)) $(ARGS)

.PHONY: zoo
zoo: $(STAMP)  ## Architectures at tiny sizes, compiled for a GPU and an accelerator, their values compared whole: hours (ARGS="llama vit" for some)
	$(PY) -m pip install --quiet -e ".[zoo]"
	$(PY) benchmarks/zoo.py $(ARGS)

.PHONY: real-sizes
real-sizes: $(STAMP)  ## Models at the sizes that people run, on meta: captured and costed (ARGS="whisper_large_v3" for some)
	$(PY) -m pip install --quiet -e ".[zoo]"
	$(PY) benchmarks/real_sizes.py $(ARGS)

.PHONY: gpu
gpu: $(STAMP)  ## On a machine with a GPU: its tests, then its benchmarks (benchmarks/gpu/)
	$(PY) -m pytest -m gpu --timeout=1800 $(ARGS) || test $$? -eq 5
	@set -e; for file in $(filter-out benchmarks/gpu/measure.py,$(wildcard benchmarks/gpu/[a-z]*.py)); do echo "$(PY) $$file"; $(PY) $$file; done

.PHONY: bench
bench: $(STAMP)  ## Every figure that the README quotes (benchmarks/)
	@set -e; for file in $(filter-out benchmarks/constants.py benchmarks/mutants.py benchmarks/fit_registers.py benchmarks/frontends.py benchmarks/real_sizes.py benchmarks/zoo.py,$(wildcard benchmarks/[a-z]*.py)); do echo "$(PY) $$file"; $(PY) $$file; done

##@ Housekeeping

.PHONY: setup
setup: $(STAMP)  ## Only the environment (.venv)

.PHONY: format
format: $(STAMP)  ## Sort imports, break long lines, and mend what ruff can mend
	$(VENV)/bin/ruff check --fix --quiet . || true
	$(VENV)/bin/ruff format .

.PHONY: clean
clean:  ## Remove what builds and runs leave behind; the environment stays
	rm -rf $(BUILD) dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(PY):
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml | $(PY)
	$(PY) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'codesign needs Python 3.11 or newer; name one with PYTHON=...')"
	$(PY) -c "import torch" 2>/dev/null || $(PY) -m pip install $(TORCH)
	$(PY) -m pip install -e ".[dev]"
	@touch $@
